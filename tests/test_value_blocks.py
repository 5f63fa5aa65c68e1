"""Values that are rounded by blocks: the file computes the reference, and who asks in vain is told."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.text import to_text
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import EncodedValue
from qcc.ir.forms.decoded import DECODED
from qcc.passes.activations.blocks import Blockwise
from tests import onnx_models
from tests.onnx_models import random
from tests.test_places import INPUTS, OUTPUTS, WEIGHTS, close, graph, rows, run

WAYS = [
    Blockwise(16),
    Blockwise(16, "fp32"),
    Blockwise(8, bits=4),
    Blockwise(24, bits=16),
    Blockwise(by="token", bits=5),
    Blockwise(by="channel", scale="fp32", bits=6),
    Blockwise(by="tensor", bits=12),
]


def encoded(how: Blockwise) -> EncodedValue:
    return how.encoded(how.encoding(DECODED), None)


def almost(found: np.ndarray, wanted: np.ndarray) -> None:
    """Float32 may round a number between two integers to the other, which is a step of one in a row."""
    apart = np.abs(found - wanted)
    assert np.quantile(apart, 0.98) <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("how", WAYS, ids=lambda one: one.encoding(DECODED).text)
@pytest.mark.parametrize(("lead", "shape"), [("n, ", (5,)), ("n, t, ", (2, 3))])
def test_named_readers_read_the_reference(how: Blockwise, lead: str, shape: tuple[int, ...]) -> None:
    found, x, value = graph(lead), rows(*shape), encoded(how)
    weight, other = found.weights()
    stored = fit.encode(found.matrix(weight), Blocked(IntGrid(4), group(16)))
    reading = found.encode_inputs(weight, value)
    found.encode(reading, stored, DECODED)
    made = run(found, x)
    almost(made["y"], value.rounded(x).astype(np.float64) @ stored.decode().T + WEIGHTS["bias"])
    close(made["z"], x @ WEIGHTS["b"])
    found.encode_inputs(other, value)
    assert [op.function for op in found.ops()].count("round") == 1  # once for both
    almost(run(found, x)["z"], value.rounded(x) @ WEIGHTS["b"])


@pytest.mark.parametrize("how", WAYS, ids=lambda one: one.encoding(DECODED).text)
def test_laws_of_the_reference(how: Blockwise) -> None:
    x, value = rows(2, 3), encoded(how)
    steps, found = np.broadcast_to(value.steps(x), x.shape), value.rounded(x)
    whole = found / steps
    assert np.abs(whole - np.rint(whole)).max() < 1e-3
    assert value.ends[0] - 1e-3 <= whole.min() and whole.max() <= value.ends[1] + 1e-3
    inside = np.abs(x) <= steps * value.ends[1]
    assert (np.abs(found - x)[inside] <= 0.5001 * steps[inside]).all()
    if how.scale == "e8m0":
        np.testing.assert_array_equal(np.log2(steps), np.rint(np.log2(steps)))


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS, ids=lambda one: one.encoding(DECODED).text)
def test_torch_computes_the_same(how: Blockwise) -> None:
    torch = pytest.importorskip("torch")
    from qcc.ir.fx.graph import FxGraph

    x, value = rows(2, 3), encoded(how)
    found = FxGraph.export(torch.nn.Sequential(torch.nn.Linear(INPUTS, OUTPUTS)), (torch.from_numpy(x),))
    (weight,) = found.weights()
    matrix, bias = found.matrix(weight), found.constant(weight.layers[0].bias or "")
    found.encode_inputs(weight, value)
    (made,) = (
        found.copy()
        .runner([found.inputs[0].name], [one.name for one in found.outputs])({found.inputs[0].name: x})
        .values()
    )
    almost(made, value.rounded(x) @ matrix.T + bias)


def test_from_policy_to_file(tmp_path: Path) -> None:
    text, path = "one (float[n, t, 256] x) => (float[n, t, 128] z) { z = MatMul (x, w) }", tmp_path / "one.onnx"
    onnx.save(onnx_models.parse(text, {"w": random(256, 128)}, opset=21, ir_version=10), path)
    noise, x = [], random(9, 7, 256, seed=3)
    for how, told in (("blocks(64, scale = e8m0)", "blocks"), ("blocks(64, bits = 4)", "blocks(bits = 4)")):
        text = f"qpolicy 1\nrule linear {{ weights = int8 group 16; activations = {how} }}\n"
        result = qcc.compile(path, load_text(text, schema()), data=[{"x": x}])
        assert not [one.code for one in result.warnings if one.code != "Q507"]  # slower, as is told
        assert {row.form for row in result.layers} == {"decoded"}
        assert result.layers[0].reason.startswith(f"floats are multiplied, activations {told}")
        assert "activations = blocks(size = 64" in to_text(result.plan)
        found, wanted = (Session(one, False).run({"x": x})["z"] for one in (result.output, path))
        noise.append(float(((found - wanted) ** 2).sum() / (wanted**2).sum()))
    assert noise[0] < 1e-3 < noise[1] < 0.05


def test_channels_that_are_no_multiple_are_told(tmp_path: Path) -> None:
    graph("n, t, ").save(tmp_path / "two.onnx")
    text = "qpolicy 1\nrule linear { weights = int8 channel; activations = blocks(64) }\n"
    result = qcc.compile(tmp_path / "two.onnx", load_text(text, schema()), data=[{"x": random(9, 7, INPUTS)}])
    assert [one.code for one in result.warnings if one.code != "Q507"] and "no multiple of 64" in str(result.warnings)


def test_convolutions_are_told(tmp_path: Path) -> None:
    text = "conv (float[n, 8, 9, 9] x) => (float[n, 8, 9, 9] y) { y = Conv <pads = [1, 1, 1, 1]> (x, w) }"
    model = onnx_models.parse(text, {"w": random(8, 8, 3, 3)}, opset=21, ir_version=10)
    onnx.save(model, tmp_path / "conv.onnx")
    policy = load_text("qpolicy 1\nrule conv { weights = int8 channel; activations = blocks(8) }\n", schema())
    result = qcc.compile(tmp_path / "conv.onnx", policy, data=[{"x": random(9, 8, 9, 9)}])
    assert "Q313" in [one.code for one in result.warnings] and "where linear layers read them" in str(result.warnings)
