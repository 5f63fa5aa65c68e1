"""Scores scaled for the number of tokens: the same bits at the training size, sharper where there are more."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.ir.attention.find import attentions
from qcc.ir.attention.origin import Origins
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, OneOp
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.attention.scale import Tokens
from qcc.passes.contract.contract import Context, Edit
from tests import attention_models as models
from tests.attention_models import ALL, BATCH, ROWS, Spelling, case
from tests.onnx_models import random

MORE = 2 * ROWS
TOLERANCE = 1e-5  # of the largest result: scores are scaled in float32, before the product or behind it


def scaled(folder: Path, spelling: Spelling, tokens: int) -> tuple[OnnxGraph, OnnxGraph, list[Edit]]:
    """The graph before and after, with what was done."""
    one = case(spelling)
    graph = OnnxGraph.load(one.save(folder))
    graph.simplify()
    names = [found.name for found in attentions(graph, one.feeds)]
    after, edits = Tokens(tokens).apply(graph, names, Context(sample=one.feeds))
    return graph, after, edits


def rows(count: int) -> dict[str, np.ndarray]:
    return {"x": random(BATCH, count, ALL, seed=7)}


@pytest.mark.parametrize("spelling", [models.PLAIN, models.turned("half"), models.MANY])
def test_the_same_bits_at_the_training_size(tmp_path: Path, spelling: Spelling) -> None:
    before, after, edits = scaled(tmp_path, spelling, ROWS)
    assert [edit.refused for edit in edits] == [False]
    one, other = (graph.runner(["x"], ["y"])(rows(ROWS))["y"] for graph in (before, after))
    assert np.array_equal(one, other)
    one, other = (graph.runner(["x"], ["y"])(rows(MORE))["y"] for graph in (before, after))
    assert not np.array_equal(one, other)


def y(graph: OnnxGraph, count: int) -> np.ndarray:
    return graph.runner(["x"], ["y"])(rows(count))["y"]


@pytest.mark.parametrize("count", [3, MORE, 64])
def test_the_factor(tmp_path: Path, count: int) -> None:
    """It computes what a model of another scale does."""
    _, after, _ = scaled(tmp_path, models.PLAIN, ROWS)
    number = 0.25 * np.sqrt(np.log(count) / np.log(ROWS))
    wanted = case(replace(models.PLAIN, constants={**models.PLAIN.constants, "scale": models.scalar(number)}))
    other = OnnxGraph.load(wanted.save(tmp_path))
    assert np.abs(y(after, count) - y(other, count)).max() <= TOLERANCE * np.abs(y(other, count)).max()


def test_a_scale_that_varies_stays_when_fused(tmp_path: Path) -> None:
    """One op has one number for all sizes; a scale of queries stays before it."""
    _, after, _ = scaled(tmp_path, models.PLAIN, ROWS)
    (one,) = attentions(after, rows(ROWS))
    assert isinstance(one, Attention)
    assert (one.scale, one.scale_varies) == (0.25, False)
    op = after.copy()
    op.write_attention(one, OneOp())
    assert np.abs(y(op, MORE) - y(after, MORE)).max() <= TOLERANCE * np.abs(y(after, MORE)).max()


def test_scores_whose_scale_varies_are_not_fused_reject(tmp_path: Path) -> None:
    body = models.PLAIN.body.replace(
        "z = Mul (s, scale)",
        "shape = Shape <start = 1, end = 2> (x)\n n = Cast <to = 1> (shape)\n root = Sqrt (n)\n z = Div (s, root)",
    )
    one = case(replace(models.PLAIN, body=body))
    graph = OnnxGraph.load(one.save(tmp_path))
    graph.simplify()
    (found,) = attentions(graph, one.feeds)
    assert isinstance(found, Attention)
    with pytest.raises(Refused, match="hangs on how many rows"):
        graph.write_attention(found, OneOp())


def test_fused_first(tmp_path: Path) -> None:
    """A policy may ask for both."""
    policy = f"qpolicy 1\nrule attention {{ fuse = on; scale = tokens({ROWS}) }}\n"
    path = case(models.PLAIN).save(tmp_path)
    result = qcc.compile(path, policy=policy, output=tmp_path / "out.onnx")
    assert not [edit for row in result.rewrites for edit in row.edits if edit.refused]
    before, after = OnnxGraph.load(path), OnnxGraph.load(tmp_path / "out.onnx")
    assert "attention" in {op.kind for op in after.ops()}
    assert not np.allclose(y(before, MORE), y(after, MORE))
    assert np.abs(y(before, ROWS) - y(after, ROWS)).max() <= TOLERANCE * np.abs(y(before, ROWS)).max()


def cross() -> Spelling:
    """Keys and values of another input."""
    body = models.PLAIN.body.replace("(k, held)", "(ko, held)").replace("(v, held)", "(vo, held)")
    body = f"ko = MatMul (other, wk)\n vo = MatMul (other, wv)\n {body}"
    return replace(
        models.PLAIN, body=body, inputs={"other": random(BATCH, 7, ALL)}, types={"other": f"float[{BATCH}, T, {ALL}]"}
    )


@pytest.mark.parametrize(
    ("spelling", "reason"),
    [
        (cross(), "made of different values"),
        (models.PAST, "rows of earlier runs"),
        (models.GROUPED, "only what came before"),
    ],
)
def test_what_is_no_attention_among_all_tokens_reject(tmp_path: Path, spelling: Spelling, reason: str) -> None:
    before, after, (edit,) = scaled(tmp_path, spelling, ROWS)
    assert edit.refused
    assert reason in edit.text
    assert len(after.ops()) == len(before.ops())


def test_origins(tmp_path: Path) -> None:
    for spelling, wanted in ((models.PLAIN, True), (models.STANDARD, True), (cross(), False)):
        one = case(spelling)
        graph = OnnxGraph.load(one.save(tmp_path))
        graph.simplify()
        (found,) = attentions(graph, one.feeds)
        assert isinstance(found, Attention)
        assert Origins(graph).is_self(found) is wanted
