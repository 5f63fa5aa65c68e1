"""The ops that kernel libraries take, in domain ``qcc``: a product with a stored weight, and the steps behind it.

An op's name says all that its inputs and its meaning depend on, in both directions: ``linear_int4_group32_bias_gelu``
multiplies by 4-bit codes that share a scale by 32, adds a bias and applies a gelu. So the writer of a model, the
builder of a library and the library itself need no other word between them. ``conv1x1_...`` are the same products along
the second axis of ``x``: convolutions of one point. How the weight is stored stands in the name as in `Blocked.name`,
and the inputs that hold it are the parts of that encoding. ``linear_blocks16x16_fp32`` stores some tiles of the
weight alone, each as a row of what follows in the name, and the number of each tile. ``linear_int4_group32_and_bias``
multiplies the same ``x`` by two weights that are stored alike, with steps of their own.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Part, Parts, inside
from qcc.ir.encoding.blocked import FLOAT32, FLOAT_ENCODINGS, Blocked, Floats, integers, named
from qcc.ir.encoding.blocks import CHANNEL, Block, row_by_row
from qcc.ir.encoding.format import numbers_below
from qcc.ir.encoding.grid import TableGrid
from qcc.ir.encoding.packing import UNIT, pack, planes
from qcc.ir.kernel.library_op import LibraryOp
from qcc.ir.vocabulary.definition import EpilogueStep, Operand
from qcc.ir.vocabulary.find import STEPS as VOCABULARY_STEPS

CHUNK = 32  # inputs that kernels read at once; a group is a whole number of them
LONGEST = 1 << 16  # inputs that a static op may have: it adds up their products in 32 bits
TABLE_PLANES = ((1,), (2,), (4,), (8,))  # of codes of a table
BF16 = FLOAT_ENCODINGS["bf16"]
Leaf = Blocked | Floats
"""What kernels read: codes, or floats as they are."""
Tile = tuple[int, int]
TILES, NUMBER = "tiles.", "number"
"""The parts of tiles: those of what each is a row of, and which stands where."""
VECTORS = (16, 8, 4)  # neighbours of a tile, outputs or inputs, that are multiplied at once

BIAS, KEEP = "bias", "keep"
AND = "and"
STEPS: Mapping[str, EpilogueStep] = {
    **VOCABULARY_STEPS,
    KEEP: EpilogueStep(KEEP, lines=lambda v, y, _, __: [f"kept = Identity ({v})", f"{y} = Identity ({v})"]),
}
"""By name: those of the vocabulary, and ``keep``, which makes the value so far a second output.

