"""Order of channels, so that weights that share a scale are alike."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from qcc.ir.axes.axes import Axes, Group
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Weight
from qcc.passes.channels.readers import InputPowers, Reader, powers_of, reader, readers_of
from qcc.passes.contract.contract import Context, Edit, Rewrite, Site
from qcc.passes.order.sites import gather_site, gathers_of, groups_of, site_of

GAIN, GATHER_GAIN = 0.01, 0.05  # how much better an order must be: of itself, and to be worth an op


@dataclass
class Run:
    """One run of the pass: the graph, and of its targets what is known of their inputs, kept up to date."""

    graph: Graph
    axes: Axes
    weights: Mapping[str, Weight]
    powers: dict[str, InputPowers]
    context: Context
    edits: list[Edit] = field(default_factory=list)

    def readers(self, group: Group) -> list[Reader]:
        """The targets that have a group's channels as inputs."""
        return readers_of(self.axes, group, self.weights, self.powers, self.context)

    def move(self, readers: Sequence[Reader], order: Array) -> None:
        """Note that inputs have moved."""
        for one in readers:
            if one.weight.name in self.powers:
                power, held = self.powers[one.weight.name]
                columns = one.columns(order)[0]
                self.powers[one.weight.name] = power[columns], held[columns]


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
        run = Run(graph, Axes.of(graph), weights, powers, context)
        groups = groups_of(run.axes, weights)
        gathers = gathers_of(groups, weights) if self.gathers() else {}
        for group in groups:
            site = site_of(group, weights, gathers)
            if site.refused:
                run.edits.append(site.refusal)
            elif not group.fixed and context.takes(site.subject):
                self.permute(run, site, group)
        for value, readers in gathers.items():
            site = gather_site((value, readers))
            if context.takes(site.subject):
                self._gather(run, site, value, readers)
        return run.edits

    def permute(self, run: Run, site: Site, group: Group) -> None:
        """Reorder the channels of a group that may be, if that is better."""
        run.context.progress(site.subject)
        readers = run.readers(group)
        self._reorder(run, site, readers, GAIN, lambda order: run.axes.apply(group, order))

    def _gather(self, run: Run, site: Site, value: str, weights: Sequence[Weight]) -> None:
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
        self, run: Run, site: Site, readers: Sequence[Reader], gain: float, act: Callable[[Array], None]
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
