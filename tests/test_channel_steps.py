"""A static step for each channel: channels of what layers read have one range, and integers are the reference."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import plan_of
from qcc.compiler.report.result import Result
from qcc.compiler.runtime.session import Session
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context
from qcc.passes.fold.channel_steps import ChannelSteps
from tests import onnx_models
from tests.onnx_models import random
from tests.test_places import INPUTS, graph, run
from tests.test_static_conv import optimised

SIZES = np.geomspace(0.1, 20, INPUTS).astype(np.float32)
FOLD = 1e-4  # the driver's own bound on what a rewrite may change


def uneven(samples: int, tokens: int = 6) -> np.ndarray:
    return random(samples, tokens, INPUTS, seed=4) * SIZES


def evened(x: np.ndarray, size: int = 1) -> tuple[OnnxGraph, list[str]]:
    found = graph("n, t, ")
    names = [weight.name for weight in found.weights()]
    largest = dict.fromkeys(names, np.abs(x).max((0, 1)))
    after, edits = ChannelSteps(size).apply(found, names, Context(largest=largest))
    return after, [edit.text for edit in edits]


@pytest.mark.parametrize("size", [1, 8])
def test_channels_have_one_range(size: int) -> None:
    x = uneven(5)
    after, _ = evened(x, size)
    (read,) = {layer.input for weight in after.weights() for layer in weight.layers}
    made = after.runner(["x"], [read])({"x": x})[read]
    tops = np.abs(made).max((0, 1)).reshape(-1, size).max(1)
    np.testing.assert_allclose(tops, np.abs(x).max(), rtol=1e-6)
    np.testing.assert_allclose(run(after, x)["z"], run(graph("n, t, "), x)["z"], rtol=1e-4, atol=1e-3)


def test_even_channels_stay_as_they_are() -> None:
    x = np.ones((2, 3, INPUTS), np.float32)
    assert evened(x)[1] == [] == evened(np.zeros_like(x))[1]


def test_a_channel_without_numbers_keeps_its_scale() -> None:
    x = uneven(3)
    x[..., 0] = 0
    after, _ = evened(x)
    assert np.isfinite(after.matrix(after.weights()[0])).all()


def compiled(model: Path, how: str, x: np.ndarray, kind: str = "linear") -> Result:
    text = f"qpolicy 1\nrule {kind} {{ weights = int8 channel; activations = {how} }}\n"
    return qcc.compile(model, load_text(text, schema()), data=[{"x": x}])


def noise(model: Path, result: Result, x: np.ndarray) -> float:
    """Of each channel of the second layer's part that the smallest inputs make."""
    found, wanted = (Session(one, False).run({"x": x})["z"] for one in (result.output, model))
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


def test_integers_round_each_channel_by_its_own_step(tmp_path: Path) -> None:
    model, x = tmp_path / "two.onnx", uneven(16)
    found = graph("n, t, ")
    for weight in found.weights():  # as large where inputs are small
        found.replace_matrix(weight, found.matrix(weight) / SIZES)
    found.save(model)
    losses = []
    for how in ("static", "static(by = group, size = 8)", "static(by = channel)"):
        each = compiled(model, how, x)
        losses.append(noise(model, each, x))
    assert losses[2] < losses[1] < losses[0] / 10 and losses[2] < 1e-3
    ops = optimised(each.output, tmp_path)
    assert ops.count("MatMulIntegerToFloat") == 2 and ops.count("Mul") == 1  # one product, which both layers share
    plan = plan_of(each.lock)
    assert "channel_steps" in to_text(plan) and from_text(Source("p", to_text(plan))) == plan
    steps = np.abs(x).max((0, 1)) / 127
    matrix = OnnxGraph.load(model).matrix(OnnxGraph.load(model).weights()[1])
    rounded = np.clip(np.rint(x / steps), -128, 127) * steps
    made = Session(each.output, False).run({"x": x})["z"]
    rest = rounded.astype(np.float64) @ matrix.T - made  # what rounding weights to 7 bits leaves
    assert (rest**2).sum() / (made**2).sum() < 1e-3


RELU = """conv (float[n, 8, 9, 9] x) => (float[n, 8, 9, 9] y) {{
  a = Conv <pads = [1, 1, 1, 1]> (x, w) r = {cut} y = Conv <pads = [1, 1, 1, 1]> (r, v) }}"""


def convolutions(folder: Path, cut: str) -> Path:
    w, v = random(8, 8, 3, 3), random(8, 8, 3, 3, seed=1)
    sizes = np.geomspace(0.02, 20, 8).astype(np.float32)[:, None, None, None]
    given: dict[str, np.ndarray] = {
        "w": w * sizes,
        "v": v / sizes.transpose(1, 0, 2, 3),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    model = onnx_models.parse(RELU.format(cut=cut), given, opset=21, ir_version=10)
    onnx.save(model, folder / "conv.onnx")
    return folder / "conv.onnx"


def test_convolutions_take_what_is_before_them(tmp_path: Path) -> None:
    model, x = convolutions(tmp_path, "Relu (a)"), random(9, 8, 9, 9, seed=2)
    found, wanted = {}, Session(model, False).run({"x": x})["y"]
    for how in ("static", "static(by = channel)"):
        result = compiled(model, how, x, "conv")
        made = Session(result.output, False).run({"x": x})["y"]
        found[how] = float(((made - wanted) ** 2).sum() / (wanted**2).sum())
        assert optimised(result.output, tmp_path).count("QLinearConv") == 2
    assert found["static(by = channel)"] < found["static"] / 20


def test_a_bound_above_rejects(tmp_path: Path) -> None:
    result = compiled(convolutions(tmp_path, "Clip (a, low, high)"), "static(by = channel)", random(9, 8, 9, 9), "conv")
    (row,) = [one for one in result.rewrites if "channel_steps" in one.action]
    assert not row.treated and len(row.refused) == 2
    assert optimised(result.output, tmp_path).count("QLinearConv") == 2
