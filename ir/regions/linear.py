"""Parts of a graph that make one product of one value, whatever ops they are written in."""

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Kind, Op, Value
from qcc.ir.regions.flow import Flow
from qcc.ir.vocabulary.find import OPS

MOST_OPS = 64  # of a part; a layer with eight adapters has about fifty
TOLERANCES = {"float64": 1e-4, "float32": 1e-4, "float16": 2e-2}  # of the largest number that a part makes
MOST_TWICE = 12  # that unit vectors are made twice as long: float16 holds what follows
TRIED = 8  # rows of random numbers
SEED = 0
UNLIKE = "it is not one product that is the same at every place"


@dataclass(frozen=True)
class LinearRegion:
    """A value that is computed of another and of constants alone, by ops each of which is affine in what it reads.

    Args:
        source: what it is computed of.
        end: the value.
        ops: that only the end needs.
        shape: ``(in, out)``: the last axes of source and end; their other axes are the same.
        freed_bytes: of the constants that only those ops read.
        adds: constants are added in it.
    """

    source: str
    end: str
    ops: frozenset[str]
    shape: tuple[int, int]
    freed_bytes: int
    adds: bool

    @property
    def place(self) -> tuple[str, str]:
        """What tells it from the other regions of its graph."""
        return self.source, self.end


def linear_regions(graph: Graph, flow: Flow) -> Iterator[LinearRegion]:
    """The regions of two ops and more, those that end last first, of one end those of fewer ops first.

    That each op is affine does not make them one product: `product_of` sees whether it is.
    """
    finder = _Finder(graph, flow)
    for op in reversed(flow.ops):
        yield from finder.regions(op)


def product_of(graph: Graph, region: LinearRegion) -> tuple[Array, Array]:
    """The matrix ``[in, out]`` and the vector ``[out]`` that a region multiplies by and adds, in its end's type.

    It is read off what the region makes of the unit vectors, and held against what it makes of random numbers at
    other places.

    Raises:
        Refused: it is no such product at every place alike, or does not run.
    """
    run = graph.runner([region.source], [region.end])
    value = graph.value(region.source)
    inputs = region.shape[0]

    def made(rows: Array) -> Array:
        return np.concatenate([_rows(run, region, feed, value.dtype) for feed in _feeds(value.shape or (), rows)])

    bias = made(np.zeros((1, inputs)))[0]
    matrix = made(np.eye(inputs))[:inputs] - bias
    size = _beside(bias, matrix)
    if size > 1:  # else the sum keeps few digits of what is added to a large vector
        matrix = (made(size * np.eye(inputs))[:inputs] - bias) / size
    random = np.random.default_rng(SEED).standard_normal((TRIED, inputs))
    for feed in _feeds(value.shape or (), random, spread=True):
        want = feed.reshape(-1, inputs) @ matrix + bias
        error = np.abs(_rows(run, region, feed, value.dtype) - want).max()
        if not error <= TOLERANCES[value.dtype] * max(np.abs(want).max(), np.abs(matrix).max()):
            raise Refused(UNLIKE)
    return matrix.astype(value.dtype), bias.astype(value.dtype)


