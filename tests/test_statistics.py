"""Calibration statistics: what is hidden counts nothing, how samples are batched changes nothing, few data is told."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qcc
from qcc.compiler.build.rewrite import watching
from qcc.compiler.calibrate import samples
from qcc.compiler.calibrate.coverage import coverage_of, few_rows
from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.parts import Parted, held_out
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.statistics import RoundedValues, layer_statistics
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_text
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Feeds
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.moments import Moments
from tests import onnx_models as models

WORDS, WIDTH, LONGEST = 40, 16, 12
TOLERANCE = 1e-4  # of the largest entry: sums of float32 in another order
NAMES = ("q", "k", "o", "up")
# attention [batch, seq] with a residual; how the mask is made of what is fed, and how rows are laid out, varies
ATTENTION = """
    x = Gather(table, ids)
    [q] qx = MatMul(x, q)
    [k] kx = MatMul(x, k)
    kt = Transpose<perm = [0, 2, 1]>(kx)
    scores = MatMul(qx, kt)
    fm = Cast<to = 1>(seen)
    one = Constant<value_float = 1.0>()
    gone = Sub(one, fm)
    far = Constant<value_float = -1e9>()
    bias2 = Mul(gone, far)
    axes = Constant<value_ints = [1]>()
    bias = Unsqueeze(bias2, axes)
    masked = Add(scores, bias)
    p = Softmax<axis = -1>(masked)
    mixed = MatMul(p, x)
    [o] back = MatMul(mixed, o)
    r = Add(x, back)
