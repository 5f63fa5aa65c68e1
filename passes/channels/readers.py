"""How the weights that read some channels see them: in which of their columns, how large, and rounded how well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from qcc.ir.axes.arrange import Arrangement
from qcc.ir.axes.axes import Axes, Group
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group as group_block
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.passes.contract.contract import Context

UNDECIDED = Blocked(IntGrid(4), group_block(32))  # for a weight of which nobody has said how it will be stored
SAMPLED, FEWEST, MOST = 2048, 8, 128  # rows that are rounded to see: of all readers, and of one


InputPowers = tuple[Array, Array]
"""The mean square of each input ``[in]`` of a weight: on samples to learn from, and on those held out to judge by, the
same where there is but one part."""


@dataclass(frozen=True)
class Reader:
    """A weight ``[out, in]`` that has some channels as inputs.

    Args:
        weight: the weight.
        matrix: its numbers.
        power: the mean square of each input ``[in]`` on calibration data, or ones; something is found by it.
        held: the same on samples held out, by which what was found is judged.
        encoding: how it will be stored.
        places: where the channels lie in the constant; none if they are the columns.
    """

    weight: Weight
    matrix: Array
    power: Array
    held: Array
    encoding: Blocked
    places: tuple[Arrangement, ...] = ()

    @property
    def ordered(self) -> bool:
        """Which columns are neighbours matters: a row has several blocks."""
        return 0 < self.encoding.block.columns < self.weight.shape[1]

    @property
    def block(self) -> int:
        """How many channels lie in one block: a convolution's channel is as many columns as its kernel is large."""
        return max(self.encoding.block.of(self.weight.shape)[1] // prod(self.weight.layers[0].kernel), 1)

    def channels(self, numbers: Array) -> Array:
        """The mean over each channel ``[*contexts, size]`` of numbers for each weight, or each column ``[1, in]``."""
        if not self.places:
            return np.asarray(numbers.mean(0, dtype=np.float64))
        laid = [place.take(_constant(self.weight, numbers)) for place in self.places]
        return np.asarray(np.concatenate(laid, -1).mean(-1, dtype=np.float64))

    def largest(self) -> Array:
        """The largest weight of each channel ``[*contexts, size]``."""
        sizes = np.abs(self.matrix)
        if not self.places:
            return np.asarray(sizes.max(0))
        laid = [place.take(_constant(self.weight, sizes)) for place in self.places]
        return np.asarray(np.concatenate(laid, -1).max(-1))

    def moment(self, exponent: float) -> Array:
        """The mean over each channel ``[*contexts, size]`` of a power of the weights' sizes."""
        return self.channels(np.abs(self.matrix) ** np.float32(exponent))

    def columns(self, order: Array) -> Array:
        """For each place of the matrix the column whose weight an order ``[*contexts, size]`` brings there."""
        rows, count = self.matrix.shape
        if not self.places:
            return np.broadcast_to(order, (rows, count))
        laid = _constant(self.weight, np.broadcast_to(np.arange(count, dtype=np.int32), (rows, count)))
        for place in self.places:
            laid = place.put(laid, np.take_along_axis(place.take(laid), order[..., None], axis=-2))
        return self.weight.view.matrix(laid)

    def error(self, columns: Array | None, rows: Array) -> float:
        """What rounding adds to the outputs of some rows: noise power over signal power, inputs taken as unrelated.

        The inputs are those of samples held out.
        """
        matrix, power = self.matrix[rows], np.broadcast_to(self.held, (len(rows), self.matrix.shape[1]))
        if columns is not None:
            matrix, power = (np.take_along_axis(one, columns[rows], 1) for one in (matrix, power))
        noise = (encode(np.ascontiguousarray(matrix), self.encoding).decode() - matrix) ** 2
        signal = float(np.vdot(matrix**2, power))
        return float(np.vdot(noise, power)) / signal if signal else 0.0


def readers_of(
    axes: Axes, group: Group, weights: Mapping[str, Weight], powers: Mapping[str, InputPowers], context: Context
) -> list[Reader]:
    """Those of some weights that have a group's channels as inputs."""
    found = []
    for name in group.readers:
        if name not in weights:
            continue
        members = [one for one in group.constants if one.weight == name and one.side == "in"]
        places = tuple(axes.arrangement(one, group) for one in members)
        found.append(reader(axes.graph, weights[name], powers, context, places))
    return found


def reader(
    graph: Graph,
    weight: Weight,
    powers: Mapping[str, InputPowers],
    context: Context,
    places: tuple[Arrangement, ...] = (),
) -> Reader:
    """A weight as it is now."""
    ones = np.ones(weight.shape[1], np.float32)
    power, held = powers.get(weight.name, (ones, ones))
    encoding = context.blocked(weight.name) or UNDECIDED
    return Reader(weight, graph.matrix(weight), power, held, encoding, places)


def powers_of(weights: Sequence[Weight], context: Context) -> dict[str, InputPowers]:
    """The mean square of each input of weights, by name, as far as it is known."""
    found = {}
    for weight in weights:
        gram, moments = context.grams.get(weight.name), context.moments.get(weight.name)
        if gram is None or len(gram) != weight.shape[1]:
            continue
        parts = (moments.seen, moments.held) if moments is not None and moments.judged else (gram, gram)
        found[weight.name] = (np.diag(parts[0]).copy(), np.diag(parts[1]).copy())
    return found


def estimate(readers: Sequence[Reader], order: Array | None) -> float:
    """The mean of the readers' errors under an order, or as they are, from some of their rows."""
    count = min(max(SAMPLED // max(len(readers), 1), FEWEST), MOST)
    errors = []
    for one in readers:
        rows = _some_rows(one, count)
        try:
            errors.append(one.error(None if order is None else one.columns(order), rows))
        except Refused:  # it cannot be encoded, and will be told so where that is tried
            continue
    return float(np.mean(errors)) if errors else 0.0


def is_linear(weight: Weight) -> bool:
    """It does nothing but multiply the last axis of one value."""
    plain = all(one.kind is Kind.LINEAR and one.form_free for one in weight.layers)
    return plain and len({one.input for one in weight.layers}) == 1


def _some_rows(one: Reader, count: int) -> Array:
    """Rows from the smallest to the largest, however they lie; whole blocks of them, where those have several."""
    total, height = one.matrix.shape[0], one.encoding.block.of(one.weight.shape)[0]
    picked = np.unique(np.linspace(0, total - 1, max(min(count, total) // height, 1)).astype(int))
    if height == 1:
        return np.asarray(np.argsort(np.einsum("ij,ij->i", one.matrix, one.matrix), kind="stable")[picked])
    rows = (np.unique(picked // height * height)[:, None] + np.arange(height)).reshape(-1)
    return np.asarray(rows[rows < total])


def _constant(weight: Weight, matrix: Array) -> Array:
    """A matrix, or one row for all, as the constant lies."""
    return weight.view.array(np.broadcast_to(matrix, weight.shape))
