"""Orders that gather what blocks keep: permutations, the function stays, blocks keep more, and a report tells it."""

from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32
from qcc.ir.encoding.formats.composed.blocks import Sparse
from qcc.ir.encoding.pruning import BY, By
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context, Edit
from qcc.passes.order.balance import Balance
from qcc.passes.order.gathered import gathered
from tests import onnx_models as models
from tests.test_permute import close, context, feeds, graph_of, names, run

TILE, HIDDEN, OUT = 8, 96, 64
FORWARD = "a = MatMul(x, up) b = Relu(a) y = MatMul(b, down)"


def shuffled(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``up [in, hidden]`` and ``down [hidden, out]`` of blocks, half of them weak, the hidden ones mixed up."""
    random = np.random.default_rng(seed)
    strong = np.where(random.random((HIDDEN // TILE, OUT // TILE)) < 0.5, 1.0, 0.05)
    sizes = strong.repeat(TILE, 0).repeat(TILE, 1)[random.permutation(HIDDEN)]
    up = models.random(64, HIDDEN, seed=seed)
    return up, (models.random(HIDDEN, OUT, seed=seed + 1) * sizes).astype(np.float32)


def done(graph: OnnxGraph, given: Context) -> tuple[OnnxGraph, list[Edit]]:
    """The graph after the pass, and what it did; its inputs are fixed, which is told too."""
    after, edits = Balance().apply(graph, names(graph), given)
    assert isinstance(after, OnnxGraph)
    return after, [edit for edit in edits if not edit.refused]


def kept(matrix: np.ndarray, encoding: Sparse) -> float:
    """The share of the squares that the largest tiles of a matrix hold."""
    down, across = (size // TILE for size in matrix.shape)
    sums = np.square(matrix, dtype=np.float64).reshape(down, TILE, across, TILE).sum((1, 3)).reshape(-1)
    return float(np.sort(sums)[-encoding.tiles_kept((matrix.shape[0], matrix.shape[1])) :].sum() / sums.sum())


@pytest.mark.parametrize("seed", range(3))
def test_what_belongs_together_is_found_again(seed: int) -> None:
    up, down = shuffled(seed)
    graph, fed = graph_of(FORWARD, up=up, down=down), feeds()
    encoding = Sparse(TILE, TILE, 0.5, FLOAT32, "magnitude")
    given = Context(encodings={"down": encoding})
    after, edits = done(graph, given)
    assert [edit.layers for edit in edits] == [("down",)] and "%" in edits[0].text
    assert close(run(after, fed), run(graph, fed))
    (before, now) = (kept(one.matrix(one.weights()[1]), encoding) for one in (graph, after))
    assert now > max(0.9, before + 0.1)
    assert done(after, given)[1] == []


@pytest.mark.parametrize("by", BY)
def test_both_sides_of_a_channel_count(by: By) -> None:
    up, down = shuffled(5)
    graph, fed = graph_of(FORWARD, up=up, down=down), feeds()
    encoding = Sparse(TILE, TILE, 0.5, FLOAT32, by)
    after, edits = done(graph, context(graph, fed, encoding))
    assert [edit.layers for edit in edits] == [("up",), ("down",)]
    assert close(run(after, fed), run(graph, fed))


@pytest.mark.parametrize(
    "encoding",
    [Sparse(7, 7, 0.5, FLOAT32), Sparse(8, 1, 0.5, FLOAT32), Sparse(8, 8, 1.0, FLOAT32)],
    ids=lambda one: one.text,
)
def test_nothing_is_moved_where_nothing_is_gained_reject(encoding: Encoding) -> None:
    """Tiles that do not divide the channels, that hold one of them, or are all kept."""
    up, down = shuffled(2)
    graph = graph_of(FORWARD, up=up, down=down)
    assert done(graph, Context(encodings={"down": encoding}))[1] == []


@pytest.mark.parametrize("shape", [(1, 16, 3), (3, 32, 4), (1, 64, 1)], ids=str)
@pytest.mark.parametrize("size", [2, 8, 16])
def test_orders_are_permutations(shape: tuple[int, int, int], size: int) -> None:
    saliency = np.random.default_rng(size).exponential(size=shape) ** 3
    order = gathered([(saliency, shape[0] * shape[1] // size * shape[2] // 2)], size)
    assert (np.sort(order, axis=1) == np.arange(shape[1])).all()
    nothing = gathered([(np.zeros(shape), 1)], size)
    assert (np.sort(nothing, axis=1) == np.arange(shape[1])).all()


@pytest.mark.slow
def test_a_report_tells_what_blocks_keep_layer_by_layer(tmp_path: Path) -> None:
    up, down = shuffled(1)
    path = tmp_path / "m.onnx"
    path.write_bytes(
        models.parse(
            f"g (float[N,64] x) => (float[N,{OUT}] y) {{ {FORWARD} }}", {"up": up, "down": down}
        ).SerializeToString()
    )
    policy = tmp_path / "p.qpolicy"
    policy.write_text(
        "qpolicy 1\nrule any { permute = balance; sparsity = blocks(8x8, keep = 50%) }\n", encoding="utf-8"
    )
    np.savez(tmp_path / "d.npz", x=feeds()["x"])
    found = qcc.compile(path, policy, output=tmp_path / "o.onnx", data=tmp_path / "d.npz")
    told = [edit.text for row in found.rewrites for edit in row.edits if "gathered" in edit.text]
    assert len(told) == 2
