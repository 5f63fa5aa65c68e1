"""Orders of channels: permutations all, the function stays, each better by its own measure, and a second run rests."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.statistics import layer_statistics
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import Moments, grams_of
from qcc.passes.order import sites as channel_sites
from qcc.passes.order.alike import Hessian, Magnitude, Range
from qcc.passes.order.balance import Balance
from qcc.passes.order.orders import clustered, dealt, descending
from qcc.passes.order.permute import Permute
from tests import axes_models
from tests import onnx_models as models

TOLERANCE = 1e-5  # of the largest output: only the order of float32 sums changes
INT4 = Blocked(IntGrid(4), group(16))
ALL: tuple[Permute, ...] = (Magnitude(), Range(), Hessian(), Balance(8))
WIDTH = 64
FORWARD = "a = MatMul(x, up) b = Relu(a) y = MatMul(b, down)"
FIXED = "p = MatMul(x, one) r = MatMul(x, two) y = Add(p, r)"
SIZES = st.lists(st.floats(0.01, 10), min_size=1, max_size=70)


def graph_of(body: str, **weights: np.ndarray) -> OnnxGraph:
    text = f"g (float[N,{WIDTH}] x) => (float[N,M] y) {{ {body} }}"
    graph = OnnxGraph(ir.serde.deserialize_model(models.parse(text, weights)), Path())
    graph.simplify()
    return graph


def uneven(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """A matrix whose rows are of different sizes."""
    sizes = np.exp(0.7 * np.random.default_rng(seed).standard_normal((rows, 1)))
    return (models.random(rows, columns, seed=seed + 1) * sizes).astype(np.float32)


def forward() -> OnnxGraph:
    return graph_of(FORWARD, up=models.random(WIDTH, 96), down=uneven(96, 24))


def fixed() -> OnnxGraph:
    return graph_of(FIXED, one=uneven(WIDTH, 24), two=uneven(WIDTH, 24) + models.random(WIDTH, 24, seed=5) / 9)


def feeds(seed: int = 3) -> Mapping[str, np.ndarray]:
    sizes = np.exp(np.random.default_rng(seed).standard_normal(WIDTH))
    return {"x": (models.random(50, WIDTH, seed=seed) * sizes).astype(np.float32)}


def run(graph: Graph, fed: Mapping[str, np.ndarray]) -> np.ndarray:
    return graph.runner(["x"], ["y"])(fed)["y"]


def names(graph: Graph) -> tuple[str, ...]:
    return tuple(weight.name for weight in graph.weights())


def context(graph: Graph, fed: Mapping[str, np.ndarray], encoding: Encoding = INT4) -> Context:
    found = layer_statistics(graph, Samples((dict(fed),), "drawn"), lambda *_: None, moments=names(graph)).moments
    return Context(grams=grams_of(found), encodings=dict.fromkeys(names(graph), encoding))


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= TOLERANCE * np.abs(other).max())


def output_error(graph: Graph, name: str, found: Context) -> float:
    weight = next(one for one in graph.weights() if one.name == name)
    matrix = graph.matrix(weight)
    noise = encode(matrix, INT4).decode() - matrix
    return float(np.vdot(noise @ found.grams[name], noise))


@given(SIZES, st.integers(2, 20))
@settings(max_examples=30, deadline=None)
def test_orders_are_permutations(sizes: list[float], tile: int) -> None:
    loads, still = np.array(sizes), np.arange(len(sizes))
    powers = np.random.default_rng(tile).uniform(0, 1, (2, len(sizes)))
    assert (np.diff(loads[descending(loads)]) <= 0).all()
    for order in (descending(loads), dealt(loads, tile), clustered(np.stack([loads, loads**2]), powers, tile)):
        np.testing.assert_array_equal(np.sort(order), still)


def test_dealt_tiles_weigh_the_same() -> None:
    loads = np.random.default_rng(0).uniform(0, 1, 128)
    tiles = loads[dealt(loads, 16)].reshape(-1, 16).sum(1)
    assert np.ptp(tiles) < 0.02 * tiles.mean() < np.ptp(loads.reshape(-1, 16).sum(1))


def test_clusters_do_not_mix_large_and_small() -> None:
    draw = np.random.default_rng(0)
    large = draw.permutation(36) < 16  # the last block of 4 is not whole
    moments = np.where(large, 1000.0, 1.0)[None] * draw.uniform(0.9, 1.1, 36)
    order = clustered(moments, np.ones((1, 36)), 8)
    assert [len(set(large[order[at : at + 8]])) for at in range(0, 36, 8)] == [1] * 5


def test_clusters_go_by_power_where_sizes_are_equal_to_it() -> None:
    """Of channels as large as their inputs are weak, the largest and weakest share a block."""
    powers = np.exp(np.random.default_rng(0).standard_normal((1, 32)))
    blocks = clustered(1 / powers, powers, 8).reshape(-1, 8)
    parts = sorted((powers[0, block] for block in blocks), key=np.mean)
    assert all(one.max() <= other.min() for one, other in pairwise(parts))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.by)
def test_a_hidden_layer_is_reordered_once(kind: Permute) -> None:
    graph, fed = forward(), feeds()
    after, (edit,) = kind.apply(graph, ("down",), context(graph, fed))
    assert (edit.refused, edit.layers) == (False, ("up", "down"))
    assert close(run(after, fed), run(graph, fed))
    old, new = (one.constant("down") for one in (graph, after))
    assert old is not None and new is not None
    assert {row.tobytes() for row in old} == {row.tobytes() for row in new}
    again, more = kind.apply(after, ("down",), context(after, fed))
    assert more == []
    np.testing.assert_array_equal(again.constant("down"), new)
    same, _ = kind.apply(graph, ("down",), context(graph, fed))
    np.testing.assert_array_equal(same.constant("down"), new)


@pytest.mark.parametrize("kind", [Magnitude(), Range(), Hessian()], ids=lambda kind: kind.by)
def test_blocks_are_rounded_better(kind: Permute) -> None:
    graph, fed = forward(), feeds()
    found = context(graph, fed)
    after, _ = kind.apply(graph, names(graph), found)
    moved = context(after, feeds(4))  # not the data that it was chosen by
    assert output_error(after, "down", moved) < 0.9 * output_error(graph, "down", context(graph, feeds(4)))


def judged(gram: np.ndarray, held: np.ndarray) -> Context:
    """What is known of the layer behind an activation: this on samples that were seen, that on those held out."""
    found = Moments((gram * 3 + held) / 4, 200, held, 50)
    return Context(grams={"down": found.gram}, moments={"down": found}, encodings={"up": INT4, "down": INT4})


def power_at(channel: int) -> np.ndarray:
    """A Gram matrix of inputs that are zero but for one channel."""
    return np.diag(np.arange(96) == channel).astype(np.float32)


@pytest.mark.parametrize("alone", range(0, 96, 24))
def test_no_order_loses_on_samples_held_out_reject(alone: int) -> None:
    """Only one channel has power on samples held out, and none on others: the order that these want is a loss to it."""
    graph, fed = graph_of(FORWARD, up=models.random(WIDTH, 96), down=models.random(96, 24, seed=3)), feeds()
    held = power_at(alone)
    seen = context(graph, fed).grams["down"] * (1 - held)
    after, _ = Hessian().apply(graph, ("down",), judged(seen, held))
    old, new = (one.constant("down") for one in (graph, after))
    assert old is not None and new is not None
    (place,) = np.flatnonzero((new == old[alone]).all(1))
    before, then = (Context(grams={"down": power_at(at)}) for at in (alone, int(place)))
    assert output_error(after, "down", then) <= output_error(graph, "down", before)


def test_an_order_is_found_by_samples_that_do_not_judge_it() -> None:
    graph, fed = forward(), feeds()
    gram = context(graph, fed).grams["down"]
    after, (edit,) = Hessian().apply(graph, ("down",), judged(gram, gram))
    same, (other,) = Hessian().apply(graph, ("down",), judged(gram, gram * 9))
    assert edit == other  # the errors are over the signal
    np.testing.assert_array_equal(after.constant("down"), same.constant("down"))


@pytest.mark.parametrize("kind", [Magnitude(), Range(), Hessian()], ids=lambda kind: kind.by)
def test_one_scale_for_a_row_needs_no_order_reject(kind: Permute) -> None:
    graph, fed = forward(), feeds()
    assert kind.apply(graph, ("down",), context(graph, fed, Blocked(IntGrid(4), CHANNEL)))[1] == []


def test_channels_of_an_input_are_fixed_reject() -> None:
    graph = fixed()
    (site,) = Magnitude().sites(graph, names(graph))
    assert site.refused and site.layers == ("one", "two")
    after, (edit,) = Magnitude().apply(graph, names(graph), Context())
    assert edit.refused and edit.text == site.refused
    np.testing.assert_array_equal(after.constant("one"), graph.constant("one"))


@pytest.mark.parametrize("kind", [Magnitude(True), Range(True), Hessian(True)], ids=lambda kind: kind.by)
def test_a_gather_serves_all_readers_of_a_value(kind: Permute) -> None:
    graph, fed = fixed(), feeds()
    assert [(site.layers, site.refused) for site in kind.sites(graph, names(graph))] == [(("one", "two"), "")]
    after, (edit,) = kind.apply(graph, names(graph), context(graph, fed))
    assert edit.layers == ("one", "two")
    assert len(after.ops()) == len(graph.ops()) + 1
    assert names(after) == names(graph)
    assert close(run(after, fed), run(graph, fed))
    assert kind.apply(after, names(after), context(after, fed))[1] == []


def test_a_gather_that_gains_little_is_left_out_reject() -> None:
    graph = graph_of(FIXED, one=models.random(WIDTH, 24), two=models.random(WIDTH, 24, seed=1))
    assert Magnitude(gather=True).apply(graph, names(graph), Context())[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("images", [False, True], ids=["tokens", "images"])
@given(data=st.data(), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_drawn_graphs_keep_their_function(images: bool, data: st.DataObject, seed: int) -> None:
    blocks = axes_models.IMAGE_BLOCKS if images else axes_models.TOKEN_BLOCKS
    graph = axes_models.chain(
        data.draw(st.lists(st.sampled_from(sorted(blocks)), min_size=1, max_size=4)), seed, images
    )
    fed = axes_models.feeds(images)
    wanted, found = run(graph, fed), context(graph, fed, Blocked(IntGrid(4), group(4)))
    for kind in (*ALL, Hessian(gather=True), Balance(3)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(channel_sites, "FEWEST", 2)
            after, edits = kind.apply(graph, names(graph), found)
            sites = {site.subject: site for site in kind.sites(graph, names(graph))}
        assert all(bool(sites[edit.subject].refused) == edit.refused for edit in edits)
        assert np.abs(run(after, fed) - wanted).max() <= 1e-4 * np.abs(wanted).max()  # through several layers


def test_heads_are_reordered_each_on_its_own() -> None:
    body = """
      h = MatMul(x, value) i = Reshape(h, split) j = Transpose<perm=[0,2,1,3]>(i) k = MatMul(mix, j)
      l = Transpose<perm=[0,2,1,3]>(k) m = Reshape(l, join) y = MatMul(m, out)
    """
    weights = {"value": models.random(WIDTH, 64), "out": uneven(64, 24), "mix": models.random(1, 2, 10, 10)}
    shapes = {"split": np.array([5, 10, 2, 32]), "join": np.array([50, 64])}
    graph, fed = graph_of(body, **weights, **shapes), feeds()
    after, _ = Magnitude().apply(graph, ("out",), context(graph, fed))
    assert close(run(after, fed), run(graph, fed))
    old, new = (one.constant("out") for one in (graph, after))
    assert old is not None and new is not None
    for head in (slice(0, 32), slice(32, 64)):
        assert {row.tobytes() for row in old[head]} == {row.tobytes() for row in new[head]}
