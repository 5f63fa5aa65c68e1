"""Which value an operand of an attention is made of, and how: what stands on the way is tried on numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from qcc.ir.attention.formulas import LAYOUTS, is_close, readings, repeated, tables, turned
from qcc.ir.attention.paths import UntoldError
from qcc.ir.attention.trace import TraceStep
from qcc.ir.graph.attention import Operand, Rotary
from qcc.ir.graph.ops import Array

TOLERANCE = 1e-5  # of the largest number: nothing is summed on the way but two products of a turn


@dataclass(frozen=True)
class Traced:
    """An operand as it stands at its product, and the way to it.

    Args:
        value: at the product.
        steps: from there back.
        columns: its channels stand before its rows.
        heads: where rows hold them: how many, of a value of three axes; 0 where an axis of its own does.
        order: its axes as the product takes them, rows and channels last; empty where they stand so.
    """

    value: str
    steps: tuple[TraceStep, ...]
    columns: bool = False
    heads: int = 0
    order: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The values of the way, from the product back."""
        return self.value, *(step.source for step in self.steps)

    @property
    def root(self) -> str:
        """The last of them."""
        return self.names[-1]


@dataclass(frozen=True)
class Seen:
    """An operand that was told: its numbers as ``[batch, heads, rows, channels]``, and its scale."""

    operand: Operand
    array: Array
    scale: float


def standing(traced: Traced, values: Mapping[str, Array]) -> Array:
    """An operand with rows before channels, as its product takes it."""
    array = values[traced.value]
    if traced.heads:
        batch, rows, width = array.shape
        return array.reshape(batch, rows, traced.heads, width // traced.heads).transpose(0, 2, 1, 3)
    array = array.transpose(traced.order) if traced.order else array
    return array.swapaxes(-1, -2) if traced.columns else array


def told(traced: Traced, values: Mapping[str, Array], returned: frozenset[str]) -> Seen:
    """The operand, by the value farthest back of which the numbers say how it is made.

    Args:
        traced: the operand.
        values: numbers of all values of the way, of tables and of rows of earlier runs.
        returned: the values that the graph returns.
    """
    array = standing(traced, values)
    for count in range(len(traced.steps), -1, -1):
        found = _told(traced, count, array, values, returned)
        if found is not None:
            return found
    found = _told(traced, 0, array, {**values, traced.value: array}, returned)
    if found is None:
        raise UntoldError(f"how `{traced.value}` holds heads is not known")
    return replace(found, operand=replace(found.operand, layout=""))


def _told(
    traced: Traced, count: int, array: Array, values: Mapping[str, Array], returned: frozenset[str]
) -> Seen | None:
    """The operand, if so many steps back there is a value that says how it is made."""
    name, steps = traced.names[count], traced.steps[:count][::-1]
    lead = math.prod(array.shape[:-2])
    for batch in dict.fromkeys((*array.shape[:-3], *values[name].shape[:2])):
        if not batch or lead % batch:
            continue
        whole = array.reshape(batch, lead // batch, *array.shape[-2:])
        found = next(_tellings(Operand(name, lead // batch, whole.shape[-1], ""), steps, whole, values), None)
        if found is not None:
            present = next((step.result for step in steps if step.what == "past" and step.result in returned), "")
            return replace(found, operand=replace(found.operand, present=present))
    return None


def _tellings(asked: Operand, steps: Sequence[TraceStep], whole: Array, values: Mapping[str, Array]) -> Iterator[Seen]:
    """What an operand is, if it is made of a value by some steps."""
    batch, heads, rows, width = whole.shape
    source = values[asked.value]
    earlier = sum(values[step.value].shape[-2] for step in steps if step.what == "past")
    own, size = rows - earlier, source.size
    if own <= 0 or size % (batch * own * width):
        return
    shared = size // (batch * own * width)
    if not shared or heads % shared:
        return
    for layout, array in readings(source, batch, shared, own):
        for made, rotary in _made(array, steps, values, heads):
            scale = math.prod(_factor(step, values) for step in steps if step.what in ("mul", "div"))
            if is_close(made * np.float32(scale), whole, TOLERANCE):
                past = next((step.value for step in steps if step.what == "past"), "")
                operand = replace(asked, heads=shared, layout=layout, rotary=rotary, past=past)
                yield Seen(operand, whole, scale)


def _factor(step: TraceStep, values: Mapping[str, Array]) -> float:
    number = float(values[step.value].reshape(-1)[0])
    return number if step.what == "mul" else 1 / number


def _made(
    array: Array, steps: Sequence[TraceStep], values: Mapping[str, Array], heads: int, rotary: Rotary | None = None
) -> Iterator[tuple[Array, Rotary | None]]:
    """What the steps make of an array, under each meaning that a turn may have."""
    for at, step in enumerate(steps):
        if step.what == "past":
            past = values[step.value]
            if past.ndim != 4 or past.shape[:2] != array.shape[:2] or past.shape[3] != array.shape[3]:
                return
            array = np.concatenate([past, array], 2)
        if step.what == "turn":
            earlier = any(one.what == "past" for one in steps[:at])
            for one, made in _turns(array, step, values):
                yield from _made(made, steps[at + 1 :], values, heads, replace(one, earlier=earlier))
            return
    yield repeated(array, heads), rotary


def _turns(array: Array, step: TraceStep, values: Mapping[str, Array]) -> Iterator[tuple[Rotary, Array]]:
    assert step.turn is not None
    for cos, sin in permutations(step.turn.tables, 2):
        for layout in LAYOUTS:
            pairs = zip(*(tables(values[name], layout, array.shape[-1]) for name in (cos, sin)), strict=False)
            for one, two in pairs:
                try:
                    made = turned(array, one, two, layout)
                except ValueError:  # a table of other sizes
                    continue
                if made.shape == array.shape:
                    yield Rotary(layout, one.shape[-1], cos, sin), made


def moved(names: Sequence[str], standing: Array, values: Mapping[str, Array]) -> Operand | None:
    """The last of some values that holds numbers ``[batch, heads, rows, channels]`` in a layout of its own."""
    batch, heads, rows, width = standing.shape
    for name in reversed(names):
        array = values[name]
        if array.size != standing.size:
            continue
        found = readings(array, batch, heads, rows)
        layout = next((layout for layout, one in found if np.array_equal(one, standing)), "")
        if layout:
            return Operand(name, heads, width, layout)
    return None
