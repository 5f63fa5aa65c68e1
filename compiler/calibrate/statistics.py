"""Calibration statistics: streamed, so that memory does not grow with the number of samples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from qcc.compiler.calibrate import masks
from qcc.compiler.calibrate.masks import MaskedRows
from qcc.compiler.calibrate.parts import EVERY, Captured, Parted, SamplePart
from qcc.compiler.calibrate.samples import Samples
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.contract.moments import Moments

ROWS_AT_ONCE = 512  # that are multiplied: adding up a matrix costs as much as multiplying about a hundred rows

Tick = Callable[[int, int, str], None]


def moments(graph: Graph, names: Sequence[str], samples: Samples, tick: Tick) -> dict[str, Moments]:
    """The second moments of the inputs of linear layers, by weight name; a quarter of the samples is held out.

    Weights that read the same value share theirs. Weights without a linear layer get none. Positions that a mask hides
    do not count. Where no sample could be held out, as of a single feed, the last quarter of its rows is.
    """
    wanted = set(names)
    readers = {w.name: value for w in graph.weights() if w.name in wanted and (value := _input(w)) is not None}
    sums: dict[str, tuple[_Sum, _Sum]] = {}
    parted = Parted.of(samples)
    alone = not any(parted.held)
    for part, captured in _stream(graph, sorted(set(readers.values())), parted, tick):
        for name, rows in ((name, _finite(rows)) for name, rows in captured.items()):
            seen, held = sums.setdefault(name, (_Sum(), _Sum()))
            end = len(rows.array) - len(rows.array) // EVERY if alone else 0 if part.held else len(rows.array)
            seen.add(rows.array[:end], part, rows.hidden)
            held.add(rows.array[end:], part)
    found = {name: _moments(*sums.pop(name)) for name in list(sums)}
    return {weight: found[value] for weight, value in readers.items() if value in found}


def magnitudes(graph: Graph, names: Sequence[str], samples: Samples, tick: Tick) -> dict[str, Magnitudes]:
    """How large the numbers are that the linear layers of weights read, by weight name."""
    wanted = set(names)
    readers = {w.name: {layer.input for layer in w.layers} for w in graph.weights() if w.name in wanted}
    found: dict[str, Magnitudes] = {}
    for _, captured in _stream(graph, sorted(set().union(*readers.values())), Parted.of(samples), tick):
        for name, rows in captured.items():
            one = Magnitudes.of(rows.array)
            found[name] = found[name] + one if name in found else one
    return {
        weight: reduce(Magnitudes.__add__, (found[value] for value in sorted(values)))
        for weight, values in readers.items()
    }


@dataclass
class _Sum:
    """``X'X`` of rows that come in pieces, which are multiplied when there are enough."""

    rows: int = 0
    hidden: int = 0
    repeated: int = 0
    _total: Array | None = None
    _waiting: list[Array] = field(default_factory=list)
    _count: int = 0

    def add(self, rows: Array, part: SamplePart, hidden: int = 0) -> None:
        """More rows, of some samples, and how many were hidden beside them."""
        self.rows += len(rows)
        self.repeated += len(rows) if part.repeated else 0
        self.hidden += hidden
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count >= ROWS_AT_ONCE:
            self._multiply()

    @property
    def total(self) -> Array:
        """The sum ``[size, size]``."""
        self._multiply()
        assert self._total is not None  # something has been added, be it no rows
        return self._total

    def _multiply(self) -> None:
        if not self._waiting:
            return
        flat = np.concatenate(self._waiting).astype(np.float32, copy=False)
        product = flat.T @ flat
        self._waiting, self._count = [], 0
        if self._total is None:
            self._total = product
        else:
            self._total += product


def _finite(rows: MaskedRows) -> MaskedRows:
    """The rows without those that are not finite: behind them the model masks, or its output would not be either."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.array.sum()):
            return rows
    kept = np.isfinite(rows.array).all(-1)
    return MaskedRows(rows.array[kept], rows.hidden + int(kept.size - kept.sum()))


def _moments(seen: _Sum, held: _Sum) -> Moments:
    rows = seen.rows + held.rows
    whole, judge = seen.total + held.total, held.total
    whole /= max(rows, 1)
    judge /= max(held.rows, 1)
    return Moments(whole, rows, judge, held.rows, seen.hidden, seen.repeated + held.repeated)


def _stream(
    graph: Graph, values: Sequence[str], parted: Parted, tick: Tick
) -> Iterator[tuple[SamplePart, Mapping[str, MaskedRows]]]:
    """The rows of these values that count, on all samples, a few at once."""
    if not values:
        return
    runner = graph.runner(tuple(value.name for value in graph.inputs), values)
    captured, done = Captured(), 0
    hiding = masks.find(graph.inputs, runner, parted.samples)
    for part in parted.batches(captured):
        results = runner(part.feeds)
        captured.note(part.feeds, results)
        yield part, hiding.visible(runner, part.feeds, results)
        done += part.samples
        tick(done, len(parted.ones), parted.samples.origin)


def _input(weight: Weight) -> str | None:
    return next((layer.input for layer in weight.layers if layer.kind is Kind.LINEAR and layer.form_free), None)
