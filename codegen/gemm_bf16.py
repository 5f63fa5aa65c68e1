"""Many rows at once: the codes of 32 outputs become a panel of bfloat16, which AMX multiplies.

Tiles 0 to 3 hold two by two results, 4 and 5 activations, 6 and 7 the panel, a pair of inputs of 16 outputs a row. The
first two tiles of rows decode what they multiply, so that decoding (AVX-512) runs beside the products (AMX); the other
rows find the panel in the first cache.

A weight is ``scale * code - scale * zero`` in float32, cut to bfloat16. Cutting alone would make all weights smaller,
so the scale is a little larger, by ``NUDGE``: what is cut is then as often too large as too small, and a weight that
bfloat16 can hold stays as it is.
"""

from qcc.codegen import emit
from qcc.codegen.emit import Expr, T
from qcc.codegen.tiling import Tiling
from qcc.ir.packing import planes

TO_BF16 = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
PERMUTE = "llvm.x86.avx512.permvar.sf.512"
SHUFFLE = "llvm.x86.avx512.pshuf.b.512"
NUDGE = 1 + 1 / 384  # a third to two thirds of the last bit that is kept
POINTERS = {
    "a": "int32", "w": "int32", "scale": "float32", "offset": "int16", "panel": "int32", "config": "uint8",
}  # fmt: skip
SCALARS = ("chunks", "chunks_a_group", "pair", "tiles")


def pack(name: str) -> Expr:
    """A function ``(x, a, y, chunks, rows)``: float32 rows to bfloat16 tiles ``a [rows / 16, chunks, 16, 32]``."""
    with emit.function(name) as builder:
        x, a, _, chunks, rows = emit.arguments({"x": "float32", "a": "int32"}, ("chunks", "rows"), unaligned="x")
        with T.serial(T.int64(0), rows) as row, T.serial(T.int64(0), chunks) as chunk:
            at = (row * chunks + chunk) * 32
            both = emit.llvm(TO_BF16, "bfloat16x32", x[emit.lanes(at + 16)], x[emit.lanes(at)])
            tile = T.truncdiv(row, T.int64(16)) * chunks + chunk
            place = (tile * 16 + T.truncmod(row, T.int64(16))) * 16
            T.buffer_store(a, T.reinterpret("int32x16", both), [emit.lanes(place)])
    return builder.get()


def gemm(name: str, bits: int, symmetric: bool, tiling: Tiling) -> Expr:
    """A function ``(a, w, scale, offset, panel, config, y, chunks, chunks a group, pair, tiles)``.

    It fills ``y [tiles * 16, 32]`` with the outputs ``32 * pair`` and on. ``panel`` has room for ``2 * tiling.depth``
    tiles of 1 kB. Codes of 16 bits are bfloat16 weights as tiles.
    """
    with emit.function(name) as builder:
        a, w, scale, offset, panel, config, y, chunks, per, pair, tiles = emit.arguments(POINTERS, SCALARS)
        decoder = _Decoder(bits, symmetric, w, scale, offset, chunks, per, pair) if bits < 16 else None
        multiply = _Product(a, panel, y, chunks, pair, tiling.depth, decoder)
        _amx("ldtilecfg", T.address_of(config[0]))
        once = T.bind(T.min(T.truncdiv(tiles, T.int64(2)), T.int64(1)))  # two tiles or one that decode
        slab = T.bind(T.Select(tiles > T.int64(2), T.int64(tiling.depth), chunks))
        with T.serial(T.int64(0), T.truncdiv(chunks + slab - 1, slab)) as number:
            start = T.bind(number * slab)
            end = T.bind(T.min(chunks, start + slab))
            for high, times in ((2, once), (1, T.int64(1) - once)):
                with T.serial(T.int64(0), times):
                    multiply(start, end, T.int64(0), high, decodes=True)
            with T.serial(T.int64(1), T.truncdiv(tiles, T.int64(2))) as two:
                multiply(start, end, two * 2, 2)
            with T.serial(T.max(T.truncdiv(tiles, T.int64(2)) * 2, T.int64(1)), tiles) as last:
                multiply(start, end, last, 1)
        _amx("tilerelease")
    return builder.get()