A norm takes its epsilon from the op's attribute ``epsilon``.
"""

MAX_TENSORS = 2
MAX_MEMBERS = 4  # products of one op
JOINED_ROWS = 64  # outputs of each are a multiple of it where there are several
_WORDS = "|".join(sorted(STEPS, key=len, reverse=True))
_NAME = re.compile(
    rf"(linear|conv1x1)_(?:blocks([1-9]\d*)x([1-9]\d*)_)?([a-z0-9_]+?)(_static)?"
    rf"((?:_(?:{_WORDS}))*)((?:_{AND}(?:_(?:{_WORDS}))*)*)",
    re.ASCII,
)


class OpError(ValueError):
    """No kernel goes by such a name."""


def unmultiplied(encoding: Encoding) -> str:
    """Why no kernel multiplies by weights of an encoding; empty if one does.

    Kernels know integers of 2 to 8 bits with scales that are floats, tables of codes of 1, 2, 4 and 8 bits with
    scales that are floats or stand in a byte for one of a table, and bfloat16; of tiles that are stored alone,
    float32, too.
    """
    if encoding.undecodable:
        return encoding.undecodable
    if encoding.tile is not None:
        return _tiles_unmultiplied(encoding.tile, encoding.within[0])
    if integers(encoding) is not None or encoding == BF16:
        return ""
    if isinstance(encoding, Blocked) and isinstance(encoding.grid, TableGrid) and encoding.scale is not None:
        bytes_of_one = isinstance(encoding.scales, Blocked) and encoding.scales.scale is None
        if encoding.grid.planes in TABLE_PLANES and (bytes_of_one or isinstance(encoding.scales, Floats)):
            return ""
    if encoding.stays is not None:
        return "a kernel of weights that are kept one by one gains for a single row alone, and none is made"
    return f"no kernel multiplies by weights of {encoding.text}"


def _tiles_unmultiplied(tile: Tile, inner: Encoding) -> str:
    """The same of tiles, each a row of an inner encoding."""
    if vector_of(tile) is None:
        least = VECTORS[-1]
        return f"kernels take blocks of a multiple of {least} outputs or inputs, not of {tile[0]}x{tile[1]}"
    if inner == FLOAT32:
        return ""
    size = tile[0] * tile[1]
    if not isinstance(inner, Blocked):
        return f"no kernel multiplies by blocks of {inner.text}"
    if size % UNIT:
        return f"kernels take blocks of a multiple of {UNIT} codes, not of {tile[0]}x{tile[1]}"
    if inner.scale is not None and (inner.block.rows != 1 or size % (inner.block.columns or 1)):
        return f"kernels take blocks whose scales are by block or by groups that divide it, not {inner.text}"
    return unmultiplied(inner)


def vector_of(tile: Tile) -> tuple[int, int] | None:
    """How many neighbours of a tile are multiplied at once, and along which axis; None if they are too few."""
    found = [(size, axis) for size in VECTORS for axis in (0, 1) if tile[axis] % size == 0]
    return found[0] if found else None


def kernel_encoding(encoding: Leaf, shape: MatrixShape) -> Leaf:
    """An encoding as kernels tell apart: one group a row is a channel, whose scales may be floats of either kind."""
    if isinstance(encoding, Floats) or encoding.scale is None:
        return encoding
    if encoding.block.grid(shape)[1] > 1:
        return Blocked(encoding.grid, Block(1, encoding.block.columns), encoding.scale)
    return Blocked(encoding.grid, CHANNEL, "fp16" if isinstance(encoding.scales, Floats) else encoding.scale)


@dataclass(frozen=True)
class LinearOp(LibraryOp):
    """``y[..., out] = steps(x[..., in] @ decode(weight)[out, in].T)``.

    Args:
        encoding: of the weight: by channel, where scales that are floats count as fp16, or in groups of a multiple of
            32. Of tiles, what each is a row of.
        steps: names of `STEPS`, in order.
        pointwise: the inputs are channels: ``y[n, out, ...] = steps(decode(weight) @ x[n, in, ...])``. A bias is then
            the first step, which adds a number to each channel, and no step is a norm.
        static: ``x`` is rounded to int8 by a step that is an input of the op, before all else: ``input_scale *
            clip(rint(x / input_scale), -128, 127)`` is multiplied.
        tile: outputs and inputs of the tiles of which some are stored; all others are zero. None where there are none.
        beside: the steps of other products of the same ``x``, with weights of their own that are stored alike. Of two,
            the second may have a step with a tensor: that is the result of the first, which then is no output.
    """

    encoding: Leaf
    steps: tuple[str, ...] = ()
    pointwise: bool = False
    static: bool = False
    tile: Tile | None = None
    beside: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.beside:
            self._check_members()
        if self.tile is None:
            self._check_codes()
        elif reason := _tiles_unmultiplied(self.tile, self.encoding):
            raise OpError(reason)
        elif self.pointwise:
            raise OpError("blocks are of linear layers")
        if self.static and (integers(self.encoding) is None or self._scales_within() or self.pointwise):
            raise OpError("activations with a static step meet codes of linear layers with one scale a channel")
        whole = [step for step in self.steps if STEPS[step].whole]
        if len(whole) > 1 or (whole and self.steps[-1] not in whole):
            raise OpError("only the last step may be a norm")
        if KEEP in self.steps and (not whole or self.steps.index(KEEP) != len(self.steps) - 2):
            raise OpError("a value is kept right before the norm")
        if _tensors(self.steps) > MAX_TENSORS:
            raise OpError(f"kernels take at most {MAX_TENSORS} tensors beside the input")
        if self.pointwise and (whole or BIAS in self.steps[1:]):
            raise OpError("a convolution's bias is its first step, and none is a norm")
        if _steps("".join(f"_{step}" for step in self.steps)) != self.steps:
            raise OpError(f"the names of {', '.join(self.steps)} in a row read as other steps")

    def _check_members(self) -> None:
        plain = isinstance(self.encoding, Blocked) and not self.is_float
        if not plain or self.pointwise or self.static or self.tile is not None:
            raise OpError("products of one input are of codes, without a step of what they read")
        first, *others = self.members
        if len(others) >= MAX_MEMBERS or any(STEPS[step].whole for one in self.members for step in one.steps):
            raise OpError(f"up to {MAX_MEMBERS} products of one input are one op, and no norm is behind them")
        if _tensors(first.steps) or sum(_tensors(one.steps) for one in others) > (len(others) == 1):
            raise OpError("of two products the second alone takes a tensor, the result of the first")

    def _scales_within(self) -> bool:
        """The inputs of an output, or of tiles those that lie in one, have several scales."""
        return self.group is not None and (self.tile is None or bool(self.group % self.tile[1]))

    def _check_codes(self) -> None:
        if reason := unmultiplied(self.encoding):
            raise OpError(reason)
        block = self.blocked.block
        by_rows = block.rows == 1 and block.columns % CHUNK == 0
        if not by_rows or self.encoding != kernel_encoding(self.encoding, (1, block.columns * 2 or CHUNK)):
            raise OpError(f"a kernel's scales are by channel or by groups of a multiple of {CHUNK}: {block.text}")

    @property
    def blocked(self) -> Blocked:
        """The encoding where it has codes."""
        assert isinstance(self.encoding, Blocked)
        return self.encoding

    @property
    def group(self) -> int | None:
        """Inputs that share a scale, a multiple of 32; None for all of them, or without scales."""
        return self.encoding.block.columns or None if isinstance(self.encoding, Blocked) else None

    @property
    def is_float(self) -> bool:
        """The weights are bfloat16 numbers, with no codes and no scales."""
        return isinstance(self.encoding, Blocked) and self.encoding.is_float

    @property
    def name(self) -> str:
        """The op's name in domain ``qcc``."""
        kind = "conv1x1" if self.pointwise else "linear"
        others = (word for steps in self.beside for word in (AND, *steps))
        return "_".join((kind, self.stored, *(("static",) if self.static else ()), *self.steps, *others))

    @property
    def members(self) -> tuple["LinearOp", ...]:
        """Its products one by one, each with its steps."""
        return (replace(self, beside=()), *(replace(self, steps=steps, beside=()) for steps in self.beside))

    @property
    def chained(self) -> bool:
        """The second product's steps read the result of the first."""
        return any(_tensors(steps) for steps in self.beside)

    @property
    def stored(self) -> str:
        """How the weight is stored, as the name spells it."""
        return stored_name(self.encoding, self.tile)

    @property
    def weight_inputs(self) -> tuple[str, ...]:
        """The inputs that hold the weight, by name: its codes ``[out, in]`` as planes of bytes, lowest bits first, the
        ``scale [out, groups]`` (float16 or float32, or bytes, rows filled up to multiples of 8) and the ``zero [out,
        groups]`` (int8, where there are zero points); or the bfloat16 ``weight [out, in]``; or the float32 ``values``.
        Of several products those of one after those of another.
        Of tiles a row is one, and behind it stands the ``number [tiles down, tiles across]`` of each, from 1 on, or 0
        for zeros. Behind them the ``input_scale []`` (float32) of a static op.
        """
        stored = [name for name, _ in self._inputs((1, self.group or CHUNK))]
        others = (f"{name}_{AND}{at}" for at in range(1, len(self.beside) + 1) for name in stored)
        return (*stored, *others, *((NUMBER,) * (self.tile is not None)), *(("input_scale",) * self.static))

    def arrays(self, parts: Parts) -> dict[str, np.ndarray]:
        """What these inputs, the last apart, hold of a matrix's parts."""
        if self.tile is not None:
            inner = {name.removeprefix(TILES): part for name, part in parts.items() if name.startswith(TILES)}
            return {**self._leaf_arrays(inner), NUMBER: parts[NUMBER]}
        return self._leaf_arrays(parts)

    @property
    def attributes(self) -> Mapping[str, float]:
        """See `LibraryOp.attributes`."""
        return {"epsilon": 1e-5} if any(STEPS[step].whole for step in self.steps) else {}

    def constants(self) -> Mapping[str, np.ndarray]:
        """See `LibraryOp.constants`: the weight, and the vectors of the steps."""
        outputs = JOINED_ROWS if self.beside else 1 if self.tile is None else self.tile[0]
        return self.ones(outputs, self.group or CHUNK)

    def ones(self, outputs: int, inputs: int) -> Mapping[str, np.ndarray]:
        """The same of so many outputs and inputs; of tiles there is one in any case."""
        if self.tile is None:
            parts = dict(self.encoding.parts((outputs, inputs)))
        else:
            inner = self.encoding.parts((1, self.tile[0] * self.tile[1]))
            parts = {**inside(inner, TILES.rstrip(".")), NUMBER: numbers_below(2, (1, 1))}
        found = self.arrays({name: np.ones(part.shape, part.dtype) for name, part in parts.items()})
        if self.is_float:
            found["weight"] = found["weight"].astype(ml_dtypes.bfloat16)
        found |= {"input_scale": np.ones((), np.float32)} if self.static else {}
        found = dict(zip(self.weight_inputs, [*found.values()] * len(self.members), strict=True))
        return found | {name: np.ones(outputs, np.float32) for name, kind in self.step_inputs if kind == "vector"}

    def _leaf_arrays(self, parts: Parts) -> dict[str, np.ndarray]:
        shape = parts["values" if isinstance(self.encoding, Floats) else "codes"].shape
        return dict(array for name, part in self._parts(shape) for array in _arrays(name, part, parts))

    def _parts(self, shape: tuple[int, ...]) -> Iterator[tuple[str, Part]]:
        """The parts in the order of the inputs: codes first."""
        found = self.encoding.parts((shape[0], shape[1]))
        yield from sorted(found.items(), key=lambda item: item[0] != "codes")

    def _inputs(self, shape: MatrixShape) -> Iterator[tuple[str, Part]]:
        """Names of inputs with the parts that they hold, or hold a plane of."""
        for name, part in self._parts(shape):
            count = len(planes(part.bits)) if name == "codes" and part.dtype is np.uint8 else 1
            for at in range(count):
                yield _input_name(name, part, at), part

    @property
    def step_inputs(self) -> tuple[tuple[str, Operand], ...]:
        """The operands of the steps that are inputs, in order, with names of their own."""
        found = step_inputs(step for steps in (self.steps, *self.beside) for step in steps)
        return tuple(one for one in found if one[1] != "tensor") if self.beside else found

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs in order: ``x``, the weight, the operands of the steps."""
        return ("x", *self.weight_inputs, *(name for name, _ in self.step_inputs))

    @property
    def outputs(self) -> tuple[str, ...]:
        """``y``, and where a step keeps it, the value before the norm; of several products each result that is one."""
        others = () if self.chained else tuple(f"y{at}" for at in range(1, len(self.beside) + 1))
        return ("y", "kept") if KEEP in self.steps else ("y", *others)


def stored_name(encoding: Leaf, tile: Tile | None) -> str:
    """How names spell a weight: what it is stored as, and of tiles, whose rows that is, their extents."""
    return encoding.name if tile is None else f"blocks{tile[0]}x{tile[1]}_{encoding.name}"


def step_inputs(steps: Iterable[str]) -> tuple[tuple[str, Operand], ...]:
    """The operands of steps, in order, with names of their own."""
    found: list[tuple[str, Operand]] = []
    for step in steps:
        for name, kind in STEPS[step].operands:
            count = sum(one.rstrip("0123456789") == name for one, _ in found)
            found.append((f"{name}{count}" if count else name, kind))
    return tuple(found)


def parse(name: str) -> LinearOp:
    """The op that a name stands for.

    Raises:
        OpError: it is no such name.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise OpError(f"`{name}` names no kernel")
    kind, high, wide, stored, static, rest, others = found.groups()
    tile = (int(high), int(wide)) if high else None
    try:
        encoding = FLOAT32 if tile and stored == FLOAT32.name else named(stored)
        beside = tuple(map(_steps, others.split(f"_{AND}")[1:]))
        return LinearOp(encoding, _steps(rest), kind != "linear", bool(static), tile, beside)
    except ValueError as error:
        raise OpError(f"`{name}` names no kernel: {error}") from error


def _tensors(steps: Iterable[str]) -> int:
    return sum(kind == "tensor" for step in steps for _, kind in STEPS[step].operands)


def _input_name(part_name: str, part: Part, plane: int) -> str:
    if part_name != "codes":
        return part_name.partition(".")[0]
    return f"plane{plane}" if part.dtype is np.uint8 else "weight"


def _arrays(name: str, part: Part, parts: Parts) -> Iterator[tuple[str, np.ndarray]]:
    array = parts[name]
    held = pack(row_by_row(array), part.bits) if part.dtype is np.uint8 else (array,)
    yield from ((_input_name(name, part, at), one) for at, one in enumerate(held))


def _steps(names: str) -> tuple[str, ...]:
    return tuple(re.findall(f"_({_WORDS})", names))
