"""Rows of pixels, each the largest of some numbers of a channel, or their mean.

Where a window sees all of an image, the runtime adds up whole numbers and rounds once; a smaller one's it turns into
floats, adds these up in order, and divides. Both are done here as there, to the last bit.
"""

from qcc.codegen.cpu.chain.dots import LANE, Dot
from qcc.codegen.cpu.chain.requantize import rounded
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

POINTERS = {"a": "uint8", "runs": "int64", "facts": "float32", "out": "uint8"}
SCALARS = ("count", "step", "pixels", "stride", "channels")
FACTS = ("scale", "zero", "made", "made_zero", "seen")  # of what is read and made; how many numbers a window sees
KINDS = ("max", "mean", "whole")


def pool(name: str, dot: Dot, kind: str) -> Expr:
    """A function ``(POINTERS..., y, SCALARS...)``; ``y`` is not touched.

    Of a pixel, ``step`` bytes behind the last, ``count`` vectors of channels begin at ``runs``; those of ``out`` lie
    ``stride`` apart. There are 16 ``channels`` or more; the last vector ends where they do.
    """
    with emit.function(name) as builder:
        made = _Pool(dot, kind, *emit.arguments(POINTERS, SCALARS, unaligned="a runs facts out"))
        with T.serial(T.int64(0), made.pixels) as pixel:
            if kind == "max":
                with T.If(made.channels >= T.int64(4 * dot.lanes)):
                    with T.Then():
                        made.channels_of(pixel, 4 * dot.lanes)
                    with T.Else():
                        made.channels_of(pixel, LANE)
            else:
                made.channels_of(pixel, dot.lanes)
    return builder.get()


class _Pool:
    """The function's arguments, and its loops."""

    def __init__(self, dot: Dot, kind: str, *given: Expr) -> None:
        found = dict(zip((*POINTERS, "y", *SCALARS), given, strict=True))
        self.a, self.runs, self.facts, self.out = (found[name] for name in POINTERS)
        self.count, self.step, self.pixels, self.stride, self.channels = (found[name] for name in SCALARS)
        self.kind = kind

    def channels_of(self, pixel: Expr, width: int) -> None:
        """All channels of a pixel, so many at once."""
        with T.serial(T.int64(0), T.truncdiv(self.channels + (width - 1), T.int64(width))) as block:
            first = T.bind(T.min(block * width, self.channels - width))
            (total,) = emit.accumulators(1, {"max": "uint8", "mean": "float32", "whole": "int32"}[self.kind], width)
            emit.put(total, emit.spread({"max": T.uint8, "mean": T.float32, "whole": T.int32}[self.kind](0), width))
            with T.serial(T.int64(0), self.count) as run:
                seen = self.a[emit.lanes(pixel * self.step + self.runs[run] + first, width)]
                emit.put(total, self._with(emit.get(total), seen, width))
            place = emit.lanes(pixel * self.stride + first, width)
            T.buffer_store(self.out, self._made(emit.get(total), width), [place])

    def _with(self, total: Expr, seen: Expr, width: int) -> Expr:
        """A vector of what was seen so far, with one more."""
        if self.kind == "max":
            return T.max(total, seen)
        codes = T.cast(seen, f"int32x{width}")
        if self.kind == "whole":
            return total + codes
        value = (T.cast(codes, f"float32x{width}") - self._fact("zero", width)) * self._fact("scale", width)
        return total + emit.llvm("llvm.arithmetic.fence", f"float32x{width}", value)

    def _made(self, total: Expr, width: int) -> Expr:
        """Bytes of what was seen."""
        if self.kind == "max":
            return total
        low, high = T.float32(0), T.float32(255)
        if self.kind == "mean":
            value = total / self._fact("seen", width) / self._fact("made", width) + self._fact("made_zero", width)
            within = T.min(T.max(value, emit.spread(low, width)), emit.spread(high, width))
            return T.cast(rounded(within, width), f"uint8x{width}")
        less = T.bind(T.cast(self.facts[FACTS.index("zero")] * self.facts[FACTS.index("seen")], "int32"))
        zero = self.facts[FACTS.index("made_zero")]
        value = T.cast(total - emit.spread(less, width), f"float32x{width}") * self._fact("scale", width)
        within = T.min(T.max(value, emit.spread(low - zero, width)), emit.spread(high - zero, width))
        return T.cast(rounded(within, width) + emit.spread(T.cast(zero, "int32"), width), f"uint8x{width}")

    def _fact(self, name: str, width: int) -> Expr:
        return emit.spread(self.facts[FACTS.index(name)], width)
