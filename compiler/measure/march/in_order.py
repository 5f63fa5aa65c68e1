"""Rounding weights in the order of the model, each on what those before it became.

The graph is run in pieces of about one weight, side by side as it was and with its weights so far as they are stored.
What a layer reads and is to make on both sides gives the moments that its weight is rounded by, and what its piece
makes of the stored weight goes on to the next one. So the model is run about three times, however many weights it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.parts import EVERY, Parted
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.segments import Segment, Values, cut
from qcc.compiler.observe.chunks import CAPTURED_BYTES, chunks
from qcc.compiler.observe.statistics import read_by
from qcc.compiler.plan.plan import Plan
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.ir.graph.windows import Windows
from qcc.ir.regions.joined import Joins
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import Moments
from qcc.passes.encode import Encode

TOGETHER = 8  # samples that run at once
Chosen = dict[str, tuple[Encoded, str]]


def asks_for_order(plan: Plan) -> bool:
    """Some weight of a decided plan is to be rounded in order."""
    return any(isinstance(step.action, Encode) and step.action.rounding.goes_in_order() for step in plan.steps)


def choose_in_order(graph: Graph, plan: Plan, samples: Samples, context: Context) -> Chosen:
    """What the weights of a decided plan are to be stored as, and why, by name.

    Those that are refused, or that no layer reads, are left out.

    Args:
        graph: rewritten, and not encoded.
        plan: decided.
        samples: to run on; a quarter is held out.
        context: statistics of the float model.

    Raises:
        ModelError: the model fails on the data.
    """
    actions = {name: one.action for one in plan.steps if isinstance(one.action, Encode) for name in one.weights}
    weights = {one.constant: one for one in graph.weights() if one.name in actions}
    march = _March(graph, samples, [one for one in weights.values() if actions[one.name].rounding.goes_in_order()])
    chosen: Chosen = {}
    stored: dict[str, Array] = {}
    left = set(weights)
    for piece in cut(graph, max(len(weights), 1)):
        here = [weights[name] for name in piece.constants if name in left]
        left -= {one.constant for one in here}
        if not here and not left:
            break
        known = march.enter(piece, here, bool(left))
        for weight in here:
            context.progress(weight.name)
            found = _stored(graph, weight, actions[weight.name], _told(context, weight, known))
            if found is not None:
                chosen[weight.name] = found
                stored[weight.constant] = graph.as_constant(weight, found[0].decode())
        if left:
            march.leave({name: stored[name] for name in piece.constants if name in stored})
    return chosen


def _stored(graph: Graph, weight: Weight, action: Encode, context: Context) -> tuple[Encoded, str] | None:
    """What a weight becomes; None where it is refused, which whoever writes it will tell."""
    try:
        return action.encoded(weight, graph.matrix(weight), context)
    except Refused:
        return None


def _told(context: Context, weight: Weight, known: "dict[str, _Sums]") -> Context:
    """With the moments of what a weight's layer reads by now; as it is where nothing tells."""
    sums, before = known.get(weight.name), context.moments.get(weight.name)
    if sums is None or before is None or not sums.rows:
        return context
    moments = sums.moments(before)
    return replace(context, moments={weight.name: moments}, grams={weight.name: moments.gram}, advice={})


@dataclass(frozen=True)
class _Reading:
    """How a weight is read: the value, the windows of it if it is a convolution's, and what is added to the result.

    ``beside`` is None where that is not told, so that it is not known what there is to make up for.
    """

    value: str
    windows: Windows | None
    beside: tuple[str, ...] | None


@dataclass
class _Inputs:
    """Second moments of what layers read, of all samples and of those held out; those that read the same share them.

    ``cross`` is of what inputs miss beside the float ones, with the inputs: ``(F - X)'X``.
    """

    gram: list[Array] = field(default_factory=list)
    cross: list[Array] = field(default_factory=list)
    counts: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, x: Array, fine: Array, held: bool) -> None:
        """More rows, beside the float ones."""
        gram, cross = x.T @ x, (fine - x).T @ x
        if not self.gram:
            self.gram, self.cross = ([np.zeros_like(gram) for _ in range(2)] for _ in range(2))
        for at in range(1 + held):
            self.gram[at] += gram
            self.cross[at] += cross
            self.counts[at] += len(x)


