"""Rows of pixels times a filter a channel.

Bytes of several rows of the image are put beside each other, which is one operand of the product of a column of the
kernel; a column serves all pixels that see it. Bytes interleave within 128 bits, so sums lie in an order of their
own, which packing them to bytes undoes; biases and scales lie in it, too.
"""

from qcc.codegen.cpu.chain.dots import Dot
from qcc.codegen.cpu.chain.requantize import Requantizer
from qcc.codegen.cpu.chain.taps import Taps
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

POINTERS = {
    "a": "uint8", "runs": "int64", "w": "int8", "bias": "int32", "scale": "float32", "facts": "float32", "out": "uint8",
}  # fmt: skip
SCALARS = ("row", "step", "pixels", "rows", "stride", "line")


def depthwise(name: str, dot: Dot, taps: Taps, width: int) -> Expr:
    """A function ``(POINTERS..., y, SCALARS...)`` for ``width`` channels; ``y`` is not touched.

    What rows of ``out`` see lies ``row`` bytes apart in ``a``, each row of the kernel at its place of ``runs``, and
    pixels ``step``; those of ``out`` lie ``line`` and ``stride`` apart. Weights are ``[wide, groups, 4, width]`` bytes,
    vector by vector in the order of the sums.
    """
    with emit.function(name) as builder:
        made = _Depthwise(dot, taps, width, *emit.arguments(POINTERS, SCALARS, unaligned="a runs facts out"))
        count = dot.columns
        with T.serial(T.int64(0), made.rows) as line:
            whole = T.bind(T.truncdiv(made.pixels, T.int64(count)))
            with T.serial(T.int64(0), whole) as part:
                made.tile(line, part * count, count)
            with T.If(whole * count < made.pixels), T.Then(), T.If(whole > T.int64(0)):
                with T.Then():  # the last ones, of which some have been computed before
                    made.tile(line, made.pixels - count, count)
                with T.Else(), T.serial(T.int64(0), made.pixels) as pixel:
                    made.tile(line, pixel, 1)
    return builder.get()


class _Depthwise:
    """The function's arguments, and its inner part."""

    def __init__(self, dot: Dot, taps: Taps, width: int, *given: Expr) -> None:
        found = dict(zip((*POINTERS, "y", *SCALARS), given, strict=True))
        self.dot, self.taps, self.width = dot, taps, width
        self.groups = -(-taps.high // dot.rows)
        self.a, self.runs, self.w, self.out = (found[name] for name in ("a", "runs", "w", "out"))
        self.bias, self.scale = (found[name] for name in ("bias", "scale"))
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
        for column in range((count - 1) * taps.across + (taps.wide - 1) * taps.apart + 1):
            lies = [(index, *divmod(column - index * taps.across, taps.apart)) for index in range(count)]
            seen = [(index, along) for index, along, off in lies if not off and 0 <= along < taps.wide]
            for group in range(self.groups if seen else 0):
                self._interleave(line, pixel * taps.across + column, group, fours)
                for index, along in seen:
                    for part, total in enumerate(sums[index]):
                        at = ((along * self.groups + group) * 4 + part) * width
                        weights = self.w[emit.lanes(at, width)]
                        emit.put(total, self.dot.column(emit.get(total), emit.get(fours[part]), weights, lanes))
        for index, row in enumerate(sums):
            parts = []
            for part, total in enumerate(row):
                scale = self.scale[emit.lanes(part * lanes, lanes)]
                parts.append(self.rounded(emit.get(total), scale))
            place = emit.lanes(line * self.line + (pixel + index) * self.stride, width)
            T.buffer_store(self.out, self.rounded.packed(parts), [place])

    def _interleave(self, line: Expr, column: Expr, group: int, parts: list[Expr]) -> None:
        """A column's bytes of the rows of a group, four vectors of whole channels."""
        rows, first = [], group * self.dot.rows
        for row in range(first, min(first + self.dot.rows, self.taps.high)):
            at = line * self.row + self.runs[row] + column * self.step
            rows.append(T.bind(T.reinterpret(f"int8x{self.width}", self.a[emit.lanes(at, self.width)])))
        nothing = emit.spread(T.int8(0), self.width)
        rows += [nothing] * (self.dot.rows - len(rows))
        for part, value in zip(parts, self.dot.interleaved(rows, self.width), strict=True):
            emit.put(part, value)
