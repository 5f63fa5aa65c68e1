"""Rows of keys or values as codes: what is done to a row before it is kept, and what its codes stand for.

A row is ``[batch, heads, rows, channels]``. Channels are moved by what data shows of them (a centre each, a gain each,
an order, or a matrix by which they are mixed), all of which an attention undoes outside the cache: a centre taken from
all keys changes the scores of a query by one number, which a softmax does not see; a gain, an order or a matrix of keys
goes to the queries, of values to the result. What is kept is then an integer a channel (`channel`), or integers with a
scale that is found row by row (`group`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.grid import IntGrid

POWERS = "e8m0"
BIAS = 127  # of the exponent of a power of two that is kept in a byte
LEAST = 2.0**-100  # a scale of rows of zeros
NEAR = 1e-5  # what the logarithm of a power of two may be short of a whole number
TOP = 254  # the last byte of powers stands for no number
SCALE_TYPES: Mapping[str, type[np.generic]] = {"fp16": np.float16, "fp32": np.float32, POWERS: np.uint8}
HALF = 4  # bits of two codes in a byte


def refusal(encoding: object) -> str:
    """Why rows are not kept in an encoding; empty if they are."""
    if not isinstance(encoding, Blocked) or not isinstance(encoding.grid, IntGrid) or encoding.bits not in (4, 8):
        return "rows are kept as int8 or int4, or as bfp 8 or bfp 4"
    if encoding.block == CHANNEL:
        return "" if encoding.scale in ("fp16", "fp32") else "scales of channels are known when compiling, and floats"
    if encoding.block.rows != 1:
        return "rows are kept by channel or in groups of channels"
    if not encoding.symmetric:
        return "groups of channels have no zero points: scales are found as rows come"
    return "" if encoding.scale in SCALE_TYPES else f"scales of rows are {', '.join(SCALE_TYPES)}, not {encoding.scale}"


def row_bytes(encoding: Blocked, width: int) -> float:
    """What a head of so many channels keeps of a row."""
    by_channel = encoding.block == CHANNEL
    groups = 0 if by_channel else width // (encoding.block.columns or width)
    scale = 0 if by_channel else np.dtype(SCALE_TYPES[str(encoding.scale)]).itemsize
    return float(width * encoding.bits / 8 + groups * scale)


@dataclass(frozen=True, eq=False)
class CachedRows:
    """How rows are kept.

    Args:
        encoding: their integers, and what shares a scale: rows of a channel, or a group of channels of one row.
        centre: taken from each channel first, ``[heads, channels]``.
        gain: by which it is divided then; of integers by channel their scale.
        order: the channel of the row that stands at each place, ``[heads, channels]``; None for their own.
        first: so many rows at the beginning stay floats.
        pairs: of 4 bits, two neighbours share a byte, the first in its low half, as the runtime's own caches have it;
            else the first half of the channels lies in low halves.
        mixing: what a head's rows are multiplied by before all else, ``[heads, channels, channels]``; None for nothing.

    Raises:
        ValueError: rows are not kept so.
    """

    encoding: Blocked
    centre: np.ndarray
    gain: np.ndarray
    order: np.ndarray | None = None
    first: int = 0
    pairs: bool = False
    mixing: np.ndarray | None = None

    def __post_init__(self) -> None:
        heads, width = self.gain.shape
        fault = refusal(self.encoding)
        if not fault and not self.by_channel and width % self.size:
            fault = f"{width} channels are no whole groups of {self.size}"
        if not fault and self.bits == HALF and width % 2:
            fault = f"two of {width} channels do not share each byte"
        if not fault and self.centre.shape != (heads, width):
            fault = "centre and gain are of different heads"
        if not fault and self.mixing is not None and self.mixing.shape != (heads, width, width):
            fault = "what mixes channels is of other heads"
        if fault:
            raise ValueError(fault)

    @cached_property
    def mixed_back(self) -> np.ndarray | None:
        """The inverse of what mixes channels."""
        return None if self.mixing is None else np.linalg.inv(self.mixing.astype(np.float64)).astype(np.float32)

    @property
    def bits(self) -> int:
        """Of a code."""
        return self.encoding.bits

    @property
    def by_channel(self) -> bool:
        """Scales are known when compiling."""
        return self.encoding.block == CHANNEL

    @property
    def size(self) -> int:
        """Channels of a group."""
        return self.encoding.block.columns or self.gain.shape[1]

    @property
    def least(self) -> int:
        """The lowest integer of the bits; the highest is one less from zero."""
        return -(1 << (self.bits - 1))

    @property
    def lowest(self) -> int:
        """The lowest that is kept: groups have as many on both sides, so that what is read is kept as it was."""
        return self.least if self.by_channel else self.least + 1

    @property
    def scale_type(self) -> type[np.generic]:
        """What the scales of groups are kept in."""
        return SCALE_TYPES[str(self.encoding.scale)]

    @property
    def least_scale(self) -> float:
        """Of groups, where those are floats."""
        return float(np.finfo(np.float16 if self.scale_type is np.float16 else np.float32).tiny)

    @property
    def code_type(self) -> type[np.generic]:
        """What codes are kept in."""
        return np.uint8 if self.bits == HALF else np.int8

    @property
    def row_bytes(self) -> float:
        """What a head keeps of a row."""
        return row_bytes(self.encoding, self.gain.shape[1])

    def part_names(self, name: str) -> dict[str, str]:
        """What a cache consists of: what each input or output is called in the place of one of floats."""
        found = {"codes": name}
        found |= {} if self.by_channel else {"scale": f"{name}.scale"}
        return found | ({"first": f"{name}.first"} if self.first else {})

    def encode(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Rows ``[batch, heads, rows, channels]`` as the parts of a cache."""
        head, rest = rows[:, :, : self.first], rows[:, :, self.first :]
        moved = self.moved(rest)
        scale, found = np.ones((), np.float32), dict[str, np.ndarray]()
        if not self.by_channel:
            moved = self._apart(moved)
            found["scale"] = self._scales(moved)
            scale = self._factors(found["scale"])[..., None]
        codes = np.clip(np.rint(moved / scale), self.lowest, -self.least - 1).reshape(rest.shape)
        found["codes"] = self._packed(codes)
        return found | ({"first": np.ascontiguousarray(head, np.float32)} if self.first else {})

    def decode(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """The rows that the parts of a cache stand for."""
        numbers = self._unpacked(parts["codes"])
        if not self.by_channel:
            numbers = (self._apart(numbers) * self._factors(parts["scale"])[..., None]).reshape(numbers.shape)
        rows = self.moved_back(numbers)
        return np.concatenate([parts["first"], rows], 2) if self.first else rows

    def moved(self, rows: np.ndarray) -> np.ndarray:
        """Rows with their channels as they are kept."""
        rows = rows if self.mixing is None else rows @ self.mixing
        found = ((rows - self.centre[:, None]) * (np.float32(1) / self.gain[:, None])).astype(np.float32)
        order = self.order
        return found if order is None else np.take_along_axis(found, _over(order, found), -1)

    def moved_back(self, rows: np.ndarray) -> np.ndarray:
        """The inverse."""
        if self.order is not None:
            rows = np.take_along_axis(rows, _over(np.argsort(self.order, -1), rows), -1)
        found = np.asarray(rows * self.gain[:, None] + self.centre[:, None], np.float32)
        return found if self.mixed_back is None else np.asarray(found @ self.mixed_back, np.float32)

    def _apart(self, rows: np.ndarray) -> np.ndarray:
        """With an axis of groups."""
        return rows.reshape(*rows.shape[:-1], rows.shape[-1] // self.size, self.size)

    def _scales(self, groups: np.ndarray) -> np.ndarray:
        """Of groups of channels ``[..., groups, channels]``: the largest reaches the last integer, or near it."""
        top = np.maximum(np.abs(groups).max(-1, initial=0), np.float32(LEAST))
        if self.scale_type is np.uint8:
            power = np.floor(np.log(top) * np.float32(1 / np.log(2)) + np.float32(NEAR)) - (self.bits - 2)
            return np.asarray(np.clip(power + BIAS, 0, TOP), np.uint8)
        return np.asarray(np.maximum(top / (-self.least - 1), self.least_scale), self.scale_type)

    def _factors(self, scale: np.ndarray) -> np.ndarray:
        if self.scale_type is np.uint8:
            return np.asarray(np.exp2(scale.astype(np.float32) - BIAS), np.float32)
        return scale.astype(np.float32)

    def _packed(self, codes: np.ndarray) -> np.ndarray:
        if self.bits != HALF:
            return codes.astype(np.int8)
        whole = (codes - self.least).astype(np.uint8)
        half = whole.shape[-1] // 2
        low, high = (whole[..., 0::2], whole[..., 1::2]) if self.pairs else (whole[..., :half], whole[..., half:])
        return np.ascontiguousarray(low | high << HALF)

    def _unpacked(self, codes: np.ndarray) -> np.ndarray:
        if self.bits != HALF:
            return codes.astype(np.float32)
        low, high = codes & 15, codes >> HALF
        whole = (
            np.stack([low, high], -1).reshape(*codes.shape[:-1], 2 * codes.shape[-1])
            if self.pairs
            else np.append(low, high, -1)
        )
        return np.asarray(whole.astype(np.float32) + self.least, np.float32)


def _over(order: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """An order of each head's channels for every row."""
    return np.broadcast_to(order[None, :, None], rows.shape)
