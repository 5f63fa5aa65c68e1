"""Models of tokens are driven token by token: runs tell what they take, and runs in steps are the run of the whole."""

from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.compiler.calibrate.samples import load
from qcc.compiler.report.lock import read_lock
from qcc.compiler.sequence.drive import TokenDriver
from qcc.compiler.sequence.states import token_model
from qcc.compiler.sequence.token_runs import TokenRuns
from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph
from tests.attention_models import scalar, whole
from tests.onnx_models import Case, random

WORDS, HEADS, WIDTH = 11, 2, 8
ALL = HEADS * WIDTH
TOLERANCE = 1e-4  # of logits of about 3: float32 in another order

BODY = f"""g (int64[B, S] ids, int64[B, S] position_ids, int64[B, T] attention_mask,
  float[B, {HEADS}, P, {WIDTH}] past_key, float[B, {HEADS}, P, {WIDTH}] past_value)
  => (float[B, S, {WORDS}] logits, float[B, {HEADS}, T, {WIDTH}] key_all, float[B, {HEADS}, T, {WIDTH}] value_all) {{
    x = Gather (table, ids)
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    v = MatMul (x, wv)
    q4 = Reshape (q, heads)
    qh = Transpose <perm = [0, 2, 1, 3]> (q4)
    k4 = Reshape (k, heads)
    kh = Transpose <perm = [0, 2, 1, 3]> (k4)
    v4 = Reshape (v, heads)
    vh = Transpose <perm = [0, 2, 1, 3]> (v4)
    key_all = Concat <axis = 2> (past_key, kh)
    value_all = Concat <axis = 2> (past_value, vh)
    size = Shape <start = 2, end = 3> (key_all)
    total = Squeeze (size)
    columns = Range (zero, total, one)
    rows = Unsqueeze (position_ids, axes)
    later = Less (rows, columns)
    seen = Cast <to = 9> (attention_mask)
    shown = Unsqueeze (seen, mask_axes)
    gone = Not (shown)
    hidden = Or (later, gone)
    kt = Transpose <perm = [0, 1, 3, 2]> (key_all)
    s = MatMul (qh, kt)
    z = Mul (s, scale)
    masked = Where (hidden, least, z)
    p = Softmax <axis = -1> (masked)
    y = MatMul (p, value_all)
    yt = Transpose <perm = [0, 2, 1, 3]> (y)
    ys = Reshape (yt, flat)
    logits = MatMul (ys, head)
  }}"""
CONSTANTS = {
    "table": random(WORDS, ALL),
    "wq": random(ALL, ALL, seed=1) / 4,
    "wk": random(ALL, ALL, seed=2) / 4,
    "wv": random(ALL, ALL, seed=3) / 4,
    "head": random(ALL, WORDS, seed=4),
    "heads": whole(0, 0, HEADS, WIDTH),
    "flat": whole(0, 0, ALL),
    "zero": np.array(0, np.int64),
    "one": np.array(1, np.int64),
    "axes": whole(1, 3),
    "mask_axes": whole(1, 2),
    "scale": scalar(0.35),
    "least": scalar(-3e38),
}


def feeds_of(count: int, tokens: int, past: int = 0, seed: int = 0) -> dict[str, Array]:
    """Texts of drawn tokens."""
    ids = np.random.default_rng(seed).integers(0, WORDS, (count, tokens))
    found = {"ids": ids, "attention_mask": np.ones((count, past + tokens), np.int64)}
    found["position_ids"] = np.tile(np.arange(past, past + tokens), (count, 1))
    rows = {name: random(count, HEADS, past, WIDTH, seed=at) for at, name in enumerate(("past_key", "past_value"))}
    return {**found, **rows}


def opened(folder: Path) -> tuple[Path, OnnxGraph]:
    path = Case(BODY, CONSTANTS, feeds_of(1, 4)).save(folder)
    graph = OnnxGraph.load(path)
    graph.simplify()
    return path, graph


@pytest.mark.parametrize("past", [0, 3])
def test_what_a_model_takes_is_told_by_runs(tmp_path: Path, past: int) -> None:
    _, graph = opened(tmp_path)
    feeds = feeds_of(1, 9, past)
    runner = graph.runner(list(feeds), [one.name for one in graph.outputs])
    model = token_model(graph, runner, feeds)
    assert model is not None
    assert (model.tokens, model.logits) == ("ids", "logits")
    assert model.parts == {"ids": "rows", "position_ids": "rows", "attention_mask": "all"}
    assert model.caches == {"past_key": "key_all", "past_value": "value_all"}


