"""Sessions that read a graph's constants in place: the same results, and the graph stays as it is."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.graph import lend as onnx_lend
from tests import onnx_models as models

BODY = "g (float[N,256] x) => (float[N,256] y) { h = MatMul(x, w) y = Add(h, b) }"


@pytest.fixture
def graph(tmp_path: Path) -> OnnxGraph:
    path = tmp_path / "model.onnx"
    onnx.save(models.parse(BODY, {"w": models.random(256, 256), "b": models.random(256)}), path)
    return OnnxGraph.load(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_lies_in_memory_is_read_in_place(graph: OnnxGraph, order: str) -> None:
    changed = graph.copy()
    matrix = np.array(models.random(256, 256, seed=3), order=order)  # type: ignore[call-overload]
    changed.replace_constant("w", matrix)
    x = models.random(4, 256)
    got = changed.runner(["x"], ["y"])({"x": x})["y"]
    np.testing.assert_allclose(got, x @ matrix + models.random(256), atol=1e-3)  # sums of 256 terms of about 1
    assert isinstance(changed.model.graph.initializers["w"].const_value, ir.Tensor)
    np.testing.assert_array_equal(changed.constant("w"), matrix)


def test_only_what_is_large_is_lent(graph: OnnxGraph) -> None:
    graph.replace_constant("w", models.random(256, 256, seed=3))
    graph.replace_constant("b", models.random(256, seed=3))
    assert set(onnx_lend.take_out(graph.copy().model.graph, graph.folder, ())) == {"w"}
    assert onnx_lend.take_out(graph.copy().model.graph, graph.folder, ("w",)) == {}


def test_a_lent_constant_outlives_its_graph(graph: OnnxGraph) -> None:
    graph.replace_constant("w", models.random(256, 256, seed=3))
    x = models.random(4, 256)
    runner = graph.runner(["x"], ["y"])
    first = runner({"x": x})["y"]
    graph.replace_constant("w", np.zeros((256, 256), np.float32))
    np.testing.assert_array_equal(runner({"x": x})["y"], first)


def test_a_free_constant_stays_free(graph: OnnxGraph) -> None:
    graph.replace_constant("w", models.random(256, 256, seed=3))
    x = models.random(4, 256)
    zero = graph.runner(["x"], ["y"], ["w"])({"x": x, "w": np.zeros((256, 256), np.float32)})["y"]
    np.testing.assert_array_equal(zero, np.broadcast_to(models.random(256), zero.shape))
