"""A program of torch.export made of a graph: encoded weights are held as what is stored of them, and decoded at a call.

What a program holds of an encoded weight are buffers, by the weight's path and the part's name; its own tensor is gone.
The decoding is traced once for each weight from the one decode expression and stands before the first op that reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputSpec,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from qcc.ir.encoding.encoded import Encoded
from qcc.ir.fx.emit.decode import Constant, decoded, stored_tensors
from qcc.ir.fx.emit.tidy import tidy
from qcc.ir.fx.tensors import to_tensor
from qcc.ir.graph.view import MatrixView

OWN = "qcc_"  # the names of what is put in start so
KEPT = ("val", "nn_module_stack", "torch_fn")  # of a node; all else names places and passes of this machine and run
NAMED = (TensorArgument, SymIntArgument, SymFloatArgument, SymBoolArgument)
TABLES = "qcc_constants"  # where arrays lie that decoding brings along


@dataclass(frozen=True)
class Compact:
    """An encoded weight: what is stored of it, and how its constant is read as a matrix."""

    encoded: Encoded
    view: MatrixView


@dataclass(frozen=True)
class Sources:
    """What a program is made of.

    Args:
        program: that the graph came from.
        graph: its placeholders are the program's, then those of constants that are new.
        tensors: the constants, by their placeholders.
        paths: where a module keeps them.
        compact: the constants that are held encoded.
    """

    program: ExportedProgram
    graph: Graph
    tensors: Mapping[Node, Tensor]
    paths: Mapping[Node, str]
    compact: Mapping[Node, Compact]


def assemble(sources: Sources) -> ExportedProgram:
    """Make the program; what it was made of is left as it is."""
    return _Assembly(sources).program()


@dataclass
class _Assembly:
    """A program in the making."""

    of: Sources
    graph: Graph = field(default_factory=Graph)
    nodes: dict[Node, Node] = field(default_factory=dict)
    """The new nodes by the old ones."""
    specs: list[InputSpec] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    parts: dict[Node, dict[str, Node]] = field(default_factory=dict)
    """The placeholders of what is stored of a constant, by the part's name."""
    shared: dict[bytes, Node] = field(default_factory=dict)
    """The placeholders of what decoding brings along, by its content."""
    tables: dict[Node, list[Node]] = field(default_factory=dict)
    """Those that a constant's decoding takes, in its order."""
    traced: dict[Node, GraphModule] = field(default_factory=dict)
    decodings: dict[tuple[object, ...], tuple[GraphModule, list[Node]]] = field(default_factory=dict)
    """Those of weights stored alike, with the arrays that they bring along."""
    taken: set[str] = field(default_factory=set)
    """The names that nodes have, those of the old graph included, which its nodes keep."""

    def __post_init__(self) -> None:
        self.taken = {node.name for node in self.of.graph.nodes}

    def program(self) -> ExportedProgram:
        """All of it: what is held comes first, then what is fed."""
        for node in self.of.tensors:
            self._hold(node)
        signature = self.of.program.graph_signature
        fed = zip(self.of.graph.find_nodes(op="placeholder"), signature.input_specs, strict=False)
        for node, spec in fed:
            if spec.kind is InputKind.USER_INPUT:
                self._copy(node)
                self.specs.append(spec)
        for node in self.of.graph.nodes:
            if node.op not in ("placeholder", "output"):
                self._write(node)
        return self._finish()

    def _hold(self, node: Node) -> None:
        """The placeholders of a constant, or of what is stored of it."""
        path, tensor = self.of.paths[node], self.of.tensors[node]
        if node not in self.of.compact:
            self.nodes[node] = self._placeholder(path, tensor, self._kind(path))
            return
        one = self.of.compact[node]
        held = stored_tensors(one.encoded)
        self.parts[node] = {
            name: self._placeholder(f"{path}.{name}", part, InputKind.BUFFER) for name, part in held.items()
        }
        self._trace(node, one, tensor, held)

    def _kind(self, path: str) -> InputKind:
        kinds: dict[str | None, InputKind] = {
            spec.target: spec.kind for spec in self.of.program.graph_signature.input_specs
        }
        return kinds.get(path, InputKind.BUFFER)

    def _placeholder(self, path: str, tensor: Tensor, kind: InputKind) -> Node:
        """Of a tensor that the program holds at a path, in the state unless it was kept elsewhere."""
        stem = "".join(sign if sign.isalnum() else "_" for sign in f"{OWN}{path}")
        node = self._named(self.graph.placeholder(stem), stem)
        node.target = node.name
        with self._fake:
            node.meta["val"] = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        if path in self.of.program.constants:
            self.constants[path] = tensor
        else:
            is_parameter = kind is InputKind.PARAMETER
            self.state[path] = torch.nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
        persistent = path in self.state if kind is InputKind.BUFFER else None
        self.specs.append(InputSpec(kind, TensorArgument(node.name), path, persistent))
        return node

    def _trace(self, node: Node, one: Compact, like: Tensor, held: Mapping[str, Tensor]) -> None:
        """The decoding of a weight as a graph, and the arrays that it brings along as constants."""
        given = tuple((name, tuple(part.shape), part.dtype, part.device) for name, part in held.items())
        key = (one.encoded.encoding, one.encoded.shape, one.view, tuple(like.shape), like.dtype, given)
        if key not in self.decodings:
            self.decodings[key] = self._decoding(one, like, held)
        self.traced[node], self.tables[node] = self.decodings[key]

    def _decoding(self, one: Compact, like: Tensor, held: Mapping[str, Tensor]) -> tuple[GraphModule, list[Node]]:
        arrays: list[np.ndarray] = []
        with self._fake:
            fakes = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in held.values()]

        def noted(array: np.ndarray) -> Tensor:
            arrays.append(array)
            return self._like(to_tensor(array))

        with self._fake:
            _constant_of(one, like, dict(zip(held, fakes, strict=True)), noted)
        tables = [self._table(array) for array in arrays]

        def run(*given: Tensor) -> Tensor:
            rest = iter(given[len(held) :])
            return _constant_of(one, like, dict(zip(held, given, strict=False)), lambda _: next(rest))

        with self._fake:
            traced = make_fx(run)(*fakes, *(table.meta["val"] for table in tables))
        tidy(traced.graph)
        return traced, tables

    def _like(self, tensor: Tensor) -> Tensor:
        with self._fake:
            return torch.empty(tensor.shape, dtype=tensor.dtype)

    def _table(self, array: np.ndarray) -> Node:
        """The placeholder of an array, one for all that are equal."""
        key = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        if key not in self.shared:
            path = f"{TABLES}.{len(self.shared)}"
            self.shared[key] = self._placeholder(path, to_tensor(array), InputKind.BUFFER)
        return self.shared[key]

    @property
    def _fake(self) -> Any:  # noqa: ANN401 - torch types it so
        """The mode in which the program's values have no memory."""
        values = (node.meta.get("val") for node in self.of.graph.nodes)
        return next(value.fake_mode for value in values if hasattr(value, "fake_mode"))

    def _write(self, node: Node) -> None:
        """An op, behind the decoding of the weights that it is the first to read."""
        for source in node.all_input_nodes:
            if source in self.traced and source not in self.nodes:
                self._decode(source)
        self._copy(node)

    def _decode(self, weight: Node) -> None:
        given = [*self.parts[weight].values(), *self.tables[weight]]
        copies: dict[Node, Node] = {}
        for node in self.traced[weight].graph.nodes:
            if node.op == "placeholder":
                copies[node] = given[len(copies)]
            elif node.op == "output":
                self.nodes[weight] = copies[node.args[0]]
            else:
                copies[node] = self.graph.node_copy(node, copies.__getitem__)
                copies[node].meta = {"val": node.meta["val"]}
                self._named(copies[node], f"{OWN}{node.name}")

    def _copy(self, node: Node) -> None:
        new = self.graph.node_copy(node, self.nodes.__getitem__)
        new.name = node.name  # torch gives what is called like a builtin another name
        new.meta = {key: node.meta[key] for key in KEPT if key in node.meta}
        self.nodes[node] = new

    def _named(self, node: Node, stem: str) -> Node:
        """A node, under a name that no other has."""
        count, name = 1, stem
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        node.name = name
        self.taken.add(name)
        return node

    def _finish(self) -> ExportedProgram:
        (results,) = self.of.graph.output_node().args
        assert isinstance(results, Sequence)
        for one in results:
            if isinstance(one, Node) and one in self.traced and one not in self.nodes:
                self._decode(one)  # it is returned as it is stored
        given = tuple(self.nodes[one] if isinstance(one, Node) else one for one in results)
        self.graph.output(given)
        self.graph.output_node().meta["val"] = tuple(_value(one) for one in given)
        program = self.of.program
        outputs = [_told(spec, one) for spec, one in zip(program.graph_signature.output_specs, given, strict=True)]
        parts = {str(node.target): getattr(program.graph_module, str(node.target)) for node in self._opaque()}
        return ExportedProgram(
            root=parts,
            graph=self.graph,
            graph_signature=ExportGraphSignature(self.specs, outputs),
            state_dict=self.state,
            range_constraints=program.range_constraints,
            module_call_graph=program.module_call_graph[:1],
            example_inputs=None,  # as large as what is fed, and no part of the model
            constants=self.constants,
            verifiers=program.verifiers,
        )

    def _opaque(self) -> list[Node]:
        """What reads branches and loop bodies."""
        return list(self.graph.find_nodes(op="get_attr"))


def _constant_of(one: Compact, like: Tensor, tensors: Mapping[str, Tensor], constant: Constant) -> Tensor:
    """The weight as its constant, in the type and shape that that had."""
    matrix = decoded(one.encoded.encoding, one.encoded.shape, tensors, constant)
    view, back = one.view, np.argsort(one.view.order).tolist()
    rows_first = matrix.reshape([view.shape[axis] for axis in view.order])
    turned = rows_first if back == sorted(back) else rows_first.permute(back).contiguous()
    return turned.reshape(like.shape).to(like.dtype)


def _told(spec: OutputSpec, given: object) -> OutputSpec:
    """What a program says of a result, whose node may have another name."""
    if isinstance(given, Node) and isinstance(spec.arg, NAMED):
        return OutputSpec(spec.kind, type(spec.arg)(given.name), spec.target)
    return spec


def _value(given: object) -> object:
    return given.meta.get("val") if isinstance(given, Node) else given
