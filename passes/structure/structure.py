"""Channels that layers lose, so that shapes are smaller in the whole model."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.passes.contract.contract import Context, Edit, Restructure, Site

Stays = Mapping[str, Array]
"""By the names of groups, which channels stay: ``[size]`` of bool."""


class Structure(Restructure):
    """Cut channels from layers, with all that goes with them: along a residual stream, through norms and heads.

    A group of channels is cut if every layer that writes it is asked for; what reads it loses inputs, asked or not.
    """

    property: ClassVar[str] = "structure"
    cut: ClassVar[str] = "channels"
    """What goes, in words."""
    after: ClassVar[tuple[str, ...]] = ("clean",)

    @abstractmethod
    def concerns(self, axes: Axes, group: Group) -> bool:
        """The group is of the kind that is cut."""

    @abstractmethod
    def stays(self, axes: Axes, groups: Sequence[Group], context: Context) -> Stays:
        """Which channels of groups stay."""

    def made_up(self, graph: Graph, stays: Stays, context: Context) -> Mapping[str, Array]:
        """Constants by name that make up for what goes, in the old shapes; by default none."""
        return {}

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The groups of channels that targets write."""
        axes = Axes.of(graph)
        return [_site(group, targets, graph) for group in self._groups(axes, targets, graph)]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Cut, all groups at once; where some op cannot follow, one by one, without those that it stops."""
        refused = [site.refusal for site in self.sites(graph, targets) if site.refused]
        refused = [edit for edit in refused if context.takes(edit.subject)]
        axes = Axes.of(graph)
        stays = self._stays(axes, graph, targets, context)
        if not stays:
            return refused
        made_up = self.made_up(graph, stays, context)
        for name, array in made_up.items():
            graph.replace_constant(name, array)
        axes = Axes.of(graph) if made_up else axes
        try:
            axes.cut({group: stays[group.name] for group in axes.groups(Action.SELECT) if group.name in stays})
            return [
                *refused,
                *(self._told(group, stays) for group in axes.groups(Action.SELECT) if group.name in stays),
            ]
        except Refused as whole:
            if made_up:  # which is right for all of it or none
                return [*refused, *(Edit(name, whole.reason, refused=True) for name in stays)]
            return [*refused, *self._one_by_one(graph, stays)]

    def silence(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Let the weights of what is cut be zero."""
        axes = Axes.of(graph)
        stays = self._stays(axes, graph, targets, context)
        for name, array in self.made_up(graph, stays, context).items():
            graph.replace_constant(name, array)
        axes = Axes.of(graph)
        axes.mask({group: stays[group.name] for group in axes.groups(Action.SELECT) if group.name in stays})

    def _stays(self, axes: Axes, graph: Graph, targets: Sequence[str], context: Context) -> Stays:
        """What stays of the groups of which something goes."""
        open_ = [group for group in self._groups(axes, targets, graph) if not _site(group, targets, graph).refused]
        found = self.stays(axes, [group for group in open_ if context.takes(group.name)], context)
        return {name: stays for name, stays in found.items() if not stays.all()}

    def _told(self, group: Group, stays: Stays) -> Edit:
        kept = int(stays[group.name].sum())
        return Edit(group.name, f"{group.size:,} -> {kept:,} {self.cut}", layers=group.weights)

    def _one_by_one(self, graph: Graph, stays: Stays) -> list[Edit]:
        edits = []
        for name in stays:
            axes = Axes.of(graph)
            group = next(group for group in axes.groups(Action.SELECT) if group.name == name)
            try:
                axes.cut({group: stays[name]})
                edits.append(self._told(group, stays))
            except Refused as refused:
                edits.append(Edit(name, refused.reason, refused=True, layers=group.weights))
        return edits

    def _groups(self, axes: Axes, targets: Sequence[str], graph: Graph) -> list[Group]:
        found = [group for group in axes.groups(Action.SELECT) if group.size > 1 and group.weights]
        return [group for group in found if set(targets) & set(_writers(group, graph)) and self.concerns(axes, group)]


def _writers(group: Group, graph: Graph) -> tuple[str, ...]:
    """The weights that make the channels: layers as their outputs, tables as their columns."""
    tables = {weight.name for weight in graph.weights() if _is_table(weight)}
    return (*group.writers, *(name for name in group.readers if name in tables))


def _is_table(weight: Weight) -> bool:
    return any(layer.kind is Kind.EMBEDDING for layer in weight.layers)


def _site(group: Group, targets: Sequence[str], graph: Graph) -> Site:
    others = [name for name in _writers(group, graph) if name not in targets]
    also = f"`{others[0]}` writes them too, and is not asked for" if others else ""
    return Site(group.name, group.weights, group.fixed or also)
