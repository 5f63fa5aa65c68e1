"""Whether a model's protobuf is a graph at all: every value made once, before it is read, by nothing that waits for it.

Libraries assume as much and fail in their own words, or not at all, where it does not hold.
"""

from collections.abc import Iterator, MutableSequence
from collections.abc import Set as AbstractSet
from graphlib import CycleError, TopologicalSorter

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from qcc.ir.model.options import NEWEST_OPSET, OLDEST_OPSET

Nodes = MutableSequence[onnx.NodeProto]


class Malformed(ValueError):  # noqa: N818 - the fault, named as diagnostics are
    """The protobuf is not a valid model; the message says why, in the user's words."""


def check_model(proto: onnx.ModelProto) -> None:
    """Check the structure, and write in one way what can be in several: nodes in an order in which they can run, the
    default domain by its short name, sizes that are not known as such.

    Raises:
        Malformed: the model is not valid.
    """
    _check_text(proto)
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise Malformed("it has no graph")
    if not proto.graph.output:
        raise Malformed("it has no outputs")
    functions = {(function.domain, function.name): function for function in proto.functions}
    if len(functions) != len(proto.functions):
        raise Malformed("two of its functions have one name")
    for value in proto.graph.input:
        if value.type.WhichOneof("value") is None:
            raise Malformed(f"input `{value.name}` has no type")
    for function in proto.functions:
        _default_domain(function.opset_import, function.node)
        _check_nodes(function.node, set(function.input), f"function `{function.name}`")
    _default_domain(proto.opset_import, proto.graph.node)
    calls = {key: [call for call in _calls(function.node) if call in functions] for key, function in functions.items()}
    _check_acyclic(calls)
    _check_graph(proto.graph, set())


def opset_of(proto: onnx.ModelProto) -> int | None:
    """The version of the default operator set; None where the model says none and uses none.

    Raises:
        Malformed: it uses the default operators and does not say which.
    """
    versions = {entry.version for entry in proto.opset_import if not entry.domain}
    if len(versions) > 1:
        raise Malformed("it imports two versions of the default operator set")
    if not versions and any(not domain for domain, _ in _calls(proto.graph.node)):
        raise Malformed("it does not say which opset it uses")
    return versions.pop() if versions else None


def supported(opset: int | None) -> bool:
    """The compiler reads models of this opset."""
    return opset is None or OLDEST_OPSET <= opset <= NEWEST_OPSET


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds: branches and loop bodies."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _check_text(message: Message) -> None:
    """Protobuf hands over text that is not UTF-8 as bytes, which nothing after this expects."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for item in (value,) if isinstance(value, str | bytes | Message) else value:
            if isinstance(item, bytes):
                raise Malformed(f"its text is garbled: {item[:40]!r}")
            if isinstance(item, Message):
                _check_text(item)


def _default_domain(imports: MutableSequence[onnx.OperatorSetIdProto], nodes: Nodes) -> None:
    """``ai.onnx`` is the long name of the empty domain."""
    for entry in imports:
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    for node in nodes:
        node.domain = "" if node.domain == "ai.onnx" else node.domain
        for graph in subgraphs(node):
            _default_domain([], graph.node)


def _calls(nodes: Nodes) -> Iterator[tuple[str, str]]:
    for node in nodes:
        yield node.domain, node.op_type
        for graph in subgraphs(node):
            yield from _calls(graph.node)


def _check_acyclic(calls: dict[tuple[str, str], list[tuple[str, str]]]) -> None:
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        raise Malformed(f"function `{error.args[1][0][1]}` calls itself") from error


def _check_graph(graph: onnx.GraphProto, outer: set[str]) -> None:
    if graph.sparse_initializer:
        raise Malformed("it holds sparse initialisers, which qcc cannot read")
    inputs = [value.name for value in graph.input]
    constants = [tensor.name for tensor in graph.initializer]
    for names, kind in ((inputs, "input"), (constants, "initialiser")):
        if not all(names):
            raise Malformed(f"an {kind} has no name")
        if len(set(names)) != len(names):
            raise Malformed(f"two {kind}s are named `{_first_twice(names)}`")
    for tensor in graph.initializer:
        check_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _free_sizes(value)
    known = outer | _check_nodes(graph.node, {*inputs, *constants}, "the graph", outer)
    for node in graph.node:
        for inner in subgraphs(node):
            _check_graph(inner, known)
    for value in graph.output:
        if value.name not in known:
            raise Malformed(f"output `{value.name}` is made by nothing")


def _free_sizes(value: onnx.ValueInfoProto) -> None:
    """A negative size is one that is not known, as exporters write it and the runtime reads it."""
    for size in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
        if size.dim_value < 0:
            size.Clear()


def check_tensor(tensor: onnx.TensorProto) -> None:
    """Check that a tensor says what it is.

    Raises:
        Malformed: its type is unknown or its shape impossible.
    """
    if tensor.data_type not in onnx.TensorProto.DataType.values() or not tensor.data_type:
        raise Malformed(f"tensor `{tensor.name}` has an unknown element type, {tensor.data_type}")
    if any(size < 0 for size in tensor.dims):
        raise Malformed(f"tensor `{tensor.name}` has a negative size")


def _check_nodes(nodes: Nodes, given: set[str], where: str, outer: AbstractSet[str] = frozenset()) -> set[str]:
    """Put nodes in order; all names that are known within them, ``outer`` ones aside."""
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    made = [name for node in nodes for name in node.output if name]
    if len(makers) != len(made) or not given.isdisjoint(makers):
        raise Malformed(f"in {where}, `{_first_twice([*given, *made])}` is made twice")
    before: dict[int, list[int]] = {}
    for place, node in enumerate(nodes):
        _check_attributes(node)
        reads = _reads(node) - given
        missing = sorted(name for name in reads if name not in makers and name not in outer)
        if missing:
            raise Malformed(f"{_title(node)} reads `{missing[0]}`, which nothing makes")
        before[place] = [makers[name] for name in reads if name in makers]
    if any(earlier >= place for place, others in before.items() for earlier in others):
        _sort(nodes, before)
    return given | set(makers)


def _check_attributes(node: onnx.NodeProto) -> None:
    if not node.op_type:
        raise Malformed(f"{_title(node)} has no operator")
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.UNDEFINED:
            raise Malformed(f"attribute `{attribute.name}` of {_title(node)} has no type")


def _sort(nodes: Nodes, before: dict[int, list[int]]) -> None:
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise Malformed(f"{_title(nodes[error.args[1][0]])} waits for its own output") from error
    ordered = [onnx.NodeProto.FromString(nodes[place].SerializeToString()) for place in order]
    del nodes[:]
    nodes.extend(ordered)


def _reads(node: onnx.NodeProto) -> set[str]:
    """The names that a node and its subgraphs take from around it."""
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own.update(name for inner in graph.node for name in inner.output)
        inside = set().union(*(_reads(inner) for inner in graph.node), (value.name for value in graph.output))
        names |= inside - own
    return names


def _title(node: onnx.NodeProto) -> str:
    return f"node `{node.name}` ({node.op_type})" if node.name else f"a {node.op_type} node"


def _first_twice(names: list[str]) -> str:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]
