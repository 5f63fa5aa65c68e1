"""Scaling channels so that the weights that read them are encoded well."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.axes import Action, Axes, Group, Member
from qcc.ir.blocks import CHANNEL
from qcc.ir.encoding import Encoding, IntGrid
from qcc.ir.graph import Graph, Kind, Weight
from qcc.passes.contract import Context, Edit, Rewrite, Site
from qcc.passes.scale_search import Term

ANY = Encoding(IntGrid(8), CHANNEL)  # of a weight that stays float: scales that are not searched never ask for it
SHARED = "it is also looked up, or read in several places"


@dataclass(frozen=True)
class Place:
    """Channels that may get scales: those of a group, or those of a value in front of its readers.

    Args:
        subject: names it among the pass's sites.
        layers: the targets that read the channels.
        size: how many channels there are, contexts multiplied out.
        group: the group; None for a value.
        value: the value.
        refused: why nothing can be done.
    """

    subject: str
    layers: tuple[str, ...]
    size: int = 0
    group: Group | None = None
    value: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Choice:
    """Scales that the channels are divided by, ``t [size]``, and what to say of them."""

    t: np.ndarray
    text: str


class Fold(Rewrite):
    """Divide channels by scales, and multiply the columns that read them.

    What a subclass adds is how scales are chosen.
    """

    property: ClassVar[str] = "fold"
    after: ClassVar[tuple[str, ...]] = ("clean", "fold_norm", "rotate", "permute", "equalize")
    uses_gram: ClassVar[bool] = True

    insert: bool

    @abstractmethod
    def choose(self, terms: Sequence[Term], place: Place) -> Choice | str:
        """The scales of a place, or why it keeps those that it has.

        Args:
            terms: the weights that have a say, as they are now.
            place: where.
        """

    @abstractmethod
    def counts(self, name: str, context: Context) -> bool:
        """A weight that reads the channels has a say in their scales."""

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The groups and values that these weights read."""
        places = _places(graph, Axes.of(graph), targets, self.insert)
        return [Site(place.subject, place.layers, place.refused) for place in places]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Choose scales place by place, and apply them."""
        axes = Axes.of(graph)
        work = _Work(graph, axes, context)
        edits = []
        for place in _places(graph, axes, targets, self.insert):
            if place.refused:
                edits.append(Edit(place.subject, place.refused, refused=True, layers=place.layers))
                continue
            if not context.takes(place.subject):
                continue
            context.progress(place.subject)
            readers = [name for name in place.layers if self.counts(name, context)]
            if not readers:
                continue
            choice = self.choose(work.terms(place, readers), place)
            if isinstance(choice, Choice):
                work.apply(place, choice.t)
                edits.append(Edit(place.subject, choice.text, layers=place.layers))
        return edits


class _Work:
    """A graph whose channels get scales one place after another."""

    def __init__(self, graph: Graph, axes: Axes, context: Context) -> None:
        self._graph, self._axes, self._context = graph, axes, context
        self._weights = {weight.name: weight for weight in graph.weights()}
        self._divided: dict[str, np.ndarray] = {}  # by what the inputs of weights have been divided so far

    def terms(self, place: Place, readers: Sequence[str]) -> list[Term]:
        """What the scales of a place concern: its readers, and what writes its channels if that notices."""
        if place.group is None:
            return [self._term(name, np.arange(place.size)) for name in readers]
        found = []
        for member in place.group.constants:
            weight = self._weights.get(member.weight)
            if weight is None:
                continue
            if member.side == "in" and member.exponent < 0 and member.weight in readers:
                found.append(self._term(member.weight, _channels(self._axes, member, place.group, weight, 1)))
            elif member.exponent > 0 and self._notices(member):
                along = 0 if member.side == "out" else 1
                channels = _channels(self._axes, member, place.group, weight, along)
                if channels is not None:
                    found.append(self._term(member.weight, channels, along == 0, -1))
        return found

    def apply(self, place: Place, t: np.ndarray) -> None:
        """Divide the channels of a place by scales."""
        if place.group is not None:
            group = place.group
            for member in group.constants:
                if member.side == "in" and member.exponent < 0 and member.weight in self._context.grams:
                    channels = _channels(self._axes, member, group, self._weights[member.weight], 1)
                    if channels is not None:
                        divided = self._divided.get(member.weight, np.ones(len(channels)))
                        self._divided[member.weight] = divided * np.append(t, 1.0)[channels]
            self._axes.apply(group, 1 / t.reshape(*group.contexts, group.size))
            return
        readers = []
        for name in place.layers:
            weight = self._weights[name]
            _scale_columns(self._graph, weight, t)
            readers += [(layer.op, place.value) for layer in weight.layers]
        ops = {op.name: op for op in self._graph.ops()}
        at = [(op, ops[op].inputs.index(value)) for op, value in dict.fromkeys(readers)]
        array = self._graph.constant(self._weights[place.layers[0]].constant)
        assert array is not None
        self._graph.insert("mul", place.value, (1 / t).astype(array.dtype), at)

    def _term(self, name: str, channels: np.ndarray | None, rowwise: bool = False, power: int = 1) -> Term:
        assert channels is not None
        gram = self._context.grams.get(name)
        if gram is not None and name in self._divided:
            inverse = (1 / self._divided[name]).astype(gram.dtype)
            gram = gram * inverse * inverse[:, None]
        matrix = self._graph.matrix(self._weights[name])
        return Term(matrix, self._context.encodings.get(name, ANY), gram, channels, rowwise, power)

    def _notices(self, member: Member) -> bool:
        """What writes the channels is encoded so that scales of them matter: they do not where each row has its own."""
        encoding = self._context.encodings.get(member.weight)
        return encoding is not None and (member.side == "in" or encoding.block.rows != 1)


def _places(graph: Graph, axes: Axes, targets: Sequence[str], insert: bool) -> list[Place]:
    """Free groups first, then what is left of the targets, by the value that they read."""
    weights = {w.name: w for w in graph.weights() if w.name in set(targets) and _is_linear(w)}
    covered = {name: np.zeros(weight.shape[1], bool) for name, weight in weights.items()}
    reasons: dict[str, str] = {}
    places = []
    for group in axes.groups(Action.SCALE):
        members = [one for one in group.constants if one.side == "in" and one.exponent < 0 and one.weight in weights]
        reason, at = group.fixed, []
        if members and not reason:
            at = [_channels(axes, one, group, weights[one.weight], 1) for one in members]
            if any(channels is None for channels in at):
                reason = "its scales would differ from row to row"
        for member, channels in zip(members, at, strict=False):
            if not reason and channels is not None:
                covered[member.weight] |= channels >= 0
        for member in members:
            if reason:
                reasons.setdefault(member.weight, reason)
        if members and not reason:
            layers = tuple(dict.fromkeys(one.weight for one in members))
            size = int(np.prod([*group.contexts, group.size]))
            places.append(Place(group.name, layers, size, group))
    left = [weight for weight in weights.values() if not covered[weight.name].all()]
    taken = {place.subject for place in places}
    return places + list(_values(left, reasons, insert, taken))


def _values(left: Sequence[Weight], reasons: Mapping[str, str], insert: bool, taken: set[str]) -> Iterator[Place]:
    """One place for each value that some weights read."""
    by_value: dict[str, list[Weight]] = {}
    for weight in left:
        by_value.setdefault(weight.layers[0].input, []).append(weight)
    for value, readers in by_value.items():
        alone = [weight for weight in readers if not _is_sole(weight)]
        together = [weight for weight in readers if _is_sole(weight)]
        for group, fault in ((together, "" if insert else _reason(together, reasons)), (alone, SHARED)):
            if not group:
                continue
            names = tuple(weight.name for weight in group)
            subject = f"inputs of {names[0]}"
            while subject in taken:
                subject += " #"
            taken.add(subject)
            yield Place(subject, names, group[0].shape[1], None, value, fault)


def _reason(weights: Sequence[Weight], reasons: Mapping[str, str]) -> str:
    found = next(
        (reasons[weight.name] for weight in weights if weight.name in reasons), "nothing before takes scales up"
    )
    return f"{found}; `insert = true` multiplies before it is read"


def _is_linear(weight: Weight) -> bool:
    return any(layer.kind is Kind.LINEAR and layer.form_free for layer in weight.layers)


def _is_sole(weight: Weight) -> bool:
    """It is read as a matrix alone, with one input: then a product in front of it can be made up for."""
    plain = all(layer.kind is Kind.LINEAR and layer.form_free for layer in weight.layers)
    return plain and len({layer.input for layer in weight.layers}) == 1


def _channels(axes: Axes, member: Member, group: Group, weight: Weight, along: int) -> np.ndarray | None:
    """The channel, contexts multiplied out, of each row (0) or column (1) of a weight's matrix; -1 where it has none.

    None if it is not the same all along the other side.
    """
    rows, columns = weight.shape
    numbers = np.arange(columns, dtype=np.int32)[None] if along else np.arange(rows, dtype=np.int32)[:, None]
    constant = axes.graph.constant(weight.constant)
    assert constant is not None
    places = weight.view.array(np.broadcast_to(numbers, weight.shape)).reshape(constant.shape)
    laid = axes.arrangement(member, group).take(places).reshape(group.size * int(np.prod(group.contexts)), -1)
    found = np.full(weight.shape[along], -1)
    found[laid] = np.arange(len(laid))[:, None]
    return found if (found[laid] == np.arange(len(laid))[:, None]).all() else None


def _scale_columns(graph: Graph, weight: Weight, t: np.ndarray) -> None:
    old = graph.constant(weight.constant)
    assert old is not None
    matrix = (graph.matrix(weight) * t).astype(np.float32)
    array = weight.view.array(matrix).reshape(old.shape).astype(old.dtype)
    graph.replace_constant(weight.constant, np.ascontiguousarray(array))
