"""The axis analysis: whatever a group allows leaves the function as it is, and groups are no smaller than need be."""

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from hypothesis import example, given, settings

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.fx.graph import FxGraph
from qcc.ir.onnx.adapter import OnnxGraph
from tests import axes_models as models

TOLERANCE = 1e-4


def _check(kinds: list[str], seed: int, images: bool) -> None:
    """Change every free group, one after the other, in one copy of the graph."""
    graph, given_ = models.chain(kinds, seed, images), models.feeds(images)
    wanted = models.run(graph, given_)
    for action in set(Action) - {Action.SELECT}:  # which keeps another function: tests/test_select.py
        changed = graph.copy()
        axes, rng = Axes.of(changed), np.random.default_rng(seed)
        for group in axes.groups(action):
            if not group.fixed:
                axes.apply(group, models.drawn_change(group, rng))
        got = models.run(changed, given_)
        assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max(), action
    assert np.array_equal(models.run(graph, given_), wanted)


@pytest.mark.slow
@given(st.lists(st.sampled_from(sorted(models.TOKEN_BLOCKS)), min_size=1, max_size=5), st.integers(0, 3))
@settings(max_examples=35, deadline=None)
def test_whatever_is_free_leaves_the_function_over_tokens(kinds: list[str], seed: int) -> None:
    _check(kinds, seed, images=False)


@pytest.mark.slow
@given(st.lists(st.sampled_from(sorted(models.IMAGE_BLOCKS)), min_size=1, max_size=5), st.integers(0, 3))
@settings(max_examples=35, deadline=None)
@example(["group_norm", "shuffled", "joined"], 0)  # shapes are not inferred behind a group norm
def test_whatever_is_free_leaves_the_function_over_images(kinds: list[str], seed: int) -> None:
    _check(kinds, seed, images=True)


def _free(kinds: list[str], action: Action, images: bool = False) -> list[Group]:
    return [group for group in Axes.of(models.chain(kinds, 0, images)).groups(action) if not group.fixed]


def _sizes(kinds: list[str], action: Action, images: bool = False) -> list[tuple[int, tuple[int, ...]]]:
    return sorted((group.size, group.contexts) for group in _free(kinds, action, images) if group.constants)


PERMUTED: dict[str, list[tuple[int, tuple[int, ...]]]] = {
    "linear": [(16, ()), (16, ())],
    "residual": [(16, ())],
    "feedforward": [(16, ()), (24, ())],
    "halves": [(8, ())],
    "uneven": [(5, ()), (11, ())],
    "joined": [(8, ()), (16, ()), (16, ())],
    "reversed": [],
    "cumulative": [],
    "strided": [(8, ())],
    "attention": [(4, ()), (4, (4,)), (4, (4,)), (16, ())],
    "keys_in_batches": [(4, ()), (4, (4,)), (4, (4,)), (16, ())],
    "einsums": [(4, ()), (4, (4,)), (4, (4,)), (16, ())],
    "grouped_query": [(2, ()), (2, (2,)), (4, (2,)), (4, (2,)), (16, ()), (16, ())],
}


@pytest.mark.parametrize("kind", PERMUTED)
def test_what_may_be_permuted(kind: str) -> None:
    assert _sizes([kind], Action.PERMUTE) == PERMUTED[kind]


SCALED: dict[str, list[tuple[int, tuple[int, ...]]]] = {
    "residual": [],  # gelu: what is added to the stream is free only on the other side of it
    "feedforward": [(16, ()), (24, ())],
    "gated": [(16, ()), (16, ()), (24, ())],
    "layer_norm": [(16, ()), (16, ())],  # behind the gain; before it the norm holds
    "attention": [(4, (4,)), (4, (4,)), (16, ())],
    "keys_in_batches": [(4, (4,)), (4, (4,)), (16, ())],
    "grouped_query": [(4, (2,)), (4, (2,)), (16, ()), (16, ())],
}


@pytest.mark.parametrize("kind", SCALED)
def test_what_may_be_scaled(kind: str) -> None:
    found = _sizes([kind], Action.SCALE)
    if kind == "residual":
        assert all(size == 16 for size, _ in found)
    else:
        assert found == SCALED[kind]


def test_scales_behind_a_leaky_relu_are_positive() -> None:
    (inner,) = [group for group in _free(["feedforward"], Action.SCALE) if group.size == 24]
    assert inner.positive
    assert {(member.side, member.exponent) for member in inner.constants} == {("out", 1), ("in", -1)}


def test_one_scale_of_a_head_serves_its_queries_and_keys() -> None:
    between = [group for group in _free(["attention"], Action.SCALE) if group.contexts and not group.readers]
    (group,) = between
    assert sorted(member.exponent for member in group.constants) == [-1, 1, 1]  # q, its bias, and k


@pytest.mark.parametrize("kind", ["half_heads", "one_head"])
def test_heads_that_are_parts_of_others_are_no_contexts_since_each_counts_only_some_channels(kind: str) -> None:
    axes = Axes.of(models.chain([kind], 0))
    (group,) = [one for one in axes.groups(Action.SCALE) if (one.size, one.fixed, one.readers) == (4, "", ())]
    assert group.contexts == ()
    assert [axes.read(member, group).shape for member in group.constants] == [(4, 64), (4, 64)]  # q and k as a whole


