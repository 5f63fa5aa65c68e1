"""Products in bfloat16: codes that share scales by groups, and weights that are bfloat16 themselves.

A row of a tile of weights is a pair of inputs of 16 outputs. A decoded weight is ``scale * code - scale * zero`` in
float32, cut to bfloat16. Cutting alone would make all weights smaller, so the scale is a little larger, by ``NUDGE``:
what is cut is then as often too large as too small, and a weight that bfloat16 can hold stays as it is.
"""

from qcc.codegen.cpu.processors.tiling import Tiling
from qcc.codegen.cpu.tiles.gemm import WORDS, Arguments, ProductKind, function
from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import REGISTER, Codes
from qcc.codegen.tir.emit import Expr, T
from qcc.ir.encoding.packing import planes

TO_BF16 = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
PERMUTE = "llvm.x86.avx512.permvar.sf.512"
SHUFFLE = "llvm.x86.avx512.pshuf.b.512"
LOGIC = "llvm.x86.avx512.pternlog.d.512"  # LLVM makes a shuffle of ands and ors, which takes three times as long
FIRST_OR_BOTH_OTHERS = 0xF8
NUDGE = 1 + 1 / 384  # a third to two thirds of the last bit that is kept
EXACT = 0xFFFFFE00  # keeps 15 bits of a scale, whose product with a zero point is then exact


def pack(name: str) -> Expr:
    """A function ``(x, a, steps, sums, y, chunks, rows)``: float32 rows to tiles ``a [rows / 16, chunks, 16, 32]``.

    ``steps``, ``sums`` and ``y`` are not touched.
    """
    with emit.function(name) as builder:
        pointers = {"x": "float32", "a": "int32", "steps": "float32", "sums": "int32"}
        x, a, _, _, _, chunks, rows = emit.arguments(pointers, ("chunks", "rows"), unaligned="x")
        with T.serial(T.int64(0), rows) as row, T.serial(T.int64(0), chunks) as chunk:
            at = (row * chunks + chunk) * 32
            both = emit.llvm(TO_BF16, "bfloat16x32", x[emit.lanes(at + 16)], x[emit.lanes(at)])
            tile = T.truncdiv(row, T.int64(16)) * chunks + chunk
            place = (tile * 16 + T.truncmod(row, T.int64(16))) * 16
            T.buffer_store(a, T.reinterpret("int32x16", both), [emit.lanes(place)])
    return builder.get()


def gemm(name: str, codes: Codes, tiling: Tiling) -> Expr:
    """A function as `Arguments` has it. Weights that are bfloat16 are tiles ``[out / 32, chunks, 2, 16, 16]``."""

    def kind(given: Arguments) -> ProductKind:
        if not codes.is_float:
            return ProductKind("tdpbf16ps", 1, decode=_Decoder(codes, given))
        return ProductKind(
            "tdpbf16ps", 1,
            weights=lambda block, chunk: given.w[
                ((T.truncdiv(block, T.int64(2)) * given.chunks + chunk) * 2 + T.truncmod(block, T.int64(2))) * WORDS
            ],
        )  # fmt: skip

    return function(name, tiling, codes, kind)


class _Decoder:
    """Writes a chunk of 16 outputs as the 16 rows of a tile."""

    def __init__(self, codes: Codes, given: Arguments) -> None:
        self.codes, self.given = codes, given
        self.groups = T.bind(T.truncdiv(given.chunks, given.chunks_a_group))
        self.shuffles = [
            T.bind(T.reinterpret("int8x64", emit.constant([0x80808000 | lane % 4 * 4 + byte for lane in range(16)])))
            for byte in range(4)
        ]
        self.table = None
        if codes.table is not None:
            self.table = emit.floats_table(codes.register)
        elif codes.bits <= 4:
            self.table = emit.floats_table(tuple(float(code & (1 << codes.bits) - 1) for code in range(REGISTER)))

    def __call__(self, panel: Expr, start: Expr, block: Expr, chunk: Expr) -> None:
        given = self.given
        place = (block * self.groups + T.truncdiv(chunk, given.chunks_a_group)) * 16
        larger = T.reinterpret("int32x16", emit.floats(given.scale, place) * emit.spread(T.float32(NUDGE)))
        grid = T.bind(T.reinterpret("float32x16", T.bitwise_and(larger, emit.word(EXACT))))
        base = self._base(place, grid)
        at = (block * given.chunks + chunk) * self.codes.bits
        words = [T.bind(given.w[emit.lanes((at + bit) * 16)]) for bit in range(self.codes.bits)]
        for number in range(emit.QUADS):
            codes = self._quad(words, number)
            numbers = (self._code(codes, byte) * grid for byte in range(4))
            values = [T.reinterpret("int32x16", one if base is None else one - base) for one in numbers]
            for row in range(2):
                low = T.shift_right(T.reinterpret("uint32x16", values[2 * row]), T.broadcast(T.uint32(16), 16))
                halves = T.reinterpret("int32x16", low), values[2 * row + 1], emit.word(0xFFFF0000)
                both = emit.llvm(LOGIC, "int32x16", *halves, T.int32(FIRST_OR_BOTH_OTHERS))
                T.buffer_store(panel, both, [emit.lanes(start + (number * 2 + row) * 16)])

    def _base(self, place: Expr, grid: Expr) -> Expr | None:
        """What the code of zero stands for; None where a table has the numbers themselves."""
        if self.codes.table is not None:
            return None
        middle = emit.spread(T.float32(self.codes.middle))
        return T.bind(
            (T.cast(self.given.offset[emit.lanes(place)], "float32x16") if self.codes.stored_zero else middle) * grid
        )

    def _quad(self, words: list[Expr], number: int) -> tuple[Expr, int]:
        """Words whose byte ``b`` holds input ``4 * number + b``, from a bit on."""
        if len(planes(self.codes.bits)) > 1:
            return T.bind(emit.quad(words, self.codes.bits, number)), 0
        at, bit = emit.place(self.codes.bits, number)
        return words[at], bit

    def _code(self, quad: tuple[Expr, int], byte: int) -> Expr:
        """The codes of one byte of the quad as float32; a table's index is the lowest four bits."""
        word, bit = quad
        if self.table is None:
            wide = emit.llvm(SHUFFLE, "int8x64", T.reinterpret("int8x64", word), self.shuffles[byte])
            return T.cast(T.reinterpret("int32x16", wide), "float32x16")
        down = 8 * byte + bit
        return emit.llvm(PERMUTE, "float32x16", self.table, T.shift_right(word, emit.word(down)) if down else word)
