"""Layers that become two, one behind the other, with few channels between."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, cast

import numpy as np

from qcc.ir.encoding.factors import leading, partner
from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.names import DOWN, UP
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.passes.channels.affine import Wiring, bias_of, put_bias, takes_affine
from qcc.passes.contract.contract import Between, Context, Edit, InPercent, Restructure, Site
from qcc.passes.structure.channel_fit import grams_of, reading

DOUBT = 1e-4  # of the mean of a Gram matrix's diagonal: what data never moved may move on other data
ROUNDING = 1e-9  # of a channel


@dataclass(frozen=True)
class StructureLowRank(Restructure):
    """Make two layers of one, with so few channels between that they multiply less.

    The channels between are as many as ``keep`` of the multiplications allow, in multiples of 32 by default, which
    kernels take; a layer with room for fewer than that gets what there is. Both layers are layers as any other, with
    formats, kernels and activations of their own, so that time is gained, where the format `low_rank(...)` gains bytes
    alone. They are called as the layer was, with ``#down`` and ``#up`` behind, and rules that name the layer hold for
    both; ``in`` and ``out`` are those that they have.

    Rewrite:
        y = x W' + b, W [o, i]  -->  h = x V' [k, i]; y = h U' [o, k] + b'

    With calibration data both make what is nearest to what the layer made of it: of its outputs, around their mean,
    those directions stay that vary most, and the bias makes up for the mean of the others. Without data, the singular
    vectors of the weights alone stay: more is lost, which the report tells. Singular values are shared evenly by both
    layers, so that both are encoded well.

    Convolutions, tables and weights that are read elsewhere, too, stay as they are, and so do layers of which two would
    multiply no less.

    The loss is what the policy's ``verify`` allows. Nothing is trained afterwards.

    Args:
        keep: how much of each layer's multiplications stays at most.
        multiple: of which the channels between are one, where there is room for it.

    Source: Speeding up convolutional neural networks with low rank expansions, Jaderberg et al. 2014 (arXiv:1405.3866),
        section 2.2; weighed by data as in Efficient and accurate approximations of nonlinear convolutional networks,
        Zhang et al. 2015 (arXiv:1411.4229), section 3.1: principal components of what a layer makes.
    """

    property: ClassVar[str] = "structure"
    keyword: ClassVar[str] = "low_rank"
    after: ClassVar[tuple[str, ...]] = ("clean", "channels", "heads")

    keep: Annotated[float, InPercent(0.01)]
    multiple: Annotated[int, Between(1, 1024)] = 32

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The layers that are named."""
        wiring = Wiring.of(graph)
        named = [weight for weight in graph.weights() if weight.name in targets]
        return [Site(one.name, (one.name,), self._refused(wiring, one)) for one in named]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Put two layers in the place of each."""
        edits = [site.refusal for site in self.sites(graph, targets) if site.refused and context.takes(site.subject)]
        for name, pair in self._pairs(graph, targets, context).items():
            weight = _named(graph, name)
            context.progress(name)
            try:
                _write(graph, weight, pair)
                edits.append(Edit(name, _told(weight, pair), pair.error, layers=(name,)))
            except Refused as refused:
                edits.append(Edit(name, refused.reason, refused=True, layers=(name,)))
        return edits

    def silence(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Multiply both factors out in the old shape."""
        for name, pair in self._pairs(graph, targets, context).items():
            weight = _named(graph, name)
            graph.replace_matrix(weight, pair.up.astype(np.float64) @ pair.down)
            if pair.bias is not None:
                put_bias(graph, Wiring.of(graph), (weight, weight.layers[0]), pair.bias)

    def _refused(self, wiring: Wiring, weight: Weight) -> str:
        """Why a layer stays as it is; empty if it need not."""
        layer, before = weight.layers[0], weight.params
        if any(one.kind is Kind.EMBEDDING for one in weight.layers):
            return f"`{weight.name}` is a table"
        if any(one.kind is not Kind.LINEAR for one in weight.layers):
            return f"`{weight.name}` is no linear layer"
        if weight.given is not None:
            return f"`{weight.name}` comes in {weight.given.text}, and would become floats"
        if layer.op not in wiring.layers or not layer.input:
            return f"`{weight.name}` is no layer of its own"
        if why := takes_affine(wiring, (weight, layer), layer.input):
            return why
        rank = self._rank(weight)
        if not rank:
            return f"{self.keep:.0%} of its {before:,} multiplications is not one channel"
        after = rank * sum(weight.shape)
        return f"two layers would multiply {after:,} times, one does {before:,} times" if after >= before else ""

    def _rank(self, weight: Weight) -> int:
        most = int(self.keep * weight.params / sum(weight.shape) + ROUNDING)
        return most - most % self.multiple if most >= self.multiple else most

    def _pairs(self, graph: Graph, targets: Sequence[str], context: Context) -> "Mapping[str, _Pair]":
        """What each layer that is taken becomes; asked once."""
        sites = [site.subject for site in self.sites(graph, targets) if not site.refused]
        names = [name for name in sites if context.takes(name)]
        key = self, *names
        if key not in context.found:
            context.found[key] = self._found(graph, [_named(graph, name) for name in names], context)
        return cast("Mapping[str, _Pair]", context.found[key])

    def _found(self, graph: Graph, weights: Sequence[Weight], context: Context) -> "Mapping[str, _Pair]":
        uses = Counter(name for op in graph.ops() for name in op.inputs)
        readers = [reading(weight, np.arange(weight.shape[1]), uses) for weight in weights]
        plain = [one for one in readers if one is not None]
        seen, held = dict[str, Array](), dict[str, Array]()
        if context.watch is not None and plain:
            seen, held = (grams_of(graph, plain, context.watch, part) for part in (False, True))
        found = {}
        for weight in weights:
            matrix = graph.matrix(weight).astype(np.float64)
            bias = None if weight.layers[0].bias is None else bias_of(graph, weight.layers[0], len(matrix))
            pair = _factored(matrix, bias, self._rank(weight), seen.get(weight.name))
            found[weight.name] = _judged(pair, matrix, bias, held.get(weight.name))
        return found


