"""Rows of pixels times a filter a channel: VNNI.

Bytes of up to four rows of the image are put beside each other, which is one operand of ``vpdpbusd`` for a column of
the kernel; a column serves all pixels that see it. Bytes interleave within 128 bits, so sums lie in an order of their
own, which packing them to bytes undoes; biases and scales lie in it, too.
"""

from dataclasses import dataclass

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.chain.requantize import Requantizer
from qcc.codegen.cpu.tir import emit
from qcc.codegen.cpu.tir.emit import Expr, T

PIXELS = 4
LANE = 16  # bytes that interleave
POINTERS = {
    "a": "uint8", "w": "int8", "bias": "int32", "scale": "float32", "facts": "float32", "out": "uint8",
}  # fmt: skip
SCALARS = ("row", "step", "pixels", "rows", "stride", "line")


@dataclass(frozen=True)
class Taps:
    """A kernel and its strides, rows first."""

    high: int
    wide: int
    down: int
    across: int

    @property
    def groups(self) -> int:
        """Of four rows."""
        return -(-self.high // 4)


def depthwise(name: str, taps: Taps, width: int) -> Expr:
    """A function ``(POINTERS..., y, SCALARS...)`` for ``width`` channels, 16, 32 or 64; ``y`` is not touched.

    Rows of ``a`` lie ``row`` bytes apart and its pixels ``step``; those of ``out`` ``line`` and ``stride``. Weights
    are ``[wide, groups, 4, width]`` bytes, vector by vector in the order of the sums.
    """
    with emit.function(name) as builder:
        made = _Depthwise(taps, width, *emit.arguments(POINTERS, SCALARS, unaligned="a facts out"))
        with T.serial(T.int64(0), made.rows) as line:
            whole = T.bind(T.truncdiv(made.pixels, T.int64(PIXELS)))
            with T.serial(T.int64(0), whole) as part:
                made.tile(line, part * PIXELS, PIXELS)
            with T.If(whole * PIXELS < made.pixels), T.Then(), T.If(whole > T.int64(0)):
                with T.Then():  # the last ones, of which some have been computed before
                    made.tile(line, made.pixels - PIXELS, PIXELS)
                with T.Else(), T.serial(T.int64(0), made.pixels) as pixel:
                    made.tile(line, pixel, 1)
    return builder.get()


class _Depthwise:
    """The function's arguments, and its inner part."""

    def __init__(self, taps: Taps, width: int, *given: Expr) -> None:
        found = dict(zip((*POINTERS, "y", *SCALARS), given, strict=True))
        self.taps, self.width = taps, width
        self.a, self.w, self.bias, self.scale, self.out = (found[name] for name in ("a", "w", "bias", "scale", "out"))
        self.row, self.step, self.pixels, self.rows, self.stride, self.line = (found[name] for name in SCALARS)
        self.rounded = Requantizer(found["facts"], width // 4)

    def tile(self, line: Expr, pixel: Expr, count: int) -> None:
        """So many neighbouring pixels of a row."""
        taps, width, lanes = self.taps, self.width, self.width // 4
        sums = [emit.accumulators(4, "int32", lanes) for _ in range(count)]
        for part in range(4):
            start = T.bind(self.bias[emit.lanes(part * lanes, lanes)])
            for row in sums:
                emit.put(row[part], start)
        fours = emit.accumulators(4, "int8", width)
        for column in range((count - 1) * taps.across + taps.wide):
            seen = [
                (index, column - index * taps.across)
                for index in range(count)
                if 0 <= column - index * taps.across < taps.wide
            ]
            for group in range(taps.groups if seen else 0):
                self._interleave(line, pixel * taps.across + column, group, fours)
                for index, along in seen:
                    for part, total in enumerate(sums[index]):
                        at = ((along * taps.groups + group) * 4 + part) * width
                        weights = self.w[emit.lanes(at, width)]
                        emit.put(total, self._dot(emit.get(total), emit.get(fours[part]), weights))
        for index, row in enumerate(sums):
            parts = []
            for part, total in enumerate(row):
                scale = self.scale[emit.lanes(part * lanes, lanes)]
                parts.append(self.rounded(emit.get(total), scale))
            place = emit.lanes(line * self.line + (pixel + index) * self.stride, width)
            T.buffer_store(self.out, self.rounded.packed(parts), [place])

    def _interleave(self, line: Expr, column: Expr, group: int, fours: list[Expr]) -> None:
        """A column's bytes of four rows, four vectors of whole channels."""
        rows = []
        for row in range(group * 4, min(group * 4 + 4, self.taps.high)):
            at = (line * self.taps.down + row) * self.row + column * self.step
            rows.append(T.bind(T.reinterpret(f"int8x{self.width}", self.a[emit.lanes(at, self.width)])))
        nothing = emit.spread(T.int8(0), self.width)
        rows += [nothing] * (4 - len(rows))
        for half in (0, 1):
            first, second = (T.bind(self._unpacked(rows[at], rows[at + 1], half, 1)) for at in (0, 2))
            for side in (0, 1):
                emit.put(fours[2 * half + side], self._unpacked(first, second, side, 2))

    def _unpacked(self, one: Expr, two: Expr, half: int, unit: int) -> Expr:
        """Units of bytes of two vectors by turns, of a half of every 128 bits."""
        order = []
        for lane in range(0, self.width, LANE):
            for at in range(lane + half * LANE // 2, lane + (half + 1) * LANE // 2, unit):
                order += [*range(at, at + unit), *range(self.width + at, self.width + at + unit)]
        return tirx.Shuffle([one, two], [T.int32(at) for at in order])

    def _dot(self, total: Expr, bytes_: Expr, weights: Expr) -> Expr:
        name = f"llvm.x86.avx512.vpdpbusd.{self.width * 8}"
        return emit.llvm(name, f"int32x{self.width // 4}", total, bytes_, weights)
