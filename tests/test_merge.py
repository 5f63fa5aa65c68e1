"""The merge of queries' and keys' matrices: exact where it shrinks, and refused with the reason everywhere else."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.files.open_model import open_model
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_text
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Edit
from qcc.passes.structure.merge import MergeQueryKey
from tests import attention_models, onnx_models
from tests.onnx_models import random

WIDTH, EXACT = 24, 1e-5  # of the largest number
ONE_HEAD = """one (float[n, s, {width}] x) => (float[n, s, {inner}] y) {{
    p = MatMul (x, wq) q = Add (p, bq) r = MatMul (x, wk) k = Add (r, bk) v = MatMul (x, wv)
    t = Transpose <perm = [0, 2, 1]> (k) m = MatMul (q, t) c = Mul (m, scale) a = Softmax <axis = -1> (c)
    y = MatMul (a, v) }}"""


def one_head(folder: Path, inner: int = WIDTH) -> Path:
    weights = {name: random(WIDTH, inner, seed=at) / 3 for at, name in enumerate(("wq", "wk", "wv"))}
    weights |= {"bq": random(inner, seed=7), "bk": random(inner, seed=8), "scale": np.array(0.2, np.float32)}
    text = ONE_HEAD.format(width=WIDTH, inner=inner)
    onnx.save(onnx_models.parse(text, weights, opset=21, ir_version=10), folder / "one.onnx")
    return folder / "one.onnx"


def merged(graph: Graph, x: np.ndarray) -> tuple[Graph, list[Edit]]:
    return MergeQueryKey().apply(graph, [one.name for one in graph.weights()], Context(sample={"x": x}))


def test_one_head_is_exact_and_smaller(tmp_path: Path) -> None:
    graph, x = open_model(one_head(tmp_path)).graph, random(2, 7, WIDTH, seed=9)
    after, edits = merged(graph, x)
    assert [(one.refused, one.text) for one in edits] == [(False, f"{2 * WIDTH**2:,} -> {WIDTH**2:,} numbers")]
    assert len(after.weights()) == len(graph.weights()) - 1
    wanted, found = (one.runner(["x"], ["y"])({"x": x})["y"] for one in (graph, after))
    assert np.abs(found - wanted).max() <= EXACT * np.abs(wanted).max()
    assert [one.refused for one in merged(after, x)[1]] in ([], [True])  # once is all


def test_from_policy_to_file(tmp_path: Path) -> None:
    path, x = one_head(tmp_path), random(16, 7, WIDTH, seed=9)
    policy = load_text("qpolicy 1\nrule linear { merge = query_key }\n", schema())
    result = qcc.compile(path, policy, data=[{"x": x}])
    (row,) = [one for one in result.rewrites if "merge" in one.action]
    assert len(row.treated) == 1 and row.error < EXACT
    wanted, found = (qcc.Session(one).run({"x": x})["y"] for one in (path, result.output))
    assert np.abs(found - wanted).max() <= EXACT * np.abs(wanted).max()
    assert result.output_bytes < path.stat().st_size - 3 * WIDTH**2


@pytest.mark.parametrize(
    ("spelling", "why"),
    [
        (attention_models.PLAIN, "2,048 numbers would become 4,096: 4 heads of width 8 read 32 channels"),
        (attention_models.turned("half"), "a rotary embedding stands between"),
        (attention_models.turned("interleaved"), "a rotary embedding stands between"),
    ],
    ids=["more", "half", "interleaved"],
)
def test_where_it_gains_nothing_or_is_none_reject(
    spelling: attention_models.Spelling, why: str, tmp_path: Path
) -> None:
    case = attention_models.case(spelling)
    graph = open_model(case.save(tmp_path)).graph
    after, edits = MergeQueryKey().apply(graph, [one.name for one in graph.weights()], Context(sample=dict(case.feeds)))
    assert [one.refused for one in edits] == [True] and why in edits[0].text
    assert after.digest() == graph.digest()


def test_shapes_that_would_change_reject(tmp_path: Path) -> None:
    graph = open_model(one_head(tmp_path, 2 * WIDTH)).graph
    _, (edit,) = merged(graph, random(2, 7, WIDTH, seed=9))
    assert edit.refused and "heads would be 24 wide, not 48" in edit.text


def test_only_where_both_are_asked_for(tmp_path: Path) -> None:
    graph = open_model(one_head(tmp_path)).graph
    assert MergeQueryKey().apply(graph, ["wq", "wv"], Context(sample={"x": random(2, 7, WIDTH)}))[1] == []
