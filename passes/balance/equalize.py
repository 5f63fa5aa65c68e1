"""Making the weights of layers behind each other equally large, channel by channel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.axes.axes import Action, Axes, Group, Member
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind
from qcc.passes.balance import ranges as channel_ranges
from qcc.passes.channels.affine import LayerUse, Wiring, bias_of, put_bias, response, takes_affine
from qcc.passes.contract.contract import Context, Edit, Rewrite, Site

SWEEPS = 20  # over all groups; a chain of layers is even to a percent after about five


@dataclass(frozen=True)
class Equalize(Rewrite):
    """Scale channels between layers so that what writes a channel and what reads it have the same range.

    Rewrite:
        W1 [o, i], b1 [o], W2 [p, o]  -->  s W1, s b1, W2 / s    s = sqrt(max|W2[:, o]| / max|W1[o, :]|)

    Scales that many weights share, or that span few of them, then fit all channels. Layers in a chain are gone over
    until no scale changes by more than a percent, at most 20 times. Where several weights write or read a channel, the
    geometric mean of their ranges counts; a channel that is zero on a side keeps its scale.

    Channels may pass a relu, a maximum, a depthwise convolution, a product that another factor does not change, and
    attention between values and outputs. A gelu, a silu, a relu with an upper bound, a norm, an output of the model
    refuse them. Queries and keys are `query_key`'s.

    Args:
        absorb: then move a layer's bias into the biases of the layers that read it, where there is nothing between
            them and no padding, so that what flows between has no offset. Through a relu that would be right only for
            numbers that stay above it, and is not done.

    Source: Data-free quantization through weight equalization and bias correction, Nagel et al. 2019
    (arXiv:1906.04721), section 4.1; bias absorption, section 4.1.3, in its exact case alone.
    """

    property: ClassVar[str] = "equalize"
    after: ClassVar[tuple[str, ...]] = ("clean", "fold_norm", "rotate", "permute")

    absorb: bool = False

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The groups between layers, then the biases that may move."""
        found = [site for _, site in _groups(Axes.of(graph), targets)]
        if self.absorb:
            found += [site for _, site in _biases(Wiring.of(graph), graph, targets)]
        return found

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Equalise, and absorb."""
        edits = []
        taken: list[Group] = []
        axes = Axes.of(graph)
        for group, site in _groups(axes, targets):
            if site.refused:
                edits.append(site.refusal)
            elif context.takes(site.subject):
                taken.append(group)
        for group, scale in _settled(graph, taken, context):
            axes.apply(group, scale)
            layers = group.weights
            edits.append(Edit(group.name, channel_ranges.range_text(scale), layers=layers))
        return edits + (_absorb(graph, targets, context) if self.absorb else [])


def _groups(axes: Axes, targets: Sequence[str]) -> Iterator[tuple[Group, Site]]:
    """The groups that a layer writes and a layer reads; fixed ones unless another treats the same channels."""
    groups = channel_ranges.scale_groups(axes, targets)
    covered = channel_ranges.covered(groups)
    for group in groups:
        writers, readers = _sides(group)
        if not writers or channel_ranges.joins_queries(group):
            continue
        site = Site(group.name, group.weights, group.fixed)
        others = covered.issuperset((member.value, member.axis) for member in writers)
        if (group.fixed and not others) or (not group.fixed and readers):
            yield group, site


def _sides(group: Group) -> tuple[list[Member], list[Member]]:
    """The weights that make a group's channels, and those that take them."""
    weights = [member for member in group.constants if member.weight]
    return [one for one in weights if one.exponent > 0], [one for one in weights if one.exponent < 0]


def _settled(graph: Graph, groups: Sequence[Group], context: Context) -> list[tuple[Group, Array]]:
    """The scales that make all groups even; tried on a copy, so that numbers are rounded once."""
    trial = Axes.of(graph.copy())
    same = {group.name: group for group in trial.groups(Action.SCALE)}
    totals: dict[str, Array] = {}
    moved = {name for group in groups for name in group.weights}
    for sweep in range(SWEEPS):
        context.progress(f"sweep {sweep + 1}")
        changed: set[str] = set()
        for group in (same[one.name] for one in groups):
            layers = group.weights
            if not (moved | changed).intersection(layers):
                continue
            writers, readers = _sides(group)
            written, read = (channel_ranges.channel_range(trial, group, members) for members in (writers, readers))
            scale = channel_ranges.balance(written, read, relative=True)
            if channel_ranges.is_close(scale):
                continue
            trial.apply(group, scale)
            totals[group.name] = totals.get(group.name, 1.0) * scale
            changed.update(layers)
        moved = changed
        if not moved:
            break
    return [(group, totals[group.name]) for group in groups if group.name in totals]


def _absorb(graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
    edits = []
    for (_, layer), site in list(_biases(Wiring.of(graph), graph, targets)):
        if not context.takes(site.subject):
            continue
        wiring = Wiring.of(graph)  # a layer before may have given this one a bias
        use = wiring.layers[layer.op]
        bias = bias_of(graph, use[1], 1)
        if not np.any(bias):
            continue
        for reader, _ in wiring.readers[use[1].output]:
            behind = wiring.layers[reader.name]
            added = response(graph, behind, bias)
            put_bias(graph, wiring, behind, bias_of(graph, behind[1], len(added)) + added)
        put_bias(graph, wiring, use, np.zeros(len(bias)))
        edits.append(Edit(site.subject, "moved into the biases of what reads it", layers=site.layers))
    return edits


def _biases(wiring: Wiring, graph: Graph, targets: Sequence[str]) -> Iterator[tuple[LayerUse, Site]]:
    """The layers that have a bias, or get one from the layers before, and whose outputs layers alone read."""
    given: set[str] = set()
    for op, use in wiring.layers.items():
        weight, layer = use
        readers = [wiring.layers.get(reader.name) for reader, _ in wiring.readers.get(layer.output, ())]
        known = [reader for reader in readers if reader is not None]
        if weight.name not in targets or layer.output in wiring.outputs or not readers or len(known) < len(readers):
            continue
        if not (op in given or np.any(bias_of(graph, layer, 1))) or not _moves(wiring, graph, use, known):
            continue
        given.update(reader[1].op for reader in known)
        names = tuple(dict.fromkeys(reader[0].name for reader in known))
        yield use, Site(f"bias of {layer.name}", (weight.name, *names))


def _moves(wiring: Wiring, graph: Graph, use: LayerUse, readers: Sequence[LayerUse]) -> bool:
    """A layer's bias may be taken away, and each reader of its outputs takes it up."""
    output = use[1].output
    if takes_affine(wiring, use) or any(takes_affine(wiring, reader, output) for reader in readers):
        return False
    last = use[1].kind is not Kind.CONV
    alike = all((reader[1].kind is not Kind.CONV) is last for reader in readers)
    return alike or len(graph.value(output).shape or ()) == 2
