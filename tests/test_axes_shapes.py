"""The axis analysis of graphs whose types do not fit their ops: it never raises."""

from pathlib import Path
from typing import cast

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import given, settings

import qcc
from qcc.ir.axes.arrange import extents, index_of
from qcc.ir.axes.axes import Action, Axes
from qcc.ir.axes.dims import Dim, concatenation, product
from qcc.ir.graph.functions import FUNCTIONS
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Attribute, Kind, Layer, Op, Resized, Value, Weight
from qcc.ir.graph.view import MatrixView
from tests import axes_models as models
from tests.onnx_models import parse, random

SIZES = (0, 1, 2, 3, 4, 6, 12)
VALUES, CONSTANTS = ("a", "b", "c"), ("v", "w")
NUMBERS = st.integers(-2, 6)
TUPLES = st.lists(NUMBERS, max_size=4).map(tuple)


class Drawn:
    """A graph of the face's reading half; its types need not fit."""

    def __init__(self, shapes: dict[str, tuple[int | str | None, ...] | None], ops: list[Op], view: MatrixView) -> None:
        self._shapes, self._ops, self._inputs = shapes, tuple(ops), {op.name: op.inputs for op in ops}
        self._arrays = {name: np.ones(cast("tuple[int, ...]", shapes[name]), np.float32) for name in CONSTANTS}
        reader = next((op for op in ops if "w" in op.inputs), None)
        layer = Layer("w", Kind.LINEAR, reader.name, "w", "a", reader.outputs[0]) if reader else None
        self._weights = (Weight("w", "w", view, "float32", (layer,)),) if layer else ()
        self.inputs = tuple(self.value(name) for name in VALUES)
        self.outputs = (self.value(ops[-1].outputs[0]),)

    def ops(self) -> tuple[Op, ...]:
        return self._ops

    def value(self, name: str) -> Value:
        return Value(name, self._shapes[name], "float32")

    def constant(self, name: str) -> np.ndarray | None:
        return self._arrays.get(name)

    def weights(self) -> tuple[Weight, ...]:
        return self._weights

    def replace_constant(self, name: str, array: np.ndarray) -> None:
        assert array.shape == self._arrays[name].shape
        self._arrays[name] = array

    def resize(self, resized: Resized) -> None:
        operands = {self._inputs[op][at]: array for (op, at), array in resized.operands.items()}
        for name, array in (*resized.constants.items(), *operands.items()):
            sizes = zip(self._arrays[name].shape, array.shape, strict=True)
            assert all(min(1, old) <= new <= old for old, new in sizes)  # only what was empty is

    def set_operand(self, op: str, position: int, array: np.ndarray) -> str:
        self._arrays[f"{op}.{position}"] = array
        return f"{op}.{position}"


@st.composite
def graphs(draw: st.DrawFn) -> Drawn:
    size = st.one_of(st.sampled_from(SIZES), st.just("n"), st.none())
    shape = st.one_of(st.none(), st.lists(size, max_size=4).map(tuple))
    whole = st.lists(st.sampled_from(SIZES), max_size=3).map(tuple)
    shapes = {name: draw(shape) for name in VALUES} | {name: draw(whole) for name in CONSTANTS}
    known, ops = [*VALUES, *CONSTANTS], []
    for number in range(draw(st.integers(1, 5))):
        kind, function = draw(st.sampled_from(sorted(FUNCTIONS)))
        names = draw(st.lists(st.sampled_from(known), min_size=1, max_size=4))
        names[1:] = [name if draw(st.integers(0, 9)) else "" for name in names[1:]]
        attributes: dict[str, Attribute] = {
            name: draw(st.one_of(NUMBERS, TUPLES, st.just("constant")))
            for name in sorted(FUNCTIONS[kind, function])
            if draw(st.integers(0, 4))
        }
        outputs = tuple(f"o{number}.{at}" for at in range(draw(st.sampled_from((1, 1, 1, 2)))))
        shapes |= {name: draw(shape) for name in outputs}
        known += outputs
        ops.append(Op(f"op{number}", kind, function, tuple(names), outputs, attributes))
    seen = cast("tuple[int, ...]", draw(st.sampled_from((shapes["w"], (12,), (3, 4), (2, 6, 1)))))
    rows = tuple(sorted(draw(st.sets(st.sampled_from(range(len(seen))))))) if seen else ()
    return Drawn(shapes, ops, MatrixView(seen, rows))


