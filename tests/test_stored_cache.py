"""Caches that hold codes: what they hold, that a graph computes with what they stand for, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.values import encoding_named
from qcc.compiler.report.lock import read_lock
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import to_text
from qcc.ir.attention.find import attentions, cache_pairs
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.cached.fit import Channels, fitted, mixing
from qcc.ir.encoding.cached.kept import KeptRows
from qcc.ir.encoding.cached.rows import CachedRows, refusal
from qcc.ir.encoding.cached.stored import NOTE, StoredCache, coded, decoded, note_of, of_note
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph
from tests import attention_models as models
from tests.attention_models import BATCH, HEADS, ROWS, WIDTH, Spelling, case
from tests.onnx_models import random
from tests.test_fuse import causal_past

TOLERANCE = 2e-5  # of numbers of about 1: sums of eight products and a softmax in float32
FORMATS = {
    "int8": ("int8 channel", "plain", 0),
    "int4": ("int4 channel", "plain", 0),
    "zeros": ("int4 channel asym", "plain", 0),
    "int8 zeros": ("int8 channel asym", "plain", 2),
    "groups": ("int4 group 4", "plain", 0),
    "powers": ("bfp 4 group 4", "plain", 0),
    "wide powers": ("bfp 8 group 8", "plain", 4),
    "sorted": ("bfp 4 group 4", "sorted", 0),
    "balanced": ("int4 group 4 scale fp32", "balanced", 0),
    "sorted behind first": ("bfp 4 group 4", "sorted", 5),
    "mixed": ("int4 group 8", "mixed", 0),
    "mixed channels": ("int8 channel", "mixed", 0),
    "mixed behind first": ("int4 group 4", "mixed", 2),
}


def told(spelling: Spelling, heads: int = HEADS) -> Spelling:
    """With the sizes of its caches in its outputs."""
    sizes = f"float[{BATCH}, {heads}, T, {WIDTH}]"
    return replace(spelling, outputs=f", {sizes} key_all, {sizes} value_all")


SPELLINGS: dict[str, Spelling] = {
    "plain": told(models.PAST),
    "grouped": causal_past(),
    "masked": told(replace(models.MASKED_PAST, types={**models.MASKED_PAST.types, "attention_mask": "int64[2, M]"})),
    "standard": told(models.STANDARD, models.SHARED),
}


def encoding(text: str) -> Blocked:
    found = encoding_named(text)
    assert isinstance(found, Blocked)
    return found


def opened(folder: Path, spelling: Spelling) -> tuple[OnnxGraph, Attention, Mapping[str, Array]]:
    one = case(spelling)
    graph = OnnxGraph.load(one.save(folder))
    graph.simplify()
    (found,) = attentions(graph, one.feeds)
    assert isinstance(found, Attention)
    return graph, found, one.feeds


def by_heads(rows: Array) -> Array:
    return np.moveaxis(rows, 1, 0).reshape(rows.shape[1], -1, rows.shape[3])


def run(graph: OnnxGraph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    return graph.runner(list(feeds), [one.name for one in graph.outputs])(feeds)


@pytest.mark.parametrize("kept", FORMATS)
def test_codes_stand_for_rows(kept: str) -> None:
    """Nearly: within a step; and what they stand for is kept as it is."""
    text, channels, first = FORMATS[kept]
    rows = random(2, HEADS, 7, WIDTH)
    held = fitted(by_heads(rows), encoding(text), _channels(channels), first)
    parts = held.encode(rows)
    made = held.decode(parts)
    assert np.linalg.norm(made - rows) / np.linalg.norm(rows) < (0.02 if held.bits == 8 else 0.25)
    assert np.abs(held.decode(held.encode(made)) - made).max() < 1e-6
    own = {name: array for name, array in parts.items() if name != "first"}
    assert sum(array.nbytes for array in own.values()) == 2 * HEADS * (7 - first) * held.row_bytes


def test_mixed_channels_cost_queries_least() -> None:
    """Of keys of few directions that queries see unevenly, as the bound has it; and no less than that of others."""
    rng, width = np.random.default_rng(0), 32
    mixes = [rng.standard_normal((width, width)) * np.geomspace(1, 0.02, width) for _ in range(2)]
    keys, queries = ((rng.standard_normal((4000, width)) @ one).astype(np.float32) for one in mixes)
    keys = keys + 3 * rng.standard_normal(width).astype(np.float32)
    seen = queries.T.astype(np.float64) @ queries / len(queries)
    lost = {}
    for channels in ("plain", "balanced", "mixed"):
        kept = fitted(keys[None], encoding("int4 group 32"), _channels(channels), seen=seen[None])
        error = (kept.decode(kept.encode(keys[None, None])) - keys)[0, 0]
        lost[channels] = float(np.square(error @ queries[:500].T).mean())
    assert lost["mixed"] < 0.3 * min(lost["plain"], lost["balanced"])
    spread = np.cov(keys.T.astype(np.float64))
    bound = np.sqrt(np.maximum(np.linalg.eigvals(spread @ seen).real, 0)).sum() ** 2 / width
    matrix = mixing(keys, seen).astype(np.float64)
    back = np.linalg.inv(matrix)
    sums = (np.diag(matrix.T @ spread @ matrix) * np.diag(back @ seen @ back.T)).sum()
    assert bound * 0.999 <= sums <= bound * 1.1


@pytest.mark.parametrize("form", ["decoded", "kernel"])
@pytest.mark.parametrize("kept", FORMATS)
@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_graph_computes_with_what_codes_stand_for(
    tmp_path: Path, spelled: str, kept: str, form: Literal["decoded", "kernel"]
) -> None:
    """The outputs are the float graph's that is fed what the codes of all rows stand for."""
    text, channels, first = FORMATS[kept]
    graph, one, feeds = opened(tmp_path, SPELLINGS[spelled])
    floats = run(graph, feeds)
    keys, values = (
        fitted(by_heads(floats[operand.present]), encoding(text), _channels(channels), first)
        for operand in (one.keys, one.values)
    )
    stored = graph.copy()
    stored.store_cache(one, keys, values, form)
    assert bool(stored.chain(lambda _: True)) == (form == "kernel")
    caches = of_note(stored.model.metadata_props[NOTE])
    raw = run(stored, coded(caches, feeds))
    found = decoded(caches, raw)
    wanted = _imitated(graph, one, floats, (keys, values), feeds)
    for name in floats:
        assert np.abs(found[name] - wanted[name]).max() < TOLERANCE * max(np.abs(wanted[name]).max(), 1), name
    for held in caches:
        assert held.rows is not None
        assert raw[held.present].dtype == held.rows.code_type


