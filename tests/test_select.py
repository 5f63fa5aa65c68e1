"""Channels are cut as if their weights were zero: the fourth action of the axes, alike in both adapters."""

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import example, given, settings
from torch import nn
from torch.export import Dim

from qcc.ir.axes.axes import Action, Axes
from qcc.ir.errors import Refused
from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.infer import InferTypes
from tests import axes_models as models
from tests.onnx_models import parse, random
from tests.torch_export import to_onnx

TOLERANCE = 1e-5  # of the largest value: sums of the same terms, in another order without the zeros


def _check(graph: Graph, feeds: models.Feeds, seed: int) -> Graph:
    """Cut something from every group at once, and compare with zeros in its place."""
    cut, masked = graph.copy(), graph.copy()
    for changed, zeros in ((cut, False), (masked, True)):
        axes, rng = Axes.of(changed), np.random.default_rng(seed)
        free = [group for group in axes.groups(Action.SELECT) if not group.fixed]
        kept = {group: models.drawn_change(group, rng) for group in free}
        (axes.mask if zeros else axes.cut)(kept)
    wanted, got = _run(masked, feeds), _run(cut, feeds)
    assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max()
    params = [sum(weight.params for weight in one.weights()) for one in (cut, graph)]
    assert params[0] < params[1] or all(stays.all() for stays in kept.values())
    return cut


def _parsed(text: str, arrays: dict[str, np.ndarray]) -> OnnxGraph:
    graph = OnnxGraph(ir.serde.deserialize_model(parse(text, arrays, opset=18)), Path())
    InferTypes()(graph.model)
    return graph


def _run(graph: Graph, feeds: models.Feeds) -> np.ndarray:
    output = graph.outputs[0].name
    return graph.runner(list(feeds), [output])(feeds)[output]


