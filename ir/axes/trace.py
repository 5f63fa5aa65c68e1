"""Tracing axes through a graph: which dims every value has, and how each op relates those of what it reads and makes.

A *place* is a value, or one use of a constant. Constants that are layers' weights are one place however often they are
read, since they are stored once; any other constant is a place for each use, for a use can be given its own.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np

from qcc.ir.axes.dims import Dim, hold, product, unify
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Op

SMALL = 1 << 16  # constants up to this size are looked into
FLOATS = ("float", "bfloat")  # how the names of floating-point types begin
INNER = "\0"  # stands in the names of places inside an op, which no value of a graph has

Size = int | str | None
Label = Hashable


class Law(Enum):
    """What an op does to the numbers along the axes that it passes on."""

    LINEAR = "linear"  # in each of its factors, and in all its terms together
    HOMOGENEOUS = "homogeneous"  # a positive scale passes through
    NORMALISED = "normalised"  # divided by the length of the whole
    SQUARED = "squared"  # only the length of the whole matters
    OTHER = "other"


class Unfit(Exception):  # noqa: N818 - an answer, not a fault
    """An op's rule meets axes other than it expects: the op is opaque."""


ONE = object()  # an axis of one that is spread, or is no axis at all
FIXED = object()  # an axis whose channels may not move


class Holder(NamedTuple):
    """A value, or one use of a constant: ``reader`` is the op and the operand."""

    name: str
    reader: tuple[str, int] | None = None


@dataclass(frozen=True)
class Track:
    """Channels that several places of one relation share: ``(place, axis)`` by the place's number there."""

    dim: Dim
    at: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Relation:
    """What an op says of its places: the output is the product of some, plus the sum of others.

    ``factors`` are numbers of places with the exponent of each, ``terms`` numbers of places; the rest are parameters
    that only have their channels in common. ``normalised`` are the positions of the tracks whose channels are counted
    or compared with each other: the numbers are divided by the length of all, averaged, or made shares of a whole.
    ``centred`` says that a mean over them is subtracted.
    """

    op: str
    places: tuple[Holder, ...]
    output: int
    tracks: tuple[Track, ...]
    factors: tuple[tuple[int, int], ...] = ()
    terms: tuple[int, ...] = ()
    law: Law = Law.LINEAR
    normalised: frozenset[int] = frozenset()
    centred: bool = False


@dataclass
class Trace:
    """The dims of all places so far, and the relations."""

    graph: Graph
    weights: frozenset[str]
    dims: dict[Holder, tuple[Dim, ...]] = field(default_factory=dict)
    relations: list[Relation] = field(default_factory=list)
    readers: Mapping[str, Sequence[Op]] = field(default_factory=dict)
    held: list[tuple[Holder, int, Dim, str]] = field(default_factory=list)
    _constants: dict[str, Array | None] = field(default_factory=dict)

    def constant(self, name: str) -> Array | None:
        """A constant, None if it is computed."""
        if name not in self._constants:
            self._constants[name] = self.graph.constant(name) if name else None
        return self._constants[name]

    def shape(self, name: str) -> tuple[Size, ...] | None:
        """A value's shape, None where its rank is not known or there is no such operand."""
        return self.graph.value(name).shape if name and INNER not in name else None

    def place(self, op: Op, position: int) -> Holder:
        """What an op reads."""
        name = op.inputs[position]
        own = name not in self.weights and self.constant(name) is not None
        return Holder(name, (op.name, position) if own else None)

    def axes(self, place: Holder) -> tuple[Dim, ...] | None:
        """The dims of a place; None where the rank is not known."""
        if place not in self.dims:
            shape = self.shape(place.name)
            if shape is None:
                return None
            self.dims[place] = tuple(Dim(size if isinstance(size, int) else None) for size in shape)
        return self.dims[place]

    def give(self, name: str, dims: Iterable[Dim]) -> Holder:
        """Set the dims of what an op makes.

        Raises:
            Unfit: its type says another rank, or other sizes.
        """
        place, made, shape = Holder(name), tuple(dims), self.shape(name)
        if shape is not None and len(shape) != len(made):
            raise Unfit(f"`{name}` has {len(shape)} axes, not {len(made)}")
        for dim, size in zip(made, shape or (), strict=False):
            if isinstance(size, int) and dim.size not in (size, None):
                raise Unfit(f"`{name}` has {size} channels where its op makes {dim.size}")
        self.dims[place] = made
        return place

    def hold(self, place: Holder, axis: int, reason: str, dim: Dim | None = None) -> None:
        """Let nothing be done to an axis of a place, or to one dim of it."""
        channels = dim or (self.axes(place) or ())[axis]
        hold(channels, reason)
        self.held.append((place, axis, channels, reason))

    def opaque(self, op: Op, why: str = "") -> None:
        """An op of which nothing is known: all that it reads and makes is fixed."""
        reason = why or f"`{op.function}` is opaque"
        for position, name in enumerate(op.inputs):
            place = self.place(op, position) if name else None
            for axis in range(len(self.axes(place) or ()) if place else 0):
                self.hold(self.place(op, position), axis, reason)
        self.settle(op, reason)

    def settle(self, op: Op, reason: str) -> None:
        """Let nothing be done to what an op makes; of what has no known rank nothing is known."""
        for name in filter(None, op.outputs):
            shape = self.shape(name)
            if shape is None:
                self.dims.pop(Holder(name), None)
            else:
                self.give(name, (Dim(size if isinstance(size, int) else None, reason) for size in shape))

    def is_zero(self, place: Holder) -> bool:
        """A constant of zeros."""
        array = self.constant(place.name)
        return array is not None and array.size <= SMALL and array.dtype.kind in "fV" and not np.any(array)

    def is_uniform(self, place: Holder) -> bool:
        """A constant whose numbers are all the same, so that the place of none of them matters."""
        array = self.constant(place.name)
        if array is None or not 0 < array.size <= SMALL or place.name in self.weights:
            return False
        return bool(np.all(array == array.reshape(-1)[0]))


