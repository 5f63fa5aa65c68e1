"""Shorthand for writing TIR: vectors of 16 lanes, LLVM's intrinsics, and the decoding of planes.

The packed layout that every template reads is ``[out / 16, in / 32, bits, 16]`` int32: for 16 outputs and a chunk of 32
inputs one word a bit of the code, plane after plane, lowest bits first. Byte ``b`` of the words of a plane holds the
inputs ``4 q + b``, at the `place` of quad ``q``: quads 0 to 3 in lower halves of bytes, 4 to 7 at the same places in
upper halves. So one shift and one mask give four inputs of 16 outputs as bytes, the operand of ``vpdpbusd``, and one
shift gives eight as `halves` of bytes, which are masked where they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs
from tvm.script import ir_builder  # type: ignore[import-untyped]  # the same

from qcc.ir.encoding.packing import planes

Expr = Any  # TVM carries no types: an expression, a buffer or a function
T = ir_builder.tirx

LANES = 16
QUADS = 8  # of four inputs in a chunk of 32
BLOCKS = 4  # of 16 outputs that are worked on together
_scope: ContextVar[str] = ContextVar("scope", default="global")


def lanes(start: Expr, count: int = LANES) -> Expr:
    """The index of so many neighbours."""
    return T.ramp(start, 1, count)


def spread(value: Expr, count: int = LANES) -> Expr:
    """A scalar in all lanes."""
    return T.broadcast(value, count)


def word(value: int, count: int = LANES) -> Expr:
    """An int32 constant of these 32 bits in all lanes."""
    return spread(T.int32(value - (1 << 32) if value >= 1 << 31 else value), count)


def floats(buffer: Expr, start: Expr, count: int = LANES) -> Expr:
    """So many neighbours as float32."""
    value = buffer[lanes(start, count)]
    return value if str(buffer.dtype) == "float32" else T.cast(value, f"float32x{count}")


def llvm(name: str, dtype: str, *arguments: Expr) -> Expr:
    """A pure LLVM intrinsic."""
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(name), *arguments, dtype=dtype)


def nearest(value: Expr) -> Expr:
    """Sixteen floats as the nearest whole numbers, int32: one instruction where rounding and converting are three."""
    return llvm("llvm.lrint", "int32x16", value)


def fetch(place: Expr) -> None:
    """Let the line of a buffer's element come to the first cache."""
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(place), T.int32(0), T.int32(3), T.int32(1)))


@contextmanager
def function(name: str, noalias: bool = True) -> Iterator[Expr]:
    """Write a function of that name; the builder gives it when the block is left.

    ``noalias``: no two pointers overlap, which keeps accumulators in registers.
    """
    with ir_builder.IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"global_symbol": name, "tirx.noalias": noalias})
        yield builder


def arguments(pointers: dict[str, str], scalars: tuple[str, ...], unaligned: str = "") -> list[Expr]:
    """Declare a function's arguments: bare pointers (name to type) as flat buffers, the result ``y``, int64 scalars.

    ``y`` is a flat float32 DLTensor, because TVM takes the device from one. Pointers are aligned to 64 bytes, but for
    those that are named, with spaces between.
    """
    handles = {name: T.arg(name, T.handle(dtype)) for name, dtype in pointers.items()}
    result = T.arg("y", T.buffer((tirx.Var("size", "int64"),), "float32"))
    numbers = [T.arg(name, T.int64()) for name in scalars]
    size = T.int64(1 << 40)
    buffers = [
        T.decl_buffer((size,), dtype, data=handles[name], align=4 if name in unaligned.split() else 64)
        for name, dtype in pointers.items()
    ]
    _align_frame(result)
    return [*buffers, result, *numbers]


def _align_frame(result: Expr) -> None:
    """Have LLVM lay what it spills on whole vectors.

    A frame is aligned to 16 bytes, unless its function asks where it is: then LLVM aligns it to its vectors. Else,
    by what its callers did, half of what is spilled lies across lines of the cache, and some across pages.
    """
    here = T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id("llvm.frameaddress"), T.int32(0), dtype="handle")
    with T.If(T.isnullptr(here)), T.Then():  # never; a use of it keeps it
        T.buffer_store(result, T.float32(0), [T.int64(0)])


@contextmanager
def own_registers() -> Iterator[None]:
    """Let what is held be each thread's own, as on a GPU; on a CPU TVM asks a function that libraries lack."""
    token = _scope.set("local")
    try:
        yield
    finally:
        _scope.reset(token)


