"""Products of codes that share a scale by output with activations that were rounded to int8, a step a row.

A row of a tile of weights is four inputs of 16 outputs, so codes of 8 bits are multiplied where they lie. An output is
``step * scale * (dot(codes, q) - offset * sum(q))`` with integers in the last factor, rounded as in
[`whole_rows`](../rows/whole_rows.py).
"""

from collections.abc import Callable

from qcc.codegen.cpu.processors.tiling import Tiling
from qcc.codegen.cpu.rows.whole_rows import round_rows
from qcc.codegen.cpu.tiles.gemm import WORDS, Arguments, ProductKind, function
from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import Codes
from qcc.codegen.tir.emit import Expr, T

DOT = "tdpbsud"  # activations have a sign, codes none


def pack(name: str) -> Expr:
    """A function ``(x, a, steps, sums, y, chunks, rows)``: float32 rows to tiles ``a [rows / 16, chunks / 2, 16, 64]``.

    Where the number of chunks is odd, zeros fill the last tile. ``y`` is not touched.
    """
    return round_rows(name, lambda a, row, chunks: places(a, row, chunks, T.bind(T.truncdiv(chunks + 1, T.int64(2)))))


def places(a: Expr, row: Expr, chunks: Expr, count: Expr) -> Callable[[Expr], Expr]:
    """Where the chunks of a row lie in tiles ``a [rows / 16, count, 16, 64]``; where one is left over, it is zeroed."""
    start = T.bind((T.truncdiv(row, T.int64(16)) * count * 16 + T.truncmod(row, T.int64(16))) * 64)
    with T.serial(chunks, count * 2):
        for half in (0, 16):
            T.buffer_store(a, T.broadcast(T.int8(0), 16), [emit.lanes(start + (count - 1) * 1024 + 32 + half)])
    return lambda chunk: start + T.truncdiv(chunk, T.int64(2)) * 1024 + T.truncmod(chunk, T.int64(2)) * 32


def gemm(name: str, codes: Codes, tiling: Tiling) -> Expr:
    """A function as `Arguments` has it. A chunk more than there are is read of ``w`` and multiplied by zeros."""
    bits = codes.bits

    def kind(given: Arguments) -> ProductKind:
        def decode(panel: Expr, start: Expr, block: Expr, step: Expr) -> None:
            for chunk in range(2):
                at = (block * given.chunks + step * 2 + chunk) * bits
                words = [T.bind(given.w[emit.lanes((at + bit) * 16)]) for bit in range(bits)]
                for number in range(emit.QUADS):
                    place = emit.lanes(start + (chunk * emit.QUADS + number) * 16)
                    T.buffer_store(panel, emit.quad(words, bits, number), [place])

        def finish(first: Expr, high: int, pair: Expr) -> None:
            blocks = [T.bind((given.first + pair) * 2 + side) for side in range(2)]
            grids = [T.bind(given.scale[emit.lanes(block * 16)]) for block in blocks]
            stored = blocks if codes.stored_zero else []
            zeros = [T.bind(T.cast(given.offset[emit.lanes(block * 16)], "int32x16")) for block in stored]
            for up in range(high):
                with T.serial(T.int64(0), T.int64(16)) as line:
                    row = T.bind((first + up) * 16 + line)
                    for side in range(2):
                        dot = given.part[emit.lanes(((first + up) * 2 + side) * WORDS + line * 16)]
                        total = given.sums[row]
                        middle = emit.spread(total * T.int32(codes.middle))
                        dot = dot - (emit.spread(total) * zeros[side] if codes.stored_zero else middle)
                        value = T.cast(dot, "float32x16") * (grids[side] * emit.spread(given.steps[row]))
                        T.buffer_store(given.y, value, [emit.lanes(row * given.stride + pair * 32 + side * 16)])

        if bits < 8:
            return ProductKind(DOT, 2, decode=decode, finish=finish)
        weights = lambda block, step: given.w[(block * given.chunks + step * 2) * bits * 16]  # noqa: E731
        return ProductKind(DOT, 2, weights=weights, finish=finish)

    return function(name, tiling, codes, kind)
