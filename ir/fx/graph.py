"""The Graph face over PyTorch: the ATen graph of ``torch.export``."""

# ruff: noqa: D102 - the face documents the methods that it asks for

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.value import EncodedValue
from qcc.ir.errors import Refused
from qcc.ir.fx.attributes import attributes
from qcc.ir.fx.edits.edit import FxEditor
from qcc.ir.fx.edits.fold import fold_constants
from qcc.ir.fx.edits.norms import fold_batch_norms
from qcc.ir.fx.edits.pieces import slice_constants
from qcc.ir.fx.edits.resize import FxResizer
from qcc.ir.fx.edits.simplify import is_item, remove_identities, share_items
from qcc.ir.fx.edits.spelled import respell
from qcc.ir.fx.edits.values import ROUNDED, carry, multiply_rounded, write_rounded
from qcc.ir.fx.emit.assemble import Compact, Sources, assemble
from qcc.ir.fx.kinds import aten_name, is_check, kind_of
from qcc.ir.fx.layers import find_weights, told_of_rounding
from qcc.ir.fx.operands import CallNumber, operands
from qcc.ir.fx.program import constants, content, export_module, fed, memory, paths, pure, returned, tie, twin
from qcc.ir.fx.run import FxRunner, extract
from qcc.ir.fx.tensors import dtype_name, to_array, to_tensor, torch_dtype
from qcc.ir.graph.attributes import Attributes, Opaque
from qcc.ir.graph.edits import (
    check_borders,
    check_bypass,
    check_constant,
    check_insert,
    check_instead,
    check_product,
    check_region,
    check_type,
    check_value,
    keep_names,
    layer_names,
    operand_name,
)
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph, Readers, Runner
from qcc.ir.graph.ops import Array, Kind, Layer, Op, Resized, Value, Weight
from qcc.ir.graph.resized import check_resized, sized_ops
from qcc.ir.kernel.op import LinearOp
from qcc.ir.kernel.region import NO_REGIONS, Region

BIAS = 2  # the place of a bias among what a layer's op reads
LAYER = "qcc_layer"  # metadata of a node: what its layer is called, however its weight is


