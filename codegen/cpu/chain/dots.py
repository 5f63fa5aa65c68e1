"""How bytes are multiplied with weights and added up, exactly: by the instructions that a processor has."""

from abc import ABC, abstractmethod
from typing import ClassVar

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

LANE = 16  # bytes that interleave


class Dot(ABC):
    """What the loops of products, and of depthwise ones, leave to the processor."""

    lanes: ClassVar[int]
    """Of a vector of sums."""
    blocks: ClassVar[int]
    """Vectors that are packed together."""
    pixels: ClassVar[tuple[int, ...]]
    """That a product has in registers, the most first, down to one."""
    columns: ClassVar[int]
    """Pixels of a depthwise one."""
    rows: ClassVar[int]
    """That lie beside each other in a lane of a depthwise one."""

    @abstractmethod
    def words(self, w: Expr, place: Expr) -> tuple[Expr, ...]:
        """Weights of a block of outputs for four inputs: 16 int32 from a place on."""

    @abstractmethod
    def inputs(self, four: Expr) -> tuple[Expr, ...]:
        """Four bytes as they meet `words`."""

    @abstractmethod
    def added(self, total: Expr, inputs: tuple[Expr, ...], words: tuple[Expr, ...]) -> Expr:
        """Sums with the products of these."""

    @abstractmethod
    def interleaved(self, rows: list[Expr], width: int) -> list[Expr]:
        """Four vectors of bytes of as many `rows`, fours of channels each by turns."""

    @abstractmethod
    def column(self, total: Expr, interleaved: Expr, weights: Expr, lanes: int) -> Expr:
        """Sums with the products of a column."""


class Vnni(Dot):
    """``vpdpbusd``: 24 registers of sums, four of weights, one of inputs."""

    lanes: ClassVar[int] = 16
    blocks: ClassVar[int] = 4
    pixels: ClassVar[tuple[int, ...]] = (6, 2, 1)
    columns: ClassVar[int] = 4
    rows: ClassVar[int] = 4

    def words(self, w: Expr, place: Expr) -> tuple[Expr, ...]:
        """Four bytes an output."""
        return (T.bind(T.reinterpret("int8x64", w[emit.lanes(place)])),)

    def inputs(self, four: Expr) -> tuple[Expr, ...]:
        """In every lane."""
        return (T.reinterpret("int8x64", emit.spread(T.bind(T.reinterpret("int32", four)))),)

    def added(self, total: Expr, inputs: tuple[Expr, ...], words: tuple[Expr, ...]) -> Expr:
        """By one instruction."""
        return self.column(total, inputs[0], words[0], self.lanes)

    def interleaved(self, rows: list[Expr], width: int) -> list[Expr]:
        """Bytes of four rows in a lane."""
        pairs = [[unpacked(rows[at], rows[at + 1], half, 1, width) for at in (0, 2)] for half in (0, 1)]
        return [unpacked(pair[0], pair[1], side, 2, width) for pair in pairs for side in (0, 1)]

    def column(self, total: Expr, interleaved: Expr, weights: Expr, lanes: int) -> Expr:
        """The same of vectors of any width."""
        name = f"llvm.x86.avx512.vpdpbusd.{lanes * 32}"
        return emit.llvm(name, f"int32x{lanes}", total, interleaved, weights)


class Avx2(Dot):
    """``vpmaddwd`` of bytes that are widened, since ``vpmaddubsw`` of whole bytes saturates: 8 registers of sums."""

    lanes: ClassVar[int] = 8
    blocks: ClassVar[int] = 2
    pixels: ClassVar[tuple[int, ...]] = (4, 2, 1)
    columns: ClassVar[int] = 2
    rows: ClassVar[int] = 2

    def words(self, w: Expr, place: Expr) -> tuple[Expr, ...]:
        """The first and the third input, and the others, in 16 bits an output."""
        return tuple(T.bind(T.reinterpret("int16x16", w[emit.lanes(place + at, 8)])) for at in (0, 8))

    def inputs(self, four: Expr) -> tuple[Expr, ...]:
        """The same, in every lane."""
        spread = T.bind(emit.spread(T.bind(T.reinterpret("int32", four)), 8))
        even = T.reinterpret("int16x16", T.bitwise_and(spread, emit.word(0x00FF00FF, 8)))
        odd = T.shift_right(T.reinterpret("uint16x16", spread), emit.spread(T.uint16(8), 16))
        return T.bind(even), T.bind(T.reinterpret("int16x16", odd))

    def added(self, total: Expr, inputs: tuple[Expr, ...], words: tuple[Expr, ...]) -> Expr:
        """Pair by pair."""
        for pair, word in zip(inputs, words, strict=True):
            total = self.column(total, pair, word, self.lanes)
        return total

    def interleaved(self, rows: list[Expr], width: int) -> list[Expr]:
        """Bytes of two rows in a lane, widened."""
        nothing = emit.spread(T.int8(0), width)
        wide = [[unpacked(row, nothing, half, 1, width) for row in rows] for half in (0, 1)]
        return [unpacked(pair[0], pair[1], side, 2, width) for pair in wide for side in (0, 1)]

    def column(self, total: Expr, interleaved: Expr, weights: Expr, lanes: int) -> Expr:
        """By two instructions."""
        name = {8: "llvm.x86.avx2.pmadd.wd", 4: "llvm.x86.sse2.pmadd.wd"}[lanes]
        pairs = (T.reinterpret(f"int16x{2 * lanes}", one) for one in (interleaved, weights))
        return total + emit.llvm(name, f"int32x{lanes}", *pairs)


def unpacked(one: Expr, two: Expr, half: int, unit: int, width: int) -> Expr:
    """Units of bytes of two vectors by turns, of a half of every 128 bits."""
    order: list[int] = []
    for lane in range(0, width, LANE):
        for at in range(lane + half * LANE // 2, lane + (half + 1) * LANE // 2, unit):
            order += [*range(at, at + unit), *range(width + at, width + at + unit)]
    return T.bind(tirx.Shuffle([one, two], [T.int32(at) for at in order]))
