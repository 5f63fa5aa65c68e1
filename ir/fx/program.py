"""What an exported program holds, is fed and returns."""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, Node

from qcc.ir.errors import ModelError, first_line
from qcc.ir.fx.in_place import make_anew
from qcc.ir.fx.kinds import aten_name
from qcc.ir.fx.quiet import quiet

BEGINNING = 64  # numbers of constants that are compared before all of them are
APART = frozenset({"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "baddbmm"})
"""Ops with a weight that exporters take apart: the products in them are layers."""
CONSTANTS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def export_module(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,  # noqa: ANN401 - torch accepts nested dicts, tuples and lists
) -> ExportedProgram:
    """Export a module as it runs in evaluation; the arguments are ``torch.export.export``'s.

    Raises:
        ModelError: torch cannot export it.
    """
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with quiet(), torch.no_grad():  # else a no_grad block inside becomes an opaque call
            return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes)
    except Exception as error:  # torch raises many unrelated classes
        raise ModelError("Q440", f"torch.export cannot export the module: {first_line(error)}") from error
    finally:
        for part, mode in training.items():
            part.training = mode


def pure(program: ExportedProgram) -> ExportedProgram:
    """The program without what writes in place, and products inside of ops; the same one where there is none."""
    mixed = {node.target for node in program.graph.nodes if aten_name(node) in APART}
    if mixed:
        with quiet():
            table = torch.export.default_decompositions()
            taken: ExportedProgram = program.run_decompositions({one: table[one] for one in mixed})
            return taken
    if all(_is_pure(node) for node in program.graph.nodes):
        return program
    graph, _ = twin(program.graph)
    make_anew(graph)
    if all(_is_pure(node) for node in graph.nodes):
        return of_graph(program, graph)
    with quiet():  # an empty table keeps linear, conv2d, layer_norm, ... whole
        made: ExportedProgram = program.run_decompositions({})
        return made


def of_graph(program: ExportedProgram, graph: Graph) -> ExportedProgram:
    """A program that holds what another does, and computes by a graph without parts."""
    return ExportedProgram(
        root={},
        graph=graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def _is_pure(node: Node) -> bool:
    """It writes nothing, and holds no graph that may."""
    if node.op != "call_function":
        return node.op != "get_attr"
    if isinstance(node.target, torch._ops.OpOverload):
        return not node.target._schema.is_mutable
    return not isinstance(node.target, torch._ops.HigherOrderOperator)


def twin(graph: Graph) -> tuple[Graph, dict[Node, Node]]:
    """A copy of a graph, its nodes called the same, and what became of each."""
    nodes: dict[Node, Node] = {}
    other = Graph()
    other.output(other.graph_copy(graph, nodes))
    for node, copied in nodes.items():
        copied.name = node.name  # torch gives what is called like a builtin another name
    return other, nodes


def fed(program: ExportedProgram) -> tuple[Node, ...]:
    """The placeholders of what a caller feeds."""
    specs = zip(program.graph.find_nodes(op="placeholder"), program.graph_signature.input_specs, strict=True)
    given = (node for node, spec in specs if spec.kind is InputKind.USER_INPUT)
    return tuple(node for node in given if isinstance(node.meta.get("val"), (torch.Tensor, torch.SymInt)))


def returned(program: ExportedProgram) -> tuple[int, ...]:
    """Where among its results those stand that a caller gets."""
    specs = enumerate(program.graph_signature.output_specs)
    return tuple(at for at, spec in specs if spec.kind is OutputKind.USER_OUTPUT)


def constants(program: ExportedProgram) -> dict[Node, torch.Tensor]:
    """The tensors that a program holds.

    Raises:
        ModelError: it writes to them, or holds other things.
    """
    signature = program.graph_signature
    for spec in (*signature.input_specs, *signature.output_specs):
        if spec.kind not in (*CONSTANTS, InputKind.USER_INPUT, OutputKind.USER_OUTPUT):
            raise ModelError("Q441", f"the module has side effects: {spec.kind.name.lower()} of `{spec.target}`")
    held: Mapping[str, Any] = {**program.state_dict, **program.constants}
    nodes = zip(program.graph.find_nodes(op="placeholder"), signature.input_specs, strict=True)
    return {node: held[spec.target].detach() for node, spec in nodes if spec.kind in CONSTANTS and spec.target}


def paths(program: ExportedProgram, tensors: Iterable[Node]) -> dict[Node, str]:
    """Where the module keeps its tensors."""
    signature = program.graph_signature
    found = signature.inputs_to_parameters | signature.inputs_to_buffers
    found = found | signature.inputs_to_lifted_tensor_constants
    return {node: found[node.name] for node in tensors}


def memory(tensor: torch.Tensor) -> Hashable:
    """Where a tensor lies."""
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.stride()


def content(tensor: torch.Tensor) -> Hashable:
    """What numbers it holds."""
    return hashlib.sha256(_bytes(tensor).data).digest()


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _beginning(tensor: torch.Tensor) -> Hashable:
    """Type, shape and first numbers: the whole is looked at where these are the same."""
    row = tensor[(0,) * (tensor.dim() - 1)] if tensor.dim() > 1 and tensor.numel() else tensor.reshape(-1)
    return tensor.dtype, tensor.shape, _bytes(row[:BEGINNING]).tobytes()


def tie(tensors: dict[Node, torch.Tensor], by: Callable[[torch.Tensor], Hashable]) -> dict[Node, Node]:
    """Make one constant of parameters that are the same, the first that is read.

    Args:
        tensors: those of a graph.
        by: what tells two of one type and shape apart.

    Returns:
        What each of the others became.
    """
    first: dict[Hashable, Node] = {}
    aliases: dict[Node, Node] = {}
    begins = {node: _beginning(tensor) for node, tensor in tensors.items()}
    alike = Counter(begins.values())
    for node in sorted(tensors, key=lambda node: not node.users):
        tensor = tensors[node]
        if alike[begins[node]] < 2 or not tensor.numel():
            continue
        kept = first.setdefault((tensor.dtype, tensor.shape, by(tensor)), node)
        if kept is not node:
            node.replace_all_uses_with(kept)
            aliases[node] = kept
            del tensors[node]
    return aliases
