"""A product of some rows with stored codes, and the steps behind it, as a CUDA kernel in TIR.

A block of threads makes ``OUTPUTS`` neighbours of so many rows. Its warps share the inputs: a lane takes as many
neighbouring codes as fill whole words in every plane, so that a warp reads whole lines of codes and of activations, and
meets all rows with what it decoded once. Sums are in float32: by lane, over the lanes by shuffles, over the warps by
shared memory; the result differs from the op's body by the order of the sum alone.
"""

from dataclasses import dataclass

from tvm import tirx  # type: ignore[import-untyped]  # TVM has no stubs

from qcc.codegen.tir import emit
from qcc.codegen.tir.codes import BYTE, Codes, SmallFloat, codes_of
from qcc.codegen.tir.emit import Expr, T
from qcc.codegen.tir.steps import applied
from qcc.ir.encoding.packing import planes
from qcc.ir.kernel.op import LinearOp

WARP = 32
WARPS = 4
OUTPUTS = 4  # that share the activations that were read
ALONE = 16  # codes that a lane takes at once where one row meets them, but no more words than TWO
MANY = 8  # rows that share the codes that were decoded
WORD = 32  # bits that are read at once
TWO = 2
TOGETHER = 4  # activations that are
EVERYWHERE = -1  # all lanes take part
SHUFFLE = "llvm.nvvm.shfl.sync.bfly.f32"
BARRIER = "llvm.nvvm.barrier.cta.sync.aligned.all"
SCALES = {"fp16": "float16", "fp32": "float32"}
SIZES = ("inputs", "outputs", "rows")  # int32


@dataclass(frozen=True)
class Variant:
    """A kernel of an op.

    Args:
        rows: of activations that a block meets at once.
        scale: the type of the scales.
    """

    rows: int
    scale: str

    @property
    def name(self) -> str:
        """Behind the op's name."""
        return f"_rows{self.rows}_{self.scale}"


def variants(op: LinearOp) -> tuple[Variant, ...]:
    """The kernels of an op; only scales of whole outputs may be floats of either kind."""
    scales = SCALES if op.group is None else {op.blocked.scale: SCALES[op.blocked.scale or ""]}
    return tuple(Variant(rows, scale) for scale in scales.values() for rows in (1, MANY))


def pointers(op: LinearOp, variant: Variant) -> dict[str, str]:
    """The kernel's pointers by the names of the op's inputs and outputs, with the types of what they point to."""
    weight = op.weight_inputs
    types = {name: f"uint{WORD}" for name in weight if name.startswith("plane")}
    types |= {name: variant.scale for name in weight if name == "scale"}
    types |= {name: "int8" for name in weight if name == "zero"}
    return {"x": f"int{WORD * TOGETHER}", **types, **{name: "float32" for name, _ in op.step_inputs}, "y": "float32"}


