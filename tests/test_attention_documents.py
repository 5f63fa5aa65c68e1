"""Documents apart: what the masked model computes, for segments in any order, and no other mask is taken for theirs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.attention.documents import sees_documents
from qcc.ir.attention.find import attentions
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.attention.pattern import Blocks
from qcc.passes.contract.contract import Context, Edit
from tests import attention_models as models
from tests.attention_models import ALL, BATCH, SHARED, Spelling, case, scalar, whole
from tests.onnx_models import random

ROWS = 24
TOLERANCE = 1e-5  # of the largest result: two sums of a few products and a softmax, in float32
SORTED = np.sort(np.random.default_rng(3).integers(0, 6, ROWS))
MASK = """flat = Reshape (segments, minus)
    down = Unsqueeze (flat, one_)
    across = Unsqueeze (flat, zero_)
    own = Equal (down, across)
    common = Equal (across, none)
    most = ReduceMax <keepdims = 0> (flat)
    all = Equal (down, most)
    few = Or (own, common)
    some = Or (few, all)
    length = Shape <start = 0, end = 1> (flat)
    many = Squeeze (length)
    at = Range (none, many, next)
    rows = Unsqueeze (at, one_)
    columns = Unsqueeze (at, zero_)
    before = LessOrEqual (columns, rows)
    seen = And (some, before)
    """
CONSTANTS = {"minus": whole(-1), "one_": whole(1), "zero_": whole(0), "none": np.array(0), "next": np.array(1)}


def masked(shape: str = "S", mask: str = MASK, added: bool = False, base: Spelling = models.PLAIN) -> Spelling:
    """A model with the mask of documents, by flags or by a large number."""
    hiding = "z = Where (seen, scaled, least)"
    hiding = "hidden = Where (seen, zero, least)\n z = Add (scaled, hidden)" if added else hiding
    head, product, rest = re.split(r"z = (\w+ \(s, scale\))", base.body)
    body = f"{head}scaled = {product}\n{mask}{hiding}{rest}"
    least = scalar(-3e38 if added else -np.inf)
    segments = SORTED.reshape(1, -1) if "," in shape else SORTED
    return replace(
        base,
        body=body,
        constants={**base.constants, **CONSTANTS, "least": least, "zero": scalar(0)},
        inputs={"segments": segments},
        types={"segments": f"int64[{shape}]"},
    )


def grouped() -> Spelling:
    """Heads that share keys."""
    body = models.GROUPED.body.replace(
        "z = Add (s, mask)", f"{MASK} hidden = Where (seen, zero, least)\n z = Add (s, hidden)"
    )
    constants = {**models.GROUPED.constants, **CONSTANTS, "least": scalar(-3e38), "zero": scalar(0)}
    return replace(masked(), body=body, constants=constants, shared=SHARED)


def apart(folder: Path, spelling: Spelling) -> tuple[OnnxGraph, OnnxGraph, list[Edit]]:
    """The graph before and after, with what was done."""
    feeds = {"x": random(BATCH, ROWS, ALL), **spelling.inputs}
    graph = OnnxGraph.load(case(spelling).save(folder))
    graph.simplify()
    names = [found.name for found in attentions(graph, feeds)]
    after, edits = Blocks("segments").apply(graph, names, Context(sample=feeds))
    after.simplify()
    return graph, after, edits


def segments_of_all_kinds() -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [
        SORTED,
        draw.permutation(SORTED),
        np.zeros(ROWS, np.int64),
        np.full(ROWS, 7),
        np.repeat([0, 3], ROWS // 2),
        np.repeat([1, 2, 3], ROWS // 3),
        np.array([0] * 3 + [5, 9, 40] * 4 + [900] * 9),
        draw.integers(-5, 5, ROWS),
        np.arange(ROWS),
        np.array([0, 1, 2]),
    ]


@pytest.mark.parametrize(
    "spelling", [masked(), masked("1, S"), masked(added=True), grouped(), masked(base=models.turned("half"))]
)
def test_equal_to_the_masked_graph(tmp_path: Path, spelling: Spelling) -> None:
    before, after, edits = apart(tmp_path, spelling)
    assert [(edit.refused, edit.text) for edit in edits] == [(False, "documents of `segments` apart")]
    assert sum(op.kind == "attention" for op in after.ops()) == 2
    for segments in segments_of_all_kinds():
        shape = (1, -1) if spelling.types["segments"] == "int64[1, S]" else (-1,)
        feeds = {"x": random(BATCH, len(segments), ALL, seed=5), "segments": segments.reshape(shape)}
        one, other = (graph.runner(list(feeds), ["y"])(feeds)["y"] for graph in (before, after))
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= TOLERANCE * np.abs(one).max(), segments


def test_the_mask() -> None:
    seen = sees_documents(np.array([0, 1, 1, 2, 3]))
    rows = ["1....", "11...", "111..", "1..1.", "11111"]
    assert ["".join("1" if one else "." for one in row) for row in seen] == rows


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("seen = And (some, before)", "seen = And (few, before)", "hides something else"),
        ("seen = And (some, before)", "seen = Identity (some)", "hides something else"),
        ("seen = And (some, before)", "seen = Identity (before)", "hides something else"),
        ("common = Equal (across, none)", "common = Equal (across, next)", "hides something else"),
        ("before = LessOrEqual (columns, rows)", "before = LessOrEqual (rows, columns)", "hides something else"),
    ],
)
def test_another_mask_reject(tmp_path: Path, old: str, new: str, reason: str) -> None:
    before, after, (edit,) = apart(tmp_path, masked(mask=MASK.replace(old, new)))
    assert edit.refused
    assert reason in edit.text
    assert len(after.ops()) == len(before.ops())


def test_a_mask_of_something_else_reject(tmp_path: Path) -> None:
    """What hides more on other data may hide nothing on the sample."""
    mask = MASK.replace("seen = ", "bare = ") + "real = Cast <to = 9> (kept)\n seen = And (bare, real)\n"
    spelling = masked(mask=mask)
    kept = {"kept": np.ones(ROWS, np.int64)}
    spelling = replace(spelling, inputs={**spelling.inputs, **kept}, types={**spelling.types, "kept": "int64[S]"})
    _, _, (edit,) = apart(tmp_path, spelling)
    assert edit.refused
    assert "hangs on `kept`, too" in edit.text


def test_one_for_each_sample_reject(tmp_path: Path) -> None:
    """Documents of several samples would have to be told apart."""
    spelling = masked("N, S")
    _, _, (edit,) = apart(tmp_path, spelling)
    assert edit.refused
    assert "the same for all samples" in edit.text


def test_a_policy(tmp_path: Path) -> None:
    policy = 'qpolicy 1\nrule attention { pattern = blocks(input "segments"); fuse = on }\n'
    result = qcc.compile(case(masked()).save(tmp_path), policy=policy, output=tmp_path / "out.onnx")
    row = next(row for row in result.rewrites if row.action.startswith("pattern"))
    assert [(edit.refused, edit.text) for edit in row.edits] == [(False, "documents of `segments` apart")]
    assert row.error <= TOLERANCE
    written = OnnxGraph.load(tmp_path / "out.onnx")
    assert sum(op.kind == "attention" for op in written.ops()) == 2


def test_no_such_input_reject(tmp_path: Path) -> None:
    policy = 'qpolicy 1\nrule attention { pattern = blocks(input = "documents") }\n'
    with pytest.raises(QccError) as caught:
        qcc.compile(case(masked()).save(tmp_path), policy=policy, output=tmp_path / "out.onnx")
    (one,) = caught.value.diagnostics
    assert (one.code, one.message) == ("Q600", "the model has no input `documents`, which is to tell segments")
    assert not (tmp_path / "out.onnx").exists()
