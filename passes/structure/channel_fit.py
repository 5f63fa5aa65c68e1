"""What may go of a group of channels by data, and how the layers that read the others make up for it.

A layer that reads channels ``x`` and loses some of them, ``D``, can have what those would have given of what the
others, ``S``, tell of them: ``x_D ~ x_S A + b``. That is least squares on the products of the channels, of which a
removal takes one away: what the layer loses then, and what becomes of its weights, follow in closed form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Layer, Weight
from qcc.ir.regions.joined import Joins
from qcc.passes.contract.contract import Watch

DAMPING = 1e-4  # of the mean of the diagonal
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # of the diagonal, on how far weights move
MOST_ROWS = 2048  # of a sample: neighbouring places of an image tell the same


@dataclass(frozen=True)
class ChannelReader:
    """A layer all of whose inputs are a group's channels, each once or as often as the others.

    Args:
        weight: that it reads, and nothing else does.
        layer: the layer.
        axis: of its inputs, in what it reads.
        units: for each of its inputs the group's channel that it is, ``[in]``: of heads, one for all inputs of a head.
        biased: it has a bias that nothing else reads.
    """

    weight: Weight
    layer: Layer
    axis: int
    units: Array
    biased: bool = True

    @property
    def places(self) -> int:
        """Of a kernel."""
        return int(np.prod(self.layer.kernel)) if self.layer.kernel else 1

    def rows(self, value: Array) -> Array:
        """What it reads as rows ``[rows, in]``, some of them where there are many."""
        flat = np.moveaxis(value, self.axis, -1).reshape(-1, value.shape[self.axis])
        return flat[:: -(-len(flat) // MOST_ROWS)].astype(np.float64)

    def inputs(self, matrix: Array) -> Array:
        """Its matrix by input ``[in, out * places of a kernel]``."""
        size = self.places
        return np.moveaxis(matrix.reshape(len(matrix), -1, size), 1, 0).reshape(-1, len(matrix) * size)

    def matrix(self, inputs: Array, outputs: int) -> Array:
        """The matrix ``[out, in * places of a kernel]`` again."""
        return np.moveaxis(inputs.reshape(len(inputs), outputs, -1), 0, 1).reshape(outputs, -1)

    def by_unit(self) -> Array:
        """The inputs of each of the group's channels ``[size, inputs of each]``."""
        return np.argsort(self.units, kind="stable").reshape(self.units.max() + 1, -1)


def reading(weight: Weight, channels: Array, uses: Mapping[str, int]) -> ChannelReader | None:
    """The layer of a weight that reads channels; None if it reads them in some other way.

    Args:
        weight: the weight.
        uses: how often each constant is read.
        channels: by input of its matrix, as `Axes.channels` tells it.
    """
    (layer, *others) = weight.layers
    alone = not others and layer.input and layer.groups == 1 and layer.kind in (Kind.LINEAR, Kind.CONV)
    size = int(np.prod(layer.kernel)) if layer.kernel else 1
    if not alone or weight.shape[1] != len(channels) * size or channels.min() < 0:
        return None
    if len(set(np.bincount(channels).tolist())) != 1:
        return None
    biased = layer.bias is not None and uses.get(layer.bias, 0) == 1
    return ChannelReader(weight, layer, 1 if layer.kind is Kind.CONV else -1, channels, biased)


@dataclass
class Products:
    """The products of what a layer reads, with a one beside, among themselves and with what it is to make of it."""

    gram: Array = field(default_factory=lambda: np.zeros(()))
    pull: Array = field(default_factory=lambda: np.zeros(()))
    signal: float = 0.0
    count: int = 0

    def add(self, now: Array, wanted: Array | None = None) -> None:
        """Add a sample's rows ``[rows, in]`` and ``[rows, out]``."""
        x = np.concatenate([now, np.ones((len(now), 1))], 1)
        self.gram, self.count = self.gram + x.T @ x, self.count + len(x)
        if wanted is not None:
            self.pull, self.signal = self.pull + x.T @ wanted, self.signal + float(np.vdot(wanted, wanted))

    def error(self, weights: Array) -> float:
        """What weights ``[in + 1, out]`` are off by, as a share of what they are to make."""
        off = self.signal - 2 * np.vdot(weights, self.pull) + np.vdot(weights, self.gram @ weights)
        return float(off) / self.signal if self.signal else 0.0


