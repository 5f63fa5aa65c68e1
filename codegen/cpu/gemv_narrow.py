"""Codes times activations that were rounded to int8, in registers of fewer than 16 lanes; else as in ``gemv_int8``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qcc.codegen.cpu import emit
from qcc.codegen.cpu.emit import Expr, T
from qcc.codegen.cpu.gemv_int8 import POINTERS, SCALARS

NarrowInputs = Any  # of a chunk of one row, as an instruction set wants them


@dataclass(frozen=True)
class Narrow:
    """How an instruction set multiplies a chunk.

    Args:
        lanes: outputs in a register.
        zero: the code of zero as the products read codes; of bits and stored offsets, None where there are none.
        inputs: of ``q`` int32 and a chunk's number, its 32 inputs.
        dots: of words, bits, each row's inputs and what it starts from, each row's products added to that.
    """

    lanes: int
    zero: Callable[[int, Expr | None], Expr]
    inputs: Callable[[Expr, Expr], NarrowInputs]
    dots: Callable[[list[Expr], int, list[NarrowInputs], list[Expr]], list[Expr]]


def gemv(name: str, bits: int, symmetric: bool, rows: int, static: bool, narrow: Narrow) -> Expr:
    """A function of the arguments of ``gemv_int8.gemv``."""
    lanes = narrow.lanes
    parts, in_block = emit.BLOCKS * emit.LANES // lanes, emit.LANES // lanes
    with emit.function(name) as builder:
        q, steps, sums, w, scale, offset, y, chunks, per, first, count = emit.arguments(POINTERS, SCALARS)
        groups = T.bind(T.truncdiv(chunks, per))
        with T.serial(T.int64(0), count) as strip:
            total = emit.accumulators(rows * parts, "int32" if static else "float32", lanes)
            for register in total:
                emit.put(register, emit.word(0, lanes) if static else emit.spread(T.float32(0), lanes))
            with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), per) as inner:
                chunk = T.bind(group * per + inner)
                at = [row * chunks + chunk for row in range(rows)]
                inputs = [narrow.inputs(q, one) for one in at]
                for part in range(parts):
                    block, side = T.bind((first + strip) * emit.BLOCKS + part // in_block), part % in_block * lanes
                    starts = [((block * chunks + chunk) * bits + bit) * 16 + side for bit in range(bits)]
                    words = [T.bind(w[emit.lanes(start, lanes)]) for start in starts]
                    place = emit.lanes((block * groups + group) * 16 + side, lanes)
                    zero = narrow.zero(bits, None if symmetric else T.bind(T.cast(offset[place], f"int32x{lanes}")))
                    dots = [emit.spread(T.int32(0) - sums[one], lanes) * zero for one in at]
                    grid = T.bind(scale[place])
                    for row, dot in enumerate(narrow.dots(words, bits, inputs, dots)):
                        factor = grid * emit.spread(steps[at[row]], lanes)
                        emit.add(total[row * parts + part], dot if static else T.cast(dot, f"float32x{lanes}") * factor)
            for row in range(rows):
                for part in range(parts):
                    value = emit.get(total[row * parts + part])
                    if static:
                        grid = scale[emit.lanes((first + strip) * 64 + part * lanes, lanes)]
                        value = T.cast(value, f"float32x{lanes}") * (grid * emit.spread(steps[0], lanes))
                    T.buffer_store(y, value, [emit.lanes((row * count + strip) * 64 + part * lanes, lanes)])
    return builder.get()
