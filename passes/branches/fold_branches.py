"""Folding what hangs beside layers, such as adapters, into their weights."""

from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Layer
from qcc.ir.regions.affine import LinearRegion
from qcc.ir.regions.flow import Flow
from qcc.ir.regions.linear import linear_regions, product_of
from qcc.ir.regions.unfolded import unfolded_branches
from qcc.ir.regions.windows import UNLIKE, Window, is_same, kernel_of, window_regions
from qcc.passes.channels.affine import LayerUse, Wiring, put_bias, takes_affine
from qcc.passes.contract.contract import Context, Edit, Invariant, Phase, Restructure, Site


@dataclass(frozen=True)
class FoldBranches(Restructure):
    """Fold what is linear between two values into one layer: side branches, adapters, scales, added vectors.

    Wherever all paths from one value to another multiply by constants and add, along the last axis and at every place
    alike, they are one product; where they are convolutions, sums and norms of batches, and their windows lie within
    that of one of them, they are that one. The layer among them that has its shape, if there is one, takes it up and
    keeps its name. So a model with LoRA, LoLDU, VeRA, DoRA, parallel adapters without an activation, the scales of
    (IA)3, SSF and DiffFit, the vectors of BitFit or the branches of RepVGG becomes the model that it would have been,
    had its weights been trained whole.

    Rewrite:
        x W + b + s (x A) B  -->  x (W + s A B) + b
        (x W + b) g + t      -->  x (W g) + (b g + t)
        conv3x3(x) + s conv1x1(conv3x3(x)) + conv1x1(x) + x  -->  conv3x3(x)

    It is done where fewer ops are left and no more bytes: a factor pair with a narrow middle and nothing beside it
    stays as it is. It is refused where the paths turn out to treat places differently. Adapters with an activation
    inside and gates that depend on data are no products, and stay, with the reason; so do prompts and prefixes,
    which are rows beside what is computed and no part of a weight. `qcc inspect` lists all that stays.

    Fold before anything that rounds: a branch that was trained beside a weight in float is not what it was beside the
    rounded one, and costs bytes and time of its own.

    Source: LoRA, Hu et al. 2021 (arXiv:2106.09685), section 4.1; what else folds: Parameter-efficient fine-tuning for
        large models: a comprehensive survey, Han et al. 2024 (arXiv:2403.14608), section 3.
    """

    property: ClassVar[str] = "fold_branches"
    phase: ClassVar[Phase] = Phase.BRANCHES
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.FUNCTION,))
    after: ClassVar[tuple[str, ...]] = ("clean",)

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The regions of which a target is a part; what would take more bytes as a product, or is none, is refused."""
        return [*(branch.site for branch in _branches(graph, targets)), *_staying(graph, targets)]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Fold, the last first, until nothing is left to be folded: what is folded may be a part of more."""
        edits, folded = list[Edit](), set[str]()
        refused: dict[tuple[str, str], tuple[frozenset[str], Edit]] = {}
        while True:
            found = _branches(graph, targets, refused)
            left = [branch for branch in found if context.takes(branch.site.subject)]
            if not left:
                staying = [site.refusal for site in _staying(graph, targets) if context.takes(site.subject)]
                return [*edits, *_apart(refused.values(), folded), *staying]
            for branch in left:  # those that end last come first, so that what others start at is still there
                context.progress(branch.site.subject)
                before = len(graph.ops())
                edit = branch.site.refusal if branch.site.refused else _tried(graph, branch)
                if not edit.refused:
                    edits.append(edit)
                    folded |= branch.region.ops
                if edit.refused or len(graph.ops()) >= before:  # a part of it may do; what stays as large is done
                    refused[branch.region.place] = branch.region.ops, edit

    def silence(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Leave the graph as it is: nothing is lost."""


@dataclass(frozen=True)
class _Branch:
    """A region with the layer in it that takes it up, if one can, and how many ops go with the fold."""

    site: Site
    region: LinearRegion
    base: LayerUse | None
    saved: int
    window: Window | None = None
    """Of the convolution that it is to be."""


def _branches(graph: Graph, targets: Sequence[str], known: Container[tuple[str, str]] = ()) -> list[_Branch]:
    """The regions with a target in them of which fewer ops would be left, none of which share an op.

    Those that are ``known`` to be no product are none.
    """
    flow, wiring, best = Flow(graph), Wiring.of(graph), dict[str, _Branch]()
    found = (one for regions in (linear_regions, window_regions) for one in regions(graph, flow))
    for region in found:
        branch = None if region.place in known else _branch(graph, wiring, region, targets)
        if branch is not None and (region.end not in best or _worth(branch) > _worth(best[region.end])):
            best[region.end] = branch
    taken, kept = set[str](), list[_Branch]()
    for branch in sorted(best.values(), key=lambda one: bool(one.site.refused)):
        if not branch.region.ops & taken:
            kept.append(branch)
            taken |= branch.region.ops
    return kept


def _staying(graph: Graph, targets: Sequence[str]) -> list[Site]:
    """What hangs beside layers and is no product, whatever it would take."""
    found = [one for one in unfolded_branches(graph) if set(one.weights) & set(targets)]
    return [Site(one.name, one.weights, f"it is no product: {one.reason}") for one in found]


def _apart(refused: Iterable[tuple[frozenset[str], Edit]], folded: Collection[str]) -> list[Edit]:
    """What to tell of regions that were refused: none of which a part is told already, or was folded."""
    told, found = set(folded), list[Edit]()
    for ops, edit in refused:
        if not ops & told:
            found.append(edit)
        told |= ops
    return found


def _worth(branch: _Branch) -> tuple[bool, int]:
    return not branch.site.refused, branch.saved


def _branch(graph: Graph, wiring: Wiring, region: LinearRegion, targets: Sequence[str]) -> _Branch | None:
    uses = [use for name, use in wiring.layers.items() if name in region.ops]
    names = tuple(dict.fromkeys(weight.name for weight, _ in uses))
    if not set(names) & set(targets):
        return None
    base = next((use for use in uses if _takes_up(wiring, region, use)), None)
    window = None
    if any(layer.kind is Kind.CONV for _, layer in uses):
        base, window = _widest(graph, wiring, region, uses)
        if base is None or _is_normed(wiring, region, uses):
            return None
    apart = region.adds if base is None else bool(base[1].bias_op) or (base[1].bias is None and region.adds)
    staying = 0 if base is None else _preparing(wiring, region, base[1])
    saved = len(region.ops) - staying - (2 if apart else 1)  # the vector is added by an op of its own
    if saved < 1:
        return None
    more = _bytes(graph, region, base) - region.freed_bytes
    if more > 0 and len(names) < 2:
        return None  # a gain beside a table that others read, say: no branch
    refused = f"as one product it would take {more:,} bytes more" if more > 0 else ""
    subject = base[1].name if base else uses[0][1].name
    return _Branch(Site(subject, names, refused), region, base, saved, window)


def _preparing(wiring: Wiring, region: LinearRegion, layer: Layer) -> int:
    """How many ops of a region make a layer's weight of its constant, and stay with the layer."""
    open_ = [name for name in wiring.ops[layer.op].inputs if name not in (layer.input, region.source)]
    found = set[str]()
    while open_:
        maker = wiring.makers.get(open_.pop())
        if maker is not None and maker.name in region.ops and maker.name not in found:
            found.add(maker.name)
            open_ += maker.inputs
    return len(found)


def _widest(
    graph: Graph, wiring: Wiring, region: LinearRegion, uses: Sequence[LayerUse]
) -> tuple[LayerUse | None, Window | None]:
    """The convolution of a region with the largest window of those that go from its source's places to its end's."""
    best: tuple[LayerUse | None, Window | None] = None, None
    end = graph.value(region.end)
    for use in uses:
        weight, layer = use
        window = Window.of(wiring.ops[layer.op]) if layer.kind is Kind.CONV else None
        if window is None or takes_affine(wiring, use):
            continue
        ends = (weight.view.shape[1] * window.groups, weight.shape[0])
        given, made = graph.value(layer.input).shape, graph.value(layer.output).shape
        alike = given == graph.value(region.source).shape and made == end.shape
        if ends == region.shape and alike and (best[1] is None or window.reach > best[1].reach):
            best = use, window
    return best


def _is_normed(wiring: Wiring, region: LinearRegion, uses: Sequence[LayerUse]) -> bool:
    """Nothing but norms stand beside one layer: `fold_norm` knows more of them."""
    layers = {layer.op for _, layer in uses}
    return len(layers) == 1 and all(wiring.ops[name].kind is Kind.NORM for name in region.ops - layers)


def _takes_up(wiring: Wiring, region: LinearRegion, use: LayerUse) -> bool:
    """The layer is a plain product of the region's shape."""
    weight, layer = use
    shape = (weight.shape[1], weight.shape[0])
    return shape == region.shape and not takes_affine(wiring, use, layer.input)


def _bytes(graph: Graph, region: LinearRegion, base: LayerUse | None) -> int:
    """What the product takes, with a vector where one is added, or the layer that takes it up has one."""
    size = np.dtype(graph.value(region.end).dtype).itemsize
    rows, columns = region.shape
    numbers = base[0].params if base is not None and base[1].kind is Kind.CONV else rows * columns
    return size * (numbers + (columns if region.adds or (base is not None and base[1].bias) else 0))


def _tried(graph: Graph, branch: _Branch) -> Edit:
    """What came of folding a branch; where nothing did, the graph is as it was."""
    try:
        return _fold(graph, branch)
    except Refused as refused:
        return Edit(branch.site.subject, refused.reason, refused=True, layers=branch.site.layers)


def _fold(graph: Graph, branch: _Branch) -> Edit:
    """Put one product in the place of a region.

    Raises:
        Refused: it is none; nothing has changed.
    """
    region = branch.region
    if branch.window is not None:
        return _fold_windows(graph, branch, branch.window)
    matrix, bias = product_of(graph, region)
    if branch.base is None:
        graph.replace_region(region.end, region.source, matrix, bias if np.any(bias) else None)
    else:
        _take_up(graph, region, branch.base, matrix.T, bias)
    return _done(branch, "product")


def _fold_windows(graph: Graph, branch: _Branch, window: Window) -> Edit:
    """Put one convolution in the place of a region, if it is one at the edges of images, too.

    Raises:
        Refused: it is none; nothing has changed.
    """
    region, base = branch.region, branch.base
    assert base is not None
    kernel, bias = kernel_of(graph, region, window)
    trial, end = graph.copy(), _end(graph, region, base)
    for after in (trial, graph):
        _take_up(after, region, base, kernel.reshape(len(kernel), -1), bias)
        if after is trial and not is_same(graph, trial, region, end, window):
            raise Refused(UNLIKE)
    return _done(branch, "convolution")


def _done(branch: _Branch, what: str) -> Edit:
    text = f"folded what hangs beside it into one {what}, {branch.saved} ops less"
    return Edit(branch.site.subject, text, layers=branch.site.layers)


def _take_up(graph: Graph, region: LinearRegion, use: LayerUse, matrix: Array, bias: Array) -> None:
    """Let a layer of a region be all of it, with another matrix ``[out, in]``."""
    weight, layer = use
    end = _end(graph, region, use)
    if region.end != layer.output:
        graph.remove(region.end, layer.output)
    if layer.input != region.source:
        graph.remove(layer.input, region.source)
    graph.replace_matrix(weight, matrix)
    if layer.bias is not None or np.any(bias):
        put_bias(graph, Wiring.of(graph), (weight, replace(layer, output=end)), bias)


def _end(graph: Graph, region: LinearRegion, use: LayerUse) -> str:
    """What a layer's output is called once it is all of a region: an output of the graph keeps its name."""
    return region.end if any(one.name == region.end for one in graph.outputs) else use[1].output