"""
PLAIN = "[up] y = MatMul(r, up)"
TURNED = "t = Transpose<perm = [1, 0, 2]>(r)\n [up] y = MatMul(t, up)"
FLAT = f"shape = Constant<value_ints = [-1, {WIDTH}]>()\n f = Reshape(r, shape)\n [up] y = MatMul(f, up)"
HIDES = {
    "ones are seen": "seen = Identity(mask)",
    "ones are hidden": "c = Constant<value_int = 1>() seen = Sub(c, mask)",
}


def built(inside: str, inputs: str = "mask", **weights: np.ndarray) -> OnnxGraph:
    text = f"m (int64[batch, seq] ids, int64[batch, seq] {inputs}) => (float[a, b, c] y) {{ {inside} }}"
    layers = {name: models.random(WIDTH, WIDTH, seed=at) / 4 for at, name in enumerate(NAMES)}
    tables = {"table": models.random(WORDS, WIDTH, seed=9), **weights}
    if "Reshape" in inside:
        text = text.replace("float[a, b, c]", "float[a, c]")
    model = onnx.shape_inference.infer_shapes(models.parse(text, {**tables, **layers}))
    return OnnxGraph(ir.serde.deserialize_model(model), Path())


def attention(tail: str = PLAIN, hides: str = "ones are seen") -> OnnxGraph:
    return built(f"{HIDES[hides]} {ATTENTION} {tail}")


def sentences(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, WORDS, (1, length)) for length in lengths]


def alone(texts: list[np.ndarray], shown: int = 1) -> Samples:
    return Samples(tuple({"ids": one, "mask": np.full_like(one, shown)} for one in texts), "drawn", True)


def padded(texts: list[np.ndarray], left: bool = False, shown: int = 1) -> dict[str, np.ndarray]:
    ids, mask = np.zeros((len(texts), LONGEST), np.int64), np.full((len(texts), LONGEST), 1 - shown)
    for row, one in enumerate(texts):
        part = slice(LONGEST - one.size, None) if left else slice(None, one.size)
        ids[row, part], mask[row, part] = one, shown
    return {"ids": ids, "mask": mask}


def gathered(graph: Graph, data: Samples) -> Mapping[str, Moments]:
    return layer_statistics(graph, data, lambda *_: None, moments=NAMES).moments


def same(one: Mapping[str, Moments], other: Mapping[str, Moments]) -> bool:
    for name in NAMES:
        a, b = one[name], other[name]
        if (a.rows, a.held_rows) != (b.rows, b.held_rows):
            return False
        for x, y in ((a.gram, b.gram), (a.held, b.held)):
            if np.abs(x - y).max() > TOLERANCE * np.abs(x).max():
                return False
    return True


LENGTHS = st.lists(st.integers(1, LONGEST - 1), min_size=2, max_size=9)


@pytest.mark.slow
@given(LENGTHS, st.booleans(), st.sampled_from([PLAIN, TURNED, FLAT]), st.sampled_from(sorted(HIDES)))
@settings(max_examples=15, deadline=None)
def test_padding_changes_no_statistics(lengths: list[int], left: bool, tail: str, hides: str) -> None:
    shown = 1 if hides == "ones are seen" else 0
    graph, texts = attention(tail, hides), sentences(lengths)
    whole = gathered(graph, Samples((padded(texts, left, shown),), "drawn", True))
    assert same(gathered(graph, alone(texts, shown)), whole)
    assert whole["up"].hidden_rows == LONGEST * len(texts) - sum(lengths)


def test_padding_changes_no_magnitudes() -> None:
    graph, texts = attention(), sentences([3, 7, 5, 2])
    read = sorted({layer.input for weight in graph.weights() for layer in weight.layers if weight.name in NAMES})
    one, other = (
        layer_statistics(graph, data, lambda *_: None, rounded=RoundedValues(frozenset(read))).magnitudes
        for data in (alone(texts), Samples((padded(texts),), "drawn", True))
    )
    for name in read:
        assert one[name].largest == pytest.approx(other[name].largest, rel=1e-6)
        assert one[name].counts.sum() == other[name].counts.sum()


@given(LENGTHS, st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_batching_changes_no_statistics(lengths: list[int], size: int) -> None:
    graph, texts = attention(), sentences(lengths)
    feeds = padded(texts)
    cut = [{name: array[at : at + size] for name, array in feeds.items()} for at in range(0, len(texts), size)]
    assert same(gathered(graph, Samples((feeds,), "drawn", True)), gathered(graph, Samples(tuple(cut), "drawn", True)))


def test_what_passes_watch_ends_where_a_mask_begins() -> None:
    graph, texts = attention(), sentences([3, 7, 5, 2, 4])
    read = sorted({layer.input for weight in graph.weights() for layer in weight.layers if weight.name in NAMES})
    for held in (True, False):
        one, other = (
            list(watching(data)(graph, read, held)) for data in (alone(texts), Samples((padded(texts),), "drawn", True))
        )
        assert len(one) == len(other) > 0
        for name in read:
            for alone_, cropped in zip(one, other, strict=True):
                np.testing.assert_allclose(cropped[name], alone_[name], rtol=0, atol=TOLERANCE)


def test_a_mask_is_known_by_what_it_does() -> None:
    graph = attention()
    runner = graph.runner(["ids", "mask"], ["r", "y"])
    found = find_masks(graph.inputs, runner, Samples((padded(sentences([3, 7])),), "", True))
    assert [(one.name, one.hides, one.contents) for one in found.masks] == [("mask", 0, ("ids",))]


def test_kinds_of_tokens_are_no_mask_reject() -> None:
    kinds = "kinds = Gather(kind, segment) x0 = Gather(table, ids) x = Add(x0, kinds)"
    seen = "size = Shape(ids) seen = ConstantOfShape<value = int64[1] {1}>(size)"
    body = f"{seen} {ATTENTION.replace('x = Gather(table, ids)', kinds)} {PLAIN}"
    graph = built(body, "segment", kind=models.random(2, WIDTH, seed=8))
    fed = padded(sentences([3, 7]))
    data = Samples(({"ids": fed["ids"], "segment": fed["mask"]},), "", True)
    runner = graph.runner(["ids", "segment"], ["x", "r", "mixed", "y"])
    assert find_masks(graph.inputs, runner, data).masks == ()


def test_what_is_equal_is_in_one_part() -> None:
    one, other = sentences([4, 6])
    parted = Parted.of(alone([one, other, one, other, other, one]))
    assert parted.held == (False, True, False, True, True, False)
    assert parted.repeated == (False, False, True, True, True, True)


def test_samples_held_out_are_a_quarter_in_their_order() -> None:
    texts = sentences([5] * 8)
    held = held_out(alone(texts))
    assert held is not None
    np.testing.assert_array_equal(held.batches[0]["ids"], np.concatenate([texts[1], texts[5]]))


def test_of_a_single_feed_the_end_is_held_out() -> None:
    feeds = padded(sentences([3, 7, 5, 2]))
    one = gathered(attention(), Samples((feeds,), "drawn"))["up"]
    assert (one.rows, one.held_rows) == (17, 4)
    assert held_out(Samples((feeds,), "drawn")) is None


def test_feeds_of_one_sample_run_together() -> None:
    graph = attention()
    feeds = [{"ids": one, "mask": np.ones_like(one)} for one in sentences([4, 4, 4, 6, 6])]
    loaded = samples.load(feeds, graph, None, 0)
    assert [len(batch["ids"]) for batch in loaded.batches] == [3, 2] and loaded.divisible
    runs: list[int] = []
    runner = graph.runner

    class Counted:
        inputs, weights, value, ops, digest = graph.inputs, graph.weights, graph.value, graph.ops, graph.digest

        @staticmethod
        def runner(inputs: Sequence[str], outputs: Sequence[str]) -> Callable[[Feeds], dict[str, np.ndarray]]:
            made = runner(inputs, outputs)

            def run(fed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
                runs.append(len(fed["ids"]))
                return made(fed)

            return run

    data = samples.load([feeds[0]] * 40, graph, None, 0)
    layer_statistics(Counted, data, lambda *_: None, moments=NAMES)  # type: ignore[arg-type]
    assert sum(runs) == 40 + 1 and len(runs) <= 3  # one sample to know what a run hands out


def test_feeds_of_several_samples_stay_as_they_are_reject() -> None:
    feeds = [{"ids": np.ones((2, 4), np.int64), "mask": np.ones((2, 4), np.int64)}] * 2
    loaded = samples.load(feeds, attention(), None, 0)
    assert len(loaded.batches) == 2 and not loaded.divisible


def test_few_rows_are_told() -> None:
    texts = sentences([3, 4, 5])
    warned = few_rows(coverage_of(gathered(attention(), alone(texts))))
    assert warned is not None and warned.code == "Q436"
    assert warned.message == f"12 rows of data for {WIDTH} inputs of `q`, and few for 3 more of 4 layers"


def test_repeated_samples_cover_nothing_more() -> None:
    texts = sentences([3, 4, 5])
    once, often = (gathered(attention(), alone(texts * times)) for times in (1, 8))
    for name, one in often.items():
        assert (one.rows, one.repeated_rows, one.chance) == (8 * 12, 7 * 12, once[name].chance)
    warned = few_rows(coverage_of(often))
    assert warned is not None and "give samples that are not repeated" in (warned.help or "")
    assert warned.message == f"12 rows of data for {WIDTH} inputs of `q`, and few for 3 more of 4 layers"


def test_enough_rows_are_not_told_reject() -> None:
    assert few_rows(coverage_of(gathered(attention(), alone(sentences([11] * 8))))) is None


def test_report_and_lock_tell_coverage_and_what_was_chosen(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    weights = {"w": models.random(64, 32, seed=1)}
    onnx.save(models.parse("m (float[n, 64] x) => (float[n, 32] y) { y = MatMul(x, w) }", weights), path)
    told: list[tuple[str, str]] = []
    result = qcc.compile(
        path,
        load_text("rule any { weights = int3 group 32; rounding = gptq }", schema()),
        data=[{"x": models.random(1, 64, seed=at)} for at in range(12)],
        progress=lambda phase, _done, _total, detail: told.append((phase, detail)),
    )
    (row,) = result.layers
    assert row.data is not None and (row.data.rows, row.data.inputs, row.data.held_rows) == (12, 64, 3)
    assert row.chosen
    assert [one.code for one in result.warnings] == ["Q436"]
    assert ("warning", result.warnings[0].message) in told
    assert [phase for phase, _ in told].index("warning") < [phase for phase, _ in told].index("encode")
    lock = json.loads(result.lock.read_text(encoding="utf-8"))["coverage"]
    assert lock["chosen"] == {row.chosen: 1}
    assert lock["rows"] == 12 and lock["least_rows_an_input"] == pytest.approx(12 / 64, abs=1e-3)
    assert "12 rows for 64 inputs" in result.report.read_text(encoding="utf-8")