@pytest.mark.parametrize("form", ["decoded", "kernel"])
@pytest.mark.parametrize("channels", ["plain", "sorted", "mixed"])
def test_all_rows_of_a_run_may_be_first_ones(tmp_path: Path, channels: str, form: Literal["decoded", "kernel"]) -> None:
    """None are kept as codes then, and the graph computes what it did."""
    graph, one, feeds = opened(tmp_path, SPELLINGS["plain"])
    keys, values = (
        fitted(by_heads(array), encoding("int4 group 4"), _channels(channels), ROWS)
        for array in (run(graph, feeds)[operand.present] for operand in (one.keys, one.values))
    )
    stored = graph.copy()
    stored.store_cache(one, keys, values, form)
    begins = {name: array[:, :, :0] if "past" in name else array for name, array in feeds.items()}
    caches = of_note(stored.model.metadata_props[NOTE])
    found, wanted = decoded(caches, run(stored, coded(caches, begins))), run(graph, begins)
    for name, array in wanted.items():
        assert np.abs(found[name] - array).max() < TOLERANCE, name


def _channels(word: str) -> Channels:
    found: dict[str, Channels] = {"plain": "plain", "sorted": "sorted", "balanced": "balanced", "mixed": "mixed"}
    return found[word]


def _imitated(
    graph: OnnxGraph,
    one: Attention,
    floats: Mapping[str, Array],
    rows: tuple[CachedRows, CachedRows],
    feeds: Mapping[str, Array],
) -> dict[str, Array]:
    """What the float graph gives where its caches are what codes stand for, and the rest of it reads them."""
    held = {
        operand.present: kept.decode(kept.encode(floats[operand.present]))
        for operand, kept in zip((one.keys, one.values), rows, strict=True)
    }
    outputs = [name.name for name in graph.outputs if name.name not in held]
    makers = {name: op for op in graph.ops() for name in op.outputs}
    if makers[one.keys.present].function == "concat":
        rest = {name: array for name, array in feeds.items() if name not in (one.keys.past, one.values.past)}
        return {**held, **graph.runner([*rest, *held], outputs)({**rest, **held})}
    new = {name: array[:, :, 3:].transpose(0, 2, 1, 3).reshape(BATCH, ROWS, -1) for name, array in held.items()}
    fed = {one.keys.past: held[one.keys.present][:, :, :3], one.values.past: held[one.values.present][:, :, :3]}
    inner = {
        "q": feeds["x"] @ np.asarray(graph.constant("wq")),
        "k": new[one.keys.present],
        "v": new[one.values.present],
    }
    return {**held, **graph.runner([*inner, *fed], outputs)({**inner, **fed})}


