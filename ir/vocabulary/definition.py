"""What a definition of an op is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from qcc.ir.vocabulary.arithmetic import NUMPY_ARITHMETIC

Operand = Literal["", "vector", "tensor"]
Lines = list[str]
StepLines = Callable[[str, str, Sequence[str], int], Lines]
"""Lines of ONNX that make the second value of the first with operands, in an opset; other names begin as the second."""
Formula = Callable[..., Any]
"""What a step makes of a value and its operands, in the operations of an `Arithmetic`, which comes first."""


@dataclass(frozen=True)
class Real:
    """An attribute that is a number, in ONNX of the same name.

    Args:
        name: of it.
        default: ONNX's.
        aten: the argument in ATen, or the number that it always is there.
    """

    name: str
    default: float
    aten: str | float = ""


@dataclass(frozen=True)
class WordAttribute:
    """An attribute that is a word, of the same name in both frameworks.

    Args:
        name: of it.
        default: ONNX's.
    """

    name: str
    default: str


@dataclass(frozen=True)
class EpilogueStep:
    """What a kernel op may do to the product ``v [..., out]`` afterwards.

    A step is a formula for single values, or a norm over all of a row: so only the step ``keep`` may precede a norm
    within the last steps, and none follow.

    Args:
        name: of the step, a part of kernel ops' names.
        formula: of a step on single values.
        operands: what it takes beside ``v``: vectors ``[out]`` that are constants, or tensors of the shape of ``v``.
        centred: of a norm: the mean of a row comes off first. None for what is no norm.
        lines: how ONNX says it; by default as the formula does, op by op.
    """

    name: str
    formula: Formula | None = None
    operands: tuple[tuple[str, Operand], ...] = ()
    centred: bool | None = None
    lines: StepLines | None = None

    @property
    def whole(self) -> bool:
        """It needs all of a row at once."""
        return self.centred is not None

    @property
    def activates(self) -> bool:
        """It is a function of single values and nothing else."""
        return self.formula is not None and not self.operands

    def applied(self, values: np.ndarray) -> np.ndarray:
        """An activation of these values, in their type."""
        assert self.formula is not None
        return np.asarray(self.formula(NUMPY_ARITHMETIC, values))

    def normalised(self, rows: np.ndarray, epsilon: float) -> np.ndarray:
        """A norm of the last axis, before gain and shift."""
        centre = rows.mean(-1, keepdims=True) if self.centred else 0.0
        rest = rows - centre
        return np.asarray(rest / np.sqrt((rest * rest).mean(-1, keepdims=True) + epsilon))


def node(text: str) -> StepLines:
    """One ONNX op on the value and the operands, with its attributes behind its name."""
    name, _, attributes = text.partition(" ")
    return lambda v, y, operands, _: [f"{y} = {name} {attributes} ({', '.join((v, *operands))})"]


def number(name: str, value: float) -> str:
    """A line that makes a constant."""
    return f"{name} = Constant <value_float: float = {value!r}> ()"


@dataclass(frozen=True)
class OpDef:
    """An op that the project knows. Whoever needs to know of it reads it off here.

    Args:
        kind: a `Kind`'s value.
        function: its canonical name within the kind.
        attributes: the canonical attributes (`functions` says what they are), those that both frameworks keep as they
            are; others are read by code of each adapter.
        read: names of those others.
        onnx: the names of ONNX ops that are it.
        aten: the names of ATen ops that are it, ``name.overload`` where that matters.
        onnx_only: ONNX attributes that the op does not have, and what they are then; another number makes it opaque.
        aten_only: the same for arguments of ATen.
        law: what it does to the numbers along the axes that it passes on (`Law`).
        affine: in which operands it is affine where the others are constants: its first, any one, or all together.
        integer: runtimes have it for whole numbers: it ``computes`` others, or ``moves`` those of its first operand.
        over: of a norm: what it is over.
        plain: it may be a part of a piece of plain arithmetic, which is told by what it computes.
        steps: what kernels may do of it behind a product.
    """

    kind: str
    function: str
    attributes: tuple[Real | WordAttribute, ...] = ()
    read: str = ""
    onnx: str = ""
    aten: str = ""
    onnx_only: Mapping[str, float] = field(default_factory=dict, hash=False)
    aten_only: Mapping[str, float] = field(default_factory=dict, hash=False)
    law: Literal["linear", "homogeneous", "normalised", "squared", "other"] = "other"
    affine: Literal["", "first", "one", "all"] = ""
    integer: Literal["", "computes", "moves"] = ""
    over: Literal["", "last", "batch", "group", "instance", "one"] = ""
    plain: bool = False
    steps: tuple[EpilogueStep, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Of all attributes."""
        return frozenset((*(one.name for one in self.attributes), *self.read.split()))
