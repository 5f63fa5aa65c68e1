"""Writing convolutions of bytes as ops with channels last: what hands bytes on to another hands them as they are."""

from collections.abc import Callable, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.onnx.chain.body import chain_function
from qcc.ir.onnx.chain.units import Unit, units
from qcc.ir.onnx.file.domain import DOMAIN, VERSION

FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # axes with channels second, and last
SHORTEST = 2  # convolutions that a chain is worth


def write_chains(model: ir.Model, serves: Callable[[ChainOp], bool]) -> tuple[ChainOp, ...]:
    """Put ops in the place of convolutions that hand bytes to each other, and turn values where chains begin and end.

    Args:
        model: is edited; its values are rounded.
        serves: there is a kernel for an op.

    Returns:
        The op of each convolution.
    """
    order = {node: at for at, node in enumerate(model.graph)}
    found = _linked([unit for unit in units(model.graph) if serves(unit.op)])
    found.sort(key=lambda unit: order[unit.place])  # what is added is made before
    if found:
        writer = _Writer(model)
        for unit in found:
            writer.put(unit)
        common.RemoveUnusedNodesPass()(model)
    return tuple(unit.op for unit in found)


def _linked(found: Sequence[Unit]) -> list[Unit]:
    """Those that read what another makes, or make what another reads."""
    groups = {unit.result: [unit] for unit in found}
    for unit in found:
        for value in (unit.read, unit.other):
            if value is not None and value in groups and groups[value] is not groups[unit.result]:
                joined = groups[value] + groups[unit.result]
                groups |= dict.fromkeys([one.result for one in joined], joined)
    return [unit for unit in found if len(groups[unit.result]) >= SHORTEST]


class _Writer:
    """Writes units in the graph's order."""

    def __init__(self, model: ir.Model) -> None:
        self._model, self._graph = model, model.graph
        self._lasts: dict[ir.Value, ir.Value] = {}  # with channels last, by what it is with channels second

    def put(self, unit: Unit) -> None:
        """Put an op in the place of a unit."""
        name = unit.result.name or ""
        given = dict(unit.inputs) | {"x": self._last(unit.read, unit.place)}
        if unit.other is not None:
            given["other"] = self._last(unit.other, unit.place)
        if unit.bias is not None:
            for key, array in zip(("bias", "bias_scale"), unit.bias, strict=True):
                given[key] = self._constant(f"{name}.{key}", ir.Tensor(array))
        self._define(unit.op)
        groups = [ir.AttrInt64("group", unit.groups)] if unit.op.depthwise else []
        inputs = [given[one] for one in unit.op.inputs]
        made = self._node(DOMAIN, unit.op.name, inputs, groups, unit.place, f"{name}.last")
        turned = self._turned(made, FIRST, unit.place, f"{name}.first")
        turned.shape = unit.result.shape
        unit.result.replace_all_uses_with(turned)
        self._lasts[turned] = self._lasts[unit.result] = made

    def _last(self, value: ir.Value, place: ir.Node) -> ir.Value:
        if value not in self._lasts:
            self._lasts[value] = self._turned(value, LAST, place, f"{value.name}.last")
        return self._lasts[value]

    def _turned(self, value: ir.Value, order: Sequence[int], place: ir.Node, name: str) -> ir.Value:
        return self._node("", "Transpose", [value], [ir.AttrInt64s("perm", order)], place, name)

    def _define(self, op: ChainOp) -> None:
        if (DOMAIN, op.name, "") not in self._model.functions:
            made = chain_function(op, self._graph.opset_imports[""])
            self._model.functions[made.identifier()] = made
            self._graph.opset_imports.setdefault(DOMAIN, VERSION)

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def _node(
        self, domain: str, op_type: str, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr], place: ir.Node, name: str
    ) -> ir.Value:
        node = ir.Node(domain, op_type, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].dtype = name, ir.DataType.UINT8
        self._graph.insert_before(place, node)
        return node.outputs[0]
