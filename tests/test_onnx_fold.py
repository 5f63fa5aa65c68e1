"""Constants made of constants: computed where that makes the file no larger, as the runtime would compute them."""

from pathlib import Path

import numpy as np
import pytest

from qcc.ir.graph.ops import Array
from tests.onnx_models import Case, loaded, random

X = random(5, 64, seed=1)
BODY = "g (float[N,64] x) => (float[N,M] y) { NODES }"
V, G = random(64, 96), random(1, 96)

FOLDED: dict[str, tuple[str, dict[str, Array]]] = {
    "weight_norm": (
        "n = ReduceL2 <axes=[0]> (w) u = Div(w, n) a = Mul(u, g) y = MatMul(x, a)",
        {"w": V, "g": G},
    ),
    "halves": ("a = Concat <axis=1> (w, v) y = MatMul(x, a)", {"w": V, "v": random(64, 32)}),
    "part": (
        "a = Slice (w, zero, many, one) y = MatMul(x, a)",
        {"w": V, "zero": np.array([0]), "many": np.array([90])},
    ),
    "reshaped": ("a = Transpose (w) b = Reshape (a, s) y = MatMul(x, b)", {"w": V, "s": np.array([64, 96])}),
    "flat": ("a = Reshape (w, s) y = MatMul(x, a)", {"w": V.reshape(-1), "s": np.array([64, 96])}),
    "scaled": ("k = Sqrt (c) a = Mul (w, k) y = MatMul(x, a)", {"w": V, "c": np.array(4, np.float32)}),
}
LEFT: dict[str, tuple[str, dict[str, Array]]] = {
    "spread": ("a = Expand (w, s) y = MatMul(x, a)", {"w": random(64, 1), "s": np.array([64, 4096])}),
    "filled": ("a = ConstantOfShape (s) y = MatMul(x, a)", {"s": np.array([64, 4096])}),
    "tiled": ("a = Tile (w, s) y = MatMul(x, a)", {"w": V, "s": np.array([1, 16])}),
    "cast": ("a = Cast <to=1> (w) y = MatMul(x, a)", {"w": V.astype(np.int8)}),
    "drawn": ("a = RandomNormalLike (w) y = MatMul(x, a)", {"w": V}),
    "read_too": ("a = Mul (w, g) b = MatMul(x, a) c = MatMul(x, w) y = Add (b, c)", {"w": V, "g": G}),
    "tied": ("a = Transpose (w) b = MatMul(x, w) y = MatMul(b, a)", {"w": V}),
}


def _case(nodes: str, weights: dict[str, Array]) -> Case:
    return Case(BODY.replace("NODES", nodes), weights | {"one": np.array([1])}, {"x": X})


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_computed_becomes_a_weight_of_the_same_name(name: str, tmp_path: Path) -> None:
    case = _case(*FOLDED[name])
    before = loaded(case, tmp_path).runner(["x"], ["y"])(case.feeds)["y"]
    graph = loaded(case, tmp_path)
    assert [op.function for op in graph.ops()] == ["linear"]
    (weight,) = graph.weights()
    assert weight.constant == ("a" if name == "halves" else "w")
    assert np.array_equal(graph.runner(["x"], ["y"])(case.feeds)["y"], before)


def test_a_scalar_stays_a_scalar(tmp_path: Path) -> None:
    body = (
        "g (float[N,64] x) => (float[N,M] y, int64[K] r) "
        "{ zero = Squeeze (first) one = Squeeze (second) n = Size (x) r = Range (zero, n, one) y = MatMul(x, w) }"
    )
    constants: dict[str, Array] = {"w": V, "first": np.array([0]), "second": np.array([1])}
    case = Case(body, constants, {"x": X})
    graph = loaded(case, tmp_path)
    assert [op.function for op in graph.ops()] == ["Size", "range", "linear"]
    assert np.array_equal(graph.runner(["x"], ["r"])(case.feeds)["r"], np.arange(X.size))


@pytest.mark.parametrize("name", LEFT)
def test_what_would_be_larger_or_drawn_stays_reject(name: str, tmp_path: Path) -> None:
    case = _case(*LEFT[name])
    assert len(loaded(case, tmp_path).ops()) == case.body.count(" = ")


def test_what_the_runtime_would_compute_is_what_is_stored(tmp_path: Path) -> None:
    graph = loaded(_case(*FOLDED["weight_norm"]), tmp_path)
    (weight,) = graph.weights()
    stored = graph.constant(weight.constant)
    assert stored is not None
    wanted = V / np.sqrt((V * V).sum(0, keepdims=True)) * G
    assert np.abs(stored - wanted).max() < 1e-6 * np.abs(wanted).max()  # sums of 64 squares in float32