class FxGraph(Graph):
    """An exported PyTorch program; the module and program that it came from are never changed.

    ``encoded`` and ``forms`` keep what `encode` was given, by weight; the graph computes with the decoded values, and
    what is encoded is no longer among its weights.

    Raises:
        ModelError: the program writes to its own state, or holds things other than tensors.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._program = pure(program)
        self._graph, nodes = twin(self._program.graph)
        held = constants(self._program)
        self._tensors = {nodes[node]: tensor for node, tensor in held.items()}
        self.encoded: dict[str, Encoded] = {}
        self.forms: dict[str, Form] = {}
        self._encoded_values: dict[str, EncodedValue] = {}
        self._weights: tuple[Weight, ...] | None = None
        self._paths = {nodes[node]: path for node, path in paths(self._program, held).items()}
        self._aliases = tie(self._tensors, memory)
        self._fed, self._returned = tuple(nodes[node] for node in fed(self._program)), returned(self._program)
        share_items(self._graph)
        self._index()

    @classmethod
    def export(
        cls,
        module: torch.nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        dynamic_shapes: Any = None,  # noqa: ANN401 - torch accepts nested dicts, tuples and lists
    ) -> "FxGraph":
        """Export a module as it runs in evaluation; the arguments are ``torch.export.export``'s.

        Raises:
            ModelError: torch cannot export it.
        """
        return cls(export_module(module, args, kwargs, dynamic_shapes))

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(self.value(node.name) for node in self._fed)

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(self.value(self._names[node]) for node in self._results())

    def ops(self) -> tuple[Op, ...]:
        layers = {layer.op: layer.kind for weight in self.weights() for layer in weight.layers}
        nodes = (node for node in self._graph.nodes if node.op == "call_function" and not is_item(node))
        return tuple(self._op(node, layers.get(node.name)) for node in nodes)

    def value(self, name: str) -> Value:
        if name in self._numbers:
            return Value(name, (), self._numbers[name].dtype.name)
        value = self._nodes[name].meta.get("val")
        if not isinstance(value, torch.Tensor):
            return Value(name, (), "float64" if isinstance(value, (float, torch.SymFloat)) else "int64")
        shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
        return Value(name, shape, dtype_name(value.dtype))

    def constant(self, name: str) -> Array | None:
        if name in self._numbers:
            return self._numbers[name]
        tensor = self._tensors.get(self._nodes[name]) if name in self._nodes else None
        if tensor is None:
            return None
        array = to_array(tensor)
        array.flags.writeable = False
        return array

    def weights(self) -> tuple[Weight, ...]:
        if self._weights is None:
            self._weights = tuple(weight for weight in self._all_weights() if weight.name not in self.encoded)
        return self._weights

    def copy(self) -> Self:
        other = copy.copy(self)
        other._graph, nodes = twin(self._graph)
        carry(other._graph, nodes)
        other._tensors = {nodes[node]: tensor for node, tensor in self._tensors.items()}
        other._paths = {nodes[node]: path for node, path in self._paths.items()}
        other._aliases = {nodes[alias]: nodes[node] for alias, node in self._aliases.items()}
        other._fed = tuple(nodes[node] for node in self._fed)
        other.encoded, other.forms = dict(self.encoded), dict(self.forms)
        other._encoded_values = dict(self._encoded_values)
        other._index()
        return other

    def simplify(self) -> list[str]:
        before = len(self.ops()), len(self._tensors)
        for node in [node for node in self._graph.nodes if is_check(node)]:
            self._graph.erase_node(node)
        remove_identities(self._graph)
        editor = self._editor()
        slice_constants(self._graph, self._tensors)
        respell(self._graph, editor)
        fold_constants(self._graph, editor, self._tensors, self._paths)
        folded = fold_batch_norms(self._graph, editor, self._tensors, self._paths)
        if not self.encoded:  # whose constants are what is decoded
            tied = tie(self._tensors, content)
            self._aliases = {alias: tied.get(node, node) for alias, node in self._aliases.items()} | tied
        self._graph.eliminate_dead_code()
        self._tensors = {node: tensor for node, tensor in self._tensors.items() if node.users}
        self._index()
        after = len(self.ops()), len(self._tensors)
        told = [f"batch norms folded into the layers before them: {folded}"] if folded else []
        counts = zip(("ops", "constants"), before, after, strict=True)
        return told + [f"{name}: {b} -> {a}" for name, b, a in counts if a != b]

    def replace_constant(self, name: str, array: Array) -> None:
        old = self.constant(name)
        if old is None or old.shape != array.shape or old.dtype != array.dtype:
            raise Refused(f"`{name}` cannot take an array {array.dtype} {array.shape}")
        if name in self._numbers:
            raise Refused(f"`{name}` is a number in the program, not one of its tensors")
        self._tensors[self._nodes[name]] = to_tensor(array)
        self._forget(name)

    def set_operand(self, op: str, position: int, array: Array) -> str:
        node = self._nodes[op]
        name = operand_name(self, self._all_weights(), op, self._inputs(node), position, array)
        constant = self._editor().set_operand(node, position, array, name)
        self._index()
        self._forget(self._names[constant])
        return self._names[constant]

    def insert(self, function: str, value: str, array: Array, readers: Readers = None, name: str = "") -> str:
        check_insert(self, function, value, array)
        if value in self._numbers:
            raise Refused(f"`{value}` is a number in the program, not one of its tensors")
        uses = None if readers is None else [(self._nodes[op], position) for op, position in readers]
        node = self._editor().insert(function, self._nodes[value], array, uses, name)
        self._index()
        return self._names[node]

    def bypass(self, op: str, position: int = 0) -> None:
        editor, node = self._editor(), self._nodes[op]
        source, result = editor.through(node, position)
        if result is not None:
            check_bypass(self.value(self._names[source]), self.value(self._names[result]))
        editor.bypass(node, position)
        self._index()

    def use_constant(self, op: str, position: int, name: str) -> None:
        node = self._nodes[op]
        check_constant(self, op, self._inputs(node), position, name)
        if name in self._numbers:
            raise Refused(f"`{name}` is a number in the program, not one of its tensors")
        self._editor().use_constant(node, position, self._nodes[name])
        self._index()

    def remove(self, value: str, instead: str) -> None:
        check_instead(self, value, instead)
        self._editor().remove(self._nodes[value], self._nodes[instead])
        self._index()

    def replace_region(self, value: str, source: str, matrix: Array, bias: Array | None = None, name: str = "") -> str:
        check_region(self, value, source, matrix, bias)
        weight = self._editor().replace_region(self._nodes[value], self._nodes[source], matrix, bias, name)
        self._index()
        return self._names[weight]

    def resize(self, resized: Resized) -> None:
        after = self.copy()
        resizer = FxResizer(after._editor(), after._tensors)
        for one in sized_ops(self, resized):
            resizer.write(after._nodes[one.op.name], one.op.function, one.asked)
        for name, array in resized.constants.items():
            resizer.give(after._nodes[name], array)
        for (op, position), array in resized.operands.items():
            node = after._nodes[op]
            source = operands(node)[position]
            path = after._paths.get(source, "") if isinstance(source, Node) else ""
            resizer.give_one(node, position, array, path or f"{op}.operand{position}")
        resizer.infer(after._graph)
        after._index()
        check_resized(self, after, resized)
        vars(self).update(vars(after))

    def between(self, inputs: Sequence[str], outputs: Sequence[str]) -> Self:
        check_borders(self, inputs, outputs)
        other = self.copy()
        nodes = [other._nodes[name] for name in inputs]
        other._fed = tuple(other._editor().cut(nodes, [other._nodes[name] for name in outputs]))
        other._returned = tuple(range(len(outputs)))
        other._graph.eliminate_dead_code()
        other._tensors = {node: tensor for node, tensor in other._tensors.items() if node.users}
        other._index()
        return other

    def retype(self, value: str, dtype: str) -> None:
        check_type(self, value, dtype)
        self._editor().retype(self._nodes[value], torch_dtype(dtype))
        self._index()

    def multiply_rounded(self, value: str) -> None:
        check_product(self, value)
        multiply_rounded(self._editor(), self._nodes[value])
        self._index()

    def encode_value(self, value: str, encoded: EncodedValue, readers: Sequence[tuple[str, int]] | None = None) -> str:
        check_value(self, value, encoded.encoding, readers)
        uses = None if readers is None else [(self._nodes[op], position) for op, position in readers]
        node = write_rounded(self._editor(), self._nodes[value], encoded, uses)
        self._index()
        self._encoded_values |= {value: encoded, self._names[node]: encoded}
        return self._names[node]

    def encoded_values(self) -> Mapping[str, EncodedValue]:
        return self._encoded_values

    def encode(
        self, weight: Weight, encoded: Encoded, form: Form, regions: Mapping[str, Region] = NO_REGIONS
    ) -> tuple[LinearOp, ...]:
        form.check(weight, encoded)
        self.replace_matrix(weight, encoded.decode())
        for layer in weight.layers:
            self._add_as(form, weight, encoded, layer)
        self.encoded[weight.name] = encoded
        self.forms[weight.name] = form
        self._weights = None
        return ()

    def digest(self) -> str:
        found = hashlib.sha256(str(self._graph).encode())
        for node, tensor in self._tensors.items():
            found.update(f"{node.name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(np.ascontiguousarray(to_array(tensor)).reshape(-1).view(np.uint8).data)
        return found.hexdigest()

    def runner(
        self, inputs: Sequence[str], outputs: Sequence[str], free: Iterable[str] = (), optimise: bool = True
    ) -> Runner:
        del optimise  # the interpreter never does
        overridable = {name: self._tensors[self._nodes[name]] for name in free}
        fed = [self._nodes[name] for name in (*inputs, *overridable)]
        wanted = [self._nodes[name] for name in outputs]
        parts = self._program.graph_module  # branches and loop bodies, which are opaque
        opaque = {node: getattr(parts, str(node.target)) for node in self._graph.find_nodes(op="get_attr")}
        piece = extract(self._graph, fed, wanted, {**self._tensors, **opaque})
        is_tensor = {name: isinstance(self._nodes[name].meta["val"], torch.Tensor) for name in inputs}
        return FxRunner(piece, is_tensor, overridable, outputs)

    def program(self) -> ExportedProgram:
        """A program that holds what is stored of encoded weights in their place, and decodes it when it is called."""
        weights = {weight.name: weight for weight in self._all_weights()}
        compact = {
            self._nodes[weights[name].constant]: Compact(one, weights[name].view) for name, one in self.encoded.items()
        }
        return assemble(Sources(self._program, self._graph, self._tensors, self._paths, compact))

    def _add_as(self, form: Form, weight: Weight, encoded: Encoded, layer: Layer) -> None:
        """Let a layer add its bias as its form does."""
        read = self._encoded_values.get(layer.input)
        if read is None or layer.kind is not Kind.CONV:
            return
        named = (node for node in self._graph.nodes if node.meta.get(LAYER) == layer.name)
        op = next(named, self._nodes[layer.op])  # whose own name what rounds an output may have taken
        name = (*self._inputs(op), "", "", "")[BIAS]
        bias = self.constant(name) if name else None
        added = None if bias is None else form.added(weight, encoded, bias, read)
        if added is not None and added is not bias:
            self.set_operand(op.name, BIAS, added)

    def _forget(self, constant: str) -> None:
        """What a weight was encoded as, whose constant is another now."""
        for weight in self._all_weights() if self.encoded else ():
            if weight.constant == constant:
                self.encoded.pop(weight.name, None)
                self.forms.pop(weight.name, None)

    def _all_weights(self) -> tuple[Weight, ...]:
        """The weights, those that are encoded among them."""
        names = {node: self._names[node] for node in self._tensors}
        found = find_weights(self._graph.nodes, names, self._paths, self._program.graph_module)
        kept = keep_names(found, {node.name: node.meta[LAYER] for node in self._graph.nodes if LAYER in node.meta})
        rounded = {self._names[node]: node.meta[ROUNDED] for node in self._graph.nodes if ROUNDED in node.meta}
        return tuple(told_of_rounding(weight, rounded) for weight in kept) if rounded else kept

    def _index(self) -> None:
        """Name every value: constants by their path in the module where no node has that name, all else by its node."""
        self._weights = None
        self._paths = {node: self._paths[node] for node in (*self._tensors, *self._aliases)}
        taken = {node.name for node in self._graph.nodes}
        free = {node: path for node, path in self._paths.items() if path not in taken}
        self._names: dict[Node, str] = {node: free.get(node, node.name) for node in self._graph.nodes}
        self._nodes = {name: self._aliases.get(node, node) for node, name in self._names.items()}
        self._numbers: dict[str, Array] = {}
        for node in self._graph.nodes:
            for number in operands(node) if node.op == "call_function" else ():
                if isinstance(number, CallNumber):
                    array = np.asarray(number.array)
                    array.flags.writeable = False
                    self._numbers[_number_name(node, number)] = array

    def _results(self) -> list[Node]:
        (results,) = self._graph.output_node().args
        assert isinstance(results, Sequence)
        nodes = (results[at] for at in self._returned)
        return [node for node in nodes if isinstance(node, Node)]

    def _op(self, node: Node, layer: Kind | None) -> Op:
        kind, function = kind_of(node, layer)
        found: Attributes = {}
        try:
            found = attributes(node, kind, function)
        except Opaque:
            kind, function = (kind, function) if layer else (Kind.OTHER, aten_name(node))
        return Op(node.name, kind, function, self._inputs(node), _output_names(node), found)

    def _inputs(self, node: Node) -> tuple[str, ...]:
        return tuple(self._operand_name(node, source) for source in operands(node))

    def _operand_name(self, node: Node, source: Node | CallNumber | None) -> str:
        if isinstance(source, CallNumber):
            return _number_name(node, source)
        return "" if source is None else self._names[source]

    def _editor(self) -> FxEditor:
        """The graph is edited: layers are called the same after it."""
        for op, name in layer_names(self._all_weights()).items():
            self._nodes[op].meta[LAYER] = name
        return FxEditor(self._graph, self._tensors, self._paths)


def _number_name(node: Node, number: CallNumber) -> str:
    """No node and no path in a module has such a name."""
    return f"{node.name}:{number.argument}"


def _output_names(node: Node) -> tuple[str, ...]:
    """An op's results; those that nobody reads have no name."""
    value = node.meta.get("val")
    if not isinstance(value, (list, tuple)):
        return () if is_check(node) else (node.name,)
    items = {user.args[1]: user.name for user in node.users if is_item(user)}
    return tuple(items.get(position, "") for position in range(len(value)))
