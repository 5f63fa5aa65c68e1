"""Order of channels, so that weights that share a scale are alike."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.axes import Axes, Group
from qcc.ir.graph import Array, Graph, Weight
from qcc.passes.channel_order import MOMENT, clustered, dealt, descending
from qcc.passes.channel_readers import Reader, estimate, powers_of, reader, readers_of
from qcc.passes.channel_sites import gather_site, gathers_of, groups_of, site_of
from qcc.passes.contract import Between, Context, Edit, Rewrite, Site

GAIN, GATHER_GAIN = 0.01, 0.05  # how much better an order must be: of itself, and to be worth an op


@dataclass
class _Run:
    """One run of the pass: the graph, and of its targets what is known of their inputs, kept up to date."""

    graph: Graph
    axes: Axes
    weights: Mapping[str, Weight]
    powers: dict[str, Array]
    context: Context
    edits: list[Edit] = field(default_factory=list)

    def move(self, readers: Sequence[Reader], order: Array) -> None:
        """Note that inputs have moved."""
        for one in readers:
            if one.weight.name in self.powers:
                self.powers[one.weight.name] = self.powers[one.weight.name][one.columns(order)[0]]


class Permute(Rewrite):
    """Put the channels between layers into another order, in every weight, bias and norm that they pass.

    Channels that flow together, along a whole residual stream if need be, move together, so nothing is left to do at
    run time. Heads keep their channels, rotary embeddings their pairs.
    """

    property: ClassVar[str] = "permute"
    after: ClassVar[tuple[str, ...]] = ("clean", "fold_norm", "rotate")
    by: ClassVar[str]
    measure: ClassVar[str]

    def gathers(self) -> bool:
        """Channels that are fixed may be reordered while the model runs."""
        return False

    @abstractmethod
    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """Orders to choose from ``[*contexts, size]``: which old channel comes to each new place."""

    @abstractmethod
    def concerns(self, one: Reader) -> bool:
        """The order makes a difference to this weight."""

    @abstractmethod
    def loss(self, readers: Sequence[Reader], order: Array | None) -> float:
        """What an order is judged by, or the present one: less is better."""

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The groups of channels that targets have as inputs, and the values that an op could reorder for them."""
        axes = Axes.of(graph)
        weights = {weight.name: weight for weight in graph.weights() if weight.name in set(targets)}
        groups = groups_of(axes, weights)
        gathers = gathers_of(groups, weights) if self.gathers() else {}
        found = (site_of(group, weights, gathers) for group in groups)
        return [*(site for site in found if site.layers), *map(gather_site, gathers.items())]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Reorder."""
        wanted = set(targets)
        weights = {weight.name: weight for weight in graph.weights() if weight.name in wanted}
        powers = powers_of(list(weights.values()), context) if self.uses_gram else {}
        run = _Run(graph, Axes.of(graph), weights, powers, context)
        groups = groups_of(run.axes, weights)
        gathers = gathers_of(groups, weights) if self.gathers() else {}
        for group in groups:
            site = site_of(group, weights, gathers)
            if site.refused:
                run.edits.append(site.refusal)
            elif not group.fixed and context.takes(site.subject):
                self._permute(run, site, group)
        for value, readers in gathers.items():
            site = gather_site((value, readers))
            if context.takes(site.subject):
                self._gather(run, site, value, readers)
        return run.edits

    def _permute(self, run: _Run, site: Site, group: Group) -> None:
        run.context.progress(site.subject)
        readers = readers_of(run.axes, group, run.weights, run.powers, run.context)
        self._reorder(run, site, readers, GAIN, lambda order: run.axes.apply(group, order))

    def _gather(self, run: _Run, site: Site, value: str, weights: Sequence[Weight]) -> None:
        def insert(order: Array) -> None:
            for one in readers:
                run.graph.replace_matrix(one.weight, one.matrix[:, order])
            inputs = {op.name: op.inputs for op in run.graph.ops()}
            uses = [(layer.op, inputs[layer.op].index(value)) for weight in weights for layer in weight.layers]
            run.graph.insert("gather", value, order.astype(np.int64), uses)

        run.context.progress(site.subject)
        readers = [reader(run.graph, weight, run.powers, run.context) for weight in weights]
        self._reorder(run, site, readers, GATHER_GAIN, insert)

    def _reorder(
        self, run: _Run, site: Site, readers: Sequence[Reader], gain: float, act: Callable[[Array], None]
    ) -> None:
        """Find an order and use it if it is better."""
        concerned = [one for one in readers if self.concerns(one)]
        if not concerned:
            return
        moved = [one for one in self.orders(concerned) if (one != np.arange(one.shape[-1])).any()]
        losses = [(self.loss(concerned, one), one) for one in moved]
        if not losses:
            return
        before, (after, order) = self.loss(concerned, None), min(losses, key=lambda pair: pair[0])
        if after > before * (1 - gain):
            return
        run.move(readers, order)
        act(order)
        text = f"{order.shape[-1]} channels by {self.by}, {self.measure} {before:.3g} to {after:.3g}"
        run.edits.append(Edit(site.subject, text, layers=site.layers))


@dataclass(frozen=True)
class _Alike(Permute):
    """Orders that put like with like, judged by the error that rounding makes."""

    measure: ClassVar[str] = "estimated error"

    gather: bool = False

    def gathers(self) -> bool:
        """As the option says."""
        return self.gather

    def concerns(self, one: Reader) -> bool:
        """A row has several blocks."""
        return one.ordered

    def loss(self, readers: Sequence[Reader], order: Array | None) -> float:
        """By rounding some rows."""
        return estimate(readers, order)


@dataclass(frozen=True)
class Magnitude(_Alike):
    """Sort channels by the mean size of the weights that read them, so that each block holds large ones or small ones.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    A channel's size is the root mean square of its column, averaged over all layers that read it, each measured by
    its own mean. An order is only kept if it lowers the error that rounding to nearest makes in these layers by 1 %.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        gather: where they are fixed, put an op before the linear layers that reorders their input while the model runs,
            if that lowers the error by 5 %.

    Source: Accurate Block Quantization in LLMs with Outliers, Trukhanov and Soloveychik 2024 (arXiv:2403.20137),
    section 3.
    """

    by: ClassVar[str] = "magnitude"

    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """By root mean square."""
        return [descending(magnitude(readers))]


@dataclass(frozen=True)
class Range(_Alike):
    """Sort channels by the largest of the weights that read them.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    As `magnitude`, with the largest weight of a column in place of its mean size: it is what an `absmax` scale has to
    cover.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        gather: where they are fixed, put an op before the linear layers that reorders their input while the model runs,
            if that lowers the error by 5 %.

    Source: Accurate Block Quantization in LLMs with Outliers, Trukhanov and Soloveychik 2024 (arXiv:2403.20137),
    section 3.
    """

    by: ClassVar[str] = "range"

    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """By largest weight."""
        sizes = [one.largest() / (one.moment(2).mean() ** 0.5 or 1.0) for one in readers]
        return [descending(np.mean(sizes, 0))]


@dataclass(frozen=True)
class Hessian(_Alike):
    """Put channels into blocks by the size of their weights and the power of their inputs together.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    A block's rounding error shows in the output as the square of its step times the power of its inputs on calibration
    data. Large weights set the step, so they are put together, and beside them channels whose inputs are weak. Blocks
    are improved two at a time. The order by `magnitude` is taken where it does better. An order is only kept if it
    lowers the error of the outputs by 1 %.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        gather: where they are fixed, put an op before the linear layers that reorders their input while the model runs,
            if that lowers the error by 5 %.

    Source: ours; the diagonal of the Hessian as measure of a channel is from Optimal Brain Damage, LeCun et al. 1989,
    the reordering from Trukhanov and Soloveychik 2024 (arXiv:2403.20137), section 3.
    """

    uses_gram: ClassVar[bool] = True
    by: ClassVar[str] = "weight and input power"

    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """In clusters, for each context on its own."""
        moments = np.stack([one.moment(MOMENT) for one in readers])
        powers = np.stack([one.channels(one.power[None]) for one in readers])
        size = min(one.block for one in readers)
        count, (*contexts, channels) = len(readers), moments.shape[1:]
        pairs = zip(
            moments.reshape(count, -1, channels).swapaxes(0, 1),
            powers.reshape(count, -1, channels).swapaxes(0, 1),
            strict=True,
        )
        found = np.stack([clustered(*pair, size) for pair in pairs]).reshape(*contexts, channels)
        return [found, descending(magnitude(readers))]


@dataclass(frozen=True)
class Balance(Permute):
    """Deal channels out so that every tile of them weighs the same: for work that is shared out, or pruned, by tiles.

    Rewrite:
        W1 [hidden, in], W2 [out, hidden]  -->  W1[order, :], W2[:, order]

    A channel's weight is its `magnitude`. The heaviest go one to each tile, the next ones back again, and so on.

    Refused where the channels are fixed: they are an input or output of the model, or pass an op that mixes them.

    Args:
        tile: channels in a tile.

    Source: the snake order of draft allocation; balanced sparsity, Yao et al. 2019 (arXiv:1811.00206), section 3, is
    what it is for.
    """

    by: ClassVar[str] = "balance"
    measure: ClassVar[str] = "excess of the heaviest tile"
    tile: Annotated[int, Between(2, 1 << 16)] = 16

    def orders(self, readers: Sequence[Reader]) -> Sequence[Array]:
        """Dealt, for each context on its own."""
        loads = magnitude(readers)
        flat = loads.reshape(-1, loads.shape[-1])
        return [np.stack([dealt(one, self.tile) for one in flat]).reshape(loads.shape)]

    def concerns(self, one: Reader) -> bool:
        """Tiles are there however a weight is stored."""
        return True

    def loss(self, readers: Sequence[Reader], order: Array | None) -> float:
        """By how much the heaviest tile exceeds the mean."""
        loads = magnitude(readers)
        loads = loads if order is None else np.take_along_axis(loads, order, -1)
        whole = loads[..., : loads.shape[-1] // self.tile * self.tile]
        tiles = whole.reshape(*loads.shape[:-1], -1, self.tile).sum(-1)
        if not tiles.size:
            return 0.0
        mean = np.maximum(tiles.mean(-1), np.finfo(np.float64).tiny)
        return float(np.mean(tiles.max(-1) / mean) - 1)


def magnitude(readers: Sequence[Reader]) -> Array:
    """The root mean square of each channel's weights ``[*contexts, size]``, each reader's measured by its own."""
    squares = [one.moment(2) for one in readers]
    return np.asarray(np.sqrt(np.mean([one / (one.mean() or 1.0) for one in squares], 0)))
