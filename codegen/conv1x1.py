"""Convolutions of one point, by AMX in bfloat16: ``weight [out, in]`` times ``x [in, positions]``, as NCHW has it.

They are the products of `gemm_bf16` with the roles changed: rows of tiles are outputs, and the panel is made of
activations. So a result lies as its reader expects it, a row a channel.
"""

from qcc.codegen import emit
from qcc.codegen.emit import Expr, T
from qcc.codegen.gemm import WORDS
from qcc.codegen.gemm_bf16 import TO_BF16

PERMUTE = "llvm.x86.avx512.permvar.hi.512"


def pack(name: str) -> Expr:
    """A function ``(x, panel, y, stride, first, last, tiles, steps)``: float32 channels to a panel.

    ``x`` starts at the channel ``2 * first``; channels are ``stride`` apart. Those of the pairs ``first`` to ``last``
    are written to ``panel [tiles / 2, steps, 2, 16, 16]``, a pair of channels of 16 positions a row. All 16 positions
    of a tile are read, also of channels that have fewer. ``y`` is not touched.
    """
    with emit.function(name) as builder:
        pointers = {"x": "float32", "panel": "int32"}
        scalars = ("stride", "first", "last", "tiles", "steps")
        x, panel, _, stride, first, last, tiles, steps = emit.arguments(pointers, scalars, unaligned="x")
        order = emit.constant([lane + 16 << 16 | lane for lane in range(16)])
        interleave = T.bind(T.reinterpret("int16x32", order))
        with T.serial(first, last) as pair:
            even = T.bind((pair - first) * 2 * stride)
            row = T.bind(T.truncdiv(pair, T.int64(16)) * (2 * WORDS) + T.truncmod(pair, T.int64(16)) * 16)
            with T.serial(T.int64(0), tiles) as tile:
                at = even + tile * 16
                both = emit.llvm(TO_BF16, "bfloat16x32", x[emit.lanes(at + stride)], x[emit.lanes(at)])
                mixed = emit.llvm(PERMUTE, "int16x32", T.reinterpret("int16x32", both), interleave)
                place = T.truncdiv(tile, T.int64(2)) * steps * (2 * WORDS) + T.truncmod(tile, T.int64(2)) * WORDS
                T.buffer_store(panel, T.reinterpret("int32x16", mixed), [emit.lanes(place + row)])
    return builder.get()
