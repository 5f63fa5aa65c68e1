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
    """

    source: str
    result: str


@dataclass(frozen=True, eq=False)
class TabledFactor(Tabled):
    """``source * numbers[at]``, where an input of the model says for each sample at which place.

    Args:
        by: the input, ``[samples]`` or a single number; samples are the first axis of ``source``.
        bounds: ``[places - 1]``, in order: the place is how many of them the input reaches.
        numbers: ``[places]``, of the type of ``source``.
        rank: of ``source``.
    """

    by: str
    bounds: np.ndarray
    numbers: np.ndarray
    rank: int


@dataclass(frozen=True)
class TabledByCode(Tabled):
    """One whose table goes by codes.

    Args:
        table: of the function.
    """

    table: LookupTable


@dataclass(frozen=True)
class TabledFunction(TabledByCode):
    """``table(source)``, number by number."""


@dataclass(frozen=True)
class TabledSoftmax(TabledByCode):
    """``e / sum(e)`` with ``e = table(source - max(source))``, along an axis.

    Args:
        axis: of both.
    """

    axis: int = -1


@dataclass(frozen=True)
class TabledNorm(TabledByCode):
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
