"""The loops of `ceilings` in TIR. Each is a function ``(data, y, size, rounds)`` that does its round so many times.

``data [size]`` and ``y [256]`` are int32, aligned to 64 bytes. Results go to ``y``, so that nothing is left out. The
rounding of activations is the kernels' own function.
"""

import ctypes
from collections.abc import Callable, Iterable

import numpy as np
import tvm  # type: ignore[import-untyped]  # TVM has no stubs
from tvm import tirx

from qcc.codegen.cpu.ceilings.registers import PAIRS, wide
from qcc.codegen.cpu.library.generate import compiled
from qcc.codegen.cpu.processors.processors import CpuProcessor
from qcc.codegen.cpu.rows import gemv_int8
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import Expr, T

TILE = 256  # int32 of a tile
DOT = "llvm.x86.avx512.vpdpbusd.512"
BYTES, WORDS = "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"
ROUND = "quantize"
AMX = {"amx_int8": "tdpbusd", "amx_bf16": "tdpbf16ps"}
LANES = 8  # of AVX2, in 32 bits
STREAMS = 8  # registers of 16 lanes that are read in a step


def runners(names: Iterable[str], target: CpuProcessor) -> dict[str, Callable[[np.ndarray, int], None]]:
    """The loops of these names as functions of ``data`` and the number of rounds."""
    made = {name: _function(name, target) for name in names}
    module = compiled(made, target)
    return {name: (_rounding if name == ROUND else _callable)(module[name]) for name in made}


def _callable(function: Expr) -> Callable[[np.ndarray, int], None]:
    result = tvm.runtime.tensor(np.zeros(TILE, np.int32))

    def run(data: np.ndarray, rounds: int) -> None:
        function(tvm.runtime.from_dlpack(data), result, rounds)

    return run


def _rounding(function: Expr) -> Callable[[np.ndarray, int], None]:
    """Activations rounded as kernels do it, so many times."""
    result = tvm.runtime.tensor(np.zeros(TILE, np.float32))

    def run(data: np.ndarray, rounds: int) -> None:
        chunks = len(data) // 32
        room = np.empty(data.nbytes * 2, np.uint8)
        start = room.ctypes.data + -room.ctypes.data % 64
        places = (start, start + data.nbytes // 4, start + data.nbytes // 2)
        values, codes, steps, sums = (ctypes.c_void_p(one // 64 * 64) for one in (data.ctypes.data, *places))
        for _ in range(rounds):
            function(values, codes, steps, sums, result, chunks)

    return run


def _function(name: str, target: CpuProcessor) -> Expr:
    if name == ROUND:
        return gemv_int8.quantize(name)
    with emit.function(name) as builder:
        data = T.arg("data", T.buffer((tirx.Var("size", "int64"),), "int32"))
        y = T.arg("y", T.buffer((TILE,), "int32"))
        rounds = T.arg("rounds", T.int64())
        if name == "multiply_add":
            _multiply_add(data, y, rounds, wide(target))
        elif name == "vnni":
            _vnni(data, y, rounds, wide(target))
        elif name == "pairs":
            _pairs(data, y, rounds)
        elif name == "read":
            _read(data, y, rounds)
        else:
            _amx(data, y, rounds, AMX[name])
    return builder.get()


def _multiply_add(data: Expr, y: Expr, rounds: Expr, count: int) -> None:
    registers = emit.accumulators(count)
    emit.clear(registers)
    factor, term = (T.bind(T.reinterpret("float32x16", data[emit.lanes(at)])) for at in (16, 32))
    with T.serial(T.int64(0), rounds):
        for register in registers:
            emit.put(register, emit.get(register) * factor + term)
    _store(y, registers)


def _vnni(data: Expr, y: Expr, rounds: Expr, count: int) -> None:
    registers = emit.accumulators(count, "int32")
    _zero(registers)
    codes, four = (T.bind(T.reinterpret("int8x64", data[emit.lanes(at)])) for at in (16, 32))
    with T.serial(T.int64(0), rounds):
        for register in registers:
            emit.put(register, emit.llvm(DOT, "int32x16", emit.get(register), codes, four))
    _store(y, registers)


def _pairs(data: Expr, y: Expr, rounds: Expr) -> None:
    """Products of bytes, added up in 16 and then in 32 bits; each reads its own sum, so that none leaves the loop."""
    registers = emit.accumulators(PAIRS, "int32", LANES)
    for register in registers:
        emit.put(register, emit.word(0, LANES))
    four = T.bind(T.reinterpret("int8x32", data[emit.lanes(16, LANES)]))
    ones = emit.spread(T.int16(1), 2 * LANES)
    with T.serial(T.int64(0), rounds):
        for register in registers:
            pair = emit.llvm(BYTES, "int16x16", T.reinterpret("int8x32", emit.get(register)), four)
            emit.put(register, emit.get(register) + emit.llvm(WORDS, "int32x8", pair, ones))
    for at, register in enumerate(registers):
        T.buffer_store(y, emit.get(register), [emit.lanes(at * LANES, LANES)])


def _read(data: Expr, y: Expr, rounds: Expr) -> None:
    registers = emit.accumulators(STREAMS, "int32")
    _zero(registers)
    steps = T.bind(T.truncdiv(data.shape[0], T.int64(STREAMS * emit.LANES)))
    with T.serial(T.int64(0), rounds), T.serial(T.int64(0), steps) as step:
        for at, register in enumerate(registers):
            place = emit.lanes((step * STREAMS + at) * emit.LANES)
            emit.put(register, T.bitwise_xor(emit.get(register), data[place]))
    _store(y, registers)


def _amx(data: Expr, y: Expr, rounds: Expr, product: str) -> None:
    """Four results of two by two tiles; ``data`` begins with the tiles' configuration."""
    _tile("ldtilecfg", T.address_of(data[0]))
    for index in range(4):
        _tile("tilezero", T.int8(index))
        _tile("tileloadd64", T.int8(4 + index), T.address_of(data[(1 + index) * TILE]), T.int64(64))
    with T.serial(T.int64(0), rounds):
        for index in range(4):
            _tile(product, T.int8(index), T.int8(4 + index // 2), T.int8(6 + index % 2))
    _tile("tilestored64", T.int8(0), T.address_of(y[0]), T.int64(64))
    _tile("tilerelease")


def _tile(name: str, *arguments: Expr) -> None:
    T.evaluate(T.call_llvm_intrin("int32", f"llvm.x86.{name}", *arguments))


def _zero(registers: list[Expr]) -> None:
    for register in registers:
        emit.put(register, emit.word(0))


def _store(y: Expr, registers: list[Expr]) -> None:
    for at, register in enumerate(registers):
        T.buffer_store(y, T.reinterpret("int32x16", emit.get(register)), [emit.lanes(at * emit.LANES)])
