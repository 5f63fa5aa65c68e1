"""Caches of bounded length: what stays is what the rule says, and the graph computes with those rows alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.compiler.allocate.divide_rows import RowLosses
from qcc.compiler.analyze.estimate import estimate
from qcc.compiler.calibrate.samples import load
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.values import encoding_named
from qcc.compiler.report.lock import plan_of
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.ir.attention.find import attentions
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.cached.fit import fitted
from qcc.ir.encoding.cached.kept import KeptRows, StoredRows
from qcc.ir.encoding.cached.stored import NOTE, StoredCache, coded, of_note
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.cache.cache import Cache
from tests.onnx_models import Case, random
from tests.test_sequence import ALL, BODY, CONSTANTS, HEADS, WIDTH, WORDS, feeds_of

TOLERANCE = 2e-5  # of logits of about 3 and scores of about 1: float32 in another order
BOUND = KeptRows(7, 3, 2)


@dataclass(frozen=True)
class Held:
    """Keys and values that stayed, their places and scores."""

    rows: Sequence[Array]
    places: Array
    scores: Array


def opened(folder: Path) -> tuple[OnnxGraph, Attention]:
    graph = OnnxGraph.load(Case(BODY, CONSTANTS, feeds_of(2, 4), opset=23).save(folder))
    graph.simplify()
    (one,) = attentions(graph, feeds_of(2, 5, 3))
    assert isinstance(one, Attention), one
    return graph, one


def run(graph: OnnxGraph, feeds: dict[str, Array]) -> dict[str, Array]:
    return graph.runner([one.name for one in graph.inputs], [one.name for one in graph.outputs])(feeds)


def test_the_first_the_last_and_the_looked_at_stay() -> None:
    places = np.arange(12).reshape(1, 1, 12)
    scores = np.zeros((1, 1, 12), np.float32)
    scores[..., 5] = 1  # and with it its neighbours, of which the first come first
    assert KeptRows(8, 3, 2).chosen(places, scores).tolist() == [[[0, 1, 3, 4, 5, 9, 10, 11]]]
    assert KeptRows(20, 3, 2).chosen(places, scores).tolist() == [[list(range(12))]]


def test_scores_of_parts_are_those_of_the_whole() -> None:
    weights = np.abs(random(1, 2, 3, 6, 6)) * np.tri(6, dtype=np.float32)
    none = np.zeros((1, 2, 0), np.float32)
    whole = BOUND.scored(none, weights)
    half = BOUND.scored(none, weights[..., :4, :4])
    assert np.abs(BOUND.scored(half, weights[..., 4:, :]) - whole).max() < TOLERANCE


def test_more_stays_in_any_case_than_may_reject() -> None:
    with pytest.raises(ValueError, match="of 4 rows 3 of the window and 2 sinks"):
        KeptRows(4, 3, 2)


@pytest.mark.parametrize("text", ["", "int8 channel", "int4 group 4"])
def test_nothing_changes_as_long_as_all_stay(tmp_path: Path, text: str) -> None:
    graph, one = opened(tmp_path)
    feeds = feeds_of(2, 5, 3)
    feeds["attention_mask"][1, :2] = 0
    floats = run(graph, feeds)
    keys, values = (_fitted(floats[operand.present], text) for operand in (one.keys, one.values))
    codes, both = graph.copy(), graph.copy()
    if text:
        codes.store_cache(one, keys, values)
    both.store_cache(one, keys, values, KeptRows(20, 3, 2))
    wanted = run(codes, coded(of_note(codes.model.metadata_props.get(NOTE, "")), feeds))
    found = run(both, coded(of_note(both.model.metadata_props[NOTE]), feeds))
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert np.abs(found[name].astype(float) - array).max() < (TOLERANCE if array.dtype == np.float32 else 0.5), name
    assert found["key_all.places"].tolist() == [[list(range(8))] * HEADS] * 2


def _fitted(rows: Array, text: str) -> StoredRows:
    kept = encoding_named(text) if text else None
    if kept is None:
        return None
    assert isinstance(kept, Blocked)
    return fitted(np.moveaxis(rows, 1, 0).reshape(HEADS, -1, WIDTH), kept)


def test_later_runs_see_the_rows_that_stayed(tmp_path: Path) -> None:
    """Three runs, whose rows, places, scores and logits are those of the formulas."""
    graph, one = opened(tmp_path)
    bounded = graph.copy()
    bounded.store_cache(one, None, None, BOUND)
    caches = of_note(bounded.model.metadata_props[NOTE])
    whole = feeds_of(2, 16)
    whole["attention_mask"][1, 3] = 0
    keys = np.zeros((2, HEADS, 0, WIDTH), np.float32)
    held = Held((keys, keys), np.zeros((2, HEADS, 0), int), np.zeros((2, HEADS, 0), np.float32))
    fed = coded(caches, {"past_key": keys, "past_value": keys})
    for begin, end in ((0, 9), (9, 10), (10, 16)):
        feeds = {name: whole[name][:, begin:end] for name in ("ids", "position_ids")}
        feeds["attention_mask"] = whole["attention_mask"][:, :end]
        made = run(bounded, {**feeds, **fed})
        logits, held = _imitated(feeds, held, begin)
        assert np.abs(made["logits"] - logits).max() < TOLERANCE * 3
        assert np.array_equal(made["key_all.places"], held.places)
        assert np.abs(made["key_all.scores"] - held.scores).max() < TOLERANCE
        for name, rows in zip(("key_all", "value_all"), held.rows, strict=True):
            assert made[name].shape == rows.shape
            assert np.abs(made[name] - rows).max() < TOLERANCE * 3
        fed = {name: made[given] for one in caches for name, given in _names(one)}
    assert held.places.shape == (2, HEADS, BOUND.budget)
    assert (held.places[..., :2] == [0, 1]).all()


def _names(one: StoredCache) -> Iterator[tuple[str, str]]:
    return zip(one.part_names(one.past).values(), one.part_names(one.present).values(), strict=True)


def _imitated(feeds: Mapping[str, Array], held: Held, begin: int) -> tuple[Array, Held]:
    x = CONSTANTS["table"][feeds["ids"]]
    q, k, v = (
        (x @ CONSTANTS[name]).reshape(*x.shape[:2], HEADS, WIDTH).transpose(0, 2, 1, 3) for name in ("wq", "wk", "wv")
    )
    keys, values = (np.concatenate([old, new], 2) for old, new in zip(held.rows, (k, v), strict=True))
    new = np.arange(begin, begin + x.shape[1])
    places = np.concatenate([held.places, np.broadcast_to(new, (*k.shape[:2], len(new)))], -1)
    hidden = new[:, None] < places[:, :, None]
    gone = np.take_along_axis(feeds["attention_mask"][:, None] == 0, places, -1)
    scores = np.where(hidden | gone[:, :, None], -3e38, q @ keys.transpose(0, 1, 3, 2) * 0.35)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    logits = (weights @ values).transpose(0, 2, 1, 3).reshape(*x.shape[:2], ALL) @ CONSTANTS["head"]
    seen = BOUND.scored(held.scores, weights[:, :, None])
    stay = BOUND.chosen(places, seen)
    rows = [np.take_along_axis(one, stay[..., None], 2) for one in (keys, values)]
    return logits, Held(rows, np.take_along_axis(places, stay, -1), np.take_along_axis(seen, stay, -1))


def test_floats_of_a_longer_text_leave_the_first_and_the_last(tmp_path: Path) -> None:
    """What a model is fed in floats for a comparison or a timing is what it would hold."""
    graph, one = opened(tmp_path)
    graph.store_cache(one, None, None, BOUND)
    caches = of_note(graph.model.metadata_props[NOTE])
    feeds = feeds_of(2, 5, 30)
    fed = coded(caches, feeds)
    assert fed["past_key.places"].tolist() == [[[0, 1, 25, 26, 27, 28, 29]] * HEADS] * 2
    assert np.array_equal(fed["past_key"], feeds["past_key"][:, :, [0, 1, 25, 26, 27, 28, 29]])
    assert fed["past_value"].shape == fed["past_key"].shape
    again = coded(caches, fed)
    assert all(again[name] is array for name, array in fed.items())
    assert run(graph, fed)["key_all.places"].max() == 34


def test_rows_that_others_read_reject(tmp_path: Path) -> None:
    _, one = opened(tmp_path)
    body = BODY.replace(f"float[B, S, {WORDS}] logits,", f"float[B, S, {WORDS}] logits, float every,")
    body = body.replace("logits = MatMul", "every = ReduceSum <keepdims = 0> (key_all)\n    logits = MatMul")
    graph = OnnxGraph.load(Case(body, CONSTANTS, feeds_of(2, 4), opset=23).save(tmp_path))
    with pytest.raises(Refused, match="reads rows that may go"):
        graph.store_cache(one, None, None, BOUND)


KINDS = "key", "value"


def two_layers() -> str:
    """The model with two attentions, one on what the other gives beside what it reads."""
    head = BODY[: BODY.index(f",\n  float[B, {HEADS}, P")]
    body = BODY[BODY.index("q = MatMul") : BODY.index("logits =")]
    own = [line.split("=")[0].strip() for line in body.splitlines() if "=" in line]
    names = "|".join([*own, *(f"past_{kind}" for kind in KINDS)])
    lines = ["x0 = Gather (table, ids)"]
    for at in (0, 1):
        text = re.sub(rf"\b({names})\b", rf"\g<1>{at}", body)
        lines += [re.sub(r"\bx\b", f"x{at}", text), f"x{at + 1} = Add (x{at}, ys{at})"]
    caches = [f"{kind}{at}" for at in (0, 1) for kind in KINDS]
    fed = ", ".join(f"float[B, {HEADS}, P, {WIDTH}] past_{name}" for name in caches)
    given = ", ".join(f"float[B, {HEADS}, T, {WIDTH}] {name[:-1]}_all{name[-1]}" for name in caches)
    ends = f"{head}, {fed}) => (float[B, S, {WORDS}] logits, {given})"
    return ends + " { " + "\n".join([*lines, "logits = MatMul (x2, head)"]) + " }"


def compiled(folder: Path, rule: str, tokens: int = 24) -> Result:
    path = Case(two_layers(), CONSTANTS, {}, opset=23).save(folder)
    texts = {name: array for name, array in feeds_of(8, tokens).items() if "past" not in name}
    np.savez(folder / "text.npz", allow_pickle=False, **texts)
    policy = folder / "bound.qpolicy"
    policy.write_text(f'qpolicy 1\ncalibrate "text.npz"\nrule cache {{ {rule} }}\n', encoding="utf-8")
    return qcc.compile(path, policy, output=folder / "out.onnx")


def test_a_budget_is_divided_among_caches(tmp_path: Path) -> None:
    result = compiled(tmp_path, "budget = 6, window = 2, sinks = 1")
    steps = [(step.action, len(step.weights)) for step in result.plan.steps if isinstance(step.action, Cache)]
    assert sum(action.budget * count for action, count in steps) <= 12
    assert not any(action.divides for action, _ in steps)
    assert result.verification.driven is not None
    assert not any("_all" in check.output for check in result.verification.outputs)
    session = qcc.Session(result.output)
    names = [one.name for one in session.inputs]
    assert "past_key0.places" in names
    assert "past_value0.places" not in names
    again = qcc.compile(
        result.source, plan=plan_of(result.lock), data=tmp_path / "text.npz", output=tmp_path / "again.onnx"
    )
    assert again.output.read_bytes() == result.output.read_bytes()


def test_what_is_divided_loses_no_more_than_even_shares(tmp_path: Path) -> None:
    """By what was measured: that all have the same is one of the choices."""
    compiled(tmp_path, "budget = 6, share = even, window = 2, sinks = 1")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    graph.simplify()
    raised = graph.copy()
    raised.require_opset(23)
    texts = [{name: one for name, one in feeds_of(1, 24, seed=at).items() if "past" not in name} for at in range(3)]
    action = Cache(budget=6, window=2, sinks=1)
    measured = RowLosses.of(raised, graph, action, ["past_key0", "past_key1"], load(texts, graph, None, 0))
    rows = [3, 4, 6, 9, 12]
    losses = measured.losses(rows, lambda *_: None)
    assert all((np.diff(one) <= 0).all() and one[-1] == 0 for one in losses)
    chosen = measured.chosen(lambda *_: None)
    assert sum(chosen) <= 12
    assert sum(one[rows.index(count)] for one, count in zip(losses, chosen, strict=True)) <= sum(
        one[1] for one in losses
    )


@pytest.mark.slow
def test_codes_and_rows_that_go(tmp_path: Path) -> None:
    result = compiled(tmp_path, "keys = int8 channel, values = int8 channel, budget = 6, share = even, window = 2")
    (action,) = (step.action for step in result.plan.steps if isinstance(step.action, Cache))
    assert action.budget == 6
    assert any(
        "int8 channel sym scale fp16, at most 6 rows: 256 -> 64 bytes a token" in note for note in result.notes
    ), result.notes


@pytest.mark.parametrize(
    ("rule", "tokens", "code"),
    [
        ("budget = 3, window = 2, sinks = 2", 24, "Q770"),
        ("budget = 30, form = fused", 24, "Q770"),
        ("budget = 30, float_tokens = 1", 24, "Q770"),
        ("budget = 6, window = 2, sinks = 1", 12, "Q771"),
    ],
)
def test_budgets_reject(tmp_path: Path, rule: str, tokens: int, code: str) -> None:
    with pytest.raises(QccError) as raised:
        compiled(tmp_path, rule, tokens)
    assert [one.code for one in raised.value.diagnostics] == [code]
    assert not (tmp_path / "out.onnx").exists()


def test_what_it_takes_is_told_of_caches_too(tmp_path: Path) -> None:
    compiled(tmp_path, "budget = 6, share = even, window = 2, sinks = 1")
    policy = "qpolicy 1\nrule linear { weights = int8 channel }\nrule cache { form = fused }\n"
    assert estimate(tmp_path / "model.onnx", load_text(policy, schema())).rounding_s > 0