@pytest.mark.parametrize("past", [0, 3])
def test_steps_are_the_run_of_the_whole(tmp_path: Path, past: int) -> None:
    _, graph = opened(tmp_path)
    feeds = feeds_of(2, 12, past)
    runner = graph.runner(list(feeds), [one.name for one in graph.outputs])
    model = token_model(graph, runner, feeds)
    assert model is not None
    driver = TokenDriver(model, runner)
    whole_run = runner(feeds)["logits"]
    assert np.abs(driver.forced(feeds, 5, 6) - whole_run[:, 4:11]).max() < TOLERANCE
    text = driver.greedy(feeds, 5, 6)
    again = {**feeds, "ids": np.concatenate([feeds["ids"][:, :5], text.tokens, feeds["ids"][:, 11:]], 1)}
    assert np.array_equal(runner(again)["logits"][:, 4:10].argmax(-1), text.tokens)


def test_a_model_without_caches_is_none(tmp_path: Path) -> None:
    body = f"g (int64[B, S] ids) => (float[B, S, {ALL}] y) {{ y = Gather (table, ids) }}"
    graph = OnnxGraph.load(Case(body, {"table": CONSTANTS["table"]}, {}).save(tmp_path))
    ids = {"ids": feeds_of(1, 6)["ids"]}
    assert token_model(graph, graph.runner(["ids"], ["y"]), ids) is None


def test_the_original_equals_itself(tmp_path: Path) -> None:
    _, graph = opened(tmp_path)
    data = [{name: one for name, one in feeds_of(1, 16, seed=at).items() if "past" not in name} for at in range(6)]
    samples = load(data, graph, None, 0)
    runner = graph.runner([one.name for one in graph.inputs], [one.name for one in graph.outputs])
    runs = TokenRuns.of(graph, lambda: runner, samples)
    assert runs is not None
    _, driven = runs.made(runner)
    assert driven.facts["texts"] == 4
    assert driven.facts["at_once"] == 8
    assert driven.facts["steps"] == 7
    assert driven.facts["equal_texts"] == 4
    assert driven.facts["loss"][0] == driven.facts["loss"][1]
    assert "greedy texts equal on 4 of 4" in driven.line


@pytest.mark.parametrize("kept", ["int8 channel", "bfp 8 group 8"])
def test_compiled_models_are_driven(tmp_path: Path, kept: str) -> None:
    """With codes fed back as they come; what was found is in the lock."""
    path, _ = opened(tmp_path)
    policy = tmp_path / "cache.qpolicy"
    rule = f"rule cache {{ keys = {kept}, values = {kept} }}\n"
    policy.write_text(f"qpolicy 1\n{rule}verify {{ cosine >= 0.99 }}\n", encoding="utf-8")
    data = [{name: one for name, one in feeds_of(1, 16, seed=at).items() if "past" not in name} for at in range(12)]
    result = qcc.compile(path, policy, data=data)
    assert result.passed
    driven = result.verification.driven
    assert driven is not None
    assert driven.facts["fed_back"] == 2
    assert abs(driven.facts["loss"][1] - driven.facts["loss"][0]) < 0.05
    assert "logits, token by token" in [one.output for one in result.verification.outputs]
    assert '"at_once": 8' in result.lock.read_text(encoding="utf-8")
    assert read_lock(result.lock).plan == result.plan


def test_caches_begin_empty_where_none_is_given_and_are_missed_where_one_is(tmp_path: Path) -> None:
    _, graph = opened(tmp_path)
    given = feeds_of(2, 6)
    texts = {name: given[name] for name in ("ids", "attention_mask", "position_ids")}
    np.savez(tmp_path / "texts.npz", **texts)  # type: ignore[arg-type]
    (batch,) = load(tmp_path / "texts.npz", graph, None, 0).batches
    assert batch["past_key"].shape[2] == batch["past_value"].shape[2] == 0
    np.savez(tmp_path / "half.npz", **texts, past_key=given["past_key"])  # type: ignore[arg-type]
    for data in (tmp_path / "half.npz", [{**texts, "past_key": given["past_key"]}]):
        with pytest.raises(ModelError, match="past_value"):
            load(data, graph, None, 0)
