"""Encodings of values: the file computes the reference, for named readers alone, and each token for itself."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.text import to_text
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import TENSOR, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import DYNAMIC_INT8, STATIC_INT8, TOKEN, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.forms.integers import INTEGERS
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.places import places
from tests import onnx_models
from tests.onnx_models import random

STATIC, DYNAMIC = EncodedValue(STATIC_INT8, np.float32(0.03)), EncodedValue(DYNAMIC_INT8)
INT7 = Blocked(IntGrid(7))
FLOAT = 1e-5  # of the largest output: float32 summed in another order
INPUTS, OUTPUTS = 48, 16
WEIGHTS = {"a": random(INPUTS, OUTPUTS), "b": random(INPUTS, OUTPUTS, seed=1), "bias": random(OUTPUTS, seed=2)}
TWO = """two (float[{lead}{inputs}] x) => (float[{lead}{outputs}] y, float[{lead}{outputs}] z, float[{lead}{inputs}] r)
{{ p = MatMul (x, a) y = Add (p, bias) z = MatMul (x, b) r = Relu (x) }}"""


def graph(lead: str = "n, ") -> OnnxGraph:
    text = TWO.format(lead=lead, inputs=INPUTS, outputs=OUTPUTS)
    model = onnx_models.parse(text, WEIGHTS, opset=21, ir_version=10)
    for at, node in enumerate(model.graph.node):
        node.name = f"op{at}"
    return OnnxGraph(ir.serde.deserialize_model(model), Path())


def run(found: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    return found.runner(["x"], ["y", "z", "r"])({"x": x})


def rows(*shape: int) -> np.ndarray:
    """Rows of very different sizes, one of zeros, one of the smallest numbers."""
    x = random(*shape, INPUTS, seed=3) * np.geomspace(1e-3, 1e3, int(np.prod(shape))).reshape(*shape, 1)
    flat = x.reshape(-1, INPUTS)
    flat[0], flat[1] = 0, 1e-40
    return x.astype(np.float32)


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert np.abs(found - wanted).max() <= FLOAT * max(float(np.abs(wanted).max()), 1e-30)


@pytest.mark.parametrize("encoded", [STATIC, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize(("lead", "shape"), [("n, ", (5,)), ("n, t, ", (2, 3)), ("b, 2, t, ", (2, 2, 3))])
def test_named_readers_read_the_reference(encoded: EncodedValue, lead: str, shape: tuple[int, ...]) -> None:
    found, x = graph(lead), rows(*shape)
    before = found.weights()
    name = found.encode_value("x", encoded, [(before[0].layers[0].op, 0)])
    after = found.weights()
    assert after[0].reads == {encoded.encoding} and after[0].layers[0].input == name
    assert after[1] == before[1] and found.copy().weights() == found.weights()
    made = run(found, x)
    close(made["y"], encoded.rounded(x) @ WEIGHTS["a"] + WEIGHTS["bias"])
    close(made["z"], x @ WEIGHTS["b"])
    np.testing.assert_array_equal(made["r"], np.maximum(x, 0))


@pytest.mark.parametrize("encoded", [STATIC, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize(("lead", "shape"), [("n, ", (5,)), ("n, t, ", (2, 3))])
def test_integers_are_the_reference(encoded: EncodedValue, lead: str, shape: tuple[int, ...]) -> None:
    found, x, wanted = graph(lead), rows(*shape), []
    for weight in found.weights():
        stored = fit.encode(found.matrix(weight), INT7)
        wanted.append(encoded.rounded(x).astype(np.float64) @ stored.decode().T)
        found.encode(found.encode_inputs(weight, encoded), stored, INTEGERS)
    made = run(found, x)
    for name, one in (("y", wanted[0] + WEIGHTS["bias"]), ("z", wanted[1])):
        for got, want in zip(made[name].reshape(-1, OUTPUTS), one.reshape(-1, OUTPUTS), strict=True):
            close(got, want)
    ops = [op.function for op in found.ops()]
    dynamic = encoded is DYNAMIC
    assert ops.count("max") == (2 if dynamic else 0)  # of all channels, and with the least: both once for two layers
    assert ops.count("mul") == (2 if dynamic else 0)


def test_a_token_does_not_see_its_neighbours() -> None:
    found = graph()
    for weight in found.weights():
        found.encode(found.encode_inputs(weight, DYNAMIC), fit.encode(found.matrix(weight), INT7), INTEGERS)
    x = rows(7)
    together = run(found, x)
    for at in range(len(x)):
        alone = run(found, x[at : at + 1])
        assert all(np.array_equal(alone[name][0], together[name][at]) for name in alone)
    np.testing.assert_array_equal(together["y"][0], WEIGHTS["bias"])
    assert not together["z"][0].any()


def test_infinite_rows_stay_so() -> None:
    found, x = graph(), rows(3)
    for weight in found.weights():
        found.encode(found.encode_inputs(weight, DYNAMIC), fit.encode(found.matrix(weight), INT7), INTEGERS)
    x[1, 5] = np.inf
    made = run(found, x)
    assert not np.isfinite(made["y"][1]).any() and np.isfinite(made["y"][[0, 2]]).all()


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        (ValueEncoding(Blocked(IntGrid(8, False), TENSOR, "fp32"), "dynamic"), "not to int8 tensor asym dynamic"),
        (ValueEncoding(Blocked(IntGrid(8), group(16), "fp32"), "static"), "int8 group 16 sym static"),
        (ValueEncoding(Blocked(IntGrid(8), group(32), "fp32"), "dynamic"), "48 channels, no multiple of 32"),
        (
            ValueEncoding(Blocked(IntGrid(3), TOKEN, "fp32"), "dynamic"),
            "int4 to int16 by blocks of a token, not to int3",
        ),
    ],
)
def test_what_no_graph_rounds_reject(encoding: ValueEncoding, told: str) -> None:
    found = graph()
    step = np.float32(1) if encoding.when == "static" else None
    with pytest.raises(Refused, match=told):
        found.encode_value("x", EncodedValue(encoding, step), [("node", 0)])


def test_no_reader_no_float_reject() -> None:
    found = graph()
    before = found.ops()
    op = found.weights()[0].layers[0].op
    for readers, told in (([(op, 1)], "does not read"), ([(op, 0), (op, 5)], "does not read")):
        with pytest.raises(Refused, match=told):
            found.encode_value("x", DYNAMIC, readers)
    assert found.ops() == before
    with pytest.raises(ValueError, match="with the step"):
        EncodedValue(DYNAMIC_INT8, np.float32(1))
    with pytest.raises(ValueError, match="with the step"):
        EncodedValue(STATIC_INT8)


@pytest.mark.slow
def test_torch_computes_the_same() -> None:
    torch = pytest.importorskip("torch")
    from qcc.ir.fx.graph import FxGraph

    class Two(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is optional here
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(INPUTS, OUTPUTS), torch.nn.Linear(INPUTS, OUTPUTS)

        def forward(self, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return self.a(x), self.b(x)

    x = rows(5)
    for encoded in (STATIC, DYNAMIC):
        found = FxGraph.export(Two(), (torch.from_numpy(x),))
        first, second = found.weights()
        matrices = found.matrix(first), found.matrix(second)
        bias = [found.constant(one.layers[0].bias or "") for one in (first, second)]
        stored = fit.encode(matrices[0], INT7)
        found.encode(found.encode_inputs(first, encoded), stored, INTEGERS)
        names = [value.name for value in found.outputs]
        made = found.copy().runner([found.inputs[0].name], names)({found.inputs[0].name: x})
        close(made[names[0]], encoded.rounded(x) @ stored.decode().T + bias[0])
        close(made[names[1]], x @ matrices[1].T + bias[1])


@pytest.mark.parametrize("form", [INTEGERS, KERNEL], ids=lambda form: form.name)
def test_each_value_that_a_shared_weight_reads_has_its_own_step(form: Form) -> None:
    """One that is fifty times as large says nothing of another."""
    text = "g (float[n, 64] x) => (float[n, 64] y) { h = MatMul(x, w) s = Mul(h, fifty) y = MatMul(s, w) }"
    weights = {"w": random(64, 64), "fifty": np.array(50, np.float32)}
    found = OnnxGraph(ir.serde.deserialize_model(onnx_models.parse(text, weights)), Path())
    (weight,) = found.weights()
    seen = {one.value: one.seen for one in places(Flow(found), weight.reading(STATIC_INT8), form)}
    assert seen == {"x": ("x",), "s": ("s",)}


def test_dynamic_needs_no_data(tmp_path: Path) -> None:
    """Compiled on nothing, the file is as good on numbers of any size."""
    path = tmp_path / "two.onnx"
    graph().save(path)
    policy = load_text("qpolicy 1\nrule linear { weights = int8 channel; activations = dynamic }\n", schema())
    result = qcc.compile(path, policy)
    assert not [one.code for one in result.warnings if one.code != "Q507"]  # slower on a machine that does other work
    assert "activations = dynamic)" in to_text(result.plan) and "  values <policy>:2:" in to_text(result.plan)
    assert {row.form for row in result.layers} == {"integers"} and "activations dynamic" in result.layers[0].reason
    x = rows(9)
    found, wanted = Session(result.output, False).run({"x": x}), Session(path, False).run({"x": x})
    for name in ("y", "z"):
        errors = np.linalg.norm(found[name] - wanted[name], axis=-1)
        assert (errors[2:] <= 0.03 * np.linalg.norm(wanted[name], axis=-1)[2:] + 1e-6).all()  # 7 bits and 8