@pytest.mark.slow
@given(st.lists(st.sampled_from(sorted(models.TOKEN_BLOCKS)), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
@example(["fused", "grouped_query", "uneven"], 0)
def test_what_is_cut_was_zero_over_tokens(kinds: list[str], seed: int) -> None:
    _check(models.chain(kinds, seed), models.feeds(), seed)


@pytest.mark.slow
@given(st.lists(st.sampled_from(sorted(models.IMAGE_BLOCKS)), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
@example(["group_norm", "shuffled", "joined"], 0)  # shapes are not inferred behind a group norm
def test_what_is_cut_was_zero_over_images(kinds: list[str], seed: int) -> None:
    _check(models.chain(kinds, seed, images=True), models.feeds(images=True), seed)


FREE: dict[str, list[int]] = {
    "residual": [16],
    "feedforward": [16, 24],
    "layer_norm": [16],  # behind the gain
    "rms_norm": [],
    "softmax": [16, 16],  # not the shares themselves
    "halves": [8],
    "strided": [],
    "attention": [4, 4, 4, 16],  # heads, channels of a head in scores and in values
    "similar": [16],
}


@pytest.mark.parametrize("kind", FREE)
def test_what_may_be_cut(kind: str) -> None:
    groups = Axes.of(models.chain([kind], 0)).groups(Action.SELECT)
    assert sorted(group.size for group in groups if not group.fixed and group.constants) == FREE[kind]


@pytest.mark.parametrize(("kind", "reason"), [("layer_norm", "counts or compares"), ("softmax", "counts or compares")])
def test_the_reason_says_what_holds(kind: str, reason: str) -> None:
    groups = Axes.of(models.chain([kind], 0)).groups(Action.SELECT)
    assert any(reason in group.fixed for group in groups)


def test_a_sum_of_what_does_not_vanish_holds() -> None:
    text = """summed (float[n,4] x) => (float[n,3] y) {{
        h = MatMul(x, w)
        s = {function}(h)
        t = {end}
        y = MatMul(t, v)
    }}"""
    for function, end, free in (
        ("Sigmoid", "Identity(s)", True),
        ("Sigmoid", "ReduceSum<keepdims=1>(s, last)", False),
        ("Tanh", "ReduceSum<keepdims=1>(s, last)", False),
        ("Relu", "ReduceSum<keepdims=1>(s, last)", True),
        ("Relu", "ReduceMean<keepdims=1>(s, last)", False),
        ("Relu", "ReduceMax<keepdims=1>(s, last)", False),
    ):
        inner = 8 if end.startswith("Identity") else 1
        arrays = {"w": random(4, 8), "v": random(inner, 3), "last": np.array([1])}
        graph = _parsed(text.format(function=function, end=end), arrays)
        groups = Axes.of(graph).groups(Action.SELECT)
        assert any(group.size == 8 and not group.fixed for group in groups) == free, (function, end)


class Net(nn.Module):
    """A residual stream of images with a depthwise layer and a norm, then heads of attention over its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 12, 1, groups=2)
        self.point = nn.Conv2d(12, 8, 1)
        self.inner = nn.Linear(8, 3 * 12)
        self.out = nn.Linear(12, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        x = x + self.point(torch.relu(self.twice(torch.sigmoid(self.norm(self.deep(x))))))
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in self.inner(tokens).chunk(3, -1))
        mixed = ((q @ k.transpose(-1, -2)) / 2).softmax(-1) @ v
        joined = mixed.transpose(1, 2).reshape(-1, 16, 12)
        result: torch.Tensor = self.out(torch.cat([joined[..., :4], joined[..., 4:].tanh()], -1)).mean(1)
        return result


@pytest.fixture(scope="module", params=["fx", "onnx"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    torch.manual_seed(0)
    module, example_, shapes = Net().eval(), (torch.zeros(2, 3, 6, 6),), ({0: Dim("batch")},)
    if request.param == "fx":
        made: Graph = FxGraph.export(module, example_, dynamic_shapes=shapes)
    else:
        path = tmp_path_factory.mktemp("select") / "model.onnx"
        to_onnx(module, example_, path, dynamic_shapes=shapes, external_data=False)
        made = OnnxGraph.load(path)
    made.simplify()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_both_adapters_cut(graph: Graph, seed: int) -> None:
    feeds = {"image": np.random.default_rng(0).standard_normal((3, 3, 6, 6)).astype(np.float32)}
    before = [str(graph.ops()), [weight.shape for weight in graph.weights()]]
    cut = _check(graph, feeds, seed)
    assert [str(graph.ops()), [weight.shape for weight in graph.weights()]] == before
    names = [[layer.name for weight in one.weights() for layer in weight.layers] for one in (cut, graph)]
    assert names[0] == names[1]
    cut.simplify()
    _run(cut, feeds)


@pytest.mark.slow
def test_both_adapters_find_the_same(graph: Graph) -> None:
    free = [group for group in Axes.of(graph).groups(Action.SELECT) if not group.fixed and group.constants]
    assert [(group.size, group.writers, group.readers) for group in free] == [
        (2, ("stem", "deep", "twice", "point"), ("point", "inner")),
        (4, ("stem", "deep", "point"), ("twice", "inner")),
        (6, ("twice",), ("point",)),
        (2, ("inner",), ("out",)),  # heads behind the first, which a slice cuts off
        (4, ("inner",), ()),
        (4, ("inner",), ("out",)),
    ]


def test_a_past_without_a_position_is_cut_and_is_no_member() -> None:
    """A model that starts without a past joins an empty constant: its channels go, and none can be read there."""
    text = """past (float[n,3,6] x) => (float[n,3,6] y) {
        [h] h = MatMul(x, w)
        [one] one = Reshape(h, whole)
        [all] all = Concat<axis=0>(none, one)
        [shifted] shifted = Add(all, b)
        [y1] y1 = MatMul(shifted, v)
        [y] y = Reshape(y1, back)
    }"""
    arrays = {"w": random(6, 8), "v": random(8, 6, seed=1), "b": random(8), "none": np.zeros((0, 8), np.float32)}
    arrays |= {"whole": np.array([-1, 8]), "back": np.array([-1, 3, 6])}
    graph = _parsed(text, arrays)
    free = [group for group in Axes.of(graph).groups(Action.SELECT) if not group.fixed and group.size == 8]
    assert [[one.value for one in group.constants] for group in free] == [["w", "b", "v"]]
    cut = _check(graph, {"x": random(2, 3, 6)}, 0)
    none, w, v = (cut.constant(name) for name in ("none", "w", "v"))
    assert none is not None and w is not None and v is not None
    assert (none.shape, v.shape[1]) == ((0, w.shape[1]), 6)


def test_types_that_disagree_hold_channels() -> None:
    """A value that is said to have other sizes than its op makes is none whose channels can be cut."""
    text = """other (float[n,6] x) => (float[n,6] y) <float[n,7] h> {
        [h] h = MatMul(x, w)
        [r] r = Relu(h)
        [y] y = MatMul(r, v)
    }"""
    model = parse(text, {"w": random(6, 8), "v": random(8, 6, seed=1)}, opset=18)
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    assert all(group.fixed for group in Axes.of(graph).groups(Action.SELECT) if group.constants)


def test_what_is_fixed_or_empty_is_no_selection() -> None:
    axes = Axes.of(models.chain(["linear"], 0))
    groups = axes.groups(Action.SELECT)
    fixed, free = next(one for one in groups if one.fixed), next(one for one in groups if not one.fixed)
    for group, stays, message in (
        (fixed, np.ones(fixed.size, bool), "nothing can be cut"),
        (free, np.zeros(free.size, bool), "takes"),
        (free, np.ones(free.size), "takes"),
        (free, np.ones(free.size + 1, bool), "takes"),
    ):
        with pytest.raises(ValueError, match=message):
            axes.cut({group: stays})


def test_a_target_that_is_computed_of_its_channels_is_refused_and_nothing_changes() -> None:
    """The size is written twice: as a number that is joined, and as one that is computed from another constant."""
    text = """computed (float[n,6,4] x) => (float[n,6,4] y) {
        h = MatMul(x, w)
        sizes = Shape(x)
        first = Gather(sizes, zero)
        eight = Mul(four, two)
        target = Concat<axis=0>(first, minus, eight)
        r = Reshape(h, target)
        y = MatMul(r, v)
    }"""
    arrays = {
        "w": random(4, 8),
        "v": random(8, 4),
        "zero": np.array([0]),
        "minus": np.array([-1]),
        "four": np.array([4]),
        "two": np.array([2]),
    }
    graph = _parsed(text, arrays)
    axes = Axes.of(graph)
    group = next(one for one in axes.groups(Action.SELECT) if one.size == 8 and not one.fixed)
    before = str(graph.ops())
    with pytest.raises(Refused):
        axes.cut({group: np.arange(8) < 6})
    assert str(graph.ops()) == before
