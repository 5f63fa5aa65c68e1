"""The Graph face: what a pass may see of a network and do to it, whatever framework holds it.

A graph is a list of ops in topological order that read and write named values; some values are constants. A *layer* is
an op that reads a weight, and a *weight* is one constant with all the layers that read it: it is the unit that
is encoded, so that a table tied between an embedding and a head is encoded, and stored, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self

import numpy as np

from qcc.ir.encoding import Encoded
from qcc.ir.errors import Refused
from qcc.ir.forms import Form
from qcc.ir.region import NO_REGIONS, Region
from qcc.ir.view import MatrixView

Array = np.ndarray
Feeds = Mapping[str, Array]
Attribute = int | float | str | tuple[int, ...]
BITS_OF = {"float32": 32, "float16": 16, "bfloat16": 16, "float64": 64}


class Kind(StrEnum):
    """The canonical kinds of op; a framework's ops that fit none are ``OTHER`` and opaque."""

    LINEAR = "linear"
    CONV = "conv"
    EMBEDDING = "embedding"
    RECURRENT = "recurrent"
    MATMUL = "matmul"
    ELEMENTWISE = "elementwise"
    BINARY = "binary"
    NORM = "norm"
    SOFTMAX = "softmax"
    ATTENTION = "attention"
    RESHAPE = "reshape"
    TRANSPOSE = "transpose"
    CONCAT = "concat"
    SPLIT = "split"
    GATHER = "gather"
    POOL = "pool"
    REDUCE = "reduce"
    CONSTANT = "constant"
    OTHER = "other"


LAYER_KINDS = (Kind.LINEAR, Kind.CONV, Kind.EMBEDDING, Kind.RECURRENT)


@dataclass(frozen=True)
class Value:
    """A tensor that flows through the graph.

    ``shape`` is None where the rank is unknown; a dimension is a number, a symbol, or None where unknown.
    ``dtype`` is numpy's name (``float32``, ``int64``, ``bfloat16``). ``container`` says what holds such tensors:
    ``sequence``, ``optional`` or ``map``; nothing for a tensor alone, which is the rule.
    """

    name: str
    shape: tuple[int | str | None, ...] | None
    dtype: str
    container: str = ""


@dataclass(frozen=True)
class Op:
    """One operation.

    ``function`` is its name within the kind and ``attributes`` what it does beside (`functions` lists both); an
    opaque op has its framework's name and no attributes. ``inputs`` stand in one order in every framework: a linear
    op's are what it reads, weight and bias as written; those of a reshape, slice, split, pad or reduction are what it
    works on and then, where the framework keeps them as values, its sizes. An optional input left out is empty. The
    numbers that arithmetic is done with are inputs too: constants without axes. What branches and loop bodies read from
    around them counts among the inputs of the op that they belong to.
    """

    name: str
    kind: Kind
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Layer:
    """An op that reads a weight.

    ``bias`` is the constant vector added to the product, one number a row of the matrix, and ``output`` the value with
    it: the op's own, or that of ``bias_op`` where another op adds it right after. Without a bias, or with one that is
    no such constant (then the op has a third input all the same), ``output`` is the op's own.

    A layer in a branch or loop body is told as one of the op that holds the body, whose kind is another. ``input`` is
    empty where no value of the graph is multiplied: there, and by the weights of a hidden state.

    ``form_free`` is false where the op reads its weight in a way that no fused kernel takes (a transposed activation,
    a weight on the left, a scaled Gemm) or as another matrix than the weight's first layer does: its weight can only be
    replaced by one of equal value.
    """

    name: str
    kind: Kind
    op: str
    weight: str
    input: str
    output: str
    groups: int = 1
    kernel: tuple[int, ...] = ()
    form_free: bool = True
    bias: str | None = None
    bias_op: str | None = None


@dataclass(frozen=True)
class Weight:
    """A constant read by one or more layers, seen as a matrix ``[out, in]`` (conv: ``[out, in*kh*kw]``).

    ``dtype`` is the type in which layers get it, ``stored`` the one in which it is stored: the same if it is empty.
    """

    name: str
    constant: str
    view: MatrixView
    dtype: str
    layers: tuple[Layer, ...]
    stored: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.view.matrix_shape

    @property
    def params(self) -> int:
        """How many numbers it holds."""
        return self.shape[0] * self.shape[1]

    @property
    def stored_bits(self) -> int:
        """Bits of one number as it is stored."""
        return BITS_OF[self.stored or self.dtype]

    @property
    def size_bytes(self) -> int:
        """The bytes it is stored in."""
        return self.params * self.stored_bits // 8

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of the layers that read it."""
        return frozenset(layer.kind.value for layer in self.layers)


class Runner(Protocol):
    """A prepared piece of the graph: feeds by value name in, results by value name out."""

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once."""
        ...