@pytest.mark.slow
@given(graphs(), st.integers(0, 3))
@settings(max_examples=120, deadline=None)
def test_types_that_do_not_fit_cost_opportunity_and_never_raise(drawn: Drawn, seed: int) -> None:
    graph = cast("Graph", drawn)
    for action in Action:
        axes, rng = Axes.of(graph), np.random.default_rng(seed)
        for group in axes.groups(action):
            for member in group.constants:
                assert axes.read(member, group).size
            if not group.fixed and group.size and not group.keeps_mean:
                axes.apply(group, models.drawn_change(group, rng))
                if action is Action.SELECT:
                    axes.mask({group: models.drawn_change(group, rng)})


@pytest.mark.slow
@given(st.data())
def test_where_channels_lie_on_an_axis(data: st.DataObject) -> None:
    """From the first to the last of the positions that an index has of them."""
    leaves = [Dim(data.draw(st.sampled_from((1, 2, 3, 5)))) for _ in range(3)]
    joined = st.sampled_from((concatenation, product))
    nested = st.recursive(
        st.sampled_from(leaves),
        lambda inner: st.builds(lambda join, parts: join(parts), joined, st.lists(inner, min_size=1, max_size=3)),
        max_leaves=6,
    )
    dim = data.draw(nested)
    for leaf in leaves:
        at = np.flatnonzero(index_of(dim, leaf) >= 0)
        assert extents(dim).get(leaf, (0, 0)) == ((at[0], at[-1] + 1) if len(at) else (0, 0))


FLAT = """g (float[N,16] x) => (float[N,16] y) {
    back = Reshape (v, wide)
    a = MatMul (x, w)
    b = Relu (a)
    c = MatMul (b, back)
    flat = ReduceSum <keepdims = 0> (v)
    y = Mul (c, flat)
}"""
SQUEEZED = """g (float[N,1,16] x) => (y) {
    one = Constant <value_int = 1> ()
    a = MatMul (x, w)
    sizes = Shape (a)
    size = Gather (sizes, one)
    single = Equal (size, one)
    b = If (single) <
        then_branch = g1 () => (z) { axes = Constant <value_ints = [1]> () z = Squeeze (a, axes) },
        else_branch = g2 () => (z) { z = Identity (a) }
    >
    last = Constant <value_ints = [-1]> ()
    c = Unsqueeze (b, last)
    d = Squeeze (c, last)
    e = Relu (d)
    y = MatMul (e, back)
}"""
NARROW = """g (float[N,16] x) => (float[N,16] y) {
    cast = Cast <to = 1> (w)
    a = MatMul (x, cast)
    b = MatMul (a, back)
    y = MatMul (b, v)
}"""
ENDLESS = """g (float[N,16] x) => (float[N,16] y) <float[1099511627776,M,1099511627776] zero> {
    never = Less (zero, zero)
    a = MatMul (x, w)
    b = If (never) <
        then_branch = g1 () => (z) { z = Relu (a) },
        else_branch = g2 () => (z) { z = Sigmoid (a) }
    >
    y = MatMul (b, back)
}"""
MODELS = {
    "flat": (FLAT, {"w": random(16, 24), "v": random(24 * 16), "wide": np.array([24, 16])}),
    "flat-beside": (FLAT, {"w": random(16, 24), "v": random(24 * 16, seed=1), "wide": np.array([-1, 16])}),
    "endless": (ENDLESS, {"zero": np.array(0, np.float32), "w": random(16, 24), "back": random(24, 16)}),
    "squeezed": (SQUEEZED, {"w": random(16, 24), "back": random(24, 16)}),
    "narrow": (NARROW, {"w": random(16, 24, dtype=np.float16), "back": random(24, 24), "v": random(24, 16)}),
}
POLICY = """qpolicy 1
rule any { weights = float; fold_norm = on; rotate = hadamard; permute = magnitude; equalize = on; fold = awq }
verify { relative_error <= 1e-4 }
"""


@pytest.mark.sampled
@pytest.mark.parametrize("name", MODELS)
def test_all_axis_passes_take_what_exporters_write(name: str, tmp_path: Path) -> None:
    body, weights = MODELS[name]
    model, policy = tmp_path / "model.onnx", tmp_path / "exact.qpolicy"
    onnx.save(parse(body, weights), model)
    policy.write_text(POLICY, encoding="utf-8")
    assert qcc.compile(model, policy).passed
