"""A row of pixels times all filters: AVX512-VNNI.

Of an output pixel the inputs are ``high`` runs of bytes, one a row of the kernel, ``row`` bytes apart; with channels last
a row of the kernel is one run. So a convolution is a product of matrices whose rows are read where the image lies, and
one of one point is the case of one run. Weights are ``[out / 16, high * fours, 16, 4]`` bytes with a sign, runs filled up
with zeros to fours: what is read beyond a run is multiplied by them. The last 16 outputs end where all do, so that some may be
computed twice, and are the same.
"""

from qcc.codegen.cpu.chain.requantize import Requantizer
from qcc.codegen.cpu.tir import emit
from qcc.codegen.cpu.tir.emit import LANES, Expr, T

DOT = "llvm.x86.avx512.vpdpbusd.512"
PIXELS, BLOCKS = 6, 4  # of 16 outputs: 24 registers of sums, four of weights, and one of inputs
POINTERS = {
    "a": "uint8", "w": "int32", "bias": "int32", "scale": "float32", "facts": "float32", "other": "uint8", "out": "uint8",
}  # fmt: skip
SCALARS = ("high", "fours", "row", "step", "pixels", "stride", "blocks", "last")


def product(name: str, adds: bool) -> Expr:
    """A function ``(POINTERS..., y, SCALARS...)``; ``y`` is not touched.

    Pixels lie ``step`` bytes apart in ``a``, and ``stride`` bytes apart in ``out`` and ``other``; ``last`` is where the last
    16 outputs begin.
    """
    with emit.function(name) as builder:
        made = _Product(*emit.arguments(POINTERS, SCALARS, unaligned="a facts other out"), adds=adds)
        fours = T.bind(T.truncdiv(made.blocks, T.int64(BLOCKS)))
        with T.serial(T.int64(0), fours) as group:
            made.pixels_of(group * BLOCKS, BLOCKS)
        for count in (2, 1):
            first = T.bind(T.truncdiv(made.blocks, T.int64(2 * count)) * (2 * count))
            with T.serial(T.int64(0), T.truncdiv(made.blocks - first, T.int64(count))):
                made.pixels_of(first, count)
    return builder.get()


class _Product:
    """The function's arguments, and its loops."""

    def __init__(
        self, a: Expr, w: Expr, bias: Expr, scale: Expr, facts: Expr, other: Expr, out: Expr, _: Expr, high: Expr,
        fours: Expr, row: Expr, step: Expr, pixels: Expr, stride: Expr, blocks: Expr, last: Expr, adds: bool,
    ) -> None:  # fmt: skip
        self.a, self.w, self.bias, self.scale, self.other, self.out = a, w, bias, scale, other, out
        self.high, self.fours, self.row, self.step = high, fours, row, step
        self.pixels, self.stride, self.blocks, self.last, self.adds = pixels, stride, blocks, last, adds
        self.rounded = Requantizer(facts, LANES, adds)

    def pixels_of(self, first: Expr, count: int) -> None:
        """All pixels of so many blocks of outputs."""
        done = T.int64(0)
        for size in (PIXELS, 2, 1):
            end = T.bind(done + T.truncdiv(self.pixels - done, T.int64(size)) * size)
            with T.serial(T.int64(0), T.truncdiv(end - done, T.int64(size))) as part:
                self._tile(done + part * size, size, first, count)
            done = end

    def _tile(self, pixel: Expr, pixels: int, first: Expr, count: int) -> None:
        sums = [emit.accumulators(count, "int32") for _ in range(pixels)]
        for block in range(count):
            start = T.bind(self.bias[emit.lanes((first + block) * LANES)])
            for row in sums:
                emit.put(row[block], start)
        deep = T.bind(self.high * self.fours)
        with T.serial(T.int64(0), self.high) as run, T.serial(T.int64(0), self.fours) as four:
            words = []
            for block in range(count):
                at = ((first + block) * deep + run * self.fours + four) * LANES
                words.append(T.bind(T.reinterpret("int8x64", self.w[emit.lanes(at)])))
            for index, row in enumerate(sums):
                place = (pixel + index) * self.step + run * self.row + four * 4
                bytes_ = T.bind(T.reinterpret("int32", self.a[emit.lanes(place, 4)]))
                spread = T.reinterpret("int8x64", emit.spread(bytes_))
                for block, total in enumerate(row):
                    emit.put(total, emit.llvm(DOT, "int32x16", emit.get(total), spread, words[block]))
        for block in range(count):
            scale = T.bind(self.scale[emit.lanes((first + block) * LANES)])
            begin = T.min((first + block) * LANES, self.last)
            for index, row in enumerate(sums):
                place = emit.lanes((pixel + index) * self.stride + begin)
                other = self.other[place] if self.adds else None
                T.buffer_store(self.out, T.cast(self.rounded(emit.get(row[block]), scale, other), "uint8x16"), [place])
