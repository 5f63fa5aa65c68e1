"""What stands behind the sums of a convolution of bytes: scaled, cut off and rounded to bytes, and a residual added.

``y = clip(rint(sum * scale), low, high) + zero``, half to even, as the runtime rounds. A residual is added to the
rounded value, which is what the graph says: ``(y - zero) * own + (other - other_zero) * others`` is rounded again. ``facts``
holds all numbers of that but the scales, in the order of `FACTS`.
"""

from qcc.codegen.cpu.tir import emit
from qcc.codegen.cpu.tir.emit import Expr, T

FACTS = ("low", "high", "zero", "own", "others", "other_zero", "sum_low", "sum_high", "sum_zero")
ROUND = 12582912.0  # 1.5 * 2**23: a small number that is added to it has its nearest whole number in the last bits
ROUND_BITS = 0x4B400000


class Requantizer:
    """Rounds vectors of sums in a function that was given ``facts``.

    Args:
        facts: the buffer.
        lanes: of a vector.
        adds: there is a residual.
    """

    def __init__(self, facts: Expr, lanes: int, adds: bool = False) -> None:
        self._lanes, self._adds = lanes, adds
        count = len(FACTS) if adds else FACTS.index("own")
        self._facts = {name: T.bind(facts[at]) for at, name in enumerate(FACTS[:count])}
        last = "sum_zero" if adds else "zero"
        self._zero = T.bind(T.int32(ROUND_BITS) - T.cast(self._facts[last], "int32"))

    def __call__(self, sums: Expr, scale: Expr, other: Expr | None = None) -> Expr:
        """Whole numbers int32 in the range of a byte.

        Args:
            sums: int32, with the bias.
            scale: float32.
            other: bytes of the residual.
        """
        near = self._near(T.cast(sums, f"float32x{self._lanes}") * scale, "low", "high")
        if other is not None:
            own = (near - self._spread(T.float32(ROUND))) * self._of("own")
            theirs = (T.cast(T.cast(other, self._int), self._float) - self._of("other_zero")) * self._of("others")
            near = self._near(own + theirs, "sum_low", "sum_high")
        return T.reinterpret(self._int, near) - self._spread(self._zero)

    def _near(self, value: Expr, low: str, high: str) -> Expr:
        """A value within bounds, added to `ROUND`."""
        above = T.max(value, self._of(low))
        within = T.min(above, self._of(high)) + self._spread(T.float32(ROUND))
        return emit.llvm("llvm.arithmetic.fence", self._float, within)  # else TVM cancels what is taken off again

    def _of(self, name: str) -> Expr:
        return self._spread(self._facts[name])

    def _spread(self, value: Expr) -> Expr:
        return emit.spread(value, self._lanes)

    @property
    def _int(self) -> str:
        return f"int32x{self._lanes}"

    @property
    def _float(self) -> str:
        return f"float32x{self._lanes}"