@dataclass
class Labels:
    """Relates places by labels, one an axis, as ``einsum`` does.

    A label may be a tuple: the axis is then the product of the labels in it, whose sizes are given. `ONE` marks an axis
    of one, `FIXED` one that may not move.
    """

    trace: Trace
    op: Op
    sizes: Mapping[Label, int] = field(default_factory=dict)
    why: str = ""
    _dims: dict[Label, Dim] = field(default_factory=dict)
    _places: list[Holder] = field(default_factory=list)
    _at: dict[Label, list[tuple[int, int]]] = field(default_factory=dict)

    def read(self, place: Holder, labels: Sequence[Label]) -> int:
        """Unify the axes of a place with their labels; gives its number.

        Raises:
            Unfit: it has not as many axes, or nobody knows how many.
        """
        dims = self.trace.axes(place)
        if dims is None or len(dims) != len(labels):
            raise Unfit(f"`{place.name}` has other axes than `{self.op.function}` expects")
        number = len(self._places)
        self._places.append(place)
        for axis, (label, dim) in enumerate(zip(labels, dims, strict=True)):
            if label is FIXED:
                self.trace.hold(place, axis, self._reason)
            elif isinstance(label, tuple):
                unify(dim, product([self._dim(part) for part in label]))
                for part in label:
                    self._at.setdefault(part, []).append((number, axis))
            elif label is not ONE:
                if label in self._dims:
                    unify(dim, self._dims[label])
                else:
                    self._dims[label] = dim
                self._at.setdefault(label, []).append((number, axis))
        return number

    def make(self, name: str, labels: Sequence[Label]) -> int:
        """What the op makes, with the dims that its labels have; gives its number."""
        number = len(self._places)
        shape: Sequence[Size] = self.trace.shape(name) or (None,) * len(labels)
        dims = []
        for axis, label in enumerate(labels):
            if label is ONE:
                dims.append(Dim(1))
                continue
            if label is FIXED:
                size = shape[axis] if axis < len(shape) else None
                dims.append(Dim(size if isinstance(size, int) else None, self._reason))
                continue
            parts = label if isinstance(label, tuple) else (label,)
            for part in parts:
                self._at.setdefault(part, []).append((number, axis))
            dims.append(product([self._dim(part) for part in parts]) if len(parts) > 1 else self._dim(parts[0]))
        self._places.append(self.trace.give(name, dims))
        return number

    def relate(
        self,
        output: int,
        factors: Iterable[tuple[int, int]] = (),
        terms: Iterable[int] = (),
        law: Law = Law.LINEAR,
        normalised: Iterable[Label] = (),
        centred: bool = False,
    ) -> None:
        """Note what the op says of the places."""
        chosen = set(normalised)
        labels = list(self._at)
        tracks = tuple(Track(self._dims[label], tuple(self._at[label])) for label in labels)
        at = frozenset(number for number, label in enumerate(labels) if label in chosen)
        made = Relation(
            self.op.name, tuple(self._places), output, tracks, tuple(factors), tuple(terms), law, at, centred
        )
        self.trace.relations.append(made)

    @property
    def _reason(self) -> str:
        return self.why or f"`{self.op.function}` mixes or moves along it"

    def _dim(self, label: Label) -> Dim:
        if label not in self._dims:
            self._dims[label] = Dim(self.sizes.get(label))
        return self._dims[label]


def carry(
    trace: Trace,
    op: Op,
    source: Holder,
    output: Holder,
    pairs: Iterable[tuple[Dim, int, int]],
    law: Law = Law.LINEAR,
    counted: frozenset[int] = frozenset(),
) -> None:
    """Note that an op only moves channels: ``(dim, axis before, axis after)``; ``counted`` are pairs that it counts."""
    tracks = tuple(Track(dim, ((0, before), (1, after))) for dim, before, after in pairs)
    trace.relations.append(Relation(op.name, (source, output), 1, tracks, ((0, 1),), (), law, counted))