def test_a_note_tells_of_caches() -> None:
    rows = fitted(by_heads(random(2, HEADS, 7, WIDTH)), encoding("bfp 4 group 4"), "sorted", 2)
    (again,) = of_note(note_of([StoredCache("past", "present", rows)]))
    fed = random(1, HEADS, 5, WIDTH)
    for name, part in again.encode(fed).items():
        assert np.array_equal(part, rows.encode(fed)[name])
    assert of_note("") == ()


def test_a_note_tells_which_rows_stay() -> None:
    (again,) = of_note(note_of([StoredCache("past", "present", None, KeptRows(9, 3, 2), True)]))
    assert again.evicts == KeptRows(9, 3, 2)
    assert again.part_names("p") == {"codes": "p", "places": "p.places", "scores": "p.scores"}
    assert again.rows is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nf4 group 32", "rows are kept as int8 or int4"),
        ("int3 channel", "rows are kept as int8 or int4"),
        ("int8 tensor", "by channel or in groups"),
        ("int4 group 32 asym", "no zero points"),
        ("int4 group 32 scale e4m3", "scales of rows are"),
    ],
)
def test_other_encodings_reject(text: str, reason: str) -> None:
    assert reason in refusal(encoding_named(text))


def test_zero_points_beside_sinks_reject(tmp_path: Path) -> None:
    graph, one, _ = opened(tmp_path, models.PAST)
    rows = fitted(by_heads(random(2, HEADS, 7, WIDTH) + 3), encoding("int4 channel asym"))
    with pytest.raises(Refused, match="zero points"):
        graph.store_cache(replace(one, sinks="sinks"), rows, None)
    with pytest.raises(Refused, match="heads"):
        graph.store_cache(replace(one, keys=replace(one.keys, heads=1)), rows, None)


def test_compiled(tmp_path: Path) -> None:
    """A policy of caches alone: verified beside the float model, run on codes by the plain runtime, and locked."""
    one = case(models.PAST)
    path = one.save(tmp_path)
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((BATCH, rows, HEADS * WIDTH)).astype(np.float32)} for rows in (9, 12, 5) * 3]
    policy = tmp_path / "cache.qpolicy"
    policy.write_text(
        "qpolicy 1\nrule cache { keys = int8 channel, values = int8 channel }\nverify { cosine >= 0.99 }\n",
        encoding="utf-8",
    )
    result = qcc.compile(path, policy, data=data)
    assert result.passed
    text = result.lock.read_text(encoding="utf-8")
    assert "cache(keys = int8 channel sym" in text
    kept = "keys int8 channel sym scale fp16, values int8 channel sym scale fp16"
    raised = "opset 17 -> 18: a runtime must know that version"
    assert result.notes == (raised, f"1 cache, {kept}: 256 -> 64 bytes a token, 0.25x")
    session = onnxruntime.InferenceSession(str(result.output), providers=["CPUExecutionProvider"])
    assert {value.name: value.type for value in session.get_inputs()}["past_key"] == "tensor(int8)"
    mine = qcc.Session(result.output)
    floats = {**one.feeds}
    found = mine.decoded(mine.run(mine.coded(floats)))
    wanted = onnxruntime.InferenceSession(str(path)).run(["y"], floats)[0]
    assert float(np.vdot(found["y"], wanted) / np.linalg.norm(found["y"]) / np.linalg.norm(wanted)) > 0.99
    again = qcc.compile(path, plan=read_lock(result.lock), output=tmp_path / "again.onnx", data=data)
    assert again.output.read_bytes() == result.output.read_bytes()


ACCEPTED = """rule cache { keys = int8 channel, values = int4 channel asym }
rule cache[name ~ "past_key.0*"] { keys = bfp 4 group 32; channels = sorted; float_tokens = 4 }
rule cache { values = float }
"""
REJECTED = {
    "keys = nf4 group 32": "Q204",
    "values = int8 tensor": "Q204",
    "weights = int8 channel": "Q560",
    "channels = stirred": "Q203",
    "float_tokens = -1": "Q204",
    "keep": "Q560",
}


def test_rules() -> None:
    policy = load_text("qpolicy 1\n" + ACCEPTED, schema())
    assert to_text(load_text(to_text(policy), schema())) == to_text(policy)


@pytest.mark.parametrize("rule", REJECTED)
def test_rules_reject(rule: str) -> None:
    with pytest.raises(QccError) as raised:
        load_text(f"qpolicy 1\nrule cache {{ {rule} }}\n", schema())
    assert [one.code for one in raised.value.diagnostics] == [REJECTED[rule]]