class Graph(ABC):
    """A network. Adapters implement it over a framework's own graph; passes see nothing else."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Value, ...]:
        """What the caller feeds, constants excluded."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Value, ...]:
        """What the caller gets."""

    @abstractmethod
    def ops(self) -> tuple[Op, ...]:
        """All ops in topological order; constants are not ops."""

    @abstractmethod
    def value(self, name: str) -> Value:
        """The type of a value."""

    @abstractmethod
    def constant(self, name: str) -> Array | None:
        """A constant's array, read-only and possibly mapped from disk; None if the value is computed.

        A number in a framework's call is a constant too, without axes.
        """

    @abstractmethod
    def weights(self) -> tuple[Weight, ...]:
        """The weights in the order in which their first layers run."""

    @abstractmethod
    def copy(self) -> Self:
        """A graph that can be edited without touching this one; constants are shared, not copied."""

    @abstractmethod
    def simplify(self) -> list[str]:
        """Remove what cannot change the function (dead and duplicate code, metadata); one line per kind of edit."""

    @abstractmethod
    def replace_constant(self, name: str, array: Array) -> None:
        """Give a constant another value of the same shape and dtype."""

    @abstractmethod
    def set_operand(self, op: str, position: int, array: Array) -> str:
        """Let an op read a new constant of its own in place of what it reads, or where it reads nothing yet.

        Only this one use changes: it is how one reader of a shared constant gets another, and how a convolution gets
        a bias. A constant that nobody reads any more goes. Layers keep their names, through all edits.

        Args:
            op: the op's name.
            position: in its ``inputs``; behind them for an optional operand that is left out.
            array: the constant, in the layout in which the op reads it; of any shape, but of the type that it replaces.
                What the op makes, and all behind it, keep the shapes that are written down for them.

        Returns:
            The constant's name.

        Raises:
            Refused: the op takes no such operand there; nothing has changed.
        """

    @abstractmethod
    def insert(self, function: str, value: str, array: Array, readers: Sequence[tuple[str, int]] | None = None) -> str:
        """Put an op behind a value, and let readers of the value read the result instead.

        Args:
            function: ``mul`` for ``value * array`` and ``add`` for ``value + array``, which broadcast as numpy does;
                ``gather`` for ``value[..., array]``.
            value: the value's name.
            array: of the value's type; for ``gather`` one row of int64, counted from the front of the last axis.
            readers: ops and positions in their ``inputs``; None for all, the graph's outputs included. An output keeps
                its name: the new value takes it over, and the old one, and maybe the op that makes it, get others.

        Returns:
            The new value's name.

        Raises:
            Refused: array and value do not go together, a reader does not read the value, or the value is an output
                whose name it cannot leave, being fed or a constant; nothing has changed.
        """

    @abstractmethod
    def bypass(self, op: str, position: int = 0) -> None:
        """Leave an op out: readers of its only used output read what it reads at a position instead.

        The op goes, and so do constants that nobody reads any more. An output of the graph keeps its name, which its
        new value takes over, and maybe the op that makes that; where that value is fed, a constant or an output
        already, a copy of it stays in the op's place.

        Raises:
            Refused: the op has no such input, several used outputs, or one of another type than its input; nothing has
                changed.
        """

    @abstractmethod
    def encode(self, weight: Weight, encoded: Encoded, form: Form, regions: Mapping[str, Region] = NO_REGIONS) -> None:
        """Replace a weight by its encoded form.

        Args:
            weight: the weight.
            encoded: its codes and scales.
            form: where the decoding happens.
            regions: what kernels do beside the products of the weight's layers, by the layers' names (`regions`).

        Raises:
            Refused: the form cannot hold this weight.
        """

    @abstractmethod
    def runner(self, inputs: Sequence[str], outputs: Sequence[str], free: Iterable[str] = ()) -> Runner:
        """Prepare the part of the graph between some values.

        Args:
            inputs: the values fed; all that the outputs depend on, constants aside.
            outputs: the values wanted.
            free: constants that a feed may override from run to run.
        """

    def matrix(self, weight: Weight) -> Array:
        """A weight as a float32 matrix ``[out, in]``; what float32 cannot hold becomes infinite.

        Raises:
            Refused: the constant cannot be read.
        """
        array = self.constant(weight.constant)
        if array is None:
            raise Refused(f"`{weight.constant}` is not a constant")
        with np.errstate(over="ignore"):
            return weight.view.matrix(array).astype(np.float32, copy=False)

    def as_constant(self, weight: Weight, matrix: Array) -> Array:
        """A matrix ``[out, in]`` as the weight's constant would hold it: shape, order and dtype.

        Raises:
            Refused: the constant cannot be read.
        """
        old = self.constant(weight.constant)
        if old is None:
            raise Refused(f"`{weight.constant}` is not a constant")
        array = weight.view.array(matrix).reshape(old.shape)
        return np.ascontiguousarray(array).astype(old.dtype, copy=False)

    def replace_matrix(self, weight: Weight, matrix: Array) -> None:
        """Give a weight another matrix ``[out, in]``.

        Raises:
            Refused: the constant cannot be read.
        """
        self.replace_constant(weight.constant, self.as_constant(weight, matrix))
