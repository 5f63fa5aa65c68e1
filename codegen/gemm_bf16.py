"""Many rows at once: the codes of 32 outputs become a panel of bfloat16, which AMX multiplies.

Tiles 0 to 3 hold two by two results, 4 and 5 activations, 6 and 7 the panel. A quad of codes (bytes) becomes two rows
of a tile, each of pairs of inputs: ``vpshufb`` spreads bytes, a conversion, a multiply-add with scale and offset, and
``vcvtne2ps2bf16``, which leaves the 16 outputs in the order of ``ORDER``; it is undone on the results.
"""

from qcc.codegen import emit
from qcc.codegen.emit import Expr, T
from qcc.codegen.spec import PANEL_CHUNKS as DEPTH

TO_BF16 = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
PERMUTE = "llvm.x86.avx512.permvar.sf.512"
SHUFFLE = "llvm.x86.avx512.pshuf.b.512"
ORDER = tuple((n >> 1 & 1) * 8 + n // 4 * 2 + (n & 1) for n in range(16))  # output n lies in lane ORDER[n]
POINTERS = {
    "a": "int32", "w": "int32", "scale": "float32", "offset": "int16", "panel": "int32", "tile": "float32",
    "config": "uint8",
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


def gemm(name: str, bits: int, symmetric: bool) -> Expr:
    """A function ``(a, w, scale, offset, panel, tile, config, y, chunks, chunks a group, pair, tiles)``.

    It fills ``y [tiles * 16, 32]`` with the outputs ``32 * pair`` and on, ``DEPTH`` chunks at a time. ``panel`` has
    room for ``2 * DEPTH`` tiles of 1 kB, ``tile`` for ``2 * tiles``.
    """
    with emit.function(name) as builder:
        a, w, scale, offset, panel, tile, config, y, chunks, per, pair, tiles = emit.arguments(POINTERS, SCALARS)
        groups = T.bind(T.truncdiv(chunks, per))
        shuffles, halves, back = _constants()
        _amx("ldtilecfg", T.address_of(config[0]))
        _clear(tile, tiles)
        with T.serial(T.int64(0), T.truncdiv(chunks + (DEPTH - 1), T.int64(DEPTH))) as slab:
            start = T.bind(slab * DEPTH)
            depth = T.bind(T.min(chunks - start, T.int64(DEPTH)))
            with T.serial(T.int64(0), T.int64(2)) as side, T.serial(T.int64(0), depth) as step:
                chunk = T.bind(start + step)
                block = T.bind(pair * 2 + side)
                place = emit.lanes((block * groups + T.truncdiv(chunk, per)) * 16)
                offsets = emit.spread(T.float32(1 << bits - 1)) if symmetric else T.cast(offset[place], "float32x16")
                base = T.bind(offsets * scale[place])
                grid = [T.bind(emit.llvm(PERMUTE, "float32x16", scale[place], half)) for half in halves]
                bases = [T.bind(emit.llvm(PERMUTE, "float32x16", base, half)) for half in halves]
                words = [T.bind(w[emit.lanes(((block * chunks + chunk) * bits + bit) * 16)]) for bit in range(bits)]
                _decode(panel, (side * DEPTH + step) * 16, words, bits, shuffles, grid, bases)
            with T.serial(T.int64(0), T.truncdiv(tiles, T.int64(2))) as two:
                _product(a, panel, tile, chunks, start, depth, two * 2, 2)
            with T.serial(T.truncdiv(tiles, T.int64(2)) * 2, tiles) as last:
                _product(a, panel, tile, chunks, start, depth, last, 1)
        _amx("tilerelease")
        with T.serial(T.int64(0), tiles) as up, T.serial(T.int64(0), T.int64(16)) as row:
            for side in range(2):
                value = tile[emit.lanes(((up * 2 + side) * 16 + row) * 16)]
                at = ((up * 16 + row) * 2 + side) * 16
                T.buffer_store(y, emit.llvm(PERMUTE, "float32x16", value, back), [emit.lanes(at)])
    return builder.get()


def _clear(tile: Expr, tiles: Expr) -> None:
    with T.serial(T.int64(0), tiles * 32) as row:
        T.buffer_store(tile, emit.spread(T.float32(0)), [emit.lanes(row * 16)])


def _decode(
    panel: Expr, start: Expr, words: list[Expr], bits: int, shuffles: list[Expr], grid: list[Expr], bases: list[Expr]
) -> None:
    """A chunk of 16 outputs as the 16 rows of ``panel`` from ``start`` on."""
    for number in range(emit.QUADS):
        codes = T.bind(T.reinterpret("int8x64", emit.quad(words, bits, number)))
        for inputs in range(2):
            values = []
            for half in range(2):
                wide = emit.llvm(SHUFFLE, "int8x64", codes, shuffles[inputs * 2 + half])
                values.append(T.cast(T.reinterpret("int32x16", wide), "float32x16") * grid[half] - bases[half])
            both = emit.llvm(TO_BF16, "bfloat16x32", values[1], values[0])
            row = (start + number * 2 + inputs) * 16
            T.buffer_store(panel, T.reinterpret("int32x16", both), [emit.lanes(row)])


def _product(a: Expr, panel: Expr, tile: Expr, chunks: Expr, start: Expr, depth: Expr, first: Expr, high: int) -> None:
    """Add to ``high`` tiles of 16 rows, from ``first`` on, their product with the panel."""
    for index in range(high * 2):
        _amx("tileloadd64", T.int8(index), T.address_of(tile[(first * 2 + index) * 256]), T.int64(64))
    with T.serial(T.int64(0), depth) as step:
        for up in range(high):
            place = T.address_of(a[((first + up) * chunks + start + step) * 256])
            _amx("tileloadd64", T.int8(4 + up), place, T.int64(64))
        for side in range(2):
            _amx("tileloadd64", T.int8(6 + side), T.address_of(panel[(side * DEPTH + step) * 256]), T.int64(64))
        for up in range(high):
            for side in range(2):
                _amx("tdpbf16ps", T.int8(up * 2 + side), T.int8(4 + up), T.int8(6 + side))
    for index in range(high * 2):
        _amx("tilestored64", T.int8(index), T.address_of(tile[(first * 2 + index) * 256]), T.int64(64))


def _constants() -> tuple[list[Expr], list[Expr], Expr]:
    """Byte shuffles for (inputs, half), lanes of the scales of a half, and the order of the results."""
    shuffles = []
    for inputs in range(2):
        for half in range(2):
            bytes_ = [half * 8 + out * 4 + inputs * 2 + k for out in range(2) for k in range(2)]
            shuffles.append(
                T.bind(T.reinterpret("int8x64", emit.constant([0x80808000 | bytes_[n % 4] for n in range(16)])))
            )
    halves = [T.bind(emit.constant([n // 4 * 4 + half * 2 + (n % 4 >> 1) for n in range(16)])) for half in range(2)]
    return shuffles, halves, T.bind(emit.constant(list(ORDER)))


def _amx(name: str, *arguments: Expr) -> None:
    T.evaluate(T.call_llvm_intrin("int32", f"llvm.x86.{name}", *arguments))
