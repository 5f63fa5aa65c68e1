"""Some queries meet rows that are kept as codes, which become floats in registers: sixteen keys, then their values.

Sixteen rows of keys are multiplied by each query; the sums of sixteen vectors become one of sixteen scores by fifteen
additions of halves (`Sums`). What was made before is scaled anew where a larger score comes, as of blocks
(`kernel.py`).
"""

from collections.abc import Sequence

import numpy as np
from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.cpu.attend.kernel import powers
from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T
from qcc.ir.kernel.cached_op import RowCode

MOST = 256  # rows of a call: their scores stay in the first cache
LEAST = float(np.finfo(np.float32).min)  # by which exporters hide: what is all hidden weighs the same
ORDER = (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)  # of rows, by which their sums end up in order
REGISTERS = 16  # sums of values that are held at once
SCALES = {"fp16": "float16", "fp32": "float32", "e8m0": "uint8", "": "float32"}


def meet(name: str, queries: int, channels: int, keys: RowCode, values: RowCode) -> Expr:
    """A function ``(q, keys, key_scales, values, value_scales, bias, scores, made, top, sums, y, groups, apart)``.

    ``q [queries, channels]`` meets ``16 groups`` rows, `MOST` at most. ``bias`` has a number for each, and another row
    of them for each query ``apart`` numbers further on. ``made`` like ``q``, ``top`` and ``sums`` a number a query, are
    changed; ``scores`` is room for `MOST` a query.
    """
    pointers = {"q": "float32", "keys": keys.dtype.name, "key_scales": SCALES[keys.scale], "values": values.dtype.name}
    pointers |= {"value_scales": SCALES[values.scale]}
    pointers |= dict.fromkeys(("bias", "scores", "made", "top", "sums"), "float32")
    unaligned = "q keys key_scales values value_scales bias made top sums"
    with emit.function(name) as builder:
        q, k, k_scales, v, v_scales, bias, scores, made, top, sums, _, groups, apart = emit.arguments(
            pointers, ("groups", "apart"), unaligned=unaligned
        )
        highest = emit.accumulators(queries)
        for one in highest:
            emit.put(one, emit.spread(T.float32(LEAST)))
        with T.serial(T.int64(0), groups) as group:
            first = T.bind(group * LANES)
            found = [Sums() for _ in range(queries)]
            for row in ORDER:
                parts = _Rows(k, k_scales, keys, channels, T.bind(first + row)).all()
                for r in range(queries):
                    found[r].add(_product(q, r * channels, parts))
            for r in range(queries):
                place = emit.lanes(r * MOST + first)
                T.buffer_store(scores, found[r].total() + bias[emit.lanes(r * apart + first)], [place])
                emit.put(highest[r], T.max(emit.get(highest[r]), scores[place]))
        for r in range(queries):
            powers(scores, made, top, sums, highest[r], r * MOST, T.int64(r), groups, channels)
        _add_values(v, v_scales, values, scores, made, queries, channels, groups)
    return builder.get()


def _product(q: Expr, start: int, parts: Sequence[Expr]) -> Expr:
    """Of a query and a row, lane by lane."""
    found = emit.accumulators(1)[0]
    emit.put(found, parts[0] * q[emit.lanes(T.int64(start))])
    for at, part in enumerate(parts[1:], 1):
        emit.add(found, part * q[emit.lanes(T.int64(start + at * LANES))])
    return emit.get(found)