class _Product:
    """Adds to tiles of 16 rows their product with a slab of the panel."""

    def __init__(
        self, a: Expr, panel: Expr, y: Expr, chunks: Expr, pair: Expr, depth: int, decoder: "_Decoder | None"
    ) -> None:
        self.a, self.panel, self.y, self.chunks, self.pair = a, panel, y, chunks, pair
        self.depth, self.decoder = depth, decoder

    def __call__(self, start: Expr, end: Expr, first: Expr, high: int, decodes: bool = False) -> None:
        """Chunks from ``start`` to ``end``, ``high`` tiles from ``first`` on; ``decodes`` makes the panel beside it."""
        places = [self._result(first + up, side) for up in range(high) for side in range(2)]
        with T.If(start > T.int64(0)):
            with T.Then():
                for index, place in enumerate(places):
                    _amx("tileloadd64", T.int8(index), place, T.int64(128))
            with T.Else():
                for index in range(len(places)):
                    _amx("tilezero", T.int8(index))
        with T.serial(start, end) as chunk:
            if decodes and self.decoder:
                for side in range(2):
                    self.decoder(self.panel, self._slot(chunk, side), chunk, side)
            for up in range(high):
                place = T.address_of(self.a[((first + up) * self.chunks + chunk) * 256])
                _amx("tileloadd64", T.int8(4 + up), place, T.int64(64))
            for side in range(2):
                _amx("tileloadd64", T.int8(6 + side), self._weights(chunk, side), T.int64(64))
            for up in range(high):
                for side in range(2):
                    _amx("tdpbf16ps", T.int8(up * 2 + side), T.int8(4 + up), T.int8(6 + side))
        for index, place in enumerate(places):
            _amx("tilestored64", T.int8(index), place, T.int64(128))

    def _result(self, tile: Expr, side: int) -> Expr:
        return T.address_of(self.y[tile * 512 + side * 16])

    def _slot(self, chunk: Expr, side: int) -> Expr:
        """Where in the panel a chunk's tile starts; the panel is a ring."""
        return (T.bitwise_and(chunk, T.int64(self.depth - 1)) * 2 + side) * 256

    def _weights(self, chunk: Expr, side: int) -> Expr:
        if self.decoder:
            return T.address_of(self.panel[self._slot(chunk, side)])
        return T.address_of(self.panel[((self.pair * 2 + side) * self.chunks + chunk) * 256])


class _Decoder:
    """Writes a chunk of 16 outputs as the 16 rows of a tile."""

    def __init__(
        self, bits: int, symmetric: bool, w: Expr, scale: Expr, offset: Expr, chunks: Expr, per: Expr, pair: Expr
    ) -> None:
        self.bits, self.symmetric = bits, symmetric
        self.w, self.scale, self.offset, self.chunks, self.per, self.pair = w, scale, offset, chunks, per, pair
        self.groups = T.bind(T.truncdiv(chunks, per))
        self.shuffles = [
            T.bind(T.reinterpret("int8x64", emit.constant([0x80808000 | lane % 4 * 4 + byte for lane in range(16)])))
            for byte in range(4)
        ]
        self.table = None
        if bits <= 4:
            table = T.alloc_buffer((16,), "float32", scope="global")
            for code in range(16):
                T.buffer_store(table, T.float32(code & (1 << bits) - 1), [code])
            self.table = T.bind(table[emit.lanes(0)])

    def __call__(self, panel: Expr, slot: Expr, chunk: Expr, side: int) -> None:
        """Decode ``chunk`` of the outputs of one ``side`` of the pair to ``panel`` from ``slot`` on."""
        block = T.bind(self.pair * 2 + side)
        place = emit.lanes((block * self.groups + T.truncdiv(chunk, self.per)) * 16)
        grid = T.bind(self.scale[place] * emit.spread(T.float32(NUDGE)))
        middle = emit.spread(T.float32(1 << self.bits - 1))
        base = T.bind((middle if self.symmetric else T.cast(self.offset[place], "float32x16")) * grid)
        at = (block * self.chunks + chunk) * self.bits
        words = [T.bind(self.w[emit.lanes((at + bit) * 16)]) for bit in range(self.bits)]
        for number in range(emit.QUADS):
            codes = self._quad(words, number)
            values = [T.reinterpret("int32x16", self._code(codes, byte) * grid - base) for byte in range(4)]
            for row in range(2):
                low = T.shift_right(T.reinterpret("uint32x16", values[2 * row]), T.broadcast(T.uint32(16), 16))
                high = T.bitwise_and(values[2 * row + 1], emit.word(0xFFFF0000))
                both = T.bitwise_or(T.reinterpret("int32x16", low), high)
                T.buffer_store(panel, both, [emit.lanes(slot + (number * 2 + row) * 16)])

    def _quad(self, words: list[Expr], number: int) -> tuple[Expr, int]:
        """Words whose byte ``b`` holds input ``4 * number + b``, from a bit on."""
        if len(planes(self.bits)) > 1:
            return T.bind(emit.quad(words, self.bits, number)), 0
        per_byte = 8 // self.bits
        return words[number // per_byte], self.bits * (number % per_byte)

    def _code(self, quad: tuple[Expr, int], byte: int) -> Expr:
        """The codes of one byte of the quad as float32."""
        word, bit = quad
        if self.table is None:
            wide = emit.llvm(SHUFFLE, "int8x64", T.reinterpret("int8x64", word), self.shuffles[byte])
            return T.cast(T.reinterpret("int32x16", wide), "float32x16")
        down = 8 * byte + bit
        return emit.llvm(PERMUTE, "float32x16", self.table, T.shift_right(word, emit.word(down)) if down else word)


def _amx(name: str, *arguments: Expr) -> None:
    T.evaluate(T.call_llvm_intrin("int32", f"llvm.x86.{name}", *arguments))
