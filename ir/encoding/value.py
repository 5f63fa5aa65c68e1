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

COLUMN = Block(0, 1)
"""A block of a value: one channel of all tokens."""
FEWEST_BITS, MOST_BITS, BYTE_BITS = 4, 16, 8  # of values that are rounded; runtimes multiply bytes
POWERS = "e8m0"
"""Steps that are powers of two."""
SLACK = 2.0**-12  # of a power of two: a largest magnitude may be beyond the last number by so much, and is cut off

_WORDS: dict[Block, str] = {TENSOR: "tensor", TOKEN: "token", COLUMN: "channel"}


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
        words = [grid.text, _WORDS.get(block, block.text), grid.symmetry, self.when]
        words += [f"scale {self.stored.scale}"] if self.stored.scale != "fp32" else []
        return " ".join((*words, *((f"float_tokens {self.float_tokens}",) if self.float_tokens else ())))

    @property
    def imitates(self) -> bool:
        """Values are rounded and multiplied as floats: the runtime has no integers of these steps, or so many bits."""
        if self.when == "static":
            return isinstance(self.stored.grid, IntGrid) and self.stored.grid.bits > BYTE_BITS
        return self.rest != DYNAMIC_INT8

    @property
    def in_bytes(self) -> bool:
        """One static step is for all, and codes lie in bytes, which runtimes multiply."""
        return self.when == "static" and not self.refuses and not self.imitates and not self.by_token

    @property
    def by_token(self) -> bool:
        """A token has a step of its own, so that products of its integers are multiplied by it."""
        return self.stored.block == TOKEN

    @property
    def by_position(self) -> bool:
        """It is known when compiling: that of the token's place in the text."""
        return self.when == "static" and self.by_token

    @property
    def group(self) -> int:
        """How many neighbouring channels share a step; none where all of an axis do."""
        block = self.stored.block
        return block.columns if block.rows == 1 else 0

    @property
    def rest(self) -> "ValueEncoding":
        """Of the tokens that are rounded."""
        return replace(self, float_tokens=0)

    @property
    def centred(self) -> bool:
        """Zero lies in the middle of the codes."""
        return self.stored.grid.symmetric

    @property
    def width(self) -> int:
        """Bits of its integers, and ``code_bits`` those of the type that codes of static steps have."""
        return self.grid.bits

    @property
    def code_bits(self) -> int:
        """See `width`."""
        return BYTE_BITS if self.width <= BYTE_BITS else MOST_BITS

    @property
    def grid(self) -> IntGrid:
        """Its integers, where it `refuses` nothing."""
        assert isinstance(self.stored.grid, IntGrid)
        return self.stored.grid

    @property
    def refuses(self) -> str:
        """Why no graph rounds values so; empty if graphs do."""
        grid, block = self.stored.grid, self.stored.block
        whole = isinstance(grid, IntGrid) and FEWEST_BITS <= grid.bits <= MOST_BITS
        if self.when == "static":
            one = block == TENSOR or (block == TOKEN and grid.symmetric and not self.float_tokens)
            known = whole and one and self.stored.scale == "fp32"
            return "" if known else f"values are not rounded by steps of {self.text}"
        held = (block in _WORDS or block.rows == 1) and self.stored.scale in ("fp32", POWERS)
        few = f"values are rounded to int{FEWEST_BITS} to int{MOST_BITS} by blocks of a token, not to {self.text}"
        return "" if whole and held and grid.symmetric else few


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
        positions: the steps of the first token, the second, and so on, where each has its own; what stands behind the
            last has the last one's.

    Raises:
        ValueError: a static one has no step, a dynamic one has, or the zero is elsewhere.
    """

    encoding: ValueEncoding
    step: np.float32 | None = None
    zero: int = 128
    leading: np.ndarray | None = field(default=None, compare=False, repr=False)
    positions: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        static = self.encoding.when == "static"
        wanted = static and not self.encoding.by_token, self.encoding.by_position
        if (self.step is not None, bool(self.positions)) != wanted:
            raise ValueError(f"{self.encoding.text} with the step {self.step} and {len(self.positions)} of positions")
        grid = self.encoding.stored.grid
        codes, middle = (grid.levels, grid.middle) if isinstance(grid, IntGrid) and static else (256, 128)
        if self.zero not in range(codes) or (grid.symmetric and self.zero != middle):
            raise ValueError(f"{self.encoding.text} with the zero {self.zero}")

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the largest whole number."""
        if self.encoding.when == "dynamic" and self.encoding.imitates:
            return self.encoding.grid.lowest, self.encoding.grid.highest
        return -self.zero, self.encoding.grid.levels - 1 - self.zero

    def steps(self, value: np.ndarray) -> np.ndarray:
        """The steps of a value ``[..., channel]``, in a shape that broadcasts over it."""
        if self.step is not None:
            return np.asarray(self.step, np.float32)
        if self.positions:
            at = np.minimum(np.arange(value.shape[-2]), len(self.positions) - 1)
            return np.asarray(self.positions, np.float32)[at, None]
        highest = np.float32(self.encoding.grid.highest)
        block, least = self.encoding.stored.block, np.float32(SMALLEST_STEP) * highest
        sizes = np.abs(value)
        if self.encoding.group:
            sizes = sizes.reshape(*value.shape[:-1], -1, self.encoding.group)
        axes = {TENSOR: None, COLUMN: tuple(range(value.ndim - 1))}.get(block, -1)
        steps = np.asarray(sizes.max(axes, keepdims=True, initial=least) / highest, np.float32)
        if self.encoding.stored.scale == POWERS:
            steps = np.exp2(np.ceil(np.log2(steps) - np.float32(SLACK))).astype(np.float32)
        if self.encoding.group:
            steps = np.repeat(steps[..., 0], self.encoding.group, axis=-1)
        return np.asarray(steps)

    def rounded(self, value: np.ndarray) -> np.ndarray:
        """The value as it is read: whole numbers of the grid, times its steps."""
        steps = self.steps(value)
        codes = np.clip(np.rint(value / steps), *self.ends)
        found: np.ndarray = (codes * steps).astype(np.float32)
        if first := self.encoding.float_tokens:
            found[..., :first, :] = value[..., :first, :] if self.leading is None else self.leading
        return found