class _Finder:
    """The regions of a graph, and what it computes of constants."""

    def __init__(self, graph: Graph, flow: Flow) -> None:
        self._graph, self._flow = graph, flow
        self._makers: dict[str, Op] = {}
        for op in flow.ops:
            if op.kind is not Kind.OTHER and any(op.inputs) and all(map(self._is_fixed, filter(None, op.inputs))):
                self._makers.update(dict.fromkeys(op.outputs, op))

    def regions(self, last: Op) -> Iterator[LinearRegion]:
        """The regions that end with an op: wherever all that it depends on is one value, constants aside."""
        end = self._graph.value(last.outputs[0])
        if not _is_rows(end):
            return
        waiting, inside = {end.name}, dict[str, Op]()
        while len(inside) < MOST_OPS:
            latest = max(waiting, key=self._position)
            op = self._flow.maker(latest)
            reads = None if op is None else self._variables(op)
            if op is None or not reads or latest != op.outputs[0]:
                return
            inside[op.name] = op
            waiting = (waiting - {latest}) | set(reads)
            if len(waiting) == 1 and len(inside) > 1:
                start = self._graph.value(next(iter(waiting)))
                if _is_rows(start) and start.dtype == end.dtype and _places(start) == _places(end):
                    yield self._region(last, inside, start, end)

    def _is_fixed(self, name: str) -> bool:
        return name in self._makers or self._flow.constant(name) is not None

    def _position(self, name: str) -> int:
        maker = self._flow.maker(name)
        return -1 if maker is None else self._flow.position[maker.name]

    def _variables(self, op: Op) -> Sequence[str]:
        """What an op is affine in of what it reads, the rest being constants; nothing where it is not."""
        at = [position for position, name in enumerate(op.inputs) if name and not self._is_fixed(name)]
        names = tuple(dict.fromkeys(op.inputs[position] for position in at))
        known = OPS.get((op.kind, op.function))
        if not names or known is None or len(op.outputs) != 1:
            return ()
        fits = {"all": True, "one": len(at) == 1, "first": at == [0], "": False}
        return names if fits[known.affine] else ()

    def _region(self, last: Op, inside: Mapping[str, Op], start: Value, end: Value) -> LinearRegion:
        fixed = self._behind(name for op in inside.values() for name in op.inputs)
        ops = self._only(last, [*inside.values(), *fixed.values()])
        held = {name for op in (*inside.values(), *fixed.values()) if op.name in ops for name in op.inputs}
        arrays = {name: self._flow.constant(name) for name in held}
        freed = (array.nbytes for name, array in arrays.items() if array is not None and self._is_freed(name, ops))
        adds = any(map(self._adds, inside.values()))
        return LinearRegion(start.name, end.name, ops, (_width(start), _width(end)), sum(freed), adds)

    def _adds(self, op: Op) -> bool:
        """A constant is a term of what the op makes, be it the bias of a product."""
        terms = op.inputs if OPS[op.kind, op.function].affine == "all" else op.inputs[2:]
        return any(name and self._is_fixed(name) for name in terms)

    def _is_freed(self, name: str, ops: Container[str]) -> bool:
        return all(reader.name in ops for reader in self._flow.readers(name))

    def _behind(self, names: Iterable[str]) -> dict[str, Op]:
        """The ops that compute some values of constants."""
        found, todo = dict[str, Op](), list(names)
        while todo:
            op = self._makers.get(todo.pop())
            if op is not None and op.name not in found:
                found[op.name] = op
                todo += op.inputs
        return found

    def _only(self, last: Op, ops: Iterable[Op]) -> frozenset[str]:
        """Which of some ops nothing but the last needs."""
        found = {last.name}
        for op in sorted(ops, key=lambda one: -self._flow.position[one.name]):
            inner = not any(map(self._flow.is_returned, op.outputs))
            if inner and all(reader.name in found for name in op.outputs for reader in self._flow.readers(name)):
                found.add(op.name)
        return frozenset(found)


def _is_rows(value: Value) -> bool:
    known = bool(value.shape) and isinstance(value.shape[-1], int) and value.shape[-1] > 0  # type: ignore[index]
    return known and value.dtype in TOLERANCES and not value.container


def _places(value: Value) -> tuple[int | str | None, ...]:
    return (value.shape or ())[:-1]


def _width(value: Value) -> int:
    return int((value.shape or ())[-1])  # type: ignore[arg-type]  # `_is_rows`


def _beside(bias: Array, matrix: Array) -> float:
    """A power of two that makes a matrix about as large as the vector that is added to its products."""
    large, small = np.abs(bias).max(), np.abs(matrix).max()
    if not (np.isfinite(large) and 0 < small < large):
        return 1.0
    return float(2.0 ** min(np.ceil(np.log2(large / small)), MOST_TWICE))


def _feeds(shape: Sequence[int | str | None], rows: Array, spread: bool = False) -> Iterator[Array]:
    """Rows as values of a shape: the last axis theirs, free axes as long as it takes; zeros fill up.

    Args:
        shape: of the value.
        rows: ``[count, in]``.
        spread: let every free axis be longer than one.
    """
    free = [at for at, size in enumerate(shape[:-1]) if not isinstance(size, int)]
    sizes = [size if isinstance(size, int) else 1 for size in shape[:-1]]
    for order, at in enumerate(free):
        sizes[at] = 2 + order if spread else sizes[at]
    if free and not spread:
        sizes[free[0]] = math.ceil(len(rows) / max(math.prod(sizes), 1))
    count = max(math.prod(sizes), 1)
    for start in range(0, len(rows), count):
        part = np.zeros((count, rows.shape[1]))
        part[: len(rows) - start] = rows[start : start + count]
        yield part.reshape(*sizes, rows.shape[1])


def _rows(run: Runner, region: LinearRegion, feed: Array, dtype: str) -> Array:
    """What a region makes of a value, as rows in float64."""
    found = run({region.source: feed.astype(dtype)})[region.end]
    if found.shape != (*feed.shape[:-1], region.shape[1]):
        raise Refused(UNLIKE)
    return found.astype(np.float64).reshape(-1, region.shape[1])