@dataclass
class _Sums:
    """What is left to do for a layer on what it reads; ``more`` is what the sums beside its result miss."""

    reading: _Reading
    matrix: Array
    inputs: _Inputs
    more: list[Array] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Of all samples."""
        return self.inputs.counts[0]

    def add(self, x: Array, missing: Array, held: bool) -> None:
        """What more rows of results miss."""
        pull = missing.T @ x
        if not self.more:
            self.more = [np.zeros_like(pull) for _ in range(2)]
        for at in range(1 + held):
            self.more[at] += pull

    def moments(self, before: Moments) -> Moments:
        """The same as means; what was hidden and repeated is as before."""
        rows, held = counts = self.inputs.counts
        pulls = [self.matrix @ one for one in self.inputs.cross]
        pulls = [one + more for one, more in zip(pulls, self.more, strict=True)] if self.more else pulls
        gram, judge, pull, judged = (
            np.asarray(one / np.float32(max(count, 1)))
            for one, count in zip((*self.inputs.gram, *pulls), (*counts, *counts), strict=True)
        )
        untold = self.reading.beside is None
        found = replace(before, gram=gram, rows=rows, held=judge, held_rows=held)
        return found if untold else replace(found, pull=pull, held_pull=judged)


@dataclass
class _Side:
    """Some samples on their way: the values alive in the float model, and those in the compressed one.

    ``sight`` tells which rows of values count, where masks hide some.
    """

    held: bool
    sight: dict[str, Array]
    floats: Values
    now: Values


class _March:
    """All samples, before the same piece."""

    def __init__(self, graph: Graph, samples: Samples, ordered: Sequence[Weight]) -> None:
        self._graph = graph
        ops, joins = {op.name: op for op in graph.ops()}, Joins(graph)
        self._readings: dict[str, _Reading] = {}
        for weight in ordered:
            read = read_by(weight, ops)
            if read is not None and Kind.EMBEDDING not in weight.kinds:
                layer = next(one for one in weight.layers if one.input == read[0])
                beside = joins.beside(ops[layer.op].outputs[0]) if len(weight.layers) == 1 else None
                self._readings[weight.name] = _Reading(*read, beside)
        self._sides = self._begun(samples) if self._readings else []
        self._inputs: dict[tuple[str, Windows | None], _Inputs] = {}
        self._alone = not any(side.held for side in self._sides)

    def enter(self, piece: Segment, weights: Sequence[Weight], goes_on: bool) -> dict[str, _Sums]:
        """See what the layers of some weights read in a piece on both sides, and carry the float one over it."""
        there = piece.inside | set(self._sides[0].now if self._sides else ())
        known = {one.name: self._readings[one.name] for one in weights if one.name in self._readings}
        self._inputs = {key: sums for key, sums in self._inputs.items() if key[0] in there}
        fresh = dict[tuple[str, Windows | None], _Reading]()
        found = dict[str, _Sums]()
        for weight in weights:
            one = known.get(weight.name)
            if one is not None and one.value in there:
                key = one.value, one.windows
                if key not in self._inputs:
                    self._inputs[key], fresh[key] = _Inputs(), one
                found[weight.name] = _Sums(one, self._graph.matrix(weight), self._inputs[key])
        asked = {name for one in found.values() for name in (one.reading.value, *(one.reading.beside or ()))}
        inner = sorted(asked & piece.inside)
        self._piece = piece
        if not found and not (goes_on and self._sides):
            return found
        wanted = list(dict.fromkeys([*inner, *(piece.makes if goes_on else ())]))
        self._runner = self._graph.runner(piece.reads, wanted, piece.constants) if wanted else lambda _: {}
        for side in self._sides:
            made = self._run(side.floats, {})
            both = {**side.floats, **made}, {**side.now, **(self._run(side.now, {}) if inner else {})}
            for key, one in fresh.items():
                self._add(one, side, *both, self._inputs[key])
            for sums in found.values():
                if sums.reading.beside:
                    self._add(sums.reading, side, *both, sums)
            if goes_on:
                side.floats = piece.carried(side.floats, made)
        return found

    def leave(self, stored: dict[str, Array]) -> None:
        """Carry the compressed side over the piece, with what its weights became."""
        for side in self._sides:
            side.now = self._piece.carried(side.now, self._run(side.now, stored))

    def _add(self, one: _Reading, side: _Side, floats: Values, now: Values, sums: _Inputs | _Sums) -> None:
        """The rows of some samples that count: of what is read, or of what results miss."""
        kept = side.sight.get(one.value)

        def rows(array: Array, of_input: bool = True) -> Array:
            if one.windows is not None:
                return one.windows.rows(array) if of_input else one.windows.results(array)
            flat = array.reshape(-1, array.shape[-1])
            return flat if kept is None else flat[kept.reshape(-1)]

        x, fine = rows(now[one.value]), rows(floats[one.value])
        other = fine if isinstance(sums, _Inputs) else self._missing(one, floats, now, rows, (len(x), len(sums.matrix)))
        finite = np.isfinite(x).all(-1) & np.isfinite(fine).all(-1)
        if not finite.all():
            x, other = x[finite], other[finite]
        end = len(x) - len(x) // EVERY if self._alone else 0 if side.held else len(x)
        sums.add(x[:end], other[:end], held=False)
        sums.add(x[end:], other[end:], held=True)

    def _missing(
        self, one: _Reading, floats: Values, now: Values, rows: Callable[[Array, bool], Array], shape: tuple[int, int]
    ) -> Array:
        """What is added to results in the float model and not in the other one."""
        found = np.zeros(shape, np.float32)
        for name in one.beside or ():
            if name in now and name in floats:
                more = rows(floats[name] - now[name], False)
                found = found + more if more.shape == shape else found
        return np.where(np.isfinite(found), found, np.float32(0))

    def _run(self, state: Values, stored: dict[str, Array]) -> Values:
        feeds = {name: state[name] for name in self._piece.reads}
        return dict(self._runner(feeds | stored))

    def _begun(self, samples: Samples) -> list[_Side]:
        """The samples before the first piece, as many together as run at once."""
        inputs, names = self._graph.inputs, sorted({one.value for one in self._readings.values()})
        runner = self._graph.runner(tuple(value.name for value in inputs), names)
        hiding = find_masks(inputs, runner, samples)
        parted = Parted.of(samples)
        size = CAPTURED_BYTES / TOGETHER
        sides = []
        for chunk in chunks(parted, lambda _: size, lambda _: 0):
            feeds = hiding.cropped(samples.joined([parted.ones[at] for at in chunk.members]))
            sight = hiding.sight(runner, feeds, runner(feeds)) if hiding.masks else {}
            sides.append(_Side(chunk.held, sight, dict(feeds), dict(feeds)))
        return sides
