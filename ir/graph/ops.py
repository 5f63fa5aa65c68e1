"""Ops, values, layers and weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from qcc.ir.encoding.value import ValueEncoding
from qcc.ir.graph.names import spellings
from qcc.ir.graph.view import MatrixView

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

    ``function`` is the op's name within its kind, as `Op` has it, also where it lies in a body.

    ``bias`` is the constant vector added to the product, one number a row of the matrix, and ``output`` the value with
    it: the op's own, or that of ``bias_op`` where another op adds it right after. Without a bias, or with one that is
    no such constant (then the op has a third input all the same), ``output`` is the op's own.

    A layer in a branch or loop body is told as one of the op that holds the body, whose kind is another. ``input`` is
    empty where no value of the graph is multiplied: there, and by the weights of a hidden state.

    ``form_free`` is false where the op reads its weight in a way that no fused kernel takes (a transposed activation,
    a weight on the left, a scaled Gemm) or as another matrix than the weight's first layer does: its weight can only be
    replaced by one of equal value.

    ``rounded`` says how ``input`` is encoded, where `Graph.encode_value` made it.
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
    rounded: ValueEncoding | None = None
    function: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The name, and what other exporters of the same model would have made of it."""
        return spellings(self.name)


@dataclass(frozen=True)
class Compressed:
    """How a weight is stored that comes compressed.

    Args:
        text: as the language spells it, as far as it has words for it.
        bits: of a code.
        size_bytes: of all that it is decoded from.
    """

    text: str
    bits: int
    size_bytes: int


@dataclass(frozen=True)
class Weight:
    """A constant read by one or more layers, seen as a matrix ``[out, in]`` (conv: ``[out, in*kh*kw]``).

    ``dtype`` is the type in which layers get it, ``stored`` the one in which it is stored: the same if it is empty.
    ``given`` tells of one that comes compressed; its numbers are what it is decoded to.
    """

    name: str
    constant: str
    view: MatrixView
    dtype: str
    layers: tuple[Layer, ...]
    stored: str = ""
    given: Compressed | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.view.matrix_shape

    @property
    def params(self) -> int:
        """How many numbers it holds."""
        return self.shape[0] * self.shape[1]

    @property
    def stored_bits(self) -> float:
        """Bits of one number as it is stored, with its share of what all rest on."""
        if self.given is not None:
            return 8 * self.given.size_bytes / max(self.params, 1)
        return BITS_OF[self.stored or self.dtype]

    @property
    def size_bytes(self) -> int:
        """The bytes it is stored in."""
        if self.given is not None:
            return self.given.size_bytes
        return self.params * BITS_OF[self.stored or self.dtype] // 8

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of the layers that read it."""
        return frozenset(layer.kind.value for layer in self.layers)

    @property
    def reads(self) -> frozenset[ValueEncoding | None]:
        """How what its layers read is encoded; None for what is not."""
        return frozenset(layer.rounded for layer in self.layers)

    def reading(self, encoding: ValueEncoding | None) -> "Weight":
        """The weight as it is where all that its layers read is encoded so."""
        return replace(self, layers=tuple(replace(layer, rounded=encoding) for layer in self.layers))


@dataclass(frozen=True)
class Resized:
    """Other sizes for a part of a graph: all that changes, so that nothing has to be guessed.

    ``constants`` are arrays of other shapes by name, for all that read them; ``operands`` for one use alone, an op and
    a position in its ``inputs``. ``shapes`` are those of the computed values whose sizes change, and ``attributes``,
    by op, those that count or name channels: ``sizes``, ``starts``, ``ends``, ``groups``.
    """

    constants: Mapping[str, Array] = field(default_factory=dict)
    operands: Mapping[tuple[str, int], Array] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int | str | None, ...]] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, Attribute]] = field(default_factory=dict)
