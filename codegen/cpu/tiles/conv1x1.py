"""Convolutions of one point, by AMX in bfloat16: ``weight [out, in]`` times ``x [in, positions]``, as NCHW has it.

Tiles 0 to 3 hold two by two results of 16 outputs and 16 positions, 4 and 5 weights, 6 and 7 activations: the rows are
the outputs, so that a result lies as its reader expects it. A pair of inputs of 16 positions is a row of a tile of
activations. Every tile of results is finished by the op's steps while it is in the first cache.
"""

from collections.abc import Callable

from qcc.codegen.cpu.tiles.gemm import ORDER, WORDS, amx
from qcc.codegen.cpu.tiles.gemm_bf16 import TO_BF16
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T
from qcc.codegen.tir.steps import applied
from qcc.ir.kernel.op import step_inputs

PERMUTE = "llvm.x86.avx512.permvar.hi.512"


def pack(name: str) -> Expr:
    """A function ``(x, panel, y, stride, first, last, tiles, chunks)``: float32 channels to a panel.

    ``x`` starts at the channel ``2 * first``; channels are ``stride`` apart. Those of the pairs ``first`` to ``last``
    are written to ``panel [tiles / 2, chunks, 2, 16, 16]``, a pair of channels of 16 positions a row. All 16 positions
    of a tile are read, also of channels that have fewer. ``y`` is not touched.
    """
    with emit.function(name) as builder:
        pointers = {"x": "float32", "panel": "int32"}
        scalars = ("stride", "first", "last", "tiles", "chunks")
        x, panel, _, stride, first, last, tiles, chunks = emit.arguments(pointers, scalars, unaligned="x")
        order = emit.constant([lane + 16 << 16 | lane for lane in range(16)])
        interleave = T.bind(T.reinterpret("int16x32", order))
        with T.serial(first, last) as pair:
            even = T.bind((pair - first) * 2 * stride)
            row = T.bind(T.truncdiv(pair, T.int64(16)) * (2 * WORDS) + T.truncmod(pair, T.int64(16)) * 16)
            with T.serial(T.int64(0), tiles) as tile:
                at = even + tile * 16
                both = emit.llvm(TO_BF16, "bfloat16x32", x[emit.lanes(at + stride)], x[emit.lanes(at)])
                mixed = emit.llvm(PERMUTE, "int16x32", T.reinterpret("int16x32", both), interleave)
                place = T.truncdiv(tile, T.int64(2)) * chunks * (2 * WORDS) + T.truncmod(tile, T.int64(2)) * WORDS
                T.buffer_store(panel, T.reinterpret("int32x16", mixed), [emit.lanes(place + row)])
    return builder.get()


def product(name: str, steps: tuple[str, ...]) -> Expr:
    """A function ``(w, panel, part, config, operands of the steps..., to, y, chunks, pairs, n, outputs, count)``.

    It makes ``to[output, position] = steps(w [outputs, in] @ panel)`` of all outputs and ``count`` positions, which
    ``pairs`` of tiles hold. Rows of ``to`` and of tensors are ``n`` apart. ``w [outputs / 32 * 2, chunks, 16, 16]`` are
    tiles, ``part`` is room for four. ``y`` is not touched.
    """
    operands = step_inputs(steps)
    with emit.function(name) as builder:
        own = {"w": "int32", "panel": "int32", "part": "float32", "config": "uint8"}
        outside = [*(operand for operand, _ in operands), "to"]
        scalars = ("chunks", "pairs", "n", "outputs", "count")
        declared = emit.arguments(own | dict.fromkeys(outside, "float32"), scalars, " ".join(outside))
        w, panel, part, config, *read, to, _, chunks, pairs, n, outputs, count = declared

        def finish(output: Expr, position: Expr, raw: Expr, place: Callable[[Expr], Expr], wide: bool) -> None:
            """Write results from ``part``: a vector, or one."""
            taken = []
            for buffer, (_, kind) in zip(read, operands, strict=True):
                one = buffer[output] if kind == "vector" else buffer[place(output * n + position)]
                taken.append(emit.spread(one) if wide and kind == "vector" else one)
            value = applied(steps, part[place(raw)], taken)
            if not steps:  # no loop of copies, which would become calls of memcpy
                value = emit.llvm("llvm.arithmetic.fence", str(value.ty), value)
            T.buffer_store(to, value, [place(output * n + position)])

        def tile(first: Expr, position: Expr, index: int) -> None:
            """Finish a tile of outputs from ``first`` on and of positions from ``position`` on."""
            left = T.bind(count - position)
            with T.serial(T.int64(0), T.min(outputs - first, T.int64(16))) as row:
                raw = index * WORDS + row * 16
                with T.If(left >= T.int64(LANES)):
                    with T.Then():
                        finish(first + row, position, raw, emit.lanes, wide=True)
                    with T.Else(), T.serial(T.int64(0), left) as one:
                        finish(first + row, position + one, raw + one, lambda at: at, wide=False)

        amx("ldtilecfg", T.address_of(config[0]))
        with T.serial(T.int64(0), T.truncdiv(outputs + 31, T.int64(32))) as two, T.serial(T.int64(0), pairs) as pair:
            for index in range(4):
                amx("tilezero", T.int8(index))
            with T.serial(T.int64(0), chunks) as chunk:
                loads = {4 + up: w[((two * 2 + up) * chunks + chunk) * WORDS] for up in range(2)}
                loads |= {6 + side: panel[((pair * chunks + chunk) * 2 + side) * WORDS] for side in range(2)}
                loaded: set[int] = set()
                for up, side in ORDER:
                    for number in sorted({4 + up, 6 + side} - loaded):
                        amx("tileloadd64", T.int8(number), T.address_of(loads[number]), T.int64(64))
                    loaded |= {4 + up, 6 + side}
                    amx("tdpbf16ps", T.int8(up * 2 + side), T.int8(4 + up), T.int8(6 + side))
            for index in range(4):
                amx("tilestored64", T.int8(index), T.address_of(part[index * WORDS]), T.int64(64))
            for index in range(4):
                tile(two * 32 + index // 2 * 16, pair * 32 + index % 2 * 16, index)
        amx("tilerelease")
    return builder.get()