def kernel(name: str, op: LinearOp, variant: Variant) -> Expr:
    """The kernel of an op: ``y[rows, outputs] = steps(x[rows, inputs] @ decode(codes)[outputs, inputs].T)``."""
    with emit.function(name) as builder:
        types = pointers(op, variant)
        held = {one: T.arg(one, T.buffer((tirx.Var(f"{one}_size", "int64"),), dtype)) for one, dtype in types.items()}
        inputs, outputs, rows = (T.arg(one, T.int32()) for one in SIZES)
        with (
            T.launch_thread("blockIdx.x", (outputs + (OUTPUTS - 1)) // OUTPUTS) as across,
            T.launch_thread("blockIdx.y", (rows + (variant.rows - 1)) // variant.rows) as down,
            T.launch_thread("threadIdx.x", WARP) as lane,
            T.launch_thread("threadIdx.y", WARPS) as warp,
        ):
            tile = _Tile(op, variant, held, (inputs, outputs, rows), across, down)
            sums = tile.multiply(lane, warp)
            tile.finish(sums, lane, warp)
    return builder.get()


class _Tile:
    """What a block of threads makes."""

    def __init__(
        self, op: LinearOp, variant: Variant, held: dict[str, Expr], sizes: tuple[Expr, ...], across: Expr, down: Expr
    ) -> None:
        self.op, self.variant, self.held = op, variant, held
        self.inputs, self.outputs, self.rows = sizes
        self.across, self.down = across, down
        self.codes: Codes = codes_of(op.encoding)
        least = max(WORD // width for width in planes(self.codes.bits))
        self.each = max(least, min(ALONE, TWO * WORD // self.codes.bits) if variant.rows == 1 else 0)
        self.count = variant.rows * OUTPUTS

    def multiply(self, lane: Expr, warp: Expr) -> Expr:
        """The sums of this lane's products, row by row."""
        sums = T.alloc_buffer((self.count,), "float32", scope="local")
        for at in range(self.count):
            T.buffer_store(sums, T.float32(0), [at])
        table = self._table(lane, warp)
        step = WARP * WARPS * self.each
        with T.serial(0, (self.inputs + (step - 1)) // step) as turn:
            first = T.bind(turn * step + (warp * WARP + lane) * self.each)
            with T.If(first < self.inputs), T.Then():
                self._meet(sums, first, table)
        return sums

    def _meet(self, sums: Expr, first: Expr, table: Expr | None) -> None:
        """Add the products of this lane's inputs from the first on."""
        weights = [self._decoded(self._output(at), first, table) for at in range(OUTPUTS)]
        for row in range(self.variant.rows):
            values = self._activations(T.bind(T.min(self.down * self.variant.rows + row, self.rows - 1)), first)
            for at, (numbers, scale) in enumerate(weights):
                part = T.alloc_buffer((1,), "float32", scope="local")
                T.buffer_store(part, T.float32(0), [0])
                for value, number in zip(values, numbers, strict=True):
                    T.buffer_store(part, part[0] + value * number, [0])
                index = row * OUTPUTS + at
                T.buffer_store(sums, sums[index] + part[0] * scale, [index])

    def _activations(self, row: Expr, first: Expr) -> list[Expr]:
        """A row's, from an input on."""
        start = T.bind(row * (self.inputs // TOGETHER) + first // TOGETHER)
        found = [
            T.reinterpret(f"float32x{TOGETHER}", self.held["x"][start + one]) for one in range(self.each // TOGETHER)
        ]
        return [tirx.Shuffle([T.bind(four)], [T.int32(at)]) for four in found for at in range(TOGETHER)]

    def _output(self, at: int) -> Expr:
        """An output of the tile; the last one again where there are fewer."""
        return T.bind(T.min(self.across * OUTPUTS + at, self.outputs - 1))

    def _read(self, output: Expr, first: Expr) -> list[Expr]:
        """The words of an output's codes from an input on, plane after plane."""
        start, found = T.bind(output * self.inputs + first), []
        for plane, width in enumerate(planes(self.codes.bits)):
            at = T.bind(start // (WORD // width))
            found += [T.bind(self.held[f"plane{plane}"][at + one]) for one in range(self.each * width // WORD)]
        return found

    def _decoded(self, output: Expr, first: Expr, table: Expr | None) -> tuple[list[Expr], Expr]:
        """The numbers of an output's codes from an input on, but for the scale, which stands behind."""
        words, group = self._read(output, first), T.bind(self._group(output, first))
        scale = T.bind(T.cast(self.held["scale"][group], "float32"))
        if (small := self.codes.small) is not None:
            return _small_floats(words, small), T.bind(scale * T.float32(small.factor))
        codes = self._codes(words)
        if table is not None:
            return [T.bind(table[one]) for one in codes], scale
        middle: Expr = T.int32(self.codes.middle)
        if self.codes.stored_zero:
            middle = T.bind(middle + T.cast(self.held["zero"][group], "int32"))
        return [T.bind(T.cast(one - middle, "float32")) for one in codes], scale

    def _codes(self, words: list[Expr]) -> list[Expr]:
        """The codes in words of all planes, lowest bits first."""
        codes: list[Expr] = [T.int32(0)] * self.each
        before = shift = 0
        for width in planes(self.codes.bits):
            for code in range(self.each):
                part = T.cast(words[before + code * width // WORD], "int32")
                part = T.bitwise_and(T.shift_right(part, T.int32(code * width % WORD)), T.int32((1 << width) - 1))
                part = T.shift_left(part, T.int32(shift)) if shift else part
                codes[code] = T.bitwise_or(codes[code], part) if shift else part
            before, shift = before + self.each * width // WORD, shift + width
        return codes

    def _group(self, output: Expr, first: Expr) -> Expr:
        """Which scale an input's is."""
        span = self.op.group
        return output if span is None else output * ((self.inputs + (span - 1)) // span) + first // span

    def _table(self, lane: Expr, warp: Expr) -> Expr | None:
        """The numbers of the codes where they are a table."""
        if self.codes.table is None or self.codes.small is not None:
            return None
        table = T.alloc_buffer((len(self.codes.table),), "float32", scope="shared")
        for at, number in enumerate(self.codes.table):
            with T.If(warp * WARP + lane == at), T.Then():
                T.buffer_store(table, T.float32(number), [at])
        _meet_all()
        return table

    def finish(self, sums: Expr, lane: Expr, warp: Expr) -> None:
        """Add up the lanes and the warps, take the steps and write."""
        shared = T.alloc_buffer((WARPS * self.count,), "float32", scope="shared")
        for at in range(self.count):
            for distance in (16, 8, 4, 2, 1):
                other = emit.llvm(
                    SHUFFLE, "float32", T.int32(EVERYWHERE), sums[at], T.int32(distance), T.int32(WARP - 1)
                )
                T.buffer_store(sums, sums[at] + other, [at])
            with T.If(lane == 0), T.Then():
                T.buffer_store(shared, sums[at], [warp * self.count + at])
        _meet_all()
        at = T.bind(warp * WARP + lane)
        row, output = (
            T.bind(self.down * self.variant.rows + at // OUTPUTS),
            T.bind(self.across * OUTPUTS + at % OUTPUTS),
        )
        inside = T.And(T.And(at < self.count, row < self.rows), output < self.outputs)
        with T.If(inside), T.Then():
            total = shared[at]
            for one in range(1, WARPS):
                total = total + shared[one * self.count + at]
            place = T.bind(row * self.outputs + output)
            operands = [self.held[name][output if kind == "vector" else place] for name, kind in self.op.step_inputs]
            with emit.own_registers():
                made = applied(self.op.steps, T.bind(total), operands)
            T.buffer_store(self.held["y"], made, [place])


def _small_floats(words: list[Expr], small: SmallFloat) -> list[Expr]:
    """The numbers of floats of 8 bits, four in a word, but for their factor: two are made float16 at once."""
    found = []
    for word in words:
        halves = []
        for moved in (T.bind(T.shift_left(word, T.uint32(BYTE))), word):
            sign, rest = T.bitwise_and(moved, T.uint32(0x80008000)), T.bitwise_and(moved, T.uint32(0x7F007F00))
            rest = T.shift_right(rest, T.uint32(BYTE - small.shift)) if small.shift < BYTE else rest
            halves.append(T.bind(T.reinterpret("float16x2", T.bitwise_or(sign, rest))))
        found += [T.bind(T.cast(tirx.Shuffle([halves[at % 2]], [T.int32(at // 2)]), "float32")) for at in range(4)]
    return found


def _meet_all() -> None:
    """All threads of the block wait for each other; TVM's own barrier is none that LLVM knows any more."""
    T.evaluate(T.call_llvm_intrin(T.llvm_lookup_intrinsic_id(BARRIER), T.int32(0), dtype="void"))
