"""Windows of a convolution's input: its matrix multiplies them as the op does, and statistics are of them."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.statistics import layer_statistics
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph.windows import MOST, Windows
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context
from qcc.passes.rounding.gptq import Gptq
from qcc.passes.rounding.nearest import Nearest
from tests.onnx_models import parse, random
from tests.test_static_conv import CASES, cleaned

WHOLE = {"1d", "2d", "3d", "point", "dilated", "no_bias", "same"}
"""Of one group, and pads that are said."""


def layer_of(graph: OnnxGraph) -> tuple[Windows | None, np.ndarray]:
    (weight,) = graph.weights()
    ops = {op.name: op for op in graph.ops()}
    return Windows.of(ops[weight.layers[0].op], weight.layers[0]), graph.matrix(weight)


@pytest.mark.parametrize("name", CASES)
def test_a_matrix_multiplies_windows_as_the_op_does(name: str) -> None:
    graph, x = CASES[name].graph(), CASES[name].feed()
    windows, matrix = layer_of(graph)
    assert (windows is not None) == (name in WHOLE or name in ("relu", "relu6"))
    if windows is None:
        return
    (weight,) = graph.weights()
    made = graph.runner(["x"], [weight.layers[0].output])({"x": x})[weight.layers[0].output]
    bias = graph.constant("b") if CASES[name].bias else 0
    flat = made.reshape(*made.shape[:2], -1)
    picked = np.unique(np.linspace(0, flat.shape[-1] - 1, min(MOST, flat.shape[-1])).astype(int))
    wanted = flat[..., picked].swapaxes(1, 2).reshape(-1, len(matrix))
    found = windows.rows(x) @ matrix.T + bias
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_an_input_smaller_than_a_window_has_none() -> None:
    assert Windows((5,), (1,), (1,), (0,), (0,)).rows(np.zeros((2, 3, 4), np.float32)).shape == (0, 15)


@pytest.fixture
def graph(tmp_path: Path) -> OnnxGraph:
    text = "g (float[n, 6, 8, 8] x) => (float[n, c, k, l] y) { a = Conv(x, w) r = Relu(a) y = Conv <group = 8> (r, d) }"
    arrays = {"w": random(8, 6, 3, 3), "d": random(8, 1, 3, 3, seed=1)}
    onnx.save(parse(text, arrays, opset=21, ir_version=10), tmp_path / "g.onnx")
    return cleaned(tmp_path / "g.onnx")


def test_moments_are_of_windows_and_gptq_rounds_by_them(graph: OnnxGraph) -> None:
    """Neighbours in a smooth image are alike: what one weight loses, its neighbour makes up for."""
    x = np.cumsum(np.cumsum(random(40, 6, 8, 8, seed=3), 2), 3).astype(np.float32)
    first, grouped = graph.weights()
    samples = Samples(tuple({"x": one[None]} for one in x), "test")
    found = layer_statistics(graph, samples, lambda *_: None, moments=[first.name, grouped.name]).moments
    assert set(found) == {first.name} and found[first.name].gram.shape == (54, 54)
    windows = Windows((3, 3), (1, 1), (1, 1), (0, 0), (0, 0))
    rows = windows.rows(x).astype(np.float64)
    assert found[first.name].rows == len(rows)
    gram = rows.T @ rows / len(rows)
    np.testing.assert_allclose(found[first.name].gram, gram, atol=1e-5 * np.abs(gram).max())  # sums in float32
    context = Context(grams={first.name: found[first.name].gram}, moments=found)
    matrix, int4 = graph.matrix(first), Blocked(IntGrid(4))
    errors = [
        float(np.linalg.norm(rows @ (how.encode(first, matrix, int4, context).decode() - matrix).T))
        for how in (Gptq(), Nearest())
    ]
    assert errors[0] < 0.6 * errors[1]
