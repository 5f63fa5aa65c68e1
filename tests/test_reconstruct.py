"""Steps fitted to codes, sides learned, biases and norms tuned: each lowers what it says, or leaves it."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.files.open_model import open_model
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.fit import FittedBlocks, encode, encoded, fitted
from qcc.ir.encoding.grid import IntGrid, TableGrid
from qcc.ir.graph.ops import Array, Weight
from qcc.ir.graph.view import MatrixView
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import Moments
from qcc.passes.contract.tunable import ChannelSums, fit_channels
from qcc.passes.rounding.adaquant import Adaquant
from qcc.passes.rounding.adaround import Adaround
from qcc.passes.rounding.gptq import output_error, round_columns
from qcc.passes.rounding.qronos import Qronos
from qcc.passes.tune.bias import TuneBias
from qcc.passes.tune.norm import TuneNorm
from tests import onnx_models

SHAPE = (24, 48)
INT3, INT4, NF4 = Blocked(IntGrid(3)), Blocked(IntGrid(4)), Blocked(TableGrid("nf4"))
RNG = np.random.default_rng(3)
MATRIX = RNG.standard_normal(SHAPE).astype(np.float32)
WEIGHT = Weight("w", "w", MatrixView(SHAPE, (0,)), "float32", ())
MIX = np.eye(48) + 0.4 * RNG.standard_normal((48, 48))


def rows(count: int, seed: int) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal((count, 48)) @ MIX + 1, np.float32)


def told(count: int) -> Context:
    """Moments of rows, a quarter of them held out."""
    x = rows(count, 0)
    held = x[: count // 4]
    grams = [one.T @ one / len(one) for one in (x, held)]
    moments = Moments(grams[0], len(x), grams[1], len(held))
    return Context(grams={"w": grams[0]}, moments={"w": moments})


@pytest.mark.parametrize("encoding", [INT3, INT4, NF4], ids=lambda one: one.text)
def test_steps_fitted_to_codes_lose_no_more(encoding: Blocked) -> None:
    gram = told(4000).grams["w"]
    lost = [
        output_error(MATRIX, encoded(MATRIX, encoding, one), gram) for one in Adaquant()._fits(MATRIX, encoding, gram)
    ]
    assert len(lost) == 4 and min(lost[1:]) < lost[0]
    assert lost[0] < output_error(MATRIX, round_columns(MATRIX, encoding, gram, 0.01, "mse"), gram)


def test_rescaled_steps_are_those_that_were_asked_for() -> None:
    found = fitted(MATRIX, INT4)
    assert isinstance(found, FittedBlocks)
    gains = np.linspace(0.5, 2, len(MATRIX)).astype(np.float32)
    other = found.rescaled(MATRIX, gains)
    assert other is not None
    before, after = (encoded(MATRIX, INT4, one).parts["scale.values"] for one in (found, other))
    np.testing.assert_allclose(after[:, 0], before[:, 0] * gains, rtol=1e-3)  # of float16
    shared = fitted(MATRIX, Blocked(IntGrid(4), scale="e8m0"))
    assert isinstance(shared, FittedBlocks) and shared.rescaled(MATRIX, gains) is None


def test_learned_sides_are_one_of_two_and_lose_less_than_nearest() -> None:
    gram = told(4000).grams["w"]
    nearest = encode(MATRIX, INT3)
    learned = encoded(MATRIX, INT3, Adaround()._learned(MATRIX, INT3, gram))
    step = float(learned.parts["scale.values"].max())
    inside = np.abs(MATRIX) < 3 * learned.parts["scale.values"].astype(np.float32)  # not beyond the last code
    assert np.abs(learned.decode() - MATRIX)[inside].max() <= step * 1.001
    assert output_error(MATRIX, learned, gram) < 0.8 * output_error(MATRIX, nearest, gram)


@pytest.mark.parametrize("rounding", [Adaquant(), Adaround()], ids=["adaquant", "adaround"])
@pytest.mark.parametrize("count", [16, 4000])
def test_no_worse_than_qronos_on_samples_held_out(rounding: Adaquant | Adaround, count: int) -> None:
    context = told(count)
    found, why = rounding.advised(WEIGHT, MATRIX, INT3, context)
    other, _ = Qronos().advised(WEIGHT, MATRIX, INT3, context)
    assert why
    if count > 1000:
        held = context.moments["w"].held
        lost = [output_error(MATRIX, one.encode(WEIGHT, MATRIX, INT3, context), held) for one in (found, other)]
        assert lost[0] <= lost[1] * 1.02  # both learn from all samples at last, of which the judges are a part


def test_without_data_nearest() -> None:
    nearest = encode(MATRIX, INT3).decode()
    for one in (Adaquant(), Adaround()):
        np.testing.assert_array_equal(one.encode(WEIGHT, MATRIX, INT3, Context()).decode(), nearest)


def test_channels_are_fitted_where_others_agree() -> None:
    x = RNG.standard_normal((4, 5, 3, 60))
    y = x.copy()
    y[:, 0] = 2 * x[:, 0] + 1
    y[:3, 1] += 1  # and in what is held out the other way
    y[3, 1] -= 1
    seen, held = ChannelSums.of(x[:3], y[:3], 1), ChannelSums.of(x[3:], y[3:], 1)
    fit, count = fit_channels(seen, held, gain=True, shift=True)
    assert fit.gain[0] == pytest.approx(2) and fit.shift[0] == pytest.approx(1)
    assert (fit.gain[1], fit.shift[1]) == (1, 0) and count >= 1
    errors = held.lost(fit)
    assert errors[0] < 1e-9 and np.all(errors <= held.lost(fit_channels(seen, held, False, False)[0]) + 1e-9)


CONV = """g (float[N, 24, 8, 8] x) => (float[N, 5] z) {
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)
    b = Relu(a)
    c = Conv <kernel_shape = [1, 1]> (b, w2)
    d = Add(c, x)
    e = Relu(d)
    p = GlobalAveragePool(e)
    f = Flatten(p)
    z = Gemm <transB = 1> (f, w3, b3)
}"""
NORMED = """g (float[N, 48] x) => (float[N, 24] z) {
    h = MatMul(x, w1)
    n = LayerNormalization <axis = -1> (h, gain, shift)
    m = MatMul(n, w2)
    z = Add(m, b2)
}"""


def convolutions(folder: Path) -> Path:
    sizes = {"w1": (48, 24, 3, 3), "w2": (24, 48, 1, 1), "w3": (5, 24), "b1": (48,), "b3": (5,)}
    constants = {name: onnx_models.random(*size, seed=at) for at, (name, size) in enumerate(sizes.items())}
    onnx.save(onnx_models.parse(CONV, constants), folder / "model.onnx")
    return folder / "model.onnx"


def normed(folder: Path) -> Path:
    sizes = {"w1": (48, 160), "w2": (160, 24), "gain": (160,), "shift": (160,), "b2": (24,)}
    constants = {name: onnx_models.random(*size, seed=at) for at, (name, size) in enumerate(sizes.items())}
    onnx.save(onnx_models.parse(NORMED, constants), folder / "model.onnx")
    return folder / "model.onnx"


def images(seed: int) -> Array:
    smooth = np.random.default_rng(seed).standard_normal((64, 24, 8, 8)).cumsum(2) / 2 + 1
    return smooth.astype(np.float32)


def compiled(model: Path, rule: str, data: Array, more: str = "") -> tuple[Result, float]:
    """The result, and the noise over signal of what it makes of other samples."""
    output = model.with_name("out.onnx")
    policy = load_text(f"qpolicy 1\nrule any {{ {rule} }}\n{more}", schema())
    result = qcc.compile(model, policy, output=output, data=[{"x": one[None]} for one in data])
    feeds = {"x": images(9) if data.ndim > 2 else rows(64, 9)}
    wanted, got = (qcc.Session(path).run(feeds)["z"] for path in (model, output))
    return result, float(np.sum((got - wanted) ** 2) / np.sum((wanted - wanted.mean(0)) ** 2))


@pytest.mark.parametrize("activations", ["off", "static"])
def test_biases_make_up_for_means(tmp_path: Path, activations: str) -> None:
    model, rule = convolutions(tmp_path), f"weights = int3 channel; activations = {activations}"
    plain, before = compiled(model, rule, images(0))
    tuned, after = compiled(model, f"{rule}; bias = tune", images(0))
    assert after < 0.8 * before
    assert any(one.startswith("tuned 3 of 3") for one in tuned.notes) and not any("tuned" in one for one in plain.notes)
    assert abs(tuned.output_bytes - plain.output_bytes) < 500  # a bias where there was none
    assert from_text(Source("plan", to_text(tuned.plan))) == tuned.plan


def test_norms_make_up_for_channels(tmp_path: Path) -> None:
    model, rule = normed(tmp_path), "weights = int2 channel"
    _, before = compiled(model, rule, rows(64, 0))
    tuned, after = compiled(model, f"{rule}; norm = tune", rows(64, 0))
    assert after < before and any(one.startswith("tuned 1 of 1") for one in tuned.notes)


def test_both_at_once_and_in_half(tmp_path: Path) -> None:
    _, before = compiled(normed(tmp_path), "weights = int2 channel", rows(64, 0))
    both = "weights = int2 channel; norm = tune; bias = tune"
    tuned, after = compiled(normed(tmp_path), both, rows(64, 0), "graph fp16")
    assert after < before and any(one.startswith("tuned 2 of 2") for one in tuned.notes)


def test_without_data_nothing_is_tuned(tmp_path: Path) -> None:
    policy = load_text("qpolicy 1\nrule any { weights = int3 channel; bias = tune }", schema())
    result = qcc.compile(convolutions(tmp_path), policy, output=tmp_path / "out.onnx")
    assert "tuned none of 3: no data is given" in result.notes


def test_what_cannot_be_tuned_reject(tmp_path: Path) -> None:
    graph = open_model(normed(tmp_path)).graph
    names = [one.name for one in graph.weights()]
    found = {one.subject: one.refused for one in TuneBias().tunables(graph, names)}
    assert found[names[0]] == "it has no constant bias" and not found[names[1]]
    assert [one.refused for one in TuneNorm().tunables(graph, names)] == [""]
    assert TuneNorm().tunables(graph, names[:1]) == []  # nothing that the first layer reads is a norm's


@pytest.mark.slow
def test_steps_and_biases_in_order(tmp_path: Path) -> None:
    model = convolutions(tmp_path)
    _, before = compiled(model, "weights = int3 channel; rounding = qronos", images(0))
    result, after = compiled(model, "weights = int3 channel; rounding = adaquant; bias = tune", images(0))
    assert result.written and after < 1.1 * before
