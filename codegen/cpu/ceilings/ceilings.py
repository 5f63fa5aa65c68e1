"""What a processor can do at most: loops of nothing but the instruction, or the loads, in question.

A kernel is judged against these. TVM compiles the loops for `target.native`; one core runs each for a moment, and the
best run counts, since whatever else the machine does can only slow it; the median is kept beside it, which tells how
much that was. Results are kept by machine.
"""

import ctypes
import hashlib
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from qcc.codegen.cpu.ceilings.registers import PAIRS, wide
from qcc.codegen.cpu.processors.processors import CpuProcessor, native
from qcc.codegen.target.cache import cache_folder, is_measured, read_json, write_json
from qcc.codegen.target.ceiling import Ceiling, CeilingError, Ceilings
from qcc.codegen.target.machine import Machine, cpu_flags, machine
from qcc.codegen.target.target import Ticker

BURST_S, TOTAL_S = 1e-3, 0.15  # of one timed call, and of all calls of a loop
FEWEST = 5  # calls
LARGEST_BYTES = 1 << 30  # that memory is read from
ALIGNMENT = 64
AMX_REQUEST = (
    158,
    0x1023,
    18,
)  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): tiles are asked for once a process


@dataclass(frozen=True)
class Loop:
    """A loop to time.

    Args:
        name: of the ceiling.
        unit: of what it does.
        needs: features of the target.
        flag: of the processor, which the target does not list; empty for none.
        function: the name of its template in `ceiling_loops`.
        work: operations or bytes of one round, of a target and a number of bytes that are read.
        size: bytes that it reads, of the machine; those of loops without memory stay in registers.
    """

    name: str
    unit: str
    needs: tuple[str, ...]
    flag: str
    function: str
    work: Callable[[CpuProcessor, int], float]
    size: Callable[[Machine], int] = lambda _: 1 << 14


def _half_l1(here: Machine) -> int:
    return (here.l1_bytes or 32 << 10) // 2


def _half_l2(here: Machine) -> int:
    return (here.l2_bytes or 512 << 10) // 2


def _half_l3(here: Machine) -> int:
    """None of it where there is none: then the loop is left out."""
    return here.l3_bytes // 2 // 4096 * 4096


def _past_caches(here: Machine) -> int:
    """Twice the third cache, but no more than a quarter of what memory is free."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min(2 * here.l3_bytes or 256 << 20, LARGEST_BYTES, free // 4), 16 << 20) // 4096 * 4096


LOOPS = (
    Loop("fp32 multiply-add", "GFLOP/s", (), "", "multiply_add", lambda target, _: 32 * wide(target)),
    Loop("int8 AVX2", "GOP/s", ("avx2",), "", "pairs", lambda *_: 64 * PAIRS),
    Loop("int8 VNNI", "GOP/s", ("avx512_vnni",), "", "vnni", lambda target, _: 128 * wide(target)),
    Loop("int8 AMX", "GOP/s", ("amx_tile",), "amx_int8", "amx_int8", lambda *_: 4 * 2 * 16 * 16 * 64),
    Loop("bf16 AMX", "GFLOP/s", ("amx_tile", "amx_bf16"), "", "amx_bf16", lambda *_: 4 * 2 * 16 * 16 * 32),
    Loop("rounding to int8", "Gvalue/s", (), "", "quantize", lambda _, size: size / 4, _half_l1),
    Loop("reading L1", "GB/s", (), "", "read", lambda _, size: size, _half_l1),
    Loop("reading L2", "GB/s", (), "", "read", lambda _, size: size, _half_l2),
    Loop("reading L3", "GB/s", (), "", "read", lambda _, size: size, _half_l3),
    Loop("reading memory", "GB/s", (), "", "read", lambda _, size: size, _past_caches),
)


def known() -> Ceilings | None:
    """What was measured on this machine before, if anything was."""
    data = read_json(_file().name)
    try:
        found = Ceilings(str(data["measured"]), tuple(Ceiling(**one) for one in data["ceilings"]))  # type: ignore[index]
    except (KeyError, TypeError, IndexError):
        return None  # a damaged file is as good as none
    return found if all(map(_is_whole, found.ceilings)) else None


def _is_whole(one: Ceiling) -> bool:
    named = isinstance(one.name, str) and isinstance(one.unit, str)
    return named and is_measured(one.value) and is_measured(one.usual)


def measure(tick: Ticker = lambda *_: None) -> Ceilings:
    """Measure and keep what one core can do; takes some seconds.

    Args:
        tick: told how many loops are done, of how many, and which is next.

    Raises:
        CeilingError: TVM is missing.
        TargetError: kernels cannot be built for this kind of processor.
    """
    target, flags, here = native(), cpu_flags(), machine()
    if importlib.util.find_spec("tvm") is None:
        raise CeilingError("ceilings are measured by loops that TVM compiles, and TVM is not installed")
    from qcc.codegen.cpu.ceilings.loops import runners  # loads TVM

    able = [loop for loop in LOOPS if target.has(*loop.needs) and loop.flag in ("", *flags) and _granted(loop)]
    loops = [loop for loop in able if loop.size(here)]
    run = runners(sorted({loop.function for loop in loops}), target)
    found = []
    for done, loop in enumerate(loops):
        tick(done, len(loops), loop.name)
        size = loop.size(here)
        work = loop.work(target, size) / 1e9
        best_s, usual_s = _round_s(run[loop.function], _data(size))
        found.append(Ceiling(loop.name, work / best_s, loop.unit, work / usual_s))
    made = Ceilings(str(date.today()), tuple(found))
    _keep(made)
    return made


def _granted(loop: Loop) -> bool:
    return "amx_tile" not in loop.needs or ctypes.CDLL(None).syscall(*AMX_REQUEST) == 0


def _data(size: int) -> np.ndarray:
    """So many bytes, aligned and written to, so that each page is real: AMX's configuration of eight tiles, and 63s."""
    raw = np.full(size + ALIGNMENT, 0x3F, np.uint8)  # as float32 and bfloat16 about 0.75: no denormals
    start = -raw.ctypes.data % ALIGNMENT
    data = raw[start : start + size]
    data[:64] = [1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8]  # 16 rows of 64 bytes
    return data.view(np.int32)


def _round_s(run: Callable[[np.ndarray, int], None], data: np.ndarray) -> tuple[float, float]:
    """Seconds of a round: at best, and in the median call."""
    rounds, taken = 1, _timed(run, data, 1)
    while taken < BURST_S:
        rounds *= max(2, min(64, int(BURST_S / max(taken, 1e-7))))
        taken = _timed(run, data, rounds)
    calls = max(FEWEST, int(TOTAL_S / taken))
    seconds = [_timed(run, data, rounds) / rounds for _ in range(calls)]
    return min(seconds), median(seconds)


def _timed(run: Callable[[np.ndarray, int], None], data: np.ndarray, rounds: int) -> float:
    start = time.thread_time()  # what else the machine runs in between does not count
    run(data, rounds)
    return time.thread_time() - start


def _file() -> Path:
    """Named by all that decides the results but the moment."""
    flags = sorted(cpu_flags())
    sources = [Path(__file__), *(Path(__file__).with_name(name) for name in ("loops.py", "registers.py"))]
    digest = hashlib.sha256(repr((machine(), flags, platform.node())).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return cache_folder() / f"ceilings-{digest.hexdigest()[:32]}.json"


def _keep(made: Ceilings) -> None:
    write_json(_file().name, asdict(made))