@dataclass(frozen=True)
class Removals:
    """The order in which a group's channels go, and what each costs more.

    Args:
        order: of those that go, the cheapest first.
        costs: of each, as a share of what readers make, once the others make up for it.
        size: of the group.
    """

    order: Array
    costs: Array
    size: int

    def cost(self, stay: int) -> float:
        """What it costs that so many stay."""
        return float(self.costs[: self.size - stay].sum())

    def stays(self, count: int) -> Array:
        """Which channels do if so many stay ``[size]`` of bool."""
        found = np.ones(self.size, bool)
        found[self.order[: self.size - count]] = False
        return found


def removals(readers: Sequence[ChannelReader], grams: Sequence[Array], graph: Graph, least: int) -> Removals:
    """One channel after the other goes that costs least once the rest makes up for it.

    Args:
        readers: of the group.
        grams: of what each reads, with a one beside, ``[in + 1, in + 1]``.
        graph: that has the weights.
        least: so many stay in the end.

    Source: Optimal Brain Surgeon, Hassibi and Stork 1992, for sets of weights that go together, as for columns and
        heads in ZipLM, Kurtic et al. 2023 (arXiv:2302.04089), section 3.1.
    """
    going = [_Removal(reader, gram, graph) for reader, gram in zip(readers, grams, strict=True)]
    stays = np.ones(readers[0].units.max() + 1, bool)
    order, costs = [], []
    while stays.sum() > least:
        left = np.flatnonzero(stays)
        found = np.sum([one.costs(left) for one in going], axis=0)
        worst = int(left[np.argmin(found)])
        stays[worst] = False
        order.append(worst)
        costs.append(max(float(found.min()), 0.0))
        for one in going:
            one.remove(worst)
    return Removals(np.array(order, np.intp), np.array(costs), len(stays))


class _Removal:
    """A layer's weights ``[in + 1, out]`` while channels go, over what it makes, and the inverse of its products."""

    def __init__(self, reader: ChannelReader, gram: Array, graph: Graph) -> None:
        size = len(gram) - 1
        matrix = reader.inputs(graph.matrix(reader.weight).astype(np.float64))
        signal = np.einsum("ij,ij->", gram[:size, :size] @ matrix, matrix) or 1.0
        self._inverse = np.linalg.inv(gram + DAMPING * np.diag(gram)[:size].mean() * np.eye(size + 1))
        self._weights = np.concatenate([matrix, np.zeros((1, matrix.shape[1]))]) / np.sqrt(signal)
        self._places = reader.by_unit()

    def costs(self, left: Array) -> Array:
        """What each of some channels costs that goes next."""
        places = self._places[left]
        weights = self._weights[places]
        if places.shape[1] == 1:
            spread = self._inverse[places[:, 0], places[:, 0]]
            return np.asarray(np.square(weights[:, 0]).sum(1) / np.maximum(spread, np.finfo(np.float64).tiny))
        met = np.linalg.solve(self._inverse[places[:, :, None], places[:, None, :]], weights)
        return np.asarray(np.einsum("uio,uio->u", met, weights))

    def remove(self, unit: int) -> None:
        """Let the others make up for one."""
        gone = self._places[unit]
        pull = np.linalg.solve(self._inverse[np.ix_(gone, gone)], self._inverse[gone]).T
        self._weights = self._weights - pull @ self._weights[gone]
        self._inverse = self._inverse - pull @ self._inverse[gone]


