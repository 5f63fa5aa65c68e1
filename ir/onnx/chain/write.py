"""Writing convolutions of bytes as ops with channels last: what hands bytes on to another hands them as they are."""

from collections.abc import Callable, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.kernel.pool_op import PoolOp
from qcc.ir.onnx.chain.body import chain_function, orders, pool_function
from qcc.ir.onnx.chain.links import Link, links
from qcc.ir.onnx.file.domain import DOMAIN, VERSION

SHORTEST = 2  # convolutions that a chain is worth


def write_chains(model: ir.Model, serves: Callable[[ChainOp | PoolOp], bool]) -> tuple[ChainOp | PoolOp, ...]:
    """Put ops in the place of convolutions that hand bytes to each other, and turn values where chains begin and end.

    Args:
        model: is edited; its values are rounded.
        serves: there is a kernel for an op.

    Returns:
        The op of each convolution, and of each pool between.
    """
    order = {node: at for at, node in enumerate(model.graph)}
    found = _linked([link for link in links(model.graph) if serves(link.op)])
    found.sort(key=lambda link: order[link.place])  # what is added is made before
    if found:
        writer = _Writer(model)
        for link in found:
            writer.put(link)
        common.RemoveUnusedNodesPass()(model)
    return tuple(link.op for link in found)


def _linked(found: Sequence[Link]) -> list[Link]:
    """Those that read what another makes, or make what another reads."""
    groups = {link.result: [link] for link in found}
    for link in found:
        for value in (link.read, link.other):
            if value is not None and value in groups and groups[value] is not groups[link.result]:
                joined = groups[value] + groups[link.result]
                groups |= dict.fromkeys([one.result for one in joined], joined)
    return [link for link in found if len(groups[link.result]) >= SHORTEST]


class _Writer:
    """Writes links in the graph's order."""

    def __init__(self, model: ir.Model) -> None:
        self._model, self._graph = model, model.graph
        self._lasts: dict[ir.Value, ir.Value] = {}  # with channels last, by what it is with channels second

    def put(self, link: Link) -> None:
        """Put an op in the place of a link."""
        name = link.result.name or ""
        first, last = orders(link.op.axes)
        given = dict(link.inputs) | {"x": self._last(link.read, last, link.place)}
        if link.other is not None:
            given["other"] = self._last(link.other, last, link.place)
        if link.bias is not None:
            for key, array in zip(("bias", "bias_scale"), link.bias, strict=True):
                given[key] = self._constant(f"{name}.{key}", ir.Tensor(array))
        self._define(link.op)
        groups = [ir.AttrInt64("group", link.groups)] if link.groups else []
        inputs = [given[one] for one in link.op.inputs]
        made = self._node(DOMAIN, link.op.name, inputs, groups, link.place, f"{name}.last")
        turned = self._turned(made, first, link.place, f"{name}.first")
        turned.shape = link.result.shape
        link.result.replace_all_uses_with(turned)
        self._lasts[turned] = self._lasts[link.result] = made

    def _last(self, value: ir.Value, order: Sequence[int], place: ir.Node) -> ir.Value:
        if value not in self._lasts:
            self._lasts[value] = self._turned(value, order, place, f"{value.name}.last")
        return self._lasts[value]

    def _turned(self, value: ir.Value, order: Sequence[int], place: ir.Node, name: str) -> ir.Value:
        return self._node("", "Transpose", [value], [ir.AttrInt64s("perm", order)], place, name)

    def _define(self, op: ChainOp | PoolOp) -> None:
        if (DOMAIN, op.name, "") not in self._model.functions:
            opset = self._graph.opset_imports[""]
            made = chain_function(op, opset) if isinstance(op, ChainOp) else pool_function(op, opset)
            self._model.functions[made.identifier()] = made
            self._graph.opset_imports.setdefault(DOMAIN, VERSION)

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value

    def _node(
        self,
        domain: str,
        op_type: str,
        inputs: Sequence[ir.Value],
        attributes: Sequence[ir.Attr],
        place: ir.Node,
        name: str,
    ) -> ir.Value:
        node = ir.Node(domain, op_type, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].dtype = name, ir.DataType.UINT8
        self._graph.insert_before(place, node)
        return node.outputs[0]
