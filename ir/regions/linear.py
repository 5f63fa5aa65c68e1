"""Parts of a graph that make one product of one value, whatever ops they are written in."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Kind, Op, Value
from qcc.ir.regions.affine import ChannelAxis, LinearRegion, RegionFinder
from qcc.ir.regions.flow import Flow

TOLERANCES = {"float64": 1e-4, "float32": 1e-4, "float16": 2e-2}  # of the largest number that a part makes
MOST_TWICE = 12  # that unit vectors are made twice as long: float16 holds what follows
TRIED = 8  # rows of random numbers
SEED = 0
UNLIKE = "it is not one product that is the same at every place"


def linear_regions(graph: Graph, flow: Flow) -> Iterator[LinearRegion]:
    """The regions of two ops and more, those that end last first, of one end those of fewer ops first.

    That each op is affine does not make them one product: `product_of` sees whether it is.
    """
    finder = RegionFinder(graph, flow, ROWS)
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
    size = beside(bias, matrix)
    if size > 1:  # else the sum keeps few digits of what is added to a large vector
        matrix = (made(size * np.eye(inputs))[:inputs] - bias) / size
    random = np.random.default_rng(SEED).standard_normal((TRIED, inputs))
    for feed in _feeds(value.shape or (), random, spread=True):
        want = feed.reshape(-1, inputs) @ matrix + bias
        error = np.abs(_rows(run, region, feed, value.dtype) - want).max()
        if not error <= TOLERANCES[value.dtype] * max(np.abs(want).max(), np.abs(matrix).max()):
            raise Refused(UNLIKE)
    return matrix.astype(value.dtype), bias.astype(value.dtype)


def _is_rows(value: Value) -> bool:
    known = bool(value.shape) and isinstance(value.shape[-1], int) and value.shape[-1] > 0  # type: ignore[index]
    return known and value.dtype in TOLERANCES and not value.container


def _places(value: Value) -> tuple[int | str | None, ...]:
    return (value.shape or ())[:-1]


def _takes(op: Op) -> bool:
    """Windows and channels in the middle are no business of products along the last axis."""
    return op.kind is not Kind.CONV and op.function != "batch_norm"


ROWS = ChannelAxis(-1, _is_rows, lambda start, end: _places(start) == _places(end), _takes)


def beside(bias: Array, matrix: Array) -> float:
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