def refitted(reader: ChannelReader, seen: Products, held: Products, matrix: Array, stays: Array) -> tuple[Array, Array]:
    """The matrix ``[out, in]`` for the channels that stay, and what its bias gets more, nearest to what the layer gave.

    Weights are drawn to what they were, as much as data held out wants it; where nothing is nearer they are those, cut.
    """
    laid = reader.inputs(matrix.astype(np.float64))
    kept = np.append(stays[reader.units], reader.biased)
    cut = np.where(kept[:, None], np.concatenate([laid, np.zeros((1, laid.shape[1]))]), 0)
    best, least = cut, held.error(cut)
    gram, slope = seen.gram[np.ix_(kept, kept)], (seen.pull - seen.gram @ cut)[kept]
    for ridge in RIDGES:
        damped = gram + np.diag(ridge * np.diag(gram) + DAMPING * np.diag(gram).mean())
        found = cut.copy()
        found[kept] += np.linalg.solve(damped, slope)
        error = held.error(found)
        if error < least:
            best, least = found, error
    return reader.matrix(best[:-1], len(matrix)), best[-1].reshape(len(matrix), -1).sum(1)


def grams_of(graph: Graph, readers: Sequence[ChannelReader], watch: Watch) -> dict[str, Array]:
    """The products of what layers read, with a one beside, by the weight's name."""
    if not readers:
        return {}
    found: dict[str, Products] = {reader.weight.name: Products() for reader in readers}
    for values in watch(graph, list(dict.fromkeys(reader.layer.input for reader in readers)), False):
        for reader in readers:
            found[reader.weight.name].add(reader.rows(values[reader.layer.input]))
    return {name: one.gram for name, one in found.items()}


def made_up(
    whole: Graph, work: Graph, readers: Sequence[tuple[ChannelReader, Array]], watch: Watch
) -> dict[str, Array]:
    """Constants of layers that make up for channels that are gone, one layer after the other, by name.

    What is added to what a layer makes, before anything else is done with it, may be off by then: that is made up for.

    Args:
        whole: the graph with all channels.
        work: the same with those silenced that are to go; its constants become those returned.
        readers: in the order in which they run, each with which channels stay.
        watch: runs both.

    Source: sequential least squares as in ThiNet, Luo et al. 2017 (arXiv:1707.06342), section 3.2; what is added as in
        `qronos`.
    """
    found: dict[str, Array] = {}
    joins, outputs = Joins(whole), {op.name: op.outputs[0] for op in whole.ops()}
    for reader, stays in readers:
        beside = (joins.beside(outputs[reader.layer.op]) or ()) if reader.places == 1 else ()
        seen, held = Products(), Products()
        laid = reader.inputs(whole.matrix(reader.weight).astype(np.float64))
        names = tuple(dict.fromkeys((reader.layer.input, *beside)))
        for products, part in ((seen, False), (held, True)):
            for now, first in zip(watch(work, names, part), watch(whole, names, part), strict=True):
                wanted = reader.rows(first[reader.layer.input]) @ laid
                for name in beside:
                    if first[name].shape == now[name].shape and _fits(
                        first[name], reader, len(wanted), wanted.shape[1]
                    ):
                        wanted += reader.rows(first[name].astype(np.float64) - now[name])
                products.add(reader.rows(now[reader.layer.input]), wanted)
        if not held.count:
            continue
        matrix, more = refitted(reader, seen, held, whole.matrix(reader.weight), stays)
        changed = {reader.weight.constant: reader.weight.view.array(matrix)}
        bias = work.constant(reader.layer.bias) if reader.layer.bias is not None and reader.biased else None
        if bias is not None and reader.layer.bias is not None:
            changed[reader.layer.bias] = bias + more.reshape(bias.shape)
        for constant, array in changed.items():
            found[constant] = array.astype(np.dtype(work.value(constant).dtype))
            work.replace_constant(constant, found[constant])
    return found


def _fits(value: Array, reader: ChannelReader, rows: int, width: int) -> bool:
    """A value has a row for each that the layer makes."""
    total = value.size // max(value.shape[reader.axis], 1)
    return value.shape[reader.axis] == width and len(range(0, total, -(-total // MOST_ROWS))) == rows
