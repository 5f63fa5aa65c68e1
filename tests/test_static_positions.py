"""A step for each place of a text: the file computes the reference in integers, of any length."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import TOKEN, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.forms.integers import INTEGERS
from qcc.passes.activations.static import Static
from tests import onnx_models
from tests.onnx_models import random
from tests.test_places import INPUTS, INT7, OUTPUTS, WEIGHTS, close, graph, run
from tests.test_static_conv import optimised

STEPS = (2.0, 0.03, 0.02, 0.05)


def by_place(bits: int = 8) -> EncodedValue:
    encoding = ValueEncoding(Blocked(IntGrid(bits), TOKEN, "fp32"), "static")
    return EncodedValue(encoding, zero=encoding.grid.middle, positions=STEPS)


def texts(samples: int, tokens: int) -> np.ndarray:
    """Each place as large as it likes, the first a hundred times as much."""
    x = random(samples, tokens, INPUTS, seed=3) * np.linspace(1, 3, tokens, dtype=np.float32)[:, None]
    x[:, 0] *= 100
    return x


@pytest.mark.parametrize("tokens", [1, 3, 4, 9])
@pytest.mark.parametrize("bits", [4, 8])
def test_integers_are_the_reference(bits: int, tokens: int) -> None:
    found, x, encoded = graph("n, t, "), texts(3, tokens), by_place(bits)
    wanted = []
    for weight in found.weights():
        stored = fit.encode(found.matrix(weight), INT7)
        wanted.append(encoded.rounded(x).astype(np.float64) @ stored.decode().T)
        found.encode(found.encode_inputs(weight, encoded), stored, INTEGERS)
    made = run(found, x)
    close(made["y"], wanted[0] + WEIGHTS["bias"])
    close(made["z"], wanted[1])
    ops = [op.function for op in found.ops()]
    assert ops.count("div") == 1  # shared by both layers


def test_what_lies_behind_the_last_place_has_its_step() -> None:
    x = texts(1, 6)
    assert by_place().steps(x)[:, 0].tolist() == pytest.approx([*STEPS, STEPS[-1], STEPS[-1]])


def test_a_fixed_number_of_tokens_needs_no_places() -> None:
    found = graph("n, 4, ")
    for weight in found.weights():
        found.encode(found.encode_inputs(weight, by_place()), fit.encode(found.matrix(weight), INT7), INTEGERS)
    assert not {"range", "gather", "shape"} & {op.function for op in found.ops()}


def test_matrices_have_no_places_reject() -> None:
    with pytest.raises(Refused, match="no axis of tokens"):
        graph("n, ").encode_value("x", by_place(), [("op0", 0)])


@pytest.mark.slow
def test_torch_computes_the_same() -> None:
    torch = pytest.importorskip("torch")
    from qcc.ir.fx.graph import FxGraph

    x = texts(2, 6)
    found = FxGraph.export(torch.nn.Sequential(torch.nn.Linear(INPUTS, OUTPUTS)), (torch.from_numpy(x),))
    (weight,) = found.weights()
    stored, bias = fit.encode(found.matrix(weight), INT7), found.constant(weight.layers[0].bias or "")
    found.encode(found.encode_inputs(weight, by_place()), stored, INTEGERS)
    runner = found.copy().runner([found.inputs[0].name], [one.name for one in found.outputs])
    (made,) = runner({found.inputs[0].name: x}).values()
    close(made, by_place().rounded(x) @ stored.decode().T + bias)


def noise(model: Path, how: str, x: np.ndarray) -> tuple[str, float]:
    """Of what each place has, over what it has."""
    text = f"qpolicy 1\nrule linear {{ weights = int8 channel; activations = {how} }}\n"
    result = qcc.compile(model, load_text(text, schema()), data=[{"x": x}])
    assert not result.warnings
    found, wanted = Session(result.output, False).run({"x": x})["z"], Session(model, False).run({"x": x})["z"]
    return str(result.output), float(np.mean(((found - wanted) ** 2).sum((0, 2)) / (wanted**2).sum((0, 2))))


def test_compiled(tmp_path: Path) -> None:
    model, x = tmp_path / "two.onnx", texts(8, 12)
    graph("n, t, ").save(model)
    one = noise(model, "static", x)[1]
    file, each = noise(model, "static(by = token)", x)
    assert each < 1e-3 < 0.1 < one
    ops = optimised(file, tmp_path)
    assert ops.count("MatMulIntegerToFloat") == 2 and ops.count("Range") == 1
    longer = texts(2, 20)
    np.testing.assert_allclose(
        Session(file, False).run({"x": longer})["z"][:, :12],
        Session(file, False).run({"x": longer[:, :12]})["z"],
        atol=1e-4 * 100,
    )


def test_layers_without_an_axis_of_tokens_are_told(tmp_path: Path) -> None:
    graph("n, ").save(tmp_path / "two.onnx")
    policy = load_text("rule linear { weights = int8 channel; activations = static(by = token) }", schema())
    result = qcc.compile(tmp_path / "two.onnx", policy, data=[{"x": random(9, INPUTS)}])
    assert [one.code for one in result.warnings] == ["Q313"] and "no token is known" in str(result.warnings)


@pytest.mark.parametrize("how", ["by = token", "float_tokens = 1"])
def test_samples_are_no_tokens_reject(tmp_path: Path, how: str) -> None:
    """Where texts lie ``[tokens, samples, channels]`` the axis before the channels is not theirs."""
    body = (
        "turned (float[n, t, 32] x) => (float[t, n, 32] y) { u = Transpose <perm = [1, 0, 2]> (x) y = MatMul (u, w) }"
    )
    onnx.save(onnx_models.parse(body, {"w": random(32, 32)}, opset=21, ir_version=10), tmp_path / "turned.onnx")
    policy = load_text(f"rule linear {{ weights = int8 channel; activations = static({how}) }}", schema())
    result = qcc.compile(tmp_path / "turned.onnx", policy, data=[{"x": random(9, 5, 32)}])
    assert [one.code for one in result.warnings] == ["Q313"] and "is that of samples" in str(result.warnings)


def test_convolutions_are_told(tmp_path: Path) -> None:
    text = "conv (float[n, 8, 9, 9] x) => (float[n, 8, 9, 9] y) { y = Conv <pads = [1, 1, 1, 1]> (x, w) }"
    onnx.save(onnx_models.parse(text, {"w": random(8, 8, 3, 3)}, opset=21, ir_version=10), tmp_path / "conv.onnx")
    policy = load_text("rule conv { weights = int8 channel; activations = static(by = token) }", schema())
    result = qcc.compile(tmp_path / "conv.onnx", policy, data=[{"x": random(9, 8, 9, 9)}])
    assert [one.code for one in result.warnings] == ["Q313"] and "convolutions take one step" in str(result.warnings)


@pytest.mark.parametrize("options", [{"float_tokens": 1}, {"range": "mse"}])
def test_what_does_not_go_together_reject(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="by = token"):
        Static(by="token", **options)  # type: ignore[arg-type]
