"""Constants of branches and loop bodies: lifted into the main graph while it is worked on, put back when it is written.

A body may read what lies around it, so a constant means the same in either place. Lifted, it is like any other; put
back, the runtime treats the layers of a body as it did before.
"""

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from qcc.ir.graph.edits import fresh

Owner = ir.Graph | ir.Function | None
BodyChain = tuple[ir.Graph, ...]


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that a node holds itself."""
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type is ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def inside(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes within a node, at any depth."""
    for body in bodies(node):
        yield from body.all_nodes()


def lift(graph: ir.Graph) -> None:
    """Make constants of bodies constants of the main graph, but for those that a body is fed or returns."""
    taken = {value.name or "" for value in values(graph)}
    for body in list(graph.subgraphs()):
        for value in list(body.initializers.values()):
            if value.is_graph_input() or value.is_graph_output() or value.const_value is None:
                continue
            del body.initializers[value.name or ""]
            if value.name in graph.initializers:
                value.name = fresh(value.name or "", taken)
                taken.add(value.name)
            graph.register_initializer(value)


def values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value of a graph and of its bodies."""
    for part in (graph, *graph.subgraphs()):
        yield from part.inputs
        yield from part.initializers.values()
    for node in graph.all_nodes():
        yield from node.outputs


def owners(graph: ir.Graph) -> dict[ir.Node, ir.Node]:
    """For each node within another the node of the main graph that holds it."""
    return {inner: node for node in graph for inner in inside(node)}


def sink(graph: ir.Graph) -> None:
    """Put constants, and what is computed of constants alone, into the body that alone reads them."""
    chains = dict(_chains(graph, (graph,)))
    if len(chains) == 1:
        return
    for node in reversed(_constant_nodes(graph)):
        body = _reader(graph, node.outputs, chains)
        if body is not None:
            graph.remove(node)
            _put_first(body, node)
    for value in list(graph.initializers.values()):
        # what lies in a file is written from the main graph
        fixed = value.is_graph_input() or isinstance(value.const_value, ir.ExternalTensor)
        body = None if fixed else _reader(graph, [value], chains)
        if body is not None:
            del graph.initializers[value.name or ""]
            body.register_initializer(value)


def _constant_nodes(graph: ir.Graph) -> list[ir.Node]:
    """The nodes of the main graph that read constants alone, directly or not."""
    found: dict[ir.Node, None] = {}
    for node in graph:
        reads = [value for value in node.inputs if value is not None]
        constant = all(one.is_initializer() or one.producer() in found for one in reads)
        if constant and reads and not any(bodies(node)) and not any(one.is_graph_input() for one in reads):
            found[node] = None
    return list(found)


def _chains(graph: ir.Graph, chain: BodyChain) -> Iterator[tuple[Owner, BodyChain]]:
    """For each graph those around it, the main one first, and itself."""
    yield graph, chain
    for node in graph:
        for body in bodies(node):
            yield from _chains(body, (*chain, body))


def _reader(graph: ir.Graph, values: Iterable[ir.Value], chains: Mapping[Owner, BodyChain]) -> ir.Graph | None:
    """The innermost body that holds all that reads some values; None if that is no body."""
    common: BodyChain | None = None
    for value in values:
        if value.is_graph_output():
            return None
        for node, _ in value.uses():
            chain = chains[node.graph]
            common = chain if common is None else _common(common, chain)
    return common[-1] if common and common[-1] is not graph else None


def _common(one: BodyChain, other: BodyChain) -> BodyChain:
    return tuple(a for a, b in zip(one, other, strict=False) if a is b)


def _put_first(body: ir.Graph, node: ir.Node) -> None:
    if len(body):
        body.insert_before(body[0], node)
    else:
        body.append(node)
