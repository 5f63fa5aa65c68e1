"""Raising the opset: every op that is written otherwise later goes on to compute what it did, and nodes stay theirs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.defs
import pytest

from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Array
from qcc.ir.model.options import MOST_RAISED
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.adapters import ADAPTERS
from tests.onnx_models import parse, random

X = "float[2,3,4,6] x"
Y = "float[A,B,C,D] y"
IDS = np.array([[0, 2, 1]])


def _floats(numbers: list[float]) -> Array:
    return np.array(numbers, np.float32)


CASES: dict[str, tuple[int, str, str, str, Mapping[str, Array]]] = {
    "add": (7, X, Y, "y = Add(x, x)", {}),
    "average_pool": (10, X, Y, "y = AveragePool <kernel_shape=[2,2], pads=[1,1,1,1]> (x)", {}),
    "average_pool ceil": (10, X, Y, "y = AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (x)", {}),
    "batch_norm": (7, X, Y, "y = BatchNormalization (x, a, b, c, d)", {k: abs(random(3, seed=3)) for k in "abcd"}),
    "clip": (10, X, Y, "y = Clip <min=-0.5, max=0.25> (x)", {}),
    "clip below": (6, X, Y, "y = Clip <max=0.25> (x)", {}),
    "clip none": (10, X, Y, "y = Clip(x)", {}),
    "concat": (4, X, Y, "y = Concat <axis=2> (x, x)", {}),
    "dropout": (11, X, Y, "y = Dropout <ratio=0.3> (x)", {}),
    "dropout 7": (7, X, Y, "y = Dropout <ratio=0.3> (x)", {}),
    "grid_sample": (16, X, Y, 'y = GridSample <mode="bicubic"> (x, g)', {"g": random(2, 5, 5, 2) / 2}),
    "grid_sample default": (16, X, Y, "y = GridSample (x, g)", {"g": random(2, 5, 5, 2) / 2}),
    "group_norm": (
        18,
        "float[2,6,4] x",
        Y,
        "y = GroupNormalization <num_groups=3> (x, a, b)",
        {"a": random(3), "b": random(3, seed=1)},
    ),
    "hardmax": (11, X, Y, "y = Hardmax <axis=2> (x)", {}),
    "log_softmax": (12, X, Y, "y = LogSoftmax <axis=1> (x)", {}),
    "lp_pool": (2, X, Y, "y = LpPool <kernel_shape=[2,2], p=1> (x)", {}),
    "max_pool": (1, X, Y, "y = MaxPool <kernel_shape=[2,2]> (x)", {}),
    "pad": (2, X, Y, "y = Pad <pads=[0,0,1,1,0,0,1,2]> (x)", {}),
    "pad value": (10, X, Y, "y = Pad <pads=[0,0,1,1,0,0,1,2], value=1.5> (x)", {}),
    "pad reflect": (10, X, Y, 'y = Pad <mode="reflect", pads=[0,0,1,1,0,0,1,2]> (x)', {}),
    "reduce_all": (12, X, Y, "y = ReduceSum(x)", {}),
    "reduce_mean": (13, X, Y, "y = ReduceMean <axes=[1,-1], keepdims=0> (x)", {}),
    "reduce_sum": (12, X, Y, "y = ReduceSum <axes=[1,3]> (x)", {}),
    "relu": (6, X, Y, "y = Relu(x)", {}),
    "resize down": (10, X, Y, "y = Resize(x, s)", {"s": _floats([1, 1, 0.7, 0.4])}),
    "resize linear": (10, X, Y, 'y = Resize <mode="linear"> (x, s)', {"s": _floats([1, 1, 1.7, 2.3])}),
    "resize linear down": (10, X, Y, 'y = Resize <mode="linear"> (x, s)', {"s": _floats([1, 1, 0.7, 1.3])}),
    "resize up": (10, X, Y, "y = Resize(x, s)", {"s": _floats([1, 1, 1.7, 2.3])}),
    "resize both": (10, X, Y, "y = Resize(x, s)", {"s": _floats([1, 1, 1.7, 0.4])}),
    "resize made": (10, X, Y, "t = Mul(s, s) y = Resize(x, t)", {"s": _floats([1, 1, 1.3, 0.7])}),
    "roi_align": (
        10,
        X,
        Y,
        "y = RoiAlign <output_height=2, output_width=2> (x, r, i)",
        {"r": _floats([0, 0, 3, 2, 1, 1, 4, 3]).reshape(2, 4), "i": np.array([0, 1])},
    ),
    "scatter": (
        10,
        X,
        Y,
        "y = Scatter <axis=3> (x, i, u)",
        {"i": np.zeros((2, 3, 4, 1), np.int64), "u": random(2, 3, 4, 1)},
    ),
    "slice": (9, X, Y, "y = Slice <starts=[1,-4], ends=[3,-1], axes=[1,3]> (x)", {}),
    "slice front": (9, X, Y, "y = Slice <starts=[1,1], ends=[2,3]> (x)", {}),
    "softmax default": (12, X, Y, "y = Softmax(x)", {}),
    "softmax flattening": (11, "float[A,B,C] x", "float[A,B,C] y", "y = Softmax <axis=1> (x)", {}),
    "softmax last": (9, X, Y, "y = Softmax <axis=3> (x)", {}),
    "softmax of an unknown rank": (11, X, Y, "s = Shape(x) r = Reshape(x, s) y = Softmax <axis=2> (r)", {}),
    "split": (12, X, Y, "a, y = Split <axis=3, split=[2,4]> (x)", {}),
    "split even": (12, X, Y, "a, y = Split <axis=3> (x)", {}),
    "split 17": (17, X, Y, "a, y = Split <axis=3> (x)", {}),
    "squeeze": (12, "float[2,1,4,1] x", Y, "y = Squeeze <axes=[1]> (x)", {}),
    "squeeze all": (12, "float[2,1,4,1] x", Y, "y = Squeeze(x)", {}),
    "top_k": (9, X, Y, "y, i = TopK <k=2> (x)", {}),
    "unsqueeze": (12, X, Y, "y = Unsqueeze <axes=[0,3]> (x)", {}),
    "upsample 7": (7, X, Y, "y = Upsample <scales=[1.0,1.0,1.7,2.3]> (x)", {}),
    "upsample 7 linear": (7, X, Y, 'y = Upsample <mode="linear", scales=[1.0,1.0,1.7,2.3]> (x)', {}),
    "upsample 9": (9, X, Y, "y = Upsample(x, s)", {"s": _floats([1, 1, 1.7, 2.3])}),
    "dft": (17, "float[2,8,1] x", Y, "y = DFT(x)", {}),
}
TARGETS = (18, 21, MOST_RAISED)
UNKNOWN = {("roi_align", MOST_RAISED)}  # the runtime lacks it there


def _graph(opset: int, inputs: str, outputs: str, nodes: str, weights: Mapping[str, Array], folder: Path) -> OnnxGraph:
    model = parse(f"g ({inputs}) => ({outputs}) {{ {nodes} }}", weights, opset)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    onnx.save(model, folder / "model.onnx")
    return OnnxGraph.load(folder / "model.onnx")


@pytest.mark.sampled
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_what_is_written_otherwise_computes_the_same(name: str, target: int, tmp_path: Path) -> None:
    if (name, target) in UNKNOWN:
        pytest.skip("the runtime has no such op")
    graph = _graph(*CASES[name], tmp_path)
    raised = graph.copy()
    raised.require_opset(target)
    assert raised.opset == max(target, CASES[name][0])
    shape = tuple(size if isinstance(size, int) else at + 2 for at, size in enumerate(graph.inputs[0].shape or ()))
    feeds = {"x": random(*shape, seed=5)}
    (wanted,) = graph.runner(["x"], ["y"], optimise=False)(feeds).values()
    (got,) = raised.runner(["x"], ["y"], optimise=False)(feeds).values()
    np.testing.assert_allclose(got, wanted, atol=1e-6)  # the same kernels on the same numbers


@pytest.mark.parametrize("scale", np.random.default_rng(0).uniform(0.2, 3, 12).round(3))
@pytest.mark.parametrize("opset", [9, 10])
def test_the_nearest_element_stays_the_nearest(opset: int, scale: float, tmp_path: Path) -> None:
    op = "Upsample" if opset == 9 else "Resize"
    if opset == 9 and scale < 1:
        scale += 1  # it only grows
    weights = {"s": _floats([1, scale])}
    graph = _graph(opset, "float[1,97] x", "float[A,B] y", f"y = {op}(x, s)", weights, tmp_path)
    raised = graph.copy()
    raised.require_opset(18)
    feeds = {"x": np.arange(97, dtype=np.float32)[None]}
    (wanted,), (got,) = (one.runner(["x"], ["y"])(feeds).values() for one in (graph, raised))
    np.testing.assert_array_equal(got, wanted)


REFUSED = {
    "statistics for each place": (8, "y = BatchNormalization <spatial=0> (x, a, b, c, d)", "for each place"),
    "a mask that is read": (9, "y, m = Dropout(x) n = Mul(m, x) z = Add(n, y)", "otherwise"),
    "what opset 1 broadcasts": (6, "y = Add <broadcast=1> (x, a)", "no `broadcast` any more"),
    "a cast to a name": (5, 'y = Cast <to="FLOAT"> (x)', "another type"),
    "a scale of an image": (6, "y = Upsample <height_scale=2.0, width_scale=2.0> (x)", "any more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_equivalent_is_refused_and_nothing_is_changed(name: str, tmp_path: Path) -> None:
    opset, nodes, words = REFUSED[name]
    graph = _graph(opset, X, Y, nodes, {key: random(3, 4, 6) for key in "abcd"}, tmp_path)
    before = [(op.name, op.function, op.inputs, op.outputs) for op in graph.ops()]
    with pytest.raises(ModelError, match=words) as caught:
        graph.require_opset(18)
    assert caught.value.code == "Q407"
    assert graph.opset == opset
    assert [(op.name, op.function, op.inputs, op.outputs) for op in graph.ops()] == before


def test_nodes_that_have_no_names_keep_their_layers(tmp_path: Path) -> None:
    nodes = "s = Softmax <axis=1> (x) h = MatMul(s, w) t = Softmax <axis=1> (h) y = MatMul(t, v)"
    weights = {"w": random(8, 9), "v": random(9, 7)}
    graph = _graph(11, "float[A,2,8] x", "float[A,B,C] y", nodes, weights, tmp_path)
    before = [(weight.name, weight.constant, weight.layers) for weight in graph.weights()]
    graph.require_opset(21)
    assert [(weight.name, weight.constant, weight.layers) for weight in graph.weights()] == before
    names = {op.name: op for op in graph.ops()}
    assert [names[weight.layers[0].op].inputs[1] for weight in graph.weights()] == ["w", "v"]


def test_ops_of_one_definition_are_not_told_as_changed(tmp_path: Path) -> None:
    graph = _graph(18, X, Y, 'y = Einsum <equation="abcd->dcba"> (x)', {}, tmp_path)
    assert graph.require_opset(21) == ()
    graph = _graph(17, X, Y, "y = ReduceMean(x)", {}, tmp_path)
    assert graph.require_opset(21) == ("ReduceMean",)


def test_every_change_of_a_definition_has_an_adapter_or_needs_none() -> None:
    """An attribute that goes, and an input that is new and required, are what no default can bridge."""
    gaps = set()
    schemas = {(one.name, one.since_version): one for one in onnx.defs.get_all_schemas_with_history() if not one.domain}
    for (name, version), new in schemas.items():
        if not 7 < version <= MOST_RAISED or not onnx.defs.has(name, version - 1):
            continue
        old = onnx.defs.get_schema(name, version - 1, "")
        lost = set(old.attributes) - set(new.attributes)
        if lost or new.deprecated or old.min_input < new.min_input or old.max_output > new.max_output:
            gaps.add((name, version))
    assert gaps <= set(ADAPTERS)