@dataclass(frozen=True)
class _Pair:
    """Two layers.

    Args:
        down: ``[rank, in]``.
        up: ``[out, rank]``.
        bias: ``[out]``, float64; None where the layer adds nothing.
        by_data: they are fitted to what the layer reads.
        error: of what they make on data held out, noise power over signal power; of the weights without data.
        judged: there is such data.
    """

    down: Array
    up: Array
    bias: Array | None
    by_data: bool = False
    error: float = 0.0
    judged: bool = False


def _factored(matrix: Array, bias: Array | None, rank: int, gram: Array | None) -> _Pair:
    """Two layers for one ``[out, in]``.

    Args:
        matrix: float64.
        bias: that is added, and may be another.
        rank: of the product.
        gram: sums of the products of what it reads, with a one beside, ``[in + 1, in + 1]``; None if not known.

    Source: Zhang et al. 2015 (arXiv:1411.4229), section 3.1.
    """
    if gram is None or not gram.any():
        up = leading(matrix, rank)
        return _Pair(partner(up, matrix), up, bias)
    count = gram[-1, -1]
    products, mean = gram[:-1, :-1] / count, gram[-1, :-1] / count
    if bias is not None:
        products = products - np.outer(mean, mean)
    products = products / (np.mean(np.diag(products)) or 1.0)
    products[np.diag_indices(len(products))] += DOUBT
    up = leading(matrix @ np.linalg.cholesky(products), rank)
    down = partner(up, matrix)
    lost = matrix - up.astype(np.float64) @ down
    return _Pair(down, up, None if bias is None else bias + lost @ mean, by_data=True)


def _judged(pair: _Pair, matrix: Array, bias: Array | None, gram: Array | None) -> _Pair:
    """With the error on data held out, where there is some."""
    lost, whole = matrix - pair.up.astype(np.float64) @ pair.down, matrix
    if gram is None or not gram.any():
        return _with(pair, float(np.square(lost).sum() / (np.square(whole).sum() or 1.0)), False)
    moved = np.zeros(len(matrix)) if bias is None or pair.bias is None else bias - pair.bias
    added = np.zeros(len(matrix)) if bias is None else bias
    noise, signal = np.column_stack([lost, moved]), np.column_stack([whole, added])
    power = float(np.vdot(signal @ gram, signal))
    return _with(pair, float(np.vdot(noise @ gram, noise)) / power if power else 0.0, True)


def _with(pair: _Pair, error: float, judged: bool) -> _Pair:
    return _Pair(pair.down, pair.up, pair.bias, pair.by_data, error, judged)


def _write(graph: Graph, weight: Weight, pair: _Pair) -> None:
    """Put a pair in the place of a layer.

    Raises:
        Refused: the graph cannot hold it; nothing has changed.
    """
    (layer,) = weight.layers
    dtype = np.dtype(graph.value(layer.input).dtype)
    bias = None if pair.bias is None else pair.bias.astype(dtype)
    between = graph.insert("linear", layer.input, pair.down.T.astype(dtype), (), f"{layer.name}{DOWN}")
    graph.replace_region(layer.output, between, pair.up.T.astype(dtype), bias, f"{layer.name}{UP}")


def _told(weight: Weight, pair: _Pair) -> str:
    rank = len(pair.down)
    share = rank * sum(weight.shape) / weight.params
    text = f"{weight.shape[1]:,} -> {rank:,} -> {weight.shape[0]:,} channels, {share:.0%} of its multiplications"
    if not pair.by_data:
        return f"{text}; fitted to the weights alone, of which {pair.error:.2%} is lost: no data was given"
    return f"{text}; data held out is off by {pair.error:.2%}" if pair.judged else text


def _named(graph: Graph, name: str) -> Weight:
    return next(weight for weight in graph.weights() if weight.name == name)