def register_scope() -> str:
    """Where registers are."""
    return _scope.get()


def accumulators(count: int, dtype: str = "float32", lanes: int = LANES) -> list[Expr]:
    """Registers; a buffer each, since TVM puts one above 1 kB on the heap."""
    return [T.alloc_buffer((lanes,), dtype, scope="global") for _ in range(count)]


def get(register: Expr) -> Expr:
    """What a register holds."""
    return register[T.ramp(0, 1, int(register.shape[0]))]


def put(register: Expr, value: Expr) -> None:
    """Set a register."""
    T.buffer_store(register, value, [T.ramp(0, 1, int(register.shape[0]))])


def clear(registers: list[Expr]) -> None:
    """Set float registers to zero."""
    for register in registers:
        put(register, spread(T.float32(0), int(register.shape[0])))


def add(register: Expr, value: Expr) -> None:
    """Add to a register."""
    put(register, get(register) + value)


def total(vector: Expr, count: int = LANES) -> Expr:
    """The sum of float32 lanes, a power of two of them."""
    for distance in (one for one in (8, 4, 2, 1) if one < count):
        order = [T.int32((lane + distance) % count) for lane in range(count)]
        vector = T.bind(vector + tirx.Shuffle([vector], order))
    return tirx.Shuffle([vector], [T.int32(0)])


def place(width: int, number: int) -> tuple[int, int]:
    """Which word of a plane holds a quad, and from which bit of each byte on."""
    if width == 8:
        return number, 0
    each = 4 // width
    return number % 4 // each, width * (number % each) + 4 * (number // 4)


def chunk_words(w: Expr, number: Expr, bits: int, count: int = LANES, side: int = 0) -> list[Expr]:
    """The words of a block's chunk, as many as its codes have bits: of ``count`` outputs from the ``side``th on."""
    starts = [(number * bits + bit) * LANES + side for bit in range(bits)]
    return [T.bind(w[lanes(start, count)]) for start in starts]


def quad(words: list[Expr], bits: int, number: int, count: int = LANES) -> Expr:
    """The codes of inputs ``4 * number + 0..3``, one a byte, of as many outputs as words have lanes."""
    codes, first, shift = None, 0, 0
    for width in planes(bits):
        at, down = place(width, number)
        part = words[first + at]
        if width < 8:
            part = T.shift_right(part, word(down, count)) if down else part
            part = T.bitwise_and(part, word(((1 << width) - 1) * 0x01010101, count))
            part = T.shift_left(part, word(shift, count)) if shift else part
        codes = part if codes is None else T.bitwise_or(codes, part)
        first, shift = first + width, shift + width
    return codes


def halves(words: list[Expr], bits: int, number: int) -> Expr:
    """The codes of up to 4 bits of quads ``number`` and ``number + 4`` in the halves of bytes; above them, noise."""
    codes, first, shift = None, 0, 0
    for width in planes(bits):
        at, down = place(width, number)
        part, up = words[first + at], shift - down
        if up:
            part = T.shift_left(part, word(up)) if up > 0 else T.shift_right(part, word(-up))
        if codes is None:
            codes = part
        else:  # one vpternlog: the lower bits of each half from one, all others from the other
            lower = ((1 << shift) - 1) * 0x11111111
            codes = T.bitwise_or(T.bitwise_and(codes, word(lower)), T.bitwise_and(part, word(0xFFFFFFFF - lower)))
        first, shift = first + width, shift + width
    return codes


def constant(values: list[int]) -> Expr:
    """Int32 constants, given as 32 bits each, as a vector."""
    numbers = [T.int32(value - (1 << 32) if value >= 1 << 31 else value) for value in values]
    return tirx.Shuffle(numbers, [T.int32(lane) for lane in range(len(values))])


def bytes_table(numbers: tuple[int, ...], count: int = LANES) -> Expr:
    """Sixteen bytes as a table in every 128 bits of so many words, int8."""
    words = [int.from_bytes(bytes(numbers[at : at + 4]), "little") for at in range(0, len(numbers), 4)]
    return T.reinterpret(f"int8x{4 * count}", constant(words * (count // len(words))))


def floats_table(numbers: tuple[float, ...]) -> Expr:
    """Sixteen floats, to be looked up by the lowest four bits of a lane."""
    table = T.alloc_buffer((len(numbers),), "float32", scope="global")
    for at, number in enumerate(numbers):
        T.buffer_store(table, T.float32(number), [at])
    return T.bind(table[lanes(0, len(numbers))])
