"""Moving what is computed of constants alone out of bodies, so that two branches that compute the same share it.

Exporters write a recurrent layer once for each branch that calls it, and with it the ops that put its weights in order.
In the main graph they have types, equal ones are one, and they fold; what is left goes back when the file is written.
"""

import onnx_ir as ir

from qcc.ir.graph.edits import fresh
from qcc.ir.onnx.file.bodies import values
from qcc.ir.onnx.graph.fold import is_constant, ordered


class HoistConstants(ir.passes.InPlacePass):
    """Put nodes of bodies that read constants alone at the front of the main graph."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Move in place; what a body returns stays, since it is made there."""
        graph, made = model.graph, dict[ir.Node, None]()
        for node in ordered(graph):
            if is_constant(node, made) and not any(output.is_graph_output() for output in node.outputs):
                made[node] = None
        moved = {node: None for node in made if node.graph is not graph}
        if not moved:
            return ir.passes.PassResult(model, False)
        for node in made:
            assert node.graph is not None
            node.graph.remove(node)
        taken = {value.name or "" for value in values(graph)}
        taken.update(output.name or "" for node in made for output in node.outputs if node not in moved)
        for node in moved:
            _rename(node, taken)
        _put_first(graph, list(made))
        return ir.passes.PassResult(model, True)


def _rename(node: ir.Node, taken: set[str]) -> None:
    """Names of its own: two bodies may use one name for different values."""
    for output in node.outputs:
        if output.name:
            output.name = fresh(output.name, taken)
            taken.add(output.name)


def _put_first(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)
