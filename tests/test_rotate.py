"""Rotations: the constructions are orthogonal and flat, means and the function stay, the same seed gives the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context
from qcc.passes.rotate.hadamard_matrix import flat_orthogonal, hadamard
from qcc.passes.rotate.rotate import GAIN_ADVICE, Hadamard, keeping_ones
from tests import onnx_models as models

ORDERS = [*range(2, 257), 384, 576, 768, 960, 1536, 1600]
HADAMARD = [12, 20, 28, 36, 44, 60, 76, 84, 200, 384, 576, 768, 960, 1152, 1280, 1536, 1600]
EXACT = 1e-10  # of double precision, over sums of 1600 terms
TOLERANCE = 1e-4  # of the largest output, in single precision
STREAM = """
  e = MatMul(x, into) a = MatMul(e, up) b = Relu(a) c = MatMul(b, down) s = Add(e, c)
  n = LayerNormalization<axis=-1>(s, gain) y = MatMul(n, out)
"""


def stream(width: int, gain: np.ndarray | None = None) -> OnnxGraph:
    """A residual stream with a feed-forward layer, a norm and a head."""
    shapes = {"into": (10, width), "up": (width, 40), "down": (40, width), "out": (width, 6)}
    weights = {name: models.random(*shape, seed=at) for at, (name, shape) in enumerate(shapes.items())}
    weights["gain"] = np.ones(width, np.float32) if gain is None else gain
    body = f"g (float[N,10] x) => (float[N,6] y) {{ {STREAM} }}"
    graph = OnnxGraph(ir.serde.deserialize_model(models.parse(body, weights)), Path())
    graph.simplify()
    return graph


def names(graph: Graph) -> tuple[str, ...]:
    return tuple(weight.name for weight in graph.weights())


def run(graph: Graph) -> np.ndarray:
    feeds = {"x": models.random(5, 10, seed=9)}
    return graph.runner(["x"], ["y"])(feeds)["y"]


def residual(graph: Graph) -> Group:
    return next(group for group in Axes.of(graph).groups(Action.ROTATE) if "down" in group.writers)


def orthogonal(matrices: np.ndarray) -> bool:
    product = matrices @ matrices.swapaxes(-1, -2)
    return bool(np.abs(product - np.eye(matrices.shape[-1])).max() < EXACT)


@pytest.mark.sampled
@pytest.mark.parametrize("order", ORDERS)
def test_matrices_are_orthogonal_and_flat(order: int) -> None:
    matrix = flat_orthogonal(order)
    assert orthogonal(matrix)
    assert np.abs(matrix).max() <= np.sqrt(2 / order) + EXACT


@pytest.mark.slow
@pytest.mark.parametrize("order", HADAMARD)
def test_common_sizes_have_a_hadamard_matrix(order: int) -> None:
    matrix = hadamard(order)
    assert matrix is not None
    assert set(np.unique(matrix)) == {-1, 1}
    whole = matrix.astype(np.float64)  # sums of up to 1600 ones are exact
    np.testing.assert_array_equal(whole @ whole.T, order * np.eye(order))


@pytest.mark.parametrize("order", [0, 3, 6, 18, 50, 52])
def test_others_have_none_reject(order: int) -> None:
    assert hadamard(order) is None


@pytest.mark.slow
@given(st.integers(2, 96), st.integers(0, 9), st.sampled_from([(), (3,), (2, 2)]))
@settings(max_examples=40, deadline=None)
def test_ones_can_be_kept(size: int, seed: int, contexts: Sequence[int]) -> None:
    group = Group(Action.ROTATE, "g", size, tuple(contexts), (), keeps_mean=True)
    matrices = Hadamard(seed).matrices(group)
    assert matrices.shape == (*contexts, size, size)
    assert orthogonal(matrices)
    np.testing.assert_allclose(matrices.sum(-1), 1, atol=EXACT * size)


def test_what_keeps_ones_stays() -> None:
    np.testing.assert_allclose(keeping_ones(np.eye(8)), np.eye(8))


def test_signs_depend_on_seed_and_name_alone() -> None:
    one = Group(Action.ROTATE, "one", 32, (2,), ())
    other = Group(Action.ROTATE, "other", 32, (2,), ())
    first = Hadamard(1).matrices(one)
    np.testing.assert_array_equal(first, Hadamard(1).matrices(one))
    assert (first != Hadamard(2).matrices(one)).any()
    assert (first != Hadamard(1).matrices(other)).any()
    assert (first[0] != first[1]).any()


@pytest.mark.slow
@given(st.integers(16, 80), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_a_residual_stream_is_rotated(width: int, seed: int) -> None:
    graph = stream(width)
    wanted = run(graph)
    assert residual(graph).keeps_mean
    after, edits = Hadamard(seed).apply(graph, names(graph), Context())
    treated = [edit for edit in edits if not edit.refused]
    assert [set(edit.layers) for edit in treated] == [{"into", "up", "down", "out"}]
    assert np.abs(run(after) - wanted).max() <= TOLERANCE * np.abs(wanted).max()
    np.testing.assert_array_equal(run(graph), wanted)
    assert [edit.text for edit in edits if edit.refused] == ["`" + relu(graph) + "` is not linear"]


def relu(graph: Graph) -> str:
    return next(op.name for op in graph.ops() if op.function == "relu")


def test_outliers_are_shared_out() -> None:
    graph = stream(64)
    into = models.random(10, 64, seed=7)
    into[:, 5] *= 100
    graph.replace_constant("into", into)
    after, _ = Hadamard().apply(graph, names(graph), Context())
    matrix = after.constant("into")
    assert matrix is not None
    assert np.abs(into).max() / np.std(into) > 3 * np.abs(matrix).max() / np.std(matrix)


def test_a_gain_is_in_the_way_reject() -> None:
    graph = stream(32, np.linspace(0.5, 2, 32, dtype=np.float32))
    sites = {site.subject: site for site in Hadamard().sites(graph, ("up", "out"))}
    refused = sites[residual(graph).name].refused
    assert refused.endswith(GAIN_ADVICE)
    after, edits = Hadamard().apply(graph, names(graph), Context())
    assert all(edit.refused for edit in edits)
    np.testing.assert_array_equal(run(after), run(graph))


def test_small_groups_and_those_without_a_target_are_left_reject() -> None:
    assert Hadamard().sites(stream(8), ("up",)) == []
    assert Hadamard().sites(stream(32), ("into",)) == []
