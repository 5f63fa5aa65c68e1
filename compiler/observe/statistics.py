"""What the passes need of calibration data, gathered in one pass: memory does not grow with the number of samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.observe.observed import Observed
from qcc.compiler.observe.observer import Observer, Tick
from qcc.compiler.observe.sums import FirstTokens, GramSum, LargestSum, MagnitudeSum, PositionSum, WindowSum
from qcc.compiler.observe.tokens import EVERY_TOKEN, Leading
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Op, Weight
from qcc.ir.graph.windows import Windows
from qcc.passes.contract.magnitudes import Magnitudes, at_positions, beyond
from qcc.passes.contract.moments import Moments


@dataclass(frozen=True)
class LayerStatistics:
    """Second moments of what layers read, by weight name, and how large numbers are, by the name of a value.

    ``largest`` holds the largest magnitude of each input ``[in]``, by weight name.
    """

    moments: Mapping[str, Moments]
    magnitudes: Mapping[str, Magnitudes]
    largest: Mapping[str, Array]


@dataclass(frozen=True)
class RoundedValues:
    """Values of which is asked how large their numbers are.

    Args:
        whole: all numbers count.
        beyond_first: so many first tokens do not; each such number takes a pass.
        by_place: each place of a text counts by itself.
    """

    whole: frozenset[str] = frozenset()
    beyond_first: frozenset[tuple[str, int]] = frozenset()
    by_place: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """There are some."""
        return bool(self.whole or self.beyond_first or self.by_place)


NOTHING_ROUNDED = RoundedValues()


def layer_statistics(
    graph: Graph,
    samples: Samples,
    tick: Tick,
    *,
    moments: Sequence[str] = (),
    rounded: RoundedValues = NOTHING_ROUNDED,
    largest: Sequence[str] = (),
    leaves: int = 0,
    executor: Executor = HERE,
) -> LayerStatistics:
    """Gather what is asked, in one pass.

    Args:
        graph: what is run.
        samples: the data; a quarter of it is held out.
        tick: told how far it is.
        moments: of the inputs of linear layers of these weights, and of the windows that convolutions of one group
            read. Weights that read the same share theirs; weights without such a layer get none.
        rounded: the values whose magnitudes are asked.
        largest: of each input of these weights' layers.
        leaves: so many first tokens do not count in moments and magnitudes.
        executor: where it is run.

    Raises:
        ModelError: the model fails on the data.
    """
    weights = {weight.name: weight for weight in graph.weights()}
    observer = Observer(graph, samples, tick, tokens=Leading(leaves) if leaves else EVERY_TOKEN, executor=executor)
    ops = {op.name: op for op in graph.ops()}
    read = {name: found for name in moments if name in weights and (found := read_by(weights[name], ops)) is not None}
    grams = {one: observer.ask(one[0], _sum(one[1])) for one in sorted(set(read.values()), key=repr)}
    sizes = {value: observer.ask(value, MagnitudeSum()) for value in sorted(rounded.whole)}
    inputs = {name: channels for name in largest if (channels := _channels_of(weights[name])) is not None}
    tops = {
        one: observer.ask(one[0], LargestSum(axis=one[1]))
        for one in sorted({channels[:2] for channels in inputs.values()})
    }
    by_place = {value: observer.ask(value, PositionSum()) for value in sorted(rounded.by_place)}
    observer.gather()
    made = {one: _moments(grams.pop(one)) for one in list(grams)}
    seen = {value: one.whole.found for value, one in sizes.items()}
    seen |= {at_positions(value): one.whole.found for value, one in by_place.items()}
    for tokens in sorted({tokens for _, tokens in rounded.beyond_first}):
        values = sorted(value for value, number in rounded.beyond_first if number == tokens)
        seen |= _beyond(Observer(graph, samples, tick, tokens=Leading(tokens), executor=executor), values, tokens)
    ends = {name: np.repeat(tops[one[:2]].whole.largest, one[2]) for name, one in inputs.items()}
    return LayerStatistics({name: made[one] for name, one in read.items()}, seen, ends)


def _channels_of(weight: Weight) -> tuple[str, int, int] | None:
    """What a weight's layers read, its axis of channels, and how many columns each of them has; None of others."""
    for layer in weight.layers:
        if layer.kind is Kind.LINEAR and layer.form_free:
            return layer.input, -1, 1
        if layer.kind is Kind.CONV and layer.input:
            return layer.input, 1, int(np.prod(layer.kernel))
    return None


def _beyond(observer: Observer, values: Sequence[str], tokens: int) -> dict[str, Magnitudes]:
    """Magnitudes of values without their first tokens, and what these are where they are always the same."""
    sizes = {value: observer.ask(value, MagnitudeSum()) for value in values}
    first = {value: observer.ask(value, FirstTokens(tokens)) for value in values}
    observer.gather()
    return {
        beyond(value, tokens): replace(sizes[value].whole.found, leading=first[value].whole.constant)
        for value in values
    }


def _moments(found: Observed[GramSum]) -> Moments:
    seen, held = found.seen, found.held
    rows = seen.rows + held.rows
    if not held.total.size:
        whole, judge = seen.total, seen.total * 0
    else:
        whole, judge = (seen.total + held.total if seen.total.size else held.total.copy()), held.total
    whole /= max(rows, 1)
    judge /= max(held.rows, 1)
    return Moments(whole, rows, judge, held.rows, seen.hidden + held.hidden, seen.repeated + held.repeated)


def _sum(windows: Windows | None) -> GramSum:
    return GramSum() if windows is None else WindowSum(windows=windows)


def read_by(weight: Weight, ops: Mapping[str, Op]) -> tuple[str, Windows | None] | None:
    """The value whose rows, or whose windows, a weight's matrix multiplies; None where it multiplies neither."""
    for layer in weight.layers:
        if layer.kind is Kind.LINEAR and layer.form_free:
            return layer.input, None
        op = ops.get(layer.op) if layer.kind is Kind.CONV and layer.input else None
        windows = None if op is None else Windows.of(op, layer)
        if windows is not None:
            return layer.input, windows
    return None
