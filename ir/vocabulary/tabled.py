"""Functions that a graph looks up in tables."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class LookupTable:
    """Numbers by codes: the code of ``x`` is ``round(x / step) + zero``, and no code lies beyond the table.

    Args:
        numbers: ``[size]`` float32.
        step: between two codes.
        zero: the code of 0.
    """

    numbers: np.ndarray
    step: np.float32
    zero: int

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.numbers)

    @property
    def ends(self) -> tuple[np.float32, np.float32]:
        """What the first code stands for, and the last."""
        first, last = (np.float32(code - self.zero) * self.step for code in (0, self.size - 1))
        return first, last

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """What is looked up for some numbers."""
        codes = np.rint(np.clip(x, *self.ends) / self.step) + self.zero
        found: np.ndarray = self.numbers[np.clip(codes, 0, self.size - 1).astype(np.int64)]
        return found


@dataclass(frozen=True)
class Tabled:
    """A value that is to be made with a table, of another.

    Args:
        source: the other.
        result: the value.
        table: of the function.
    """

    source: str
    result: str
    table: LookupTable


@dataclass(frozen=True)
class TabledFunction(Tabled):
    """``table(source)``, number by number."""


@dataclass(frozen=True)
class TabledSoftmax(Tabled):
    """``e / sum(e)`` with ``e = table(source - max(source))``, along an axis.

    Args:
        axis: of both.
    """

    axis: int = -1


@dataclass(frozen=True)
class TabledNorm(Tabled):
    """``source`` over the root of its mean square, of rows along the last axis.

    With ``v = mean(source * source) + epsilon = m 4^e`` and ``m`` from 1 to 4, that is ``source table(m - 1) 2^-e``.

    Args:
        centred: the mean comes off first.
        epsilon: see above.
        gain: a constant that the result is multiplied with, and ``shift`` one that is added; empty for none.
        shift: see there.
    """

    centred: bool = False
    epsilon: float = 0.0
    gain: str = ""
    shift: str = ""