def test_a_stream_turns_only_without_gains() -> None:
    plain = _free(["plain_norm", "residual"], Action.ROTATE)
    assert (plain[0].size, plain[0].keeps_mean) == (16, False)
    with_gain = [group for group in _free(["rms_norm"], Action.ROTATE) if len(group.writers) > 1]
    assert with_gain == []


def test_a_mean_has_to_be_kept() -> None:
    (group,) = [group for group in _free(["centred"], Action.ROTATE) if group.keeps_mean]
    assert group.size == 16


def test_grouped_convolutions_move_in_blocks() -> None:
    assert _sizes(["grouped"], Action.PERMUTE, images=True)[:3] == [(2, ()), (4, (2,)), (4, (2,))]


def test_the_reason_says_what_holds() -> None:
    groups = Axes.of(models.chain(["linear"], 0)).groups(Action.PERMUTE)
    assert {"`x` is an input of the model", "`y` is an output of the model"} <= {group.fixed for group in groups}


def test_a_fixed_group_cannot_be_changed() -> None:
    axes = Axes.of(models.chain(["linear"], 0))
    fixed = next(group for group in axes.groups(Action.PERMUTE) if group.fixed and group.size == 16)
    with pytest.raises(ValueError, match="is an input"):
        axes.apply(fixed, np.arange(16))


def test_numbers_by_channel() -> None:
    graph = models.chain(["attention"], 0)
    axes = Axes.of(graph)
    group = next(one for one in axes.groups(Action.SCALE) if one.contexts and one.readers and not one.fixed)
    (reader,) = [member for member in group.constants if member.side == "in"]
    array = graph.constant(reader.value)
    assert array is not None
    np.testing.assert_array_equal(axes.read(reader, group), array.reshape(4, 4, 16))


@pytest.mark.slow
def test_what_a_branch_reads_from_around_it_stays() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    branches (float[n,4] x, bool c) => (float[n,4] y) {
        h = MatMul(x, w1)
        z = If (c) <
            then_branch = yes () => (float[n,8] t) { t = Add(h, b) },
            else_branch = no () => (float[n,8] e) { e = Identity(h) }
        >
        k = Mul(h, b)
        s = Add(z, k)
        y = MatMul(s, w2)
    }"""
    graph = parsed(text, w1=(4, 8), w2=(8, 4), b=(8,))
    branch = next(op for op in graph.ops() if op.function == "If")
    assert branch.inputs == ("c", "h", "b")
    fixed = {group.name: group.fixed for group in Axes.of(graph).groups(Action.PERMUTE) if group.size == 8}
    assert set(fixed.values()) == {"`If` is opaque"}


@pytest.mark.parametrize(("bounds", "free"), [("min=0.0, max=6.0", False), ("min=0.0", True), ("min=-1.0", False)])
def test_a_clip_of_an_old_opset_is_a_relu_only_without_an_upper_bound(bounds: str, free: bool) -> None:
    text = f"""<ir_version: 5, opset_import: ["" : 9]>
    clipped (float[n,4] x) => (float[n,4] y) {{
        a = MatMul(x, w1)
        b = Clip<{bounds}>(a)
        y = MatMul(b, w2)
    }}"""
    groups = Axes.of(parsed(text, w1=(4, 8), w2=(8, 4))).groups(Action.SCALE)
    assert any(group.size == 8 and not group.fixed for group in groups) == free


class Masked(torch.nn.Module):
    """Attention with a bias of each head, as position biases are."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.inner = torch.nn.Linear(16, 48)
        self.out = torch.nn.Linear(16, 16)
        self.bias = torch.nn.Parameter(torch.randn(4, 6, 6))
        self.tokens = torch.nn.Parameter(torch.randn(6, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.tokens[None] + x[:, None]
        q, k, v = (part.reshape(-1, 6, 4, 4).transpose(1, 2) for part in self.inner(tokens).chunk(3, -1))
        mask = None if self.causal else self.bias
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(-1, 6, 16))
        return out.sum(1)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_heads_take_their_biases_along_and_a_causal_mask_keeps_its_order(causal: bool) -> None:
    torch.manual_seed(0)
    graph = FxGraph.export(Masked(causal), (torch.zeros(2, 16),))
    graph.simplify()
    (name,), (output,) = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
    given_ = {name: np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)}
    wanted = graph.runner([name], [output])(given_)[output]
    for action in set(Action) - {Action.SELECT}:  # which keeps another function: tests/test_select.py
        changed = graph.copy()
        axes, rng = Axes.of(changed), np.random.default_rng(1)
        groups = [group for group in axes.groups(action) if not group.fixed]
        for group in groups:
            axes.apply(group, models.drawn_change(group, rng))
        got = changed.runner([name], [output])(given_)[output]
        assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max(), action
        if action is Action.PERMUTE:
            assert any(group.size == 6 for group in groups) == (not causal)
            heads = [group for group in groups if group.size == 4 and not group.contexts]
            assert any(member.value == "bias" for group in heads for member in group.members) == (not causal)


def parsed(text: str, **shapes: tuple[int, ...]) -> OnnxGraph:
    """A model of this text with constants of these shapes."""
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    graph.simplify()
    return graph
