"""What tables of functions hold."""

from collections.abc import Callable

import numpy as np

from qcc.ir.encoding.value import SMALLEST_STEP
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array
from qcc.ir.vocabulary.tabled import LookupTable
from qcc.passes.contract.magnitudes import Magnitudes

REACHES = np.geomspace(4, 24, 25)
"""How far below the largest score the table of a softmax may end."""
WIDEST = 3.0
"""Of a number from one power of four to the next, less 1."""


def function_table(size: int, seen: Magnitudes, computed: Callable[[Array], Array]) -> LookupTable:
    """The table of a function of single values, from the least to the largest that was seen, zero among them.

    Args:
        size: of the table.
        seen: the magnitudes of what the function is of.
        computed: the function.

    Raises:
        Refused: it is not finite there.
    """
    if not seen.finite:
        raise Refused("what it is of is not finite on the calibration data")
    step = np.float32(max((seen.highest - seen.lowest) / (size - 1), SMALLEST_STEP))
    zero = int(np.clip(np.rint(-seen.lowest / step), 0, size - 1))
    numbers = computed(((np.arange(size) - zero) * step).astype(np.float32)).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise Refused("it is not finite on all of its range, zero among it")
    return LookupTable(numbers, step, zero)


def exponential_table(size: int, rows: Array) -> LookupTable:
    """The exponential below 0, as far down as loses least of the softmax of some rows; what lies below is 0.

    Args:
        size: of the table.
        rows: of scores ``[rows, size]``; those without a finite one do not count.
    """
    rows = rows[np.isfinite(rows.max(-1, initial=-np.inf))].astype(np.float32)
    below = rows - rows.max(-1, keepdims=True, initial=-np.inf)
    wanted = _normalised(np.exp(below.astype(np.float64)))
    tables = [_exponential(size, reach) for reach in REACHES]
    losses = [float(((_normalised(one(below).astype(np.float64)) - wanted) ** 2).sum()) for one in tables]
    return tables[int(np.argmin(losses))]


def _exponential(size: int, reach: float) -> LookupTable:
    step = np.float32(reach / (size - 1))
    numbers = np.exp((np.arange(size) - (size - 1)) * np.float64(step)).astype(np.float32)
    numbers[0] = 0
    return LookupTable(numbers, step, size - 1)


def _normalised(rows: Array) -> Array:
    return np.asarray(rows / rows.sum(-1, keepdims=True))


def root_table(size: int) -> LookupTable:
    """The reciprocal root of numbers from 1 to 4, by how far they are above 1."""
    step = np.float32(WIDEST / (size - 1))
    return LookupTable((1 / np.sqrt(1 + np.arange(size) * np.float64(step))).astype(np.float32), step, 0)
