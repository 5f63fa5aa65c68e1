"""A row of pixels times all filters: AVX512-VNNI.

Of an output pixel the inputs are ``high`` runs of bytes, one a row of the kernel, ``row`` bytes apart; with channels
last a row of the kernel is one run. So a convolution is a product of matrices whose rows are read where the image
lies, and one of one point is the case of one run. Weights are ``[out / 16, high * fours, 16, 4]`` bytes with a sign,
runs filled up with zeros to fours: what is read beyond a run is multiplied by them. Of 64 outputs those of a vector
are every fourth four, which packing to bytes puts in order. Those that are left are taken by 16, of which the last
end where all do, so that some may be computed twice, and are the same.
"""

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.chain.requantize import Requantizer
from qcc.codegen.cpu.tir import emit
from qcc.codegen.cpu.tir.emit import LANES, Expr, T

DOT = "llvm.x86.avx512.vpdpbusd.512"
PIXELS, BLOCKS = 6, 4  # of 16 outputs: 24 registers of sums, four of weights, and one of inputs
POINTERS = {
    "a": "uint8", "w": "int32", "bias": "int32", "scale": "float32", "facts": "float32", "other": "uint8",
    "out": "uint8",
}  # fmt: skip
SCALARS = ("high", "fours", "row", "step", "pixels", "stride", "whole", "blocks", "last")


def product(name: str, adds: bool) -> Expr:
    """A function ``(POINTERS..., y, SCALARS...)``; ``y`` is not touched.

    Pixels lie ``step`` bytes apart in ``a``, and ``stride`` bytes apart in ``out`` and ``other``. There are ``whole``
    times 64 outputs among the ``blocks`` of 16; ``last`` is where the last block begins.
    """
    with emit.function(name) as builder:
        made = _Product(adds, *emit.arguments(POINTERS, SCALARS, unaligned="a facts other out"))
        with T.serial(T.int64(0), made.whole) as group:
            made.pixels_of(group * BLOCKS, BLOCKS)
        first = T.bind(made.whole * BLOCKS)
        pairs = T.bind(T.truncdiv(made.blocks - first, T.int64(2)))
        with T.serial(T.int64(0), pairs) as pair:
            made.pixels_of(first + pair * 2, 2)
        with T.If(first + pairs * 2 < made.blocks), T.Then():
            made.pixels_of(first + pairs * 2, 1)
    return builder.get()


class _Product:
    """The function's arguments, and its loops."""

    def __init__(self, adds: bool, *given: Expr) -> None:
        found = dict(zip((*POINTERS, "y", *SCALARS), given, strict=True))
        self.a, self.w, self.bias, self.scale = (found[name] for name in ("a", "w", "bias", "scale"))
        self.other, self.out, self.adds = found["other"], found["out"], adds
        self.high, self.fours, self.row, self.step, self.pixels, self.stride, self.whole, self.blocks, self.last = (
            found[name] for name in SCALARS
        )
        self.rounded = Requantizer(found["facts"], LANES, adds)

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
        scales = [T.bind(self.scale[emit.lanes((first + block) * LANES)]) for block in range(count)]
        for index, row in enumerate(sums):
            place = (pixel + index) * self.stride
            parts = [self._part(row[block], scales[block], place, first, block, count) for block in range(count)]
            if count == BLOCKS:
                wide = emit.lanes(place + first * LANES, count * LANES)
                T.buffer_store(self.out, self.rounded.packed(parts), [wide])
                continue
            for block, part in enumerate(parts):
                narrow = emit.lanes(place + self._begin(first + block))
                T.buffer_store(self.out, self.rounded.narrowed(part), [narrow])

    def _part(self, total: Expr, scale: Expr, place: Expr, first: Expr, block: int, count: int) -> Expr:
        """A vector of whole numbers, with the residual in its order."""
        other = None
        if self.adds and count == BLOCKS:
            order = [16 * (lane // 4) + 4 * block + lane % 4 for lane in range(LANES)]
            wide = self.other[emit.lanes(place + first * LANES, count * LANES)]
            other = tirx.Shuffle([wide], [T.int32(at) for at in order])
        elif self.adds:
            other = self.other[emit.lanes(place + self._begin(first + block))]
        return self.rounded(emit.get(total), scale, other)

    def _begin(self, block: Expr) -> Expr:
        """Where the outputs of a block begin."""
        return T.min(block * LANES, self.last)