def _add_values(
    v: Expr, scales: Expr, code: RowCode, scores: Expr, made: Expr, queries: int, channels: int, groups: Expr
) -> None:
    """What rows make by their powers, some channels at a time, so that all sums stay in registers."""
    count = channels // LANES
    units = [[at, at + count // 2] for at in range(count // 2)] if code.bits == 4 else [[at] for at in range(count)]
    each = max(REGISTERS // (queries * len(units[0])), 1)
    for begin in range(0, len(units), each):
        taken = [at for unit in units[begin : begin + each] for at in unit]
        held = {(r, at): emit.accumulators(1)[0] for r in range(queries) for at in taken}
        for (r, at), one in held.items():
            emit.put(one, made[emit.lanes(T.int64(r * channels + at * LANES))])
        with T.serial(T.int64(0), groups * LANES) as row:
            parts = dict(zip(taken, _Rows(v, scales, code, channels, row).some(taken), strict=True))
            for r in range(queries):
                power = emit.spread(scores[r * MOST + row])
                for at in taken:
                    emit.add(held[r, at], parts[at] * power)
        for (r, at), one in held.items():
            T.buffer_store(made, emit.get(one), [emit.lanes(T.int64(r * channels + at * LANES))])


class _Rows:
    """A row that is kept as codes, as vectors of sixteen channels."""

    def __init__(self, codes: Expr, scales: Expr, code: RowCode, channels: int, row: Expr) -> None:
        self._codes, self._scales, self._code, self._channels, self._row = codes, scales, code, channels, row

    def all(self) -> list[Expr]:
        """All channels."""
        return self.some(range(self._channels // LANES))

    def some(self, places: Sequence[int]) -> list[Expr]:
        """Those of some vectors, in registers."""
        bytes_: dict[int, Expr] = {}
        return [self._held(self._scaled(self._numbers(at, bytes_), at)) for at in places]

    @staticmethod
    def _held(value: Expr) -> Expr:
        register = emit.accumulators(1)[0]
        emit.put(register, value)
        return emit.get(register)

    def _numbers(self, at: int, bytes_: dict[int, Expr]) -> Expr:
        code, width = self._code, self._channels
        if code.bits != 4:
            return emit.floats(self._codes, self._row * width + at * LANES)
        half = width // LANES // 2
        start = at % half
        if start not in bytes_:
            read = self._codes[emit.lanes(self._row * (width // 2) + start * LANES)]
            register = emit.accumulators(1, "int32")[0]
            emit.put(register, T.cast(read, f"int32x{LANES}"))
            bytes_[start] = emit.get(register)
        both = bytes_[start]
        part = T.bitwise_and(both, emit.word(15)) if at < half else T.shift_right(both, emit.word(4))
        return T.cast(part - emit.word(8), f"float32x{LANES}")

    def _scaled(self, numbers: Expr, at: int) -> Expr:
        code = self._code
        if not code.group:
            return numbers
        scale = self._scales[self._row * (self._channels // code.group) + at * LANES // code.group]
        if code.scale == "e8m0":
            scale = T.reinterpret("float32", T.shift_left(T.cast(scale, "int32"), T.int32(23)))
        return numbers * emit.spread(scale if code.scale == "fp32" else T.cast(scale, "float32"))


class Sums:
    """The sums of sixteen vectors, as the lanes of one: two that stand for as many rows are added half by half."""

    def __init__(self) -> None:
        self._held: list[tuple[int, Expr]] = []

    def add(self, vector: Expr) -> None:
        """The next vector, by `ORDER`."""
        level = 0
        while self._held and self._held[-1][0] == level:
            vector, level = _halves_added(self._held.pop()[1], vector, level), level + 1
        self._held.append((level, vector))

    def total(self) -> Expr:
        """The sums."""
        return self._held[0][1]


def _halves_added(one: Expr, other: Expr, level: int) -> Expr:
    """Quarters of 128 bits are added first, and then what is in them."""
    base, step = {0: ((0, 1), 2), 1: ((0, 2), 1)}.get(level, ((), 0))
    if level < 2:
        low = [4 * quarter + lane for quarter in base for lane in range(4)]
        shift = 4 * step
    else:
        step = 2 if level == 2 else 1
        inside = (0, 1) if level == 2 else (0, 2)
        low, shift = [4 * quarter + lane for quarter in range(4) for lane in inside], step
    order = _woven(low, level)
    found = emit.accumulators(1)[0]
    emit.put(found, _picked(one, other, order) + _picked(one, other, [at + shift for at in order]))
    return emit.get(found)


def _woven(low: list[int], level: int) -> list[int]:
    """The lanes of the first vector and those of the second: half by half, or quarter by quarter."""
    if level < 2:
        return [*low, *(LANES + at for at in low)]
    pairs = [low[at : at + 2] for at in range(0, len(low), 2)]
    return [lane for pair in pairs for lane in (*pair, *(LANES + at for at in pair))]


def _picked(one: Expr, other: Expr, order: list[int]) -> Expr:
    return tirx.Shuffle([one, other], [T.int32(at) for at in order])
