"""Codes times activations that were rounded to int8, where there is NEON with dot products; else as in ``gemv_int8``.

``sdot`` adds the products of four codes and four activations, both with a sign, in 32 bits. Codes of up to 7 bits are
small enough to be read so. Of 8 bits 128 is taken off, and its product with the activations' sum added at the start.
"""

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.rows import gemv_narrow
from qcc.codegen.cpu.rows.gemv_narrow import Narrow
from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import Codes
from qcc.codegen.tir.emit import Expr, T

DOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"
LANES = 4
PARTS = 16  # of 4 outputs


def gemv(name: str, codes: Codes, rows: int, static: bool = False) -> Expr:
    """A function of the arguments of ``gemv_int8.gemv``."""
    return gemv_narrow.gemv(name, codes, rows, static, Narrow(LANES, PARTS, _zero, _inputs, _dots))


def _inputs(q: Expr, at: Expr) -> list[Expr]:
    return [T.bind(q[emit.lanes(at * 8 + half, LANES)]) for half in (0, LANES)]


def _zero(codes: Codes, offset: Expr | None) -> Expr:
    """The code of zero, as ``sdot`` reads codes."""
    less = 128 if codes.bits == 8 else 0
    if offset is None:
        return emit.word(codes.middle - less, LANES)
    return T.bind(offset - emit.word(less, LANES) if less else offset)


def _dots(words: list[Expr], codes: Codes, fours: list[list[Expr]], start: list[Expr]) -> list[Expr]:
    """For each row the products of a chunk of 4 outputs, added to the start."""
    dots = start
    for number in range(emit.QUADS):
        quad = emit.quad(words, codes.bits, number, LANES)
        quad = T.bitwise_xor(quad, emit.word(0x80808080, LANES)) if codes.bits == 8 else quad
        whole = T.bind(T.reinterpret("int8x16", quad))
        lane = [T.int32(number % LANES)] * LANES
        spread = [T.reinterpret("int8x16", tirx.Shuffle([halves[number // LANES]], lane)) for halves in fours]
        dots = [T.bind(emit.llvm(DOT, "int32x4", dot, whole, four)) for dot, four in zip(dots, spread, strict=True)]
    return dots
