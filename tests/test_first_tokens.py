"""First tokens that stay floats: the file computes the reference, and what is known of them is a constant."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.result import Result
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.ir.encoding import fit
from qcc.ir.encoding.value import STATIC_BYTES, STATIC_INT8, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.forms.integers import INTEGERS
from tests import onnx_models
from tests.onnx_models import random
from tests.test_places import INPUTS, INT7, OUTPUTS, WEIGHTS, close, graph, run

KEPT = 2
TOKENS = random(KEPT, INPUTS, seed=9) * 60


def first(encoding: ValueEncoding, leading: np.ndarray | None = None) -> EncodedValue:
    kept = ValueEncoding(encoding.stored, encoding.when, KEPT)
    return EncodedValue(kept, np.float32(0.03), 100 if encoding is STATIC_BYTES else 128, leading)


def texts(samples: int, tokens: int) -> np.ndarray:
    """Small numbers behind first tokens of very large ones."""
    x = random(samples, tokens, INPUTS, seed=3)
    x[:, :KEPT] = TOKENS[:tokens]
    return x


@pytest.mark.parametrize("encoding", [STATIC_INT8, STATIC_BYTES], ids=["sym", "asym"])
@pytest.mark.parametrize("leading", [None, TOKENS], ids=["split", "known"])
@pytest.mark.parametrize("tokens", [2, 3, 9])
def test_integers_are_the_reference(encoding: ValueEncoding, leading: np.ndarray | None, tokens: int) -> None:
    found, x, encoded = graph("n, t, "), texts(3, tokens), first(encoding, leading)
    wanted = []
    for weight in found.weights():
        stored = fit.encode(found.matrix(weight), INT7)
        wanted.append(encoded.rounded(x).astype(np.float64) @ stored.decode().T)
        found.encode(found.encode_inputs(weight, encoded), stored, INTEGERS)
    made = run(found, x)
    for name, one in (("y", wanted[0] + WEIGHTS["bias"]), ("z", wanted[1])):
        close(made[name][:, :KEPT], one[:, :KEPT])
        if tokens > KEPT:
            close(made[name][:, KEPT:], one[:, KEPT:])
    ops = [op.function for op in found.ops()]
    assert ops.count("slice") == (1 if leading is not None else 2)  # shared by both layers
    if leading is not None:
        other = x.copy()
        other[:, :KEPT] *= 2
        np.testing.assert_array_equal(run(found, other)["y"], made["y"])  # that was promised


def test_a_text_that_is_shorter() -> None:
    found, x = graph("n, t, "), texts(2, 1)
    for weight in found.weights():
        stored = fit.encode(found.matrix(weight), INT7)
        found.encode(found.encode_inputs(weight, first(STATIC_BYTES)), stored, INTEGERS)
    close(run(found, x)["z"], x @ fit.encode(WEIGHTS["b"].T, INT7).decode().T)


def test_matrices_have_no_first_token_reject() -> None:
    with pytest.raises(Refused, match="no axis of tokens"):
        graph("n, ").encode_value("x", first(STATIC_INT8), [("op0", 0)])
    with pytest.raises(Refused, match="no axis of tokens"):
        graph("n, t, ").encode_value("x", first(STATIC_INT8))


@pytest.mark.slow
def test_torch_computes_the_same() -> None:
    torch = pytest.importorskip("torch")
    from qcc.ir.fx.graph import FxGraph

    x, encoded = texts(2, 5), first(STATIC_BYTES)
    found = FxGraph.export(torch.nn.Sequential(torch.nn.Linear(INPUTS, OUTPUTS)), (torch.from_numpy(x),))
    (weight,) = found.weights()
    stored, bias = fit.encode(found.matrix(weight), INT7), found.constant(weight.layers[0].bias or "")
    found.encode(found.encode_inputs(weight, encoded), stored, INTEGERS)
    (made,) = (
        found.copy()
        .runner([found.inputs[0].name], [one.name for one in found.outputs])({found.inputs[0].name: x})
        .values()
    )
    wanted = encoded.rounded(x) @ stored.decode().T + bias
    close(made[:, :KEPT], wanted[:, :KEPT])
    close(made[:, KEPT:], wanted[:, KEPT:])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph("n, t, ").save(tmp_path / "two.onnx")
    return tmp_path / "two.onnx"


def compiled(model: Path, how: str, x: np.ndarray) -> tuple[Result, float]:
    """With the noise over signal of what is behind the first tokens."""
    text = f"qpolicy 1\nrule linear {{ weights = int8 channel; activations = {how} }}\n"
    result = qcc.compile(model, load_text(text, schema()), data=[{"x": x}])
    found, wanted = Session(result.output, False).run({"x": x}), Session(model, False).run({"x": x})
    rest = wanted["z"][:, KEPT:]
    return result, float(((found["z"][:, KEPT:] - rest) ** 2).sum() / (rest**2).sum())


def test_compiled(model: Path, tmp_path: Path) -> None:
    x = texts(8, 12)
    naive = compiled(model, "static", x)[1]
    result, split = compiled(model, f"static(float_tokens = {KEPT})", x)
    assert not result.warnings and split < 1e-3 < 0.1 < naive
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(result.output, options, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert ops.count("MatMulIntegerToFloat") == 2
    same, known = compiled(model, f"static(float_tokens = {KEPT}, first = same)", x)
    assert [one.code for one in same.warnings] == ["Q670"] and known < 1e-3
    assert not [node for node in onnx.load(same.output).graph.node if node.op_type == "Slice" and "first" in node.name]


def test_promise_that_the_data_breaks_is_told(model: Path) -> None:
    x = texts(8, 12)
    x[3:, 0] *= 0.5
    result, noise = compiled(model, f"static(float_tokens = {KEPT}, first = same)", x)
    assert [one.code for one in result.warnings] == ["Q671"] and noise < 1e-3


def test_layers_without_an_axis_of_tokens_are_told(tmp_path: Path) -> None:
    graph("n, ").save(tmp_path / "two.onnx")
    text = "qpolicy 1\nrule linear { weights = int8 channel; activations = static(float_tokens = 1) }\n"
    result = qcc.compile(tmp_path / "two.onnx", load_text(text, schema()), data=[{"x": random(9, INPUTS)}])
    assert [one.code for one in result.warnings] == ["Q313"] and "no token is known to be the first" in str(
        result.warnings
    )


def test_convolutions_are_told(tmp_path: Path) -> None:
    text = "conv (float[n, 8, 9, 9] x) => (float[n, 8, 9, 9] y) { y = Conv <pads = [1, 1, 1, 1]> (x, w) }"
    model = onnx_models.parse(text, {"w": random(8, 8, 3, 3)}, opset=21, ir_version=10)
    onnx.save(model, tmp_path / "conv.onnx")
    policy = load_text(
        "qpolicy 1\nrule conv { weights = int8 channel; activations = static(float_tokens = 1) }\n", schema()
    )
    result = qcc.compile(tmp_path / "conv.onnx", policy, data=[{"x": random(9, 8, 9, 9)}])
    assert [one.code for one in result.warnings] == ["Q313"] and "no first token" in str(result.warnings)


def test_scales_of_folds_do_not_follow_tokens_that_stay_floats(model: Path) -> None:
    x = random(8, 12, INPUTS, seed=5) * np.geomspace(0.1, 10, INPUTS).astype(np.float32)
    odd = x.copy()
    odd[:, :KEPT] = 1e4 * np.arange(INPUTS, 0, -1, dtype=np.float32)

    def scales(data: np.ndarray, how: str) -> list[str]:
        text = f"rule linear {{ weights = int8 channel; activations = {how}; fold = smoothquant(insert = true) }}"
        result = qcc.compile(model, load_text(f"qpolicy 1\n{text}\n", schema()), data=[{"x": data}])
        (row,) = [one for one in result.rewrites if "smoothquant" in one.action]
        return [edit.text for edit in row.treated]

    split = f"static(float_tokens = {KEPT})"
    assert scales(odd, split) == scales(x, split) != []
    assert scales(odd, "static") != scales(x, "static")
