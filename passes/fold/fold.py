"""Scaling channels so that the weights that read them are encoded well."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.axes.axes import Axes, Group, Member
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.passes.contract.contract import Context, Edit, Rewrite, Site
from qcc.passes.fold.places import ScalePlace, channels_of, columns_of, places_of, reads
from qcc.passes.fold.terms import Term


@dataclass(frozen=True)
class FoldedScales:
    """What channels are divided by ``t [size]``, and what to say of it."""

    t: Array
    text: str


class Fold(Rewrite):
    """Divide channels by scales where they are made, and multiply by them the columns of the weights that read them."""

    property: ClassVar[str] = "fold"
    after: ClassVar[tuple[str, ...]] = ("clean", "fold_norm", "rotate", "permute", "equalize")
    uses_gram: ClassVar[bool] = True

    convolutions: ClassVar[bool] = False
    """Those count as readers, too, where the channels are a group's."""

    insert: bool

    @abstractmethod
    def scales(self, terms: Sequence[Term], place: ScalePlace) -> FoldedScales | None:
        """The scales of a place; None to leave it as it is.

        Args:
            terms: the weights that have a say, as they are now, among them one reader at least.
            place: where.
        """

    @abstractmethod
    def counts(self, name: str, context: Context) -> bool:
        """A weight, of whose inputs there is a Gram matrix, has a say."""

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The groups and values that targets read."""
        return [place.site for place in places_of(graph, Axes.of(graph), targets, self.insert, self.convolutions)]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Choose and apply scales, place by place."""
        axes, edits = Axes.of(graph), []
        work = _Work(graph, axes, context)
        for place in places_of(graph, axes, targets, self.insert, self.convolutions):
            if place.refused:
                edits.append(place.site.refusal)
                continue
            readers = [name for name in place.layers if work.knows(name) and self.counts(name, context)]
            if not readers or not context.takes(place.subject):
                continue
            context.progress(place.subject)
            found = self.scales(work.terms(place, readers), place)
            if found is not None:
                work.apply(place, found.t)
                edits.append(Edit(place.subject, found.text, layers=place.layers))
        return edits


class _Work:
    """A graph whose channels get scales one place after another; the Gram matrices follow."""

    def __init__(self, graph: Graph, axes: Axes, context: Context) -> None:
        self._graph, self._axes, self._context = graph, axes, context
        self._weights = {weight.name: weight for weight in graph.weights()}
        self._divided: dict[str, Array] = {}  # by what the inputs of a weight have been divided

    def knows(self, name: str) -> bool:
        """There is a Gram matrix of a weight's inputs, or what the largest are."""
        found = (known.get(name) for known in (self._context.grams, self._context.largest))
        sizes = {len(one) for one in found if one is not None}
        return sizes == {self._weights[name].shape[1]}

    def terms(self, place: ScalePlace, readers: Sequence[str]) -> list[Term]:
        """What the scales of a place concern: its readers, and what makes its channels where that feels them."""
        if place.group is None:
            return [self._term(name, np.arange(place.size)) for name in readers]
        found = [self._term(name, self._columns(place.group, name)) for name in readers]
        for member in place.group.constants:
            if not self._feels(member):
                continue
            channels = channels_of(self._axes, place.group, self._weights[member.weight], member)
            if channels is not None:
                found.append(self._term(member.weight, channels, rowwise=member.side == "out", power=-1))
        return found

    def apply(self, place: ScalePlace, t: Array) -> None:
        """Divide the channels of a place by ``t``."""
        if place.group is None:
            self._insert(place, t)
            return
        group = place.group
        for name in dict.fromkeys(one.weight for one in group.constants if reads(one)):
            columns = columns_of(self._axes, group, self._weights[name]) if self.knows(name) else None
            if columns is not None:
                self._divided[name] = self._divided.get(name, np.ones(len(columns))) * np.append(t, 1.0)[columns]
        self._axes.apply(group, (1 / t).reshape(*group.contexts, group.size))

    def _insert(self, place: ScalePlace, t: Array) -> None:
        ops = {op.name: op for op in self._graph.ops()}
        weights = [self._weights[name] for name in place.layers]
        uses = dict.fromkeys(layer.op for weight in weights for layer in weight.layers)
        for weight in weights:
            self._graph.replace_matrix(weight, self._graph.matrix(weight) * t.astype(np.float32))
        kind = self._graph.constant(weights[0].constant)
        assert kind is not None
        readers = [(op, ops[op].inputs.index(place.value)) for op in uses]
        self._graph.insert("mul", place.value, (1 / t).astype(kind.dtype), readers)

    def _columns(self, group: Group, name: str) -> Array:
        columns = columns_of(self._axes, group, self._weights[name])
        assert columns is not None  # else the place would have been refused
        return columns

    def _term(self, name: str, channels: Array, rowwise: bool = False, power: int = 1) -> Term:
        matrix, encoding = self._graph.matrix(self._weights[name]), self._context.blocked(name)
        largest = self._context.largest.get(name)
        if largest is not None and name in self._divided:
            largest = largest / self._divided[name]
        if not self.knows(name) or name not in self._context.grams:
            return Term(matrix, encoding, None, channels, rowwise, power, largest=largest)
        moments = self._context.moments.get(name)
        parts = None
        if moments is not None and moments.judged:
            parts = self._scaled(name, moments.seen), self._scaled(name, moments.held)
        return Term(matrix, encoding, self._scaled(name, self._context.grams[name]), channels, rowwise, power, parts)

    def _scaled(self, name: str, gram: Array) -> Array:
        """A Gram matrix of a weight's inputs as they are now."""
        if name not in self._divided:
            return gram
        inverse = (1 / self._divided[name]).astype(gram.dtype)
        return np.asarray(gram * inverse * inverse[:, None])

    def _feels(self, member: Member) -> bool:
        """A weight makes the channels, and scales of them change how well it is encoded: not if rows have their own."""
        encoding = self._context.blocked(member.weight)
        if encoding is None or encoding.scale is None or member.exponent < 0:
            return False
        return member.side == "in" or encoding.block.rows != 1
