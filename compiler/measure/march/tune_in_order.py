"""Finding corrections in the order of the model: each value is compared with the float model's, after those before it.

Both graphs run side by side in pieces that end where something is tuned. What a correction makes of a value goes on to
the next piece, so the model is run twice, however much is tuned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from qcc.compiler.calibrate.parts import Parted
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.segments import Segment, Values, cut_behind
from qcc.compiler.observe.chunks import CAPTURED_BYTES, bytes_of, chunks
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array
from qcc.passes.contract.tunable import ChannelFit, ChannelSums, Tunable, fit_channels

MOST_BYTES = 1 << 30  # of what is alive in both graphs for all samples: no more samples are taken
TOGETHER = 8  # samples that run at once
Fits = dict[str, ChannelFit]


def tune_in_order(
    before: Graph, now: Graph, tunables: Sequence[Tunable], samples: Samples, tick: Callable[[str], None]
) -> tuple[Fits, str]:
    """How values are to be corrected, by the subjects of what is tuned, and what is told of it.

    Args:
        before: the float graph.
        now: the same with weights and values as they will be rounded.
        tunables: what may be tuned.
        samples: to run on; a quarter is held out.
        tick: told of each value.

    Raises:
        ModelError: a graph fails on the data.
    """
    ordered = _ordered(before, now, tunables)
    if not ordered:
        return {}, "nothing"
    values = [one.value for one in ordered]
    sides = _Side.of(before, values), _Side.of(now, values)
    parts = _begin(before, samples, sides)
    held = [chunk.held for chunk in parts]
    fits: Fits = {}
    for one in ordered:
        tick(one.subject)
        floats, found = (side.until(one.value) for side in sides)
        pairs = [ChannelSums.of(x, y, one.axis) for x, y in zip(found, floats, strict=True)]
        seen, judge = (reduce(ChannelSums.__add__, part) if part else None for part in _parts(pairs, held))
        if seen is None:
            seen, judge = judge, None
        assert seen is not None
        fit, count = fit_channels(seen, judge, one.gain is not None, one.shift is not None)
        if count:
            fits[one.subject] = fit
            sides[1].put(one.value, [_corrected(array, fit, one.axis) for array in found])
    return _judged(sides, now, parts, fits, len(ordered))


def _ordered(before: Graph, now: Graph, tunables: Sequence[Tunable]) -> list[Tunable]:
    """Those whose values both graphs compute in the same order, in that order, each value once."""
    first, second = ({name: at for at, op in enumerate(graph.ops()) for name in op.outputs} for graph in (before, now))
    found: list[Tunable] = []
    for one in sorted((one for one in tunables if one.value in first), key=lambda one: first[one.value]):
        last = second.get(found[-1].value, -1) if found else -1
        if second.get(one.value, -1) > last:
            found.append(one)
    return found


def _parts(pairs: Sequence[ChannelSums], held: Sequence[bool]) -> tuple[list[ChannelSums], list[ChannelSums]]:
    both = list(zip(pairs, held, strict=True))
    return [one for one, out in both if not out], [one for one, out in both if out]


def _corrected(array: Array, fit: ChannelFit, axis: int) -> Array:
    shape = [1] * array.ndim
    shape[axis] = -1
    return np.asarray(array * fit.gain.reshape(shape) + fit.shift.reshape(shape), array.dtype)


@dataclass
class _Side:
    """One of the graphs, with all samples on their way through it."""

    graph: Graph
    pieces: list[Segment]
    outputs: tuple[str, ...]
    states: list[Values]
    at: int = 0

    @classmethod
    def of(cls, graph: Graph, values: Sequence[str]) -> "_Side":
        """Before its first piece, without samples."""
        return cls(graph, cut_behind(graph, values), tuple(one.name for one in graph.outputs), [])

    def runner(self, at: int) -> Runner:
        """Of a piece."""
        piece = self.pieces[at]
        return self.graph.runner(piece.reads, piece.makes)

    def until(self, value: str) -> list[Array]:
        """A value of each chunk of samples, which are carried behind it."""
        while self.at < len(self.pieces) and any(value not in state for state in self.states):
            self._step()
        return [state[value] for state in self.states]

    def finish(self) -> list[list[Array]]:
        """The outputs of each chunk."""
        while self.at < len(self.pieces):
            self._step()
        return [[state[name] for name in self.outputs] for state in self.states]

    def put(self, value: str, arrays: Sequence[Array]) -> None:
        """Let a value be another."""
        for state, array in zip(self.states, arrays, strict=True):
            state[value] = array

    def _step(self) -> None:
        piece, run = self.pieces[self.at], self.runner(self.at)
        for place, state in enumerate(self.states):
            made = run({name: state[name] for name in piece.reads})
            self.states[place] = piece.carried(state, dict(made), self.outputs)
        self.at += 1


@dataclass(frozen=True)
class _Part:
    held: bool
    feeds: Values


def _begin(before: Graph, samples: Samples, sides: Sequence[_Side]) -> list[_Part]:
    """Put samples before the first piece of each side: as many as fit, in chunks of one part and shape."""
    one = replace(samples, batches=(next(iter(samples.parts(1))),))
    alone = _Side(before, sides[0].pieces, sides[0].outputs, [dict(one.batches[0])])
    peak = 1
    while alone.at < len(alone.pieces):
        alone._step()
        peak = max(peak, bytes_of(alone.states[0]))
    parted = Parted.of(samples.first(max(int(MOST_BYTES / (2 * peak)), 2)))
    found = []
    for chunk in chunks(parted, lambda _: CAPTURED_BYTES / TOGETHER, lambda _: 0):
        feeds = dict(samples.joined([parted.ones[at] for at in chunk.members]))
        for side in sides:
            side.states.append(dict(feeds))
        found.append(_Part(chunk.held, feeds))
    return found


def _judged(sides: tuple[_Side, _Side], now: Graph, parts: Sequence[_Part], fits: Fits, count: int) -> tuple[Fits, str]:
    """The corrections, or none where outputs of samples held out are no nearer to the float model's with them."""
    if not fits:
        return {}, f"none of {count}: no channel is better on samples held out"
    judges = [at for at, one in enumerate(parts) if one.held] or list(range(len(parts)))
    plain = now.runner([one.name for one in now.inputs], sides[1].outputs)
    wanted, tuned = (side.finish() for side in sides)
    made = [plain(parts[at].feeds) for at in judges]
    without = [[one[name] for name in sides[1].outputs] for one in made]
    lost = [_noise([wanted[at] for at in judges], some) for some in ([tuned[at] for at in judges], without)]
    if not lost[0] < lost[1]:
        return {}, f"none of {count}: the outputs of samples held out are no better"
    return fits, f"{len(fits)} of {count}, the noise of outputs held out {lost[0] / lost[1]:.2f} times what it was"


def _noise(wanted: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """The power of the error, each output in units of its own."""
    total = 0.0
    for at in range(len(wanted[0])):
        pairs = [(a[at].astype(np.float64), b[at].astype(np.float64)) for a, b in zip(wanted, found, strict=True)]
        if wanted[0][at].dtype.kind != "f":
            continue
        signal = sum(float(np.sum(a**2)) for a, _ in pairs)
        noise = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
        total += noise / signal if signal else noise
    return total
