"""Sixteen vectors of sixteen numbers with rows and columns exchanged, and powers of two."""

from collections.abc import Sequence

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T

QUARTERS = tuple(range(0, LANES, 4))  # where each 128 bits of a vector begin
SINGLES = (0, 16, 1, 17), (2, 18, 3, 19)  # of 128 bits of two vectors, in turns: the first two of each, the last two
DOUBLES = (0, 1, 16, 17), (2, 3, 18, 19)  # the same by pairs
EVEN, ODD = (0, 8, 16, 24), (4, 12, 20, 28)  # every second 128 bits of two vectors
ROUND = 12582912.0 + 127  # 1.5 * 2**23: added to a number, its lowest bits are the number's integer, here an exponent
LEAST = -127.0  # a power of so much and less is nought
EXP2 = (0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149)
"""``(2**r - 1) / r`` from -1/2 to 1/2, lowest power first; minimax for the relative error of 2**r, 9e-8 (Lawson)."""


def held(value: Expr) -> Expr:
    """A value that is used more than once, in a register (`steps.py` says why)."""
    element, _, lanes = str(value.ty).partition("x")
    (register,) = emit.accumulators(1, element, int(lanes))
    emit.put(register, value)
    return emit.get(register)


def power_of_two(value: Expr) -> Expr:
    """``2**value`` of vectors that are not above 0, to 2e-7 of itself; NaN stays."""
    least = emit.spread(T.float32(LEAST))
    above = held(T.Select(value < least, least, value))
    shifted = held(above + emit.spread(T.float32(ROUND)))
    rest = held(above - (shifted - emit.spread(T.float32(ROUND))))
    moved = T.shift_left(T.reinterpret(f"int32x{LANES}", shifted), emit.word(23))
    power = held(T.reinterpret(f"float32x{LANES}", moved))
    found: Expr = emit.spread(T.float32(EXP2[-1]))
    for coefficient in (*EXP2[-2::-1], 1.0):
        found = held(found * rest + emit.spread(T.float32(coefficient)))
    return held(found * power)


def turned(rows: Sequence[Expr]) -> list[Expr]:
    """Vector ``j`` of the result holds number ``j`` of each row: 64 shuffles, of which 32 are inside of 128 bits."""
    singles = [_woven(rows[at], rows[at + 1], part) for at in range(0, LANES, 2) for part in SINGLES]
    fours = [
        _woven(singles[at + side], singles[at + 2 + side], part)
        for at in range(0, LANES, 4)
        for side in range(2)
        for part in DOUBLES
    ]  # of four rows each, the number 4 quarter + j of each in each quarter of vector j
    eights = {
        (half, part): [_quarters(fours[8 * half + j], fours[8 * half + 4 + j], part) for j in range(4)]
        for half in range(2)
        for part in (EVEN, ODD)
    }
    return [
        _quarters(eights[0, first][j], eights[1, first][j], then)
        for then in (EVEN, ODD)
        for first in (EVEN, ODD)
        for j in range(4)
    ]


def _woven(one: Expr, other: Expr, order: Sequence[int]) -> Expr:
    """The same in all 128 bits."""
    return _shuffled(one, other, [quarter + at for quarter in QUARTERS for at in order])


def _quarters(one: Expr, other: Expr, starts: Sequence[int]) -> Expr:
    return _shuffled(one, other, [start + at for start in starts for at in range(4)])


def _shuffled(one: Expr, other: Expr, order: Sequence[int]) -> Expr:
    return held(tirx.Shuffle([one, other], [T.int32(at) for at in order]))
