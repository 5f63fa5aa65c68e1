"""What stands behind the sums of a convolution of bytes: scaled, rounded to bytes and cut off, and a residual added.

``y = clip(rint(sum * scale) + zero, low, high)``, half to even, as the runtime rounds. A residual is added to the
rounded value as the runtime adds them: ``y * own + (other * others + middle)`` is rounded again, each product and sum
at once, and ``middle`` holds the zeros of all; what is the first operand of the sum is added last.
``facts`` holds all numbers of that but the scales, in the order of `FACTS`; bounds are whole, and counted from the
code of zero.
"""

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

FACTS = ("low", "high", "zero", "own", "others", "middle", "sum_low", "sum_high", "sum_zero")
MOST = 2.0**30  # what is above would be rounded to the least number
PACKS = {
    16: ("llvm.x86.sse2.packssdw.128", "llvm.x86.sse2.packuswb.128"),
    32: ("llvm.x86.avx2.packssdw", "llvm.x86.avx2.packuswb"),
    64: ("llvm.x86.avx512.packssdw.512", "llvm.x86.avx512.packuswb.512"),
}
"""By the bytes of a vector: what packs whole numbers to 16 bits, and these to bytes, within 128 bits."""


class Requantizer:
    """Rounds vectors of sums in a function that was given ``facts``.

    Args:
        facts: the buffer.
        lanes: of a vector.
        adds: there is a residual.
        last: which is the first operand of the sum.
    """

    def __init__(self, facts: Expr, lanes: int, adds: bool = False, last: bool = False) -> None:
        self._lanes, self._last = lanes, last
        count = len(FACTS) if adds else FACTS.index("own")
        self._facts = {name: T.bind(facts[at]) for at, name in enumerate(FACTS[:count])}
        first = "sum_" if adds else ""
        low, high, zero = (self._facts[f"{first}{name}"] for name in ("low", "high", "zero"))
        self._zero = T.bind(T.cast(zero, "int32"))
        self._low, self._high = (T.bind(T.cast(T.cast(one + zero, "int32"), "uint8")) for one in (low, high))

    def __call__(self, sums: Expr, scale: Expr, other: Expr | None = None) -> Expr:
        """Whole numbers int32, which become bytes where they are packed.

        Args:
            sums: int32, with the bias.
            scale: float32.
            other: bytes of the residual.
        """
        value = T.cast(sums, f"float32x{self._lanes}") * scale
        if other is not None:
            kind = f"float32x{self._lanes}"
            whole = T.cast(self._rounded(value), kind)
            own = T.min(T.max(whole, self._of("low")), self._of("high")) + self._of("zero")
            codes = T.cast(T.cast(other, f"int32x{self._lanes}"), kind)
            added = [(own, self._of("own")), (codes, self._of("others"))]
            value = self._of("middle")
            for one in added if self._last else added[::-1]:
                value = emit.llvm("llvm.fma", kind, *one, value)
            return self._rounded(value)
        return self._rounded(value) + emit.spread(self._zero, self._lanes)

    def cut(self, codes: Expr, count: int) -> Expr:
        """Bytes within the bounds."""
        return T.min(T.max(codes, emit.spread(self._low, count)), emit.spread(self._high, count))

    def packed(self, parts: list[Expr]) -> Expr:
        """Four vectors of whole numbers, or two, as bytes within the bounds, fours of each by turns."""
        width = 4 * self._lanes
        words, codes = PACKS[width]
        pairs = [emit.llvm(words, f"int16x{width // 2}", *parts[at : at + 2]) for at in range(0, len(parts), 2)]
        found = emit.llvm(codes, f"int8x{width}", pairs[0], pairs[-1])
        if len(pairs) == 1:  # all are there twice
            width, order = width // 2, [lane + at for lane in range(0, width, 16) for at in range(8)]
            found = tirx.Shuffle([found], [T.int32(at) for at in order])
        return self.cut(T.reinterpret(f"uint8x{width}", found), width)

    def narrowed(self, part: Expr) -> Expr:
        """One vector of whole numbers as bytes within the bounds."""
        within = T.min(T.max(part, emit.word(0, self._lanes)), emit.word(255, self._lanes))
        return self.cut(T.cast(within, f"uint8x{self._lanes}"), self._lanes)

    def _rounded(self, value: Expr) -> Expr:
        return rounded(T.min(value, emit.spread(T.float32(MOST), self._lanes)), self._lanes)

    def _of(self, name: str) -> Expr:
        return emit.spread(self._facts[name], self._lanes)


def rounded(value: Expr, lanes: int) -> Expr:
    """Floats of which none is too large, as whole numbers, half to even."""
    kind = f"int32x{lanes}"
    if lanes == 16:
        return emit.llvm("llvm.x86.avx512.mask.cvtps2dq.512", kind, value, emit.word(0), T.int16(-1), T.int32(4))
    return emit.llvm({8: "llvm.x86.avx.cvt.ps2dq.256", 4: "llvm.x86.sse2.cvtps2dq"}[lanes], kind, value)
