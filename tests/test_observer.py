"""The observer: parts add up, an interrupted pass goes on, tokens can be left out, pairs fit least squares."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.codegen.target import cache
from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe import checkpoint, chunks
from qcc.compiler.observe.executor import Here, Processes
from qcc.compiler.observe.observer import Observer
from qcc.compiler.observe.solve import fit_map, residual
from qcc.compiler.observe.statistic import Rows, Statistic
from qcc.compiler.observe.sums import GramSum, MagnitudeSum, PairSum
from qcc.compiler.observe.tokens import TokenWeights
from qcc.ir.errors import ModelError
from qcc.ir.onnx.adapter import OnnxGraph
from tests import onnx_models as models
from tests.test_statistics import attention, padded, sentences

TOLERANCE = 1e-4  # of the largest entry: sums of float32 in another order
CLOSE = 1e-8  # of numbers of about 1 in float64
ROWS = st.integers(1, 40)


def two(scale: float = 1.0) -> OnnxGraph:
    text = "m (int64[batch, seq] ids) => (float[batch, seq, 8] y) { x = Gather(table, ids) y = MatMul(x, w) }"
    tables = {"table": models.random(20, 16) * np.float32(scale), "w": models.random(16, 8, seed=1)}
    model = onnx.shape_inference.infer_shapes(models.parse(text, tables))
    return OnnxGraph(ir.serde.deserialize_model(model), Path())


def texts(count: int, length: int = 6) -> Samples:
    ids = np.random.default_rng(0).integers(0, 20, (count, length))
    return Samples(({"ids": ids},), "drawn", True)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@given(ROWS, ROWS, st.sampled_from([GramSum, MagnitudeSum, PairSum]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_parts_add_up_to_the_whole(first: int, second: int, kind: type[Statistic], weighed: bool) -> None:
    rng = np.random.default_rng(first)
    array = rng.standard_normal((first + second, 4)).astype(np.float32)
    weights = rng.uniform(0.5, 2, len(array)).astype(np.float32) if weighed else None
    rows = Rows(array, 3, weights, array[:, :2] * 2)
    whole, one, other = kind(), kind(), kind()
    whole.add(rows)
    one.add(rows.part(0, first))
    other.add(rows.part(first, len(array)))
    revived = kind()
    revived.restore((one + other).state())
    for name, want in whole.state().items():
        got = revived.state()[name] if kind is not GramSum else None
        if got is not None:
            np.testing.assert_allclose(got, want, atol=TOLERANCE * max(np.abs(want).max(), 1))
    if isinstance(whole, GramSum) and isinstance(revived, GramSum):
        np.testing.assert_allclose(revived.total, whole.total, atol=TOLERANCE * np.abs(whole.total).max())
        assert (revived.rows, revived.hidden) == (whole.rows, 3)


def test_one_pass_answers_all(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, made = two(), 0
    runner = graph.runner

    def counted(*arguments: object) -> Callable[..., object]:
        nonlocal made
        made += 1
        return runner(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(graph, "runner", counted)
    observer = Observer(graph, texts(8))
    gram, sizes, again = observer.ask("x", GramSum()), observer.ask("x", MagnitudeSum()), observer.ask("x", GramSum())
    observer.gather()
    assert again is gram and made == 1
    assert gram.whole.rows == 48 and gram.held.rows == 12
    assert sizes.whole.found.counts.sum() == 48 * 16


def test_values_that_do_not_fit_together_are_looked_at_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    observer = Observer(two(), texts(8))
    x, y = observer.ask("x", GramSum()), observer.ask("y", GramSum())
    observer.gather()
    monkeypatch.setattr(chunks, "MOST_BYTES", 1)
    monkeypatch.setattr(chunks, "CAPTURED_BYTES", 1)
    apart = Observer(two(), texts(8))
    others = apart.ask("x", GramSum()), apart.ask("y", GramSum())
    apart.gather()
    for one, other in zip((x, y), others, strict=True):
        np.testing.assert_allclose(one.whole.total, other.whole.total, rtol=TOLERANCE)


def test_first_tokens_are_left_out_or_weigh_more() -> None:
    graph, data = two(), texts(8)
    ids = data.batches[0]["ids"]
    table = graph.constant("table")
    assert table is not None
    for weight in (0.0, 5.0):
        observer = Observer(graph, data, tokens=TokenWeights(1, weight))
        found = observer.ask("x", GramSum())
        observer.gather()
        rows = table[ids].astype(np.float64)
        rows[:, 0] *= np.sqrt(weight)
        flat = rows.reshape(-1, 16)
        np.testing.assert_allclose(found.whole.total, flat.T @ flat, rtol=TOLERANCE, atol=TOLERANCE)
        assert found.whole.rows == 48 - (8 if not weight else 0)


def test_the_first_token_behind_a_hidden_beginning_is_the_first_in_sight() -> None:
    fed = padded(sentences([3, 7, 5, 2]), left=True)
    observer = Observer(attention(), Samples((fed,), "drawn", True), tokens=TokenWeights(1))
    found = observer.ask("x", GramSum())
    observer.gather()
    assert found.whole.rows == 17 - 4


def test_a_hidden_end_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = attention()
    whole = Samples((padded(sentences([3, 7, 5, 2])),), "drawn", True)
    hiding = find_masks(graph.inputs, graph.runner(["ids", "mask"], ["r", "y"]), whole)
    assert hiding.cropped(whole.batches[0])["ids"].shape == (4, 7)
    left = Samples((padded(sentences([3, 7, 5, 2]), left=True),), "drawn", True)
    assert hiding.cropped(left.batches[0])["ids"].shape == (4, 12)


def test_an_end_whose_length_matters_is_computed_reject() -> None:
    tail = "n = ReduceMean<keepdims = 0>(one) size = Shape(ids) f = Cast<to = 1>(size) y2 = ReduceSum<keepdims = 0>(f)"
    graph = attention(f"{tail} up2 = Mul(up, y2) [up] y = MatMul(r, up2)")
    whole = Samples((padded(sentences([3, 7, 5, 2])),), "drawn", True)
    hiding = find_masks(graph.inputs, graph.runner(["ids", "mask"], ["r", "y"]), whole)
    assert hiding.masks and hiding.cropped(whole.batches[0])["ids"].shape == (4, 12)


def interrupted(at: int) -> Callable[[int, int, str], None]:
    def tick(done: int, _total: int, _what: str) -> None:
        if done >= at:
            raise KeyboardInterrupt

    return tick


def test_an_interrupted_pass_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    monkeypatch.setattr(chunks, "MOST_SAMPLES", 1)
    data = texts(20)
    plain = Observer(two(), data)
    want = plain.ask("x", GramSum())
    plain.gather()
    assert not cache.names(checkpoint.PREFIX)
    stopped = Observer(two(), data, interrupted(18))
    stopped.ask("x", GramSum())
    with pytest.raises(KeyboardInterrupt):
        stopped.gather()
    assert len(cache.names(checkpoint.PREFIX)) == 1
    told: list[int] = []
    again = Observer(two(), data, lambda done, _total, _what: told.append(done))
    got = again.ask("x", GramSum())
    again.gather()
    assert told[0] >= 18 and told[-1] == 20
    np.testing.assert_array_equal(got.whole.total, want.whole.total)  # bit for bit
    assert not cache.names(checkpoint.PREFIX)


@pytest.mark.parametrize("change", ["model", "data", "question", "damage"])
def test_what_was_kept_of_another_pass_is_not_taken_reject(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    monkeypatch.setattr(chunks, "MOST_SAMPLES", 1)
    stopped = Observer(two(), texts(20), interrupted(18))
    stopped.ask("x", GramSum())
    with pytest.raises(KeyboardInterrupt):
        stopped.gather()
    if change == "damage":
        (name,) = cache.names(checkpoint.PREFIX)
        cache.write_whole(name, lambda file: file.write(b"PK\x03\x04 damaged"))
    told: list[int] = []
    graph, data = two(2.0 if change == "model" else 1.0), texts(20, 5 if change == "data" else 6)
    again = Observer(graph, data, lambda done, _total, _what: told.append(done))
    again.ask("y" if change == "question" else "x", GramSum())
    again.gather()
    assert told[0] == 1


@pytest.mark.slow
def test_a_killed_pass_goes_on(tmp_path: Path) -> None:
    code = """
        import os, signal
        from qcc.compiler.observe import checkpoint, chunks
        from qcc.compiler.observe.observer import Observer
        from qcc.compiler.observe.sums import GramSum
        from tests.test_observer import texts, two
        checkpoint.EVERY_S, checkpoint.SHARE, chunks.MOST_SAMPLES = 0.0, 0, 1
        def tick(done, total, what):
            if done == 18:
                os.kill(os.getpid(), signal.SIGKILL)
        observer = Observer(two(), texts(20), tick)
        observer.ask("x", GramSum())
        observer.gather()
    """
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=root, check=False, capture_output=True)
    assert len(cache.names(checkpoint.PREFIX)) == 1
    told: list[int] = []
    chunks_before = chunks.MOST_SAMPLES
    try:
        chunks.MOST_SAMPLES = 1
        again = Observer(two(), texts(20), lambda done, _total, _what: told.append(done))
        again.ask("x", GramSum())
        again.gather()
    finally:
        chunks.MOST_SAMPLES = chunks_before
    assert told[0] == 18  # the 17th was kept, the 18th is run again


@pytest.mark.slow
def test_processes_gather_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MOST_SAMPLES", 2)
    found = []
    for made in (Here(), Processes(2)):
        with made as executor:
            told: list[int] = []
            observer = Observer(two(), texts(20), lambda done, *_, told=told: told.append(done), executor=executor)
            gram = observer.ask("x", GramSum())
            observer.gather()
        assert told[-1] == 20
        found.append(gram)
    one, other = found
    np.testing.assert_allclose(one.whole.total, other.whole.total, rtol=TOLERANCE)
    assert one.held.rows == other.held.rows


def test_processes_do_one_work_after_the_other() -> None:
    """They are started once; what breaks off leaves them for the next, and one that died is replaced."""
    make, process = partial(partial, eval), "__import__('os').getpid()"
    with Processes(1) as executor:
        (first,) = executor.each(make, [process])
        assert first != os.getpid()
        assert next(executor.each(make, [process] * 8)) == first
        with pytest.raises(ZeroDivisionError):
            list(executor.each(make, ["1 / 0"]))
        assert list(executor.each(partial(partial, len), ["four"])) == [4]
        assert list(executor.each(make, [process])) == [first]
        with pytest.raises(ModelError) as refused:
            list(executor.each(make, ["__import__('os')._exit(1)"]))
        assert refused.value.code == "Q530"
        assert list(executor.each(make, [process])) != [first]


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("bias", [True, False])
def test_pairs_fit_what_least_squares_fits(ridge: float, bias: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)) + 1, rng.standard_normal((60, 3))
    weights = rng.uniform(0.5, 2, 60)
    pairs = PairSum()
    for at in range(0, 60, 7):
        pairs.add(Rows(x[at : at + 7], 0, weights[at : at + 7], y[at : at + 7]))
    found = fit_map(pairs, ridge, bias)
    share = weights / weights.sum()
    mean = (share @ x, share @ y) if bias else (np.zeros(5), np.zeros(3))
    centred = x - mean[0]
    power = np.mean(np.diag((centred * share[:, None]).T @ centred))
    root = np.sqrt(share)[:, None]
    rows = np.vstack([centred * root, np.sqrt(ridge * power) * np.eye(5)])
    want = np.linalg.lstsq(rows, np.vstack([(y - mean[1]) * root, np.zeros((5, 3))]), rcond=None)[0]
    np.testing.assert_allclose(found.matrix, want, atol=CLOSE)
    np.testing.assert_allclose(found.bias, mean[1] - mean[0] @ want, atol=CLOSE)
    error = float(np.sum(share[:, None] * (x @ found.matrix + found.bias - y) ** 2))
    assert residual(pairs, found) == pytest.approx(error, abs=CLOSE)


def test_pairs_tell_means_variances_and_covariances() -> None:
    graph, other = two(), two(3.0)
    observer = Observer(graph, texts(8), beside=other)
    found = observer.ask("x", PairSum(), beside="x")
    observer.gather()
    pairs = found.whole
    np.testing.assert_allclose(pairs.mean("y"), 3 * pairs.mean("x"), atol=1e-5)  # float32 values of about 1
    mine, its = pairs.variance
    np.testing.assert_allclose(its, 9 * mine, atol=1e-4)
    np.testing.assert_allclose(pairs.covariance, 3 * mine, atol=1e-4)
    fitted = fit_map(pairs, ridge=1e-9)
    assert residual(pairs, fitted) < 1e-6 * float(np.sum(pairs.mean("yy")))
