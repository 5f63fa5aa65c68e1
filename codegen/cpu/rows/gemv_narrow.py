"""Codes times activations that were rounded to int8, in registers of fewer than 16 lanes; else as in ``gemv_int8``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qcc.codegen.cpu.rows.gemv_int8 import POINTERS, SCALARS
from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import Codes
from qcc.codegen.tir.emit import Expr, T

NarrowWords = Any  # of a chunk of 32 inputs
NarrowInputs = Any  # of a chunk of one row, as an instruction set wants them


@dataclass(frozen=True)
class Narrow:
    """How an instruction set multiplies a chunk.

    Args:
        lanes: outputs in a register.
        parts: registers of outputs that are worked on together.
        zero: the number of zero as the products read codes; of codes and stored offsets, None where there are none.
        inputs: of ``q`` int32 and a chunk's number, its 32 inputs.
        dots: of words, codes, each row's inputs and what it starts from, each row's products added to that.
        factor: of all that is added up.
        words: of ``w``, a chunk's number, bits, lanes and the first output, the chunk's words, or where they lie.
    """

    lanes: int
    parts: int
    zero: Callable[[Codes, Expr | None], Expr]
    inputs: Callable[[Expr, Expr], NarrowInputs]
    dots: Callable[[NarrowWords, Codes, list[NarrowInputs], list[Expr]], list[Expr]]
    factor: float = 1.0
    words: Callable[[Expr, Expr, int, int, int], NarrowWords] = emit.chunk_words


def gemv(name: str, codes: Codes, rows: int, static: bool, narrow: Narrow) -> Expr:
    """A function of the arguments of ``gemv_int8.gemv``."""
    lanes, parts, bits = narrow.lanes, narrow.parts, codes.bits
    in_block, shares = emit.LANES // lanes, emit.BLOCKS * emit.LANES // lanes // narrow.parts
    with emit.function(name) as builder:
        q, steps, sums, w, scale, offset, y, chunks, per, first, count = emit.arguments(
            POINTERS | codes.stored, SCALARS
        )
        groups = T.bind(T.truncdiv(chunks, per))
        with T.serial(T.int64(0), count * shares) as share:
            start = T.bind(share * (parts * lanes))  # the first output, of those that are asked for
            total = emit.accumulators(rows * parts, "int32" if static else "float32", lanes)
            for register in total:
                emit.put(register, emit.word(0, lanes) if static else emit.spread(T.float32(0), lanes))
            with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), per) as inner:
                chunk = T.bind(group * per + inner)
                at = [row * chunks + chunk for row in range(rows)]
                inputs = [narrow.inputs(q, one) for one in at]
                for part in range(parts):
                    here = T.truncdiv(start, T.int64(emit.LANES)) + part // in_block
                    block, side = T.bind(first * emit.BLOCKS + here), part % in_block * lanes
                    if parts < in_block:
                        side = T.bind(T.truncmod(start, T.int64(emit.LANES)))
                    words = narrow.words(w, block * chunks + chunk, bits, lanes, side)
                    place = (block * groups + group) * 16 + side
                    offsets = T.cast(offset[emit.lanes(place, lanes)], f"int32x{lanes}")
                    stored = T.bind(offsets) if codes.stored_zero else None
                    zero = narrow.zero(codes, stored)
                    dots = [emit.spread(T.int32(0) - sums[one], lanes) * zero for one in at]
                    grid = T.bind(emit.floats(scale, place, lanes))
                    for row, dot in enumerate(narrow.dots(words, codes, inputs, dots)):
                        factor = grid * emit.spread(steps[at[row]], lanes)
                        emit.add(total[row * parts + part], dot if static else T.cast(dot, f"float32x{lanes}") * factor)
            for row in range(rows):
                for part in range(parts):
                    value = emit.get(total[row * parts + part])
                    if static:
                        grid = emit.floats(scale, first * 64 + start + part * lanes, lanes)
                        value = T.cast(value, f"float32x{lanes}") * (grid * emit.spread(steps[0], lanes))
                    if narrow.factor != 1:
                        value = value * emit.spread(T.float32(narrow.factor), lanes)
                    T.buffer_store(y, value, [emit.lanes(row * count * 64 + start + part * lanes, lanes)])
    return builder.get()
