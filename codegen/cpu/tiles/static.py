"""Activations rounded to int8 by a step that the model holds: the functions before the products.

``q = clip(rint(x * (1 / step)), -128, 127)``; NaN counts as the lowest. The caller has filled ``steps`` with the step,
so the products are those of activations with a step a row, and their integers are added up exactly. ``x * (1 / step)``
takes a quarter of the time of ``x / step``, and is rounded to another integer only right between two.
"""

from qcc.codegen.cpu.rows.gemv_int8 import clipped
from qcc.codegen.cpu.tiles.gemm_int8 import places
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

POINTERS = {"x": "float32", "q": "int8", "steps": "float32", "sums": "int32"}


def quantize(name: str) -> Expr:
    """A function ``(x, q, steps, sums, y, chunks)`` with ``sums`` of ``q`` by chunks of 32; ``y`` is not touched."""
    with emit.function(name) as builder:
        x, q, steps, sums, _, chunks = emit.arguments(POINTERS, ("chunks",), unaligned="x")
        inverse = T.bind(T.float32(1) / steps[0])
        with T.serial(T.int64(0), chunks) as chunk:
            halves = [_store(x, chunk * 32 + half, q, chunk * 32 + half, inverse) for half in (0, 16)]
            T.buffer_store(sums, emit.llvm("llvm.vector.reduce.add", "int32", halves[0] + halves[1]), [chunk])
    return builder.get()


def pack(name: str) -> Expr:
    """A function like ``gemm_int8.pack``, with ``sums`` of ``q`` by rows."""
    with emit.function(name) as builder:
        x, a, steps, sums, _, chunks, rows = emit.arguments(POINTERS, ("chunks", "rows"), unaligned="x")
        count, inverse = T.bind(T.truncdiv(chunks + 1, T.int64(2))), T.bind(T.float32(1) / steps[0])
        total = emit.accumulators(1, "int32")[0]
        with T.serial(T.int64(0), rows) as row:
            emit.put(total, emit.word(0))
            place = places(a, row, chunks, count)
            with T.serial(T.int64(0), chunks) as chunk:
                for half in (0, 16):
                    emit.add(total, _store(x, (row * chunks + chunk) * 32 + half, a, place(chunk) + half, inverse))
            T.buffer_store(sums, emit.llvm("llvm.vector.reduce.add", "int32", emit.get(total)), [row])
    return builder.get()


def round_floats(name: str) -> Expr:
    """A function ``(x, a, steps, sums, y, chunks)`` with ``a = q * step`` in float32, for products in float32."""
    with emit.function(name) as builder:
        x, a, steps, _, _, chunks = emit.arguments(POINTERS | {"q": "float32"}, ("chunks",), unaligned="x")
        inverse = T.bind(T.float32(1) / steps[0])
        with T.serial(T.int64(0), chunks) as chunk:
            for half in (0, 16):
                place = emit.lanes(chunk * 32 + half)
                T.buffer_store(a, clipped(x[place], inverse) * emit.spread(steps[0]), [place])
    return builder.get()


def _store(x: Expr, source: Expr, q: Expr, place: Expr, inverse: Expr) -> Expr:
    """Sixteen of ``q``, which are also the result, as int32."""
    whole = T.bind(T.cast(clipped(x[emit.lanes(source)], inverse), "int32x16"))
    T.buffer_store(q, T.cast(whole, "int8x16"), [emit.lanes(place)])
    return whole
