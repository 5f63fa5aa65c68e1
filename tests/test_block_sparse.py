"""Blocks of scores left out: by the weight that they hold, in attentions that hide what comes later and no others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.attention.find import attentions
from qcc.ir.attention.formulas import softmax
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.attention.pattern import BlockSparse
from qcc.passes.contract.contract import Context, Edit
from tests import attention_models as models
from tests.attention_models import ALL, BATCH, HEADS, SHARED, WIDTH, Spelling, case, scalar
from tests.onnx_models import random

BLOCK, SEGMENT = 4, 8
TOLERANCE = 1e-5  # of the largest result: sums of a few products and of powers, in float32, in another order
LATER = """shape = Shape <start = 1, end = 2> (x)
    many = Squeeze (shape)
    at = Range (none, many, next)
    down = Unsqueeze (at, one_)
    across = Unsqueeze (at, zero_)
    seen = LessOrEqual (across, down)
    hidden = Where (seen, zero, least)
    """
CONSTANTS = {"one_": models.whole(1), "zero_": models.whole(0), "none": np.array(0), "next": np.array(1)}
NUMBERS = {"zero": scalar(0), "least": scalar(-3e38)}


def causal(later: str = LATER) -> Spelling:
    """Heads that share keys, for any number of rows."""
    body = models.GROUPED.body.replace("z = Add (s, mask)", f"{later} z = Add (s, hidden)")
    return replace(models.GROUPED, body=body, constants={**models.GROUPED.constants, **CONSTANTS, **NUMBERS})


def sparse(folder: Path, spelling: Spelling, action: BlockSparse) -> tuple[OnnxGraph, OnnxGraph, OnnxGraph, list[Edit]]:
    """The graph before and after, what is meant, and what was done."""
    one = case(spelling)
    graph = OnnxGraph.load(one.save(folder))
    graph.simplify()
    names, context = [found.name for found in attentions(graph, one.feeds)], Context(sample=one.feeds)
    after, edits = action.apply(graph, names, context)
    meant = action.meant(graph, names, context)
    after.simplify()
    return graph, after, meant, edits


def y(graph: OnnxGraph, rows: int, size: float = 2, value: str = "y") -> np.ndarray:
    return graph.runner(["x"], [value])({"x": np.float32(size) * random(BATCH, rows, ALL, seed=rows)})[value]


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= TOLERANCE * np.abs(other).max())


@pytest.mark.sampled
@pytest.mark.parametrize(("mass", "told"), [(0.0, 0), (0.3, 0), (0.7, 0), (0.7, 2), (1.0, 0), (1.0, 4)])
def test_what_is_computed_is_what_is_meant(tmp_path: Path, mass: float, told: int) -> None:
    action = BlockSparse(BLOCK, SEGMENT, mass, told)
    before, after, meant, (edit,) = sparse(tmp_path, causal(), action)
    assert not edit.refused, edit.text
    for rows in (1, 3, BLOCK, SEGMENT, SEGMENT + 1, 29, 64):
        assert close(y(after, rows), y(meant, rows)), rows
        if rows <= SEGMENT or mass == 1:
            assert close(y(after, rows), y(before, rows)), rows
    assert mass == 1 or not close(y(after, 64), y(before, 64))


@pytest.mark.sampled
@pytest.mark.parametrize(("rows", "told"), [(29, 0), (48, 0), (29, 2), (48, 4)])
def test_what_is_kept(tmp_path: Path, rows: int, told: int) -> None:
    """The definition, in numpy."""
    action = BlockSparse(BLOCK, SEGMENT, 0.6, told)
    before, after, _, _ = sparse(tmp_path, causal(), action)
    size = 0.5 if told else 2  # weights of single rows are all in one place else, and blocks hold the same
    q, k, v = (y(before, rows, size, name) for name in ("qs", "kr", "vr"))
    wanted = np.stack(
        [np.stack([_kept(*q_k_v, action, rows) for q_k_v in _heads(q[at], k[at], v[at])]) for at in range(BATCH)]
    )
    assert close(y(after, rows, size), wanted)


def _heads(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Queries of a head, those of all heads that share its keys, its keys and its values."""
    share = HEADS // SHARED
    root = np.float32(0.5) ** 0.5
    return [(q[h], q[h // share * share : (h // share + 1) * share], k[h] * root, v[h]) for h in range(HEADS)]


def _kept(q: np.ndarray, group: np.ndarray, k: np.ndarray, v: np.ndarray, action: BlockSparse, rows: int) -> np.ndarray:
    block, segment = action.block, action.segment
    full = -(-rows // segment) * segment
    fill = [(0, full - rows), (0, 0)]
    weight = softmax(group[:, max(rows - block, 0) :] @ k.T).mean((0, 1))
    q, k, v, weight = np.pad(q, fill), np.pad(k, fill), np.pad(v, fill), np.pad(weight, (0, full - rows))
    order = np.concatenate([at + np.argsort(-weight[at : at + segment]) for at in range(0, full, segment)])
    means = [one.reshape(-1, block, WIDTH).mean(1) for one in (q, k[order])]
    parts = np.arange(full // block) // (segment // block)
    seen = np.zeros((full, full), bool)
    for at, part in enumerate(parts):
        known = parts <= part
        shares = softmax(np.where(known, means[0][at] @ means[1].T, -np.inf)[None])[0]
        if action.rows:
            some = np.arange(at * block, (at + 1) * block)[block // action.rows - 1 :: block // action.rows]
            some = np.minimum(some, rows - 1)
            scores = np.where(order <= some[:, None], q[some] @ k[order].T, -1e30)
            shares = softmax(scores).reshape(len(some), -1, block).sum(-1).mean(0)
        forced = known & ((parts == part) | (np.arange(len(parts)) == 0))
        ranked = np.argsort(-(shares + 2 * forced))
        kept = ranked[np.cumsum(shares[ranked]) - shares[ranked] < action.mass]
        for one in {*kept, 0} & {*np.flatnonzero(parts < part)}:
            seen[at * block : (at + 1) * block, order[one * block : (one + 1) * block]] = True
    own = np.tri(full, dtype=bool) & (np.arange(full) // segment == (np.arange(full) // segment)[:, None])
    return np.asarray((softmax(np.where(seen | own, q @ k.T, -1e30)) @ v)[:rows])


@pytest.mark.parametrize(
    "later",
    [
        LATER.replace("seen = LessOrEqual (across, down)", "seen = GreaterOrEqual (across, down)"),
        LATER.replace(
            "seen = LessOrEqual (across, down)",
            "ahead = LessOrEqual (across, down)\n far = Sub (down, across)\n near = Less (far, window)\n"
            "seen = And (ahead, near)",
        ),
    ],
)
def test_another_mask_reject(tmp_path: Path, later: str) -> None:
    """A window shows beyond its width alone, where the sample does not reach."""
    spelling = causal(later)
    spelling = replace(spelling, constants={**spelling.constants, "window": np.array(500)})
    before, after, _, (edit,) = sparse(tmp_path, spelling, BlockSparse(BLOCK, SEGMENT, 0.5))
    assert edit.refused
    assert "hides something else" in edit.text
    assert len(after.ops()) == len(before.ops())


@pytest.mark.parametrize(
    ("spelling", "reason"),
    [
        (models.PLAIN, "no value of the graph"),
        (models.MASKED_PAST, "hangs on `attention_mask`"),
        (
            causal(
                LATER.replace(
                    "seen = LessOrEqual", "far = Less (down, wide_)\n seen = And (far, far)\n old = LessOrEqual"
                )
            ),
            "may be how far",
        ),
    ],
)
def test_what_is_not_causal_reject(tmp_path: Path, spelling: Spelling, reason: str) -> None:
    spelling = replace(spelling, constants={**spelling.constants, "wide_": np.array([4096])})
    _, _, _, (edit,) = sparse(tmp_path, spelling, BlockSparse())
    assert edit.refused
    assert reason in edit.text


def test_a_policy(tmp_path: Path) -> None:
    pattern = f"block_sparse(block = {BLOCK}, segment = {SEGMENT}, mass = 60%)"
    policy = f"qpolicy 1\nrule attention {{ pattern = {pattern}; fuse = on }}\n"
    result = qcc.compile(case(causal()).save(tmp_path), policy=policy, output=tmp_path / "out.onnx")
    row = next(row for row in result.rewrites if row.action.startswith("pattern"))
    assert [(edit.refused, edit.text) for edit in row.edits] == [(False, "blocks of 4 that hold 0.6 of the weight")]
    assert row.error <= TOLERANCE
    assert [warning.code for warning in result.warnings] == ["Q601"]
    bounded = qcc.compile(tmp_path / "model.onnx", policy=policy + "verify { cosine >= 0.5 }\n")
    assert not bounded.warnings


def test_a_segment_is_whole_blocks_reject(tmp_path: Path) -> None:
    policy = "qpolicy 1\nrule attention { pattern = block_sparse(block = 128, segment = 200) }\n"
    with pytest.raises(QccError) as caught:
        qcc.compile(case(causal()).save(tmp_path), policy=policy)
    (one,) = caught.value.diagnostics
    assert (one.code, one.message) == ("Q204", "`segment` is a multiple of `block`: 200 is none of 128")
