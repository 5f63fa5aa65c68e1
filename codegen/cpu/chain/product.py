"""A row of pixels times all filters.

Of an output pixel the inputs are some runs of bytes, whose places are given; with channels last a row of the kernel is
one, and where it is dilated or groups are multiplied apart, a point of it. So a convolution over any axes is a product
of matrices whose rows are read where the image lies, and one of one point is the case of one run. Weights are
``[blocks, count * fours, 64 bytes]``, runs filled up with zeros to fours: what is read beyond a run is multiplied by
them. Outputs are taken by some vectors, of which each has fours of outputs by turns, which packing to bytes puts in
order. Those that are left are taken by one vector, of which the last ends where all do, so that some may be computed
twice, and are the same.
"""

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.chain.dots import Dot
from qcc.codegen.cpu.chain.requantize import Requantizer
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

WORDS = 16  # int32 of weights: of a block of outputs, four inputs
POINTERS = {
    "a": "uint8", "runs": "int64", "w": "int32", "bias": "int32", "scale": "float32", "facts": "float32",
    "other": "uint8", "out": "uint8",
}  # fmt: skip
SCALARS = ("count", "fours", "step", "pixels", "stride", "whole", "blocks", "last")


def product(name: str, dot: Dot, adds: bool, last: bool = False) -> Expr:
    """A function ``(POINTERS..., y, SCALARS...)``; ``y`` is not touched.

    Pixels lie ``step`` bytes apart in ``a``, and ``stride`` bytes apart in ``out`` and ``other``. There are ``whole``
    times as many as are packed together among the ``blocks`` of outputs; ``last`` is where the last block begins.
    """
    with emit.function(name) as builder:
        made = _Product(dot, adds, last, *emit.arguments(POINTERS, SCALARS, unaligned="a runs facts other out"))
        with T.serial(T.int64(0), made.whole) as group:
            made.pixels_of(group * dot.blocks, dot.blocks)
        first = T.bind(made.whole * dot.blocks)
        count = dot.blocks // 2
        while count:
            end = T.bind(first + T.truncdiv(made.blocks - first, T.int64(count)) * count)
            with T.serial(T.int64(0), T.truncdiv(end - first, T.int64(count))) as part:
                made.pixels_of(first + part * count, count)
            first, count = end, count // 2
    return builder.get()


class _Product:
    """The function's arguments, and its loops."""

    def __init__(self, dot: Dot, adds: bool, last: bool, *given: Expr) -> None:
        found = dict(zip((*POINTERS, "y", *SCALARS), given, strict=True))
        self.a, self.runs, self.w = (found[name] for name in ("a", "runs", "w"))
        self.bias, self.scale = (found[name] for name in ("bias", "scale"))
        self.other, self.out, self.adds = found["other"], found["out"], adds
        self.count, self.fours, self.step, self.pixels, self.stride, self.whole, self.blocks, self.last = (
            found[name] for name in SCALARS
        )
        self.dot, self.lanes, self.rounded = dot, dot.lanes, Requantizer(found["facts"], dot.lanes, adds, last)

    def pixels_of(self, first: Expr, count: int) -> None:
        """All pixels of so many blocks of outputs."""
        done = T.int64(0)
        for size in self.dot.pixels:
            end = T.bind(done + T.truncdiv(self.pixels - done, T.int64(size)) * size)
            with T.serial(T.int64(0), T.truncdiv(end - done, T.int64(size))) as part:
                self._tile(done + part * size, size, first, count)
            done = end

    def _tile(self, pixel: Expr, pixels: int, first: Expr, count: int) -> None:
        sums = [emit.accumulators(count, "int32", self.lanes) for _ in range(pixels)]
        for block in range(count):
            start = T.bind(self.bias[self._lanes_of(first + block)])
            for row in sums:
                emit.put(row[block], start)
        deep = T.bind(self.count * self.fours)
        with T.serial(T.int64(0), self.count) as run, T.serial(T.int64(0), self.fours) as four:
            places = [((first + block) * deep + run * self.fours + four) * WORDS for block in range(count)]
            words = [self.dot.words(self.w, place) for place in places]
            for index, row in enumerate(sums):
                place = (pixel + index) * self.step + self.runs[run] + four * 4
                inputs = self.dot.inputs(self.a[emit.lanes(place, 4)])
                for block, total in enumerate(row):
                    emit.put(total, self.dot.added(emit.get(total), inputs, words[block]))
        scales = [T.bind(self.scale[self._lanes_of(first + block)]) for block in range(count)]
        for index, row in enumerate(sums):
            place = (pixel + index) * self.stride
            parts = [self._part(row[block], scales[block], place, first, block, count) for block in range(count)]
            if count == self.dot.blocks:
                wide = emit.lanes(place + first * self.lanes, count * self.lanes)
                T.buffer_store(self.out, self.rounded.packed(parts), [wide])
                continue
            for block, part in enumerate(parts):
                narrow = emit.lanes(place + self._begin(first + block), self.lanes)
                T.buffer_store(self.out, self.rounded.narrowed(part), [narrow])

    def _part(self, total: Expr, scale: Expr, place: Expr, first: Expr, block: int, count: int) -> Expr:
        """A vector of whole numbers, with the residual in its order."""
        other = None
        if self.adds and count == self.dot.blocks:
            order = [4 * count * (lane // 4) + 4 * block + lane % 4 for lane in range(self.lanes)]
            wide = self.other[emit.lanes(place + first * self.lanes, count * self.lanes)]
            other = tirx.Shuffle([wide], [T.int32(at) for at in order])
        elif self.adds:
            other = self.other[emit.lanes(place + self._begin(first + block), self.lanes)]
        return self.rounded(emit.get(total), scale, other)

    def _begin(self, block: Expr) -> Expr:
        """Where the outputs of a block begin."""
        return T.min(block * self.lanes, self.last)

    def _lanes_of(self, block: Expr) -> Expr:
        return emit.lanes(block * self.lanes, self.lanes)
