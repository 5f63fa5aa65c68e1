"""Encodings of values: the grids and blocks of weights, on what a model computes.

What may be encoded is a place: a weight, whose numbers are known and stored (`Encoding`, `Encoded`), or a value, which
is rounded as the model runs (`ValueEncoding`, `EncodedValue`). A value is seen as a matrix ``[token, channel]``: its
last axis, and all others.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block
from qcc.ir.encoding.grid import IntGrid

SMALLEST_STEP = 2.0**-100  # its inverse is a number, too
TOKEN = CHANNEL
"""A block of a value: one row of its matrix."""

_WORDS: dict[Block, str] = {TENSOR: "tensor", TOKEN: "token"}


@dataclass(frozen=True)
class ValueEncoding:
    """How a value is rounded.

    Args:
        stored: the grid of its numbers, the block that shares a step, and the type of steps.
        when: steps are ``static``, known when compiling and held by the model, or ``dynamic``: each block's is computed
            as the model runs, so that its largest magnitude is the grid's.
        float_tokens: how many of the first tokens of a text, along the last axis but one, stay as they are.
        signed: codes are bytes with a sign; the numbers are the same.
    """

    stored: Blocked
    when: Literal["static", "dynamic"]
    float_tokens: int = 0
    signed: bool = False

    @property
    def text(self) -> str:
        """For plans and reports."""
        grid, block = self.stored.grid, self.stored.block
        words = (grid.text, _WORDS.get(block, block.text), grid.symmetry, self.when)
        return " ".join((*words, *((f"float_tokens {self.float_tokens}",) if self.float_tokens else ())))

    @property
    def rest(self) -> "ValueEncoding":
        """Of the tokens that are rounded."""
        return replace(self, float_tokens=0)

    @property
    def grid(self) -> IntGrid:
        """Its integers, where it `refuses` nothing."""
        assert isinstance(self.stored.grid, IntGrid)
        return self.stored.grid

    @property
    def refuses(self) -> str:
        """Why no graph rounds values so; empty if graphs do."""
        if self.stored.grid not in (IntGrid(8), IntGrid(8, False)):
            return f"values are rounded to int8, not {self.stored.grid.text}"
        known = {"static": TENSOR, "dynamic": TOKEN if self.grid.symmetric else None}
        return "" if self.stored.block == known[self.when] else f"values are not rounded by steps of {self.text}"


STATIC_INT8 = ValueEncoding(Blocked(IntGrid(8), TENSOR, "fp32"), "static")
STATIC_BYTES = ValueEncoding(Blocked(IntGrid(8, False), TENSOR, "fp32"), "static")
DYNAMIC_INT8 = ValueEncoding(Blocked(IntGrid(8), TOKEN, "fp32"), "dynamic")


@dataclass(frozen=True)
class EncodedValue:
    """An encoding of a value with what is known of it when compiling.

    Args:
        encoding: how it is rounded.
        step: of a static one.
        zero: the code of zero, in half the range but for a grid without symmetry.
        leading: what the first tokens are ``[float_tokens, channel]``, where that is known; None where it is not.

    Raises:
        ValueError: a static one has no step, a dynamic one has, or the zero is elsewhere.
    """

    encoding: ValueEncoding
    step: np.float32 | None = None
    zero: int = 128
    leading: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if (self.step is None) != (self.encoding.when == "dynamic"):
            raise ValueError(f"{self.encoding.text} with the step {self.step}")
        if self.zero not in range(256) or (self.encoding.stored.grid.symmetric and self.zero != 128):
            raise ValueError(f"{self.encoding.text} with the zero {self.zero}")

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the largest whole number."""
        return -self.zero, self.encoding.grid.levels - 1 - self.zero

    def steps(self, value: np.ndarray) -> np.ndarray:
        """The steps of a value ``[..., channel]``, in a shape that broadcasts over it."""
        if self.step is not None:
            return np.asarray(self.step, np.float32)
        highest = np.float32(self.encoding.grid.highest)
        top = np.abs(value).max(-1, keepdims=True, initial=np.float32(SMALLEST_STEP) * highest)
        return np.asarray(top / highest, np.float32)

    def rounded(self, value: np.ndarray) -> np.ndarray:
        """The value as it is read: whole numbers of the grid, times its steps."""
        steps = self.steps(value)
        codes = np.clip(np.rint(value / steps), *self.ends)
        found: np.ndarray = (codes * steps).astype(np.float32)
        if first := self.encoding.float_tokens:
            found[..., :first, :] = value[..., :first, :] if self.leading is None else self.leading
        return found