@pytest.mark.parametrize(
    ("rule", "code"), [("keys = int8 channel | int4 channel", "Q690"), ("channels = sorted", "Q691")]
)
def test_rules_against_a_model_reject(tmp_path: Path, rule: str, code: str) -> None:
    path, policy = case(models.PAST).save(tmp_path), tmp_path / "cache.qpolicy"
    policy.write_text(f"qpolicy 1\nrule cache {{ {rule} }}\n", encoding="utf-8")
    with pytest.raises(QccError) as raised:
        qcc.compile(path, policy)
    assert [one.code for one in raised.value.diagnostics] == [code]


@pytest.mark.parametrize("kept", ["int8 channel", "int4 channel", "int4 channel asym"])
def test_the_runtimes_own_op_computes_the_same(tmp_path: Path, kept: str) -> None:
    """On codes of its own layout: what it returns for later runs, and what it makes of them."""
    one = case(causal_past())
    graph = OnnxGraph.load(one.save(tmp_path))
    graph.simplify()
    (found,) = attentions(graph, one.feeds)
    assert isinstance(found, Attention)
    assert found.masking[0].hides_later
    floats = run(graph, one.feeds)
    own = [by_heads(floats[operand.present]) for operand in (found.keys, found.values)]
    made = {}
    for fused in (False, True):
        stored = graph.copy()
        keys, values = (fitted(rows, encoding(kept), pairs=fused) for rows in own)
        stored.store_cache(found, keys, values, "fused" if fused else "decoded")
        caches = of_note(stored.model.metadata_props[NOTE])
        assert any(op.function == "grouped_attention" for op in stored.ops()) == fused
        alone = {name: array[:1] for name, array in coded(caches, one.feeds).items()}  # it takes one sample here
        fixed = stored.copy()
        for value in (*fixed.model.graph.inputs, *fixed.model.graph.outputs):
            value.shape = None if value.shape is None else ir.Shape([None, *value.shape[1:]])
        made[fused] = decoded(caches, run(fixed, alone))
    for name in made[False]:
        assert np.abs(made[True][name] - made[False][name]).max() < TOLERANCE * 10, name


def test_the_runtimes_own_op_on_floats(tmp_path: Path) -> None:
    one = case(causal_past())
    graph = OnnxGraph.load(one.save(tmp_path))
    graph.simplify()
    (found,) = attentions(graph, one.feeds)
    assert isinstance(found, Attention)
    made = graph.copy()
    made.store_cache(found, None, None, "fused")
    assert NOTE not in made.model.metadata_props
    assert any(op.function == "grouped_attention" for op in made.ops())
    alone = {name: array[:1] for name, array in one.feeds.items()}
    for each in (graph, made):
        for value in (*each.model.graph.inputs, *each.model.graph.outputs):
            value.shape = None if value.shape is None else ir.Shape([None, *value.shape[1:]])
    wanted, given = run(graph, alone), run(made, alone)
    for name, array in wanted.items():
        assert np.abs(given[name] - array).max() < TOLERANCE, name


def test_the_runtimes_own_op_reject(tmp_path: Path) -> None:
    graph, one, _ = opened(tmp_path, models.PAST)
    rows = fitted(by_heads(random(2, HEADS, 7, WIDTH)), encoding("int8 channel"))
    with pytest.raises(Refused, match="hides what comes later"):
        graph.store_cache(one, rows, rows, "fused")
    with pytest.raises(Refused, match="as many bits"):
        graph.store_cache(one, rows, None, "fused")
    with pytest.raises(Refused, match="hides what comes later"):
        graph.store_cache(one, None, None, "fused")


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_kernel_s_op_on_floats(tmp_path: Path, spelled: str) -> None:
    graph, one, feeds = opened(tmp_path, SPELLINGS[spelled])
    made = graph.copy()
    made.store_cache(one, None, None, "kernel")
    assert NOTE not in made.model.metadata_props and len(made.chain(lambda _: True)) == 1
    wanted, given = run(graph, feeds), run(made, feeds)
    for name, array in wanted.items():
        assert np.abs(given[name] - array).max() < TOLERANCE, name
    assert cache_pairs(made) == cache_pairs(graph)


def test_a_kernel_s_op_reject(tmp_path: Path) -> None:
    """First rows are floats of both, or of none."""
    graph, one, _ = opened(tmp_path, models.PAST)
    rows = fitted(by_heads(random(2, HEADS, 7, WIDTH)), encoding("int8 channel"), "plain", 2)
    with pytest.raises(Refused, match="first rows"):
        graph.store_cache(one, rows, None, "kernel")
