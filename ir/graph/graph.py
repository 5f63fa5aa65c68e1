"""The Graph face: what a pass may see of a network and do to it, whatever framework holds it.

A graph is a list of ops in topological order that read and write named values; some values are constants. A *layer* is
an op that reads a weight, and a *weight* is one constant with all the layers that read it: it is the unit that
is encoded, so that a table tied between an embedding and a head is encoded, and stored, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from qcc.ir.encoding.cached.kept import CacheForm, StoredRows
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.value import EncodedValue
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, AttentionForm
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Array, Feeds, Op, Resized, Value, Weight
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.op import LinearOp
from qcc.ir.kernel.region import NO_REGIONS, Region
from qcc.ir.vocabulary.tabled import Tabled

Readers = Sequence[tuple[str, int]] | None
"""Ops and positions in their ``inputs``."""


class Runner(Protocol):
    """A prepared piece of the graph: feeds by value name in, results by value name out."""

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Run once."""


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
    def insert(self, function: str, value: str, array: Array, readers: Readers = None, name: str = "") -> str:
        """Put an op behind a value, and let readers of the value read the result instead.

        Args:
            function: ``mul`` for ``value * array`` and ``add`` for ``value + array``, which broadcast as numpy does;
                ``gather`` for ``value[..., array]``, ``linear`` for ``value @ array``, a layer.
            value: the value's name.
            array: of the value's type; for ``gather`` one row of int64, counted from the front of the last axis.
            readers: ops and positions in their ``inputs``; None for all, the graph's outputs included. An output keeps
                its name: the new value takes it over, and the old one, and maybe the op that makes it, get others.
            name: of a layer; one after the value's by default.

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
            Refused: it has no such input, several used outputs, or one of another type; nothing has changed.
        """

    @abstractmethod
    def use_constant(self, op: str, position: int, name: str) -> None:
        """Let an op read a constant that there is, in place of what it reads: it is how one array is stored once.

        What it read before goes, if that is a constant that nobody else reads.

        Raises:
            Refused: there is no such constant, or the op takes none there, or another type; nothing has changed.
        """

    @abstractmethod
    def remove(self, value: str, instead: str) -> None:
        """Leave a part of the graph out: all that reads a value reads another, and what only the first needed goes.

        An output of the graph keeps its name, as in `bypass`.

        Args:
            value: of the part's end.
            instead: which is of the same type and shape, and does not depend on the value.

        Raises:
            Refused: it is of another type or shape, or depends on the value; nothing has changed.
        """

    @abstractmethod
    def replace_region(self, value: str, source: str, matrix: Array, bias: Array | None = None, name: str = "") -> str:
        """Make a value by one product of another, ``source @ matrix + bias``; what only its old making needed goes.

        Args:
            value: of the region's end; an output of the graph keeps its name.
            source: which does not depend on the value.
            matrix: ``[in, out]``, of the value's type.
            bias: ``[out]``.
            name: of the layer; the value's by default.

        Returns:
            The name of the matrix's constant.

        Raises:
            Refused: source, matrix, bias and value do not go together; nothing has changed.
        """

    @abstractmethod
    def resize(self, resized: Resized) -> None:
        """Give constants and values other sizes, and the ops between them attributes that fit.

        Raises:
            Refused: an op cannot say it, or the sizes that follow are others; nothing has changed.
        """

    @abstractmethod
    def between(self, inputs: Sequence[str], outputs: Sequence[str]) -> Self:
        """The part of the graph between some values, as a graph of its own: it is fed the first and returns the last.

        It is how a graph gets another input or output, or loses one. What is fed and was computed keeps its name;
        what no output depends on goes.

        Raises:
            Refused: a value is a constant, named twice, fed and returned, or an output depends on one not fed.
        """

    @abstractmethod
    def retype(self, value: str, dtype: str) -> None:
        """Feed an input, or return an output, in another type: it is cast to the type that it has, or from it.

        Args:
            value: an input's or an output's name, which it keeps.
            dtype: numpy's name.

        Raises:
            Refused: it is neither, or no such type can be cast; nothing has changed.
        """

    def split(self, values: Sequence[str]) -> tuple[Self, Self]:
        """The graph cut in two at values: what computes them, and what computes the outputs of them.

        Both read what they need of the inputs.

        Raises:
            Refused: a value is fed, or returned, or a constant.
        """
        fed, returned = [one.name for one in self.inputs], [one.name for one in self.outputs]
        if wrong := [name for name in values if name in fed or name in returned or self.constant(name) is not None]:
            raise Refused(f"`{wrong[0]}` is fed, returned or a constant: nothing is computed on both sides of it")
        before, after = needed(self, values), needed(self, returned, values)
        first = self.between([name for name in fed if name in before], values)
        return first, self.between([*(name for name in fed if name in after), *values], returned)

    def castable(self, dtype: str) -> frozenset[str]:
        """The ops that read or make float32 and could do so in another float type; by default none.

        Among them are those that read numbers and look only at their shapes.

        Args:
            dtype: numpy's name of the type.
        """
        return frozenset()

    def cast(self, ops: Collection[str], dtype: str) -> int:
        """Let ops compute in another float type than float32.

        What they read that is made elsewhere is cast, as is what others read that they make, each value once. Their
        constants become constants of that type. What the graph is fed and returns keeps its type.

        Args:
            ops: of those that are `castable`.
            dtype: numpy's name of the type.

        Returns:
            How many casts there are.

        Raises:
            Refused: an op cannot; nothing has changed.
        """
        raise Refused("this kind of graph computes in the types that it has")

    def write_attention(self, one: Attention, how: AttentionForm) -> None:
        """Compute an attention in another way; what only its old making needed goes.

        Raises:
            Refused: this kind of graph cannot, or not this attention; nothing has changed.
        """
        raise Refused("this kind of graph has no op for it")

    def write_tabled(self, one: Tabled) -> None:
        """Make a value with a table; it keeps its name, and what only its old making needed goes.

        Raises:
            Refused: this kind of graph has no ops for it; nothing has changed.
        """
        raise Refused("this kind of graph looks nothing up")

    def store_cache(self, one: Attention, keys: StoredRows, values: StoredRows, how: CacheForm = "decoded") -> None:
        """Let keys or values of earlier runs, and what is fed and returned in their place, be codes, or fewer.

        Raises:
            Refused: there are none, others see what they hold, or no op takes them so; nothing has changed.
        """
        raise Refused("this kind of graph keeps nothing from run to run")

    @abstractmethod
    def encode_value(self, value: str, encoded: EncodedValue, readers: Sequence[tuple[str, int]] | None = None) -> str:
        """Let readers of a value read it rounded, and others as it is; the name of the rounded one.

        Layers among the readers know it (`Layer.rounded`). Where others read it so already, they read what those do.

        Args:
            value: the value's name; a float32 tensor, whose last axis are the channels.
            encoded: how it is rounded.
            readers: ops and positions in their ``inputs``; None for all, also outputs, which keep their names.

        Raises:
            Refused: a reader does not read it, not all can read it so, or no graph rounds so; nothing has changed.
        """

    @abstractmethod
    def multiply_rounded(self, value: str) -> None:
        """Let what makes a value, a product of two computed ones, multiply integers by steps of rows and of columns.

        Raises:
            Refused: it is none, or not of float32; nothing has changed.
        """

    @abstractmethod
    def encoded_values(self) -> Mapping[str, EncodedValue]:
        """How values are read rounded, by all or by some: by the names of those values, and of the rounded ones."""

    @abstractmethod
    def encode(
        self, weight: Weight, encoded: Encoded, form: Form, regions: Mapping[str, Region] = NO_REGIONS
    ) -> tuple[LinearOp, ...]:
        """Replace a weight by its encoded form; the kernel ops that were written for it.

        Args:
            weight: the weight; what its layers read may be encoded too (`encode_value`).
            encoded: its codes and scales.
            form: where the decoding happens.
            regions: what kernels do beside the products of the weight's layers, by the layers' names (`regions`).

        Raises:
            Refused: the form cannot hold this weight.
        """

    def join_products(self) -> Sequence[tuple[KernelOp, tuple[LinearOp, ...]]]:
        """Make one op of kernel ops that read one value, or each other; what each node made calls and stands for."""
        return ()

    def chain(self, serves: Callable[[KernelOp], bool]) -> tuple[KernelOp, ...]:
        """Let kernels that ``serves`` knows hand on bytes of convolutions, or meet blocks of attentions; an op each."""
        return ()

    @abstractmethod
    def runner(
        self, inputs: Sequence[str], outputs: Sequence[str], free: Iterable[str] = (), optimise: bool = True
    ) -> Runner:
        """Prepare the part of the graph between some values.

        Args:
            inputs: the values fed: all that the ``outputs`` depend on, constants aside.
            free: constants that a feed may override from run to run.
            optimise: the runtime may put other ops in the place of the graph's; else each runs as it is written.
        """

    def encode_inputs(self, weight: Weight, encoded: EncodedValue) -> Weight:
        """Encode what a weight's linear layers read, or raise what `encode_value` does; the weight as it is then."""
        names: dict[str, str] = {}
        for value in dict.fromkeys(layer.input for layer in weight.layers):
            readers = [(layer.op, 0) for layer in weight.layers if layer.input == value]
            names[value] = self.encode_value(value, encoded, readers)
        layers = (replace(layer, input=names[layer.input], rounded=encoded.encoding) for layer in weight.layers)
        return replace(weight, layers=tuple(layers))

    def spill(self, path: Path) -> None:  # noqa: B027 - one that lies in memory may stay there
        """Let what encoding makes, of copies too, lie in a file that lives as long as the graph, not in memory."""

    @abstractmethod
    def digest(self) -> str:
        """A hash of all that the graph computes with: its ops, its constants and their names."""

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
        with np.errstate(over="ignore"):
            return np.asarray(array, old.dtype, order="C")

    def replace_matrix(self, weight: Weight, matrix: Array) -> None:
        """Give a weight another matrix ``[out, in]``.

        Raises:
            Refused: the constant cannot be read.
        """
        self.replace_constant(weight.constant, self.as_constant(weight, matrix))


def needed(graph: Graph, outputs: Iterable[str], known: Iterable[str] = ()) -> frozenset[str]:
    """All values that some depend on, themselves among them, where others are ``known`` and depend on nothing."""
    makers = {name: op for op in graph.ops() for name in op.outputs}
    found, todo, ends = set[str](), list(outputs), set(known)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        todo += [one for one in makers[name].inputs if one] if name in makers and name not in ends else []
    return frozenset(found)
