"""Matrices stored by blocks: the codes of a grid's numbers, and a scale for each block.

A weight ``w`` in a block of scale ``s`` is stored as the code of a number ``n`` of the grid with ``w ~ n * s``; where
there is a zero point ``z``, ``w ~ (n - z) * s``. A scale is stored by an encoding of its own. A grid that reaches as
far as weights do needs none.
"""

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from qcc.ir.discovery import classes, named_once
from qcc.ir.encoding.algebra import Encoding, Fitted, Fitter, MatrixShape, Ops, Part, Read, V, inside, under
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block
from qcc.ir.encoding.format import whole
from qcc.ir.encoding.grid import FLOATS, FORMATS, FloatGrid, Grid, IntGrid, grid_of

PLAIN_NAMES = ("fp16", "fp32")
"""Scales that are floats as they are, in the language's words."""
MAX_BITS = 8  # of integers in a file
_NAME = re.compile(
    r"(?P<grid>[a-z0-9_]+?)(?P<block>_(?:channel|group(?P<group>[1-9]\d*)))?(?P<asym>_asym)?(?:_(?P<scale>[a-z0-9]+))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Floats(Encoding):
    """Floats of one of numpy's types, as they are: most scales, and weights that stay floats beside others."""

    name: Literal["fp16", "fp32"]

    @property
    def text(self) -> str:
        """What the language calls weights like that."""
        return "float" if self.name == "fp32" else self.name

    @property
    def dtype(self) -> type[np.floating]:
        """Numpy's type."""
        return np.float16 if self.name == "fp16" else np.float32

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """The values."""
        return {"values": Part(shape, np.dtype(self.dtype).itemsize * 8, self.dtype)}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """Themselves."""
        return ops.floats(read("values"))

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """Themselves."""
        return ops.floats(read("values"))

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """By the fitter."""
        return fitter.leaf(matrix, self, fitter)

    @property
    def rows_apart(self) -> bool:
        """Each stands for itself."""
        return True

    def turned(self) -> Encoding:
        """The same."""
        return self


@dataclass(frozen=True)
class Blocked(Encoding):
    """Codes with a scale for each block.

    Args:
        grid: the numbers that codes stand for.
        block: the weights that share a scale, and a zero point where there is one.
        scale: how scales are stored: ``fp16``, ``fp32`` or the name of a `Scale`; None for weights that are numbers of
            the grid themselves.

    Raises:
        ValueError: nothing is called like the scale, or it cannot stand beside zero points.
    """

    grid: Grid
    block: Block = CHANNEL
    scale: str | None = "fp16"

    def __post_init__(self) -> None:
        if self.scale is None or self.scale in PLAIN_NAMES:
            return
        if not self.grid.symmetric:
            raise ValueError(f"zero points need scales of {' or '.join(PLAIN_NAMES)}, not {self.scale}")
        try:
            _stored_as(self.scale)
        except KeyError:
            raise ValueError(f"scales are {', '.join((*PLAIN_NAMES, *scales()))}, not {self.scale}") from None

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return self.grid.bits

    @property
    def order(self) -> tuple[int, str]:
        """By the bits of a code."""
        return self.bits, self.text

    @property
    def symmetric(self) -> bool:
        """No zero point is stored."""
        return self.grid.symmetric

    @property
    def text(self) -> str:
        """As the language spells it, every parameter named."""
        if self.scale is None:
            return self.grid.text
        words = (self.grid.text, self.block.text, self.grid.symmetry, f"scale {self.scale}")
        return " ".join(word for word in words if word)

    @property
    def name(self) -> str:
        """As names of functions and kernels spell it, of channels and groups: scales of fp16 go without saying.

        `named` reads it back.
        """
        block = "" if self.scale is None else "channel" if self.block == CHANNEL else f"group{self.block.columns}"
        asym = "asym" if self.grid.symmetry == "asym" else ""
        scale = "" if self.scale in (None, "fp16") else self.scale
        return "_".join(word for word in (self.grid.name, block, asym, scale) if word)

    @property
    def kind(self) -> str:
        """What its codes are, however they are blocked: ``int4 sym``, ``nf4``."""
        return " ".join(word for word in (self.grid.text, self.grid.symmetry) if word)

    @property
    def is_float(self) -> bool:
        """The weights are floats of a type of their own, with no scales."""
        return self.scale is None and isinstance(self.grid, FloatGrid)

    @property
    def scales(self) -> Encoding:
        """How scales are stored, of an encoding that has some."""
        assert self.scale is not None
        return _stored_as(self.scale)

    @property
    def signed_scales(self) -> bool:
        """A scale may be negative, so that the one level that only one side has is where a block needs it."""
        kept = self.scales
        if isinstance(kept, Floats):
            return True
        lopsided = self.grid.lowest != -self.grid.highest
        return lopsided and isinstance(kept, Blocked) and kept.grid.lowest < 0

    @property
    def undecodable(self) -> str:
        """In a file floats are those of ONNX's own types, without scales, and integers have up to 8 bits and scales."""
        grid = self.grid
        if isinstance(grid, FloatGrid):
            known = self in FLOAT_ENCODINGS.values()
            return "" if known else f"no form holds {self.text}: floats are stored as {' or '.join(FLOAT_ENCODINGS)}"
        least = 2 if grid.symmetric else 1  # a single bit around its zero would leave one number
        if isinstance(grid, IntGrid) and not least <= grid.bits <= MAX_BITS:
            return f"no form holds integers of {grid.bits} bits, only of {least} to {MAX_BITS}"
        return "" if self.scale else f"no form holds {self.text} without scales"

    @property
    def rows_apart(self) -> bool:
        """No block spans rows, or the whole matrix is one."""
        return self.block.rows == 1 or self.scale is None or self.block == TENSOR

    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """Scales, zero points and codes."""
        floats = self.grid.text if isinstance(self.grid, FloatGrid) else ""
        codes = {"codes": Part(shape, self.grid.bits, self.grid.dtype, floats)}
        if self.scale is None:
            return codes
        blocks = self.block.grid(shape)
        zero = {} if self.symmetric else {"zero": Part(blocks, 8, np.int8)}
        of_blocks = {**inside(self.scales.parts(blocks), "scale"), **zero}
        return {**(whole(of_blocks) if self.block == TENSOR else of_blocks), **codes}

    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """``(number - zero) * scale``, block by block."""
        if self.scale is None:
            return ops.numbers(read("codes"), self.grid, shape)
        blocks, size = self.block.grid(shape), self.block.of(shape)
        divides = self.block.divides(shape)

        def over(value: V) -> V:
            """A value a block, in a shape that broadcasts over the codes with their blocks apart."""
            if divides:
                return ops.apart(value, (1, 3))
            for axis in (0, 1):
                if blocks[axis] > 1 and size[axis] > 1:
                    value = ops.spread(value, axis, size[axis], shape[axis])
            return value

        scale = over(ops.decode(self.scales, under(read, "scale"), blocks))
        zero = None if self.symmetric else over(read("zero"))
        apart = (blocks[0], size[0], blocks[1], size[1]) if divides else shape
        return ops.scaled(read("codes"), self.grid, zero, scale, apart, shape)

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The same with the groups of each row apart."""
        columns = shape[1]
        if self.scale is None:
            return ops.numbers(read("codes"), self.grid, (*lead, columns))
        size = self.block.of((1, columns))[1]
        count = -(-columns // size)
        divides = columns % size == 0

        def over(value: V) -> V:
            if count == 1 or self.block == TENSOR:
                return value
            return ops.apart(value, (-1,)) if divides else ops.spread(value, -1, size, columns)

        held = under(read, "scale")
        lone = self.block == TENSOR  # one scale, whatever rows are asked for
        of_rows = (shape[0], count)
        scale = ops.decode(self.scales, held, (1, 1)) if lone else ops.decode_rows(self.scales, held, lead, of_rows)
        scale = over(scale)
        zero = None if self.symmetric else over(read("zero"))
        apart = (*lead, count, size) if divides and count > 1 else (*lead, columns)
        return ops.scaled(read("codes"), self.grid, zero, scale, apart, (*lead, columns))

    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """By the fitter."""
        return fitter.leaf(matrix, self, fitter)

    def turned(self) -> "Blocked | None":
        """With its blocks on their sides, where scales go by the same name when they are turned."""
        if self.scale is not None and self.scales.turned() != self.scales:
            return None
        return Blocked(self.grid, Block(self.block.columns, self.block.rows), self.scale)


def named(name: str) -> Blocked:
    """The encoding that a `Blocked.name` stands for.

    Raises:
        ValueError: it is no such name.
    """
    found = _NAME.fullmatch(name)
    grid = found and grid_of(found["grid"], not found["asym"])
    if not found or grid is None:
        raise ValueError(f"`{name}` names no encoding")
    scale = found["scale"] or "fp16"
    block = Block(1, int(found["group"])) if found["group"] else CHANNEL
    encoding = Blocked(grid, block, scale if found["block"] else None)
    if encoding.name != name:
        raise ValueError(f"`{name}` names no encoding, but `{encoding.name}` does")
    return encoding


def integers(encoding: Encoding) -> Blocked | None:
    """The encoding, if it is integers by blocks whose scales are plain floats: what fused forms and kernels read."""
    if isinstance(encoding, Blocked) and isinstance(encoding.grid, IntGrid) and encoding.scale is not None:
        return encoding if isinstance(encoding.scales, Floats) and encoding.bits > 1 else None
    return None


FLOAT32 = Floats("fp32")
"""What the language calls ``float``, as a part of an encoding."""

FLOAT_ENCODINGS = {name: Blocked(grid, scale=None) for name, grid in FLOATS.items()}
"""Floats without scales, by their names in the language."""

PLAIN: Mapping[str, Floats] = {"fp16": Floats("fp16"), "fp32": FLOAT32}


class Scale(ABC):
    """A way to store the scales of blocks, beside plain floats. The docstring says what it is.

    One that a module of the folder of formats holds is found there; nothing registers it.
    """

    name: ClassVar[str]
    """The language's word behind ``scale``."""

    @abstractmethod
    def encoding(self) -> Encoding:
        """How the scales ``[blocks down, blocks across]``, are stored: none is negative where that has no sign."""


def scales() -> dict[str, Scale]:
    """Every way to store scales beside plain floats, by its name."""
    found = classes(importlib.import_module(FORMATS), Scale)  # type: ignore[type-abstract]  # concrete ones
    return named_once(one() for one in found)


@lru_cache
def _stored_as(scale: str) -> Encoding:
    """How scales of a name are stored.

    Raises:
        KeyError: nothing is called so; not kept, as a folder that is being imported may yet hold it.
    """
    return PLAIN.get(scale) or scales()[scale].encoding()
