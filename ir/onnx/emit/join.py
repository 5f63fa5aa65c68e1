"""Several products of one input as one op: what they read is rounded once, and called for once."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from qcc.ir.kernel.op import JOINED_ROWS, MAX_MEMBERS, LinearOp, OpError, parse
from qcc.ir.onnx.emit.kernel_body import kernel_function
from qcc.ir.onnx.file.domain import DOMAIN


@dataclass(frozen=True)
class _Product:
    """A node that is a kernel's, and what it computes."""

    node: ir.Node
    op: LinearOp

    @property
    def result(self) -> ir.Value:
        """Of its steps."""
        return self.node.outputs[0]

    @property
    def tensors(self) -> list[ir.Value | None]:
        """What its steps read that is computed elsewhere."""
        operands = self.node.inputs[1 + len(self.op.weight_inputs) :]
        return [one for one, (_, kind) in zip(operands, self.op.step_inputs, strict=True) if kind == "tensor"]

    @property
    def constants(self) -> tuple[list[ir.Value | None], list[ir.Value | None]]:
        """The weight, and the vectors of the steps."""
        count = 1 + len(self.op.weight_inputs)
        kinds = [kind for _, kind in self.op.step_inputs]
        operands = zip(self.node.inputs[count:], kinds, strict=True)
        return list(self.node.inputs[1:count]), [one for one, kind in operands if kind != "tensor"]

    @property
    def rows(self) -> int:
        """Outputs, if they are known."""
        shape = None if self.node.inputs[1] is None else self.node.inputs[1].shape
        return shape[0] if shape is not None and isinstance(shape[0], int) else 0


def join_products(model: ir.Model) -> list[tuple[LinearOp, tuple[LinearOp, ...]]]:
    """Put one node in the place of those that read one value and whose weights are stored alike.

    ``steps(x @ A), others(x @ B)  -->  linear_steps_and_others(x, A, B)``; of two, the second's steps may read the
    result of the first, as the gate of a feed-forward. The node stands where the first did: all that it reads is there.

    Returns:
        For each such node the op that it calls, and those that it took the place of.
    """
    made = []
    for group in _groups(_products(model.graph)):
        op = _joined(group)
        if op is not None:
            _replace(model, group, op)
            made.append((op, tuple(one.op for one in group)))
    return made


def _products(graph: ir.Graph) -> list[_Product]:
    found = []
    for node in graph:
        if node.domain != DOMAIN:
            continue
        try:
            op = parse(node.op_type)
        except OpError:
            continue
        product = _Product(node, op)
        if not op.beside and product.rows and product.rows % JOINED_ROWS == 0:
            found.append(product)
    return found


def _groups(products: Iterable[_Product]) -> list[Sequence[_Product]]:
    """Pairs whose second reads the first's result alone, and what else reads the same, a few at a time."""
    alike: dict[object, list[_Product]] = defaultdict(list)
    for one in products:
        alike[one.node.inputs[0], one.op.encoding, one.op.pointwise, one.op.static, one.op.tile].append(one)
    found: list[Sequence[_Product]] = []
    for group in alike.values():
        pairs = [(first, second) for first in group for second in group if _gates(first, second)]
        found += pairs
        gone = {id(one) for pair in pairs for one in pair}
        rest = [one for one in group if id(one) not in gone and not one.tensors]
        found += [rest[at : at + MAX_MEMBERS] for at in range(0, len(rest), MAX_MEMBERS)]
    return [group for group in found if len(group) > 1]


def _gates(first: _Product, second: _Product) -> bool:
    """The result of one is read by the steps of the other, once, and by nothing else."""
    result = first.result
    alone = len(result.uses()) == 1 and not result.is_graph_output()
    return alone and not first.tensors and second.tensors == [result] and first.rows == second.rows


def _joined(group: Sequence[_Product]) -> LinearOp | None:
    first, *others = (one.op for one in group)
    try:
        return replace(first, beside=tuple(one.steps for one in others))
    except OpError:
        return None


def _replace(model: ir.Model, group: Sequence[_Product], op: LinearOp) -> None:
    """One node in the place of the first."""
    graph, first = model.graph, group[0].node
    function = kernel_function(op, graph.opset_imports[""])
    model.functions.setdefault(function.identifier(), function)
    weights, vectors = zip(*(one.constants for one in group), strict=True)
    inputs = [first.inputs[0], *(value for some in (*weights, *vectors) for value in some)]
    node = ir.Node(DOMAIN, op.name, inputs, num_outputs=len(op.outputs), name=first.name)
    anchor = next(one for one in graph if any(one is each.node for each in group))
    graph.insert_before(anchor, node)
    results = [one.result for one in group][int(op.chained) :]
    for old, new in zip(results, node.outputs, strict=True):
        take_place(graph, old, new)
    for one in reversed(group):
        graph.remove(one.node, safe=True)


def take_place(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let a value be read where another is, under its name."""
    name, new.shape, new.type = old.name, old.shape, old.type
    for position, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[position] = new
    old.replace_all_uses_with(new)
    old.name, new.name = f"{name}.apart", name
