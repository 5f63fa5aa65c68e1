"""Many rows at once, by AMX: the loops that the products of bfloat16 and of int8 have in common.

Tiles 0 to 3 hold two by two results of 16 rows and 16 outputs, 4 and 5 activations, 6 and 7 weights, each 16 rows of 64
bytes. What a tile of weights holds along the inputs is a *step*: 32 inputs as bfloat16, 64 as int8. Codes are decoded
to a ``panel``; the first rows do that for the rows that follow, one step ahead of what they multiply, so that decoding
(AVX-512) runs beside the products (AMX). A slab of steps is multiplied with all rows before the next; until the last
slab, results wait in ``part``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from qcc.codegen.cpu.processors.tiling import Tiling
from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import Codes
from qcc.codegen.tir.emit import Expr, T

POINTERS = {
    "a": "int32", "w": "int32", "steps": "float32", "sums": "int32", "scale": "float32", "offset": "int16",
    "panel": "int32", "part": "int32", "config": "uint8",
}  # fmt: skip
SCALARS = ("chunks", "chunks_a_group", "first", "pairs", "tiles", "stride", "fresh", "keep")
WORDS = 256  # int32 of a tile
ORDER = ((0, 0), (0, 1), (1, 1), (1, 0))  # (rows, outputs) of the products of a step: each needs one new tile


@dataclass(frozen=True)
class Arguments:
    """What a function ``(POINTERS..., y, SCALARS...)`` is given.

    It fills ``y [tiles * 16, pairs * 32]``, rows ``stride`` apart, with ``pairs`` times 32 outputs from the ``first``
    32 on. ``a [tiles, steps, 16, 64 bytes]`` are activations; where they were rounded to int8, ``steps`` and ``sums``
    are their step and the sum of their integers, one a row. ``panel [pairs, steps, 2, 16, 64 bytes]`` is filled where
    ``fresh`` is 1, and holds one slab of one pair where ``keep`` is 0. ``part`` has room for two tiles a tile of rows.
    """

    a: Expr
    w: Expr
    steps: Expr
    sums: Expr
    scale: Expr
    offset: Expr
    panel: Expr
    part: Expr
    config: Expr
    y: Expr
    chunks: Expr
    chunks_a_group: Expr
    first: Expr
    pairs: Expr
    tiles: Expr
    stride: Expr
    fresh: Expr
    keep: Expr


@dataclass(frozen=True)
class ProductKind:
    """What a kind of product adds to the loops.

    Args:
        dot: LLVM's name of the product of tiles.
        chunks: of 32 inputs in a step.
        decode: writes a tile of the panel from a word on: ``(panel, start, block of 16 outputs, step)``.
        weights: where a tile of weights is, if it is not decoded: ``(block of 16 outputs, step)``.
        finish: writes results from ``part`` to ``y``: ``(tile of rows, how many, pair)``; None stores them as they are.
    """

    dot: str
    chunks: int
    decode: Callable[[Expr, Expr, Expr, Expr], None] | None = None
    weights: Callable[[Expr, Expr], Expr] | None = None
    finish: Callable[[Expr, int, Expr], None] | None = None


def function(name: str, tiling: Tiling, codes: Codes, kind: Callable[[Arguments], ProductKind]) -> Expr:
    """Write the function."""
    depth = tiling.depth
    with emit.function(name) as builder:
        given = Arguments(*emit.arguments(POINTERS | codes.stored, SCALARS))
        made = kind(given)
        twos = T.bind(T.truncdiv(given.tiles, T.int64(2)))
        fresh = given.fresh if made.decode else T.int64(0)
        fresh_twos = T.bind(T.min(fresh, twos))
        fresh_ones = T.bind(fresh - fresh_twos)
        count = T.bind(T.truncdiv(given.chunks + (made.chunks - 1), T.int64(made.chunks)))
        amx("ldtilecfg", T.address_of(given.config[0]))
        slabs = T.truncdiv(count + (depth - 1), T.int64(depth))
        with T.serial(T.int64(0), given.pairs) as pair, T.serial(T.int64(0), slabs) as slab:
            product = _Product(given, made, count, pair, T.bind(slab * depth), tiling)
            if made.decode:
                with T.serial(T.int64(0), fresh_twos):
                    product(T.int64(0), 2, decodes=True)
                with T.serial(T.int64(0), fresh_ones):
                    product(T.int64(0), 1, decodes=True)
            with T.serial(fresh_twos, twos) as two:
                product(two * 2, 2)
            with T.serial(twos * 2 + fresh_ones, given.tiles) as last:
                product(last, 1)
        amx("tilerelease")
    return builder.get()


def amx(name: str, *arguments: Expr) -> None:
    """An instruction on tiles."""
    T.evaluate(T.call_llvm_intrin("int32", f"llvm.x86.{name}", *arguments))


class _Product:
    """A slab of inputs times a pair of blocks of outputs."""

    def __init__(
        self, given: Arguments, kind: ProductKind, count: Expr, pair: Expr, start: Expr, tiling: Tiling
    ) -> None:
        self.given, self.kind, self.count, self.pair, self.start = given, kind, count, pair, start
        self.end = T.bind(T.min(count, start + tiling.depth))
        self.block = T.bind((given.first + pair) * 2)
        self.base = T.bind(given.keep * (pair * count + start) - start)  # what a step's number lacks to its place

    def __call__(self, first: Expr, high: int, decodes: bool = False) -> None:
        """Add to the results of ``high`` tiles of rows from ``first`` on."""
        parts = [T.address_of(self.given.part[(first * 2 + index) * WORDS]) for index in range(2 * high)]
        with T.If(self.start > T.int64(0)):
            with T.Then():
                for index, place in enumerate(parts):
                    amx("tileloadd64", T.int8(index), place, T.int64(64))
            with T.Else():
                for index in range(len(parts)):
                    amx("tilezero", T.int8(index))
        if decodes:
            with T.serial(self.start, self.end + 1) as ahead:  # a tile is loaded best when its stores are long done
                with T.If(ahead < self.end), T.Then():
                    self._decode(ahead)
                with T.If(ahead > self.start), T.Then():
                    self._step(first, high, ahead - 1)
        else:
            with T.serial(self.start, self.end) as step:
                self._step(first, high, step)
        self._store(first, high, parts)

    def _store(self, first: Expr, high: int, parts: list[Expr]) -> None:
        given, finish = self.given, self.kind.finish
        with T.If(self.end < self.count if finish is None else T.bool(True)):
            with T.Then():
                for index, place in enumerate(parts):
                    amx("tilestored64", T.int8(index), place, T.int64(64))
            if finish is None:
                with T.Else():
                    for index in range(2 * high):
                        row = (first + index // 2) * 16
                        place = T.address_of(given.y[row * given.stride + self.pair * 32 + index % 2 * 16])
                        amx("tilestored64", T.int8(index), place, given.stride * 4)
        if finish is not None:
            with T.If(self.end >= self.count), T.Then():
                finish(first, high, self.pair)

    def _decode(self, step: Expr) -> None:
        for side in range(2):
            assert self.kind.decode
            self.kind.decode(self.given.panel, self._slot(step, side), self.block + side, step)

    def _slot(self, step: Expr, side: int) -> Expr:
        return ((self.base + step) * 2 + side) * WORDS

    def _step(self, first: Expr, high: int, step: Expr) -> None:
        """Multiply; loads are spread between the products."""
        loads = {4 + up: self.given.a[((first + up) * self.count + step) * WORDS] for up in range(high)}
        for side in range(2):
            weights = self.kind.weights
            loads[6 + side] = weights(self.block + side, step) if weights else self.given.panel[self._slot(step, side)]
        loaded: set[int] = set()
        for up, side in ORDER[: 2 * high]:
            for tile in sorted({4 + up, 6 + side} - loaded):
                amx("tileloadd64", T.int8(tile), T.address_of(loads[tile]), T.int64(64))
            loaded |= {4 + up, 6 + side}
            amx(self.kind.dot, T.int8(up * 2 + side), T.int8(4 + up), T.int8(6 + side))
