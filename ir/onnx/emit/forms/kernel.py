"""The ops that kernel libraries take: the product of a linear layer whose weight is encoded, and the steps behind it.

Each is a node of domain ``qcc`` (`kernel_op`) that calls a function of the same name, whose body says in standard ops
what it computes. Without a library a runtime inlines the body: the weight is decoded by the lines of the form
``decoded``, which fold when the session starts, and multiplied. With one that registers custom ops under the same
names, the node is theirs, and the codes stay packed.
"""

from collections.abc import Mapping
from itertools import chain

import numpy as np
import onnx_ir as ir

from qcc.ir.forms.kernel import kernel_op
from qcc.ir.graph.ops import Kind, Layer
from qcc.ir.kernel.op import BIAS, KEEP, NUMBER, LinearOp
from qcc.ir.kernel.region import Region
from qcc.ir.onnx.emit.kernel_body import kernel_function
from qcc.ir.onnx.emit.ops import Held, Packed
from qcc.ir.onnx.emit.rows import Rows
from qcc.ir.onnx.emit.writer import FormWriter
from qcc.ir.onnx.file.domain import DOMAIN
from qcc.ir.onnx.file.load import array_of

NEUTRAL = {"gain": 1.0, "shift": 0.0}


class KernelWriter(FormWriter):
    """Writes one encoded weight, and the layers that read it, as nodes that kernel libraries take."""

    def write(self) -> tuple[LinearOp, ...]:
        """``steps(x @ W)  -->  linear_steps(x, codes, scale, operands)``; embeddings gather rows of the same codes."""
        table = self.rows() if self._encoded.encoding.tile is None else self._tiles()
        parts = (held.planes if isinstance(held, Packed) else (held,) for held in table.values())
        stored = [*chain(*parts)]
        ops = []
        for layer in self._weight.layers:
            if layer.kind is Kind.EMBEDDING:
                self.gather_rows(layer, table)
            else:
                ops.append(self._multiply(layer, stored))
        self.drop()
        return tuple(ops)

    def _tiles(self) -> Rows:
        """What is stored of tiles, a row each, codes first and the numbers of all tiles last."""
        parts = self._encoded.encoding.parts(self._encoded.shape)
        found: dict[str, Held] = {}
        for name in sorted(parts, key=lambda name: (name == NUMBER, not name.endswith("codes"))):
            part, array = parts[name], self._encoded.parts[name]
            if part.dtype is np.uint8:
                found[name] = Packed(self.planes(name, array, part.bits), (len(array),), array.shape[1])
            else:
                found[name] = self.part(name)
        return found

    def _multiply(self, layer: Layer, stored: list[ir.Value]) -> LinearOp:
        """Put one op in the place of a layer's region."""
        product = self._nodes[layer.op]
        region = self._regions.get(layer.name) or _alone(layer, product)
        step = self.step(layer)
        whole = step is not None
        op = kernel_op(self._encoded.encoding, self._encoded.shape, region.steps, layer.kind is Kind.CONV, whole)
        values = ir.convenience.create_value_mapping(self._graph, include_subgraphs=False)
        x = product.inputs[0]
        given = [x, *stored] if step is None else [self.read(layer).source, *stored, step]
        inputs = [*given, *self._operands(op, region, values)]
        attributes = [] if region.epsilon is None else [ir.AttrFloat32("epsilon", region.epsilon)]
        self.define(op.name, lambda opset: kernel_function(op, opset))
        anchor = values[region.place].producer()
        made = self.node(op.name, inputs, anchor, attributes, ir.DataType.FLOAT, DOMAIN, len(op.outputs))
        if not region.steps and region.result == product.outputs[0].name:
            self.finish(product, made)
            self.remove_rounded(x, layer)
            return op
        node = made.producer()
        assert node is not None
        names = (region.result, region.kept) if KEEP in region.steps else (region.result,)
        old = [values[name] for name in names]
        for before, after in zip(old, node.outputs, strict=True):
            self.replace(before, after)
        for before in old:
            self.remove_unread(before)
        self.remove_rounded(x, layer)
        return op

    def _operands(self, op: LinearOp, region: Region, values: Mapping[str, ir.Value]) -> list[ir.Value]:
        """What the steps read, constants as vectors ``[out]``."""
        found = []
        for (operand, kind), name in zip(op.step_inputs, region.operands, strict=True):
            found.append(values[name] if kind == "tensor" else self._vector(operand, values.get(name)))
        return found

    def _vector(self, operand: str, value: ir.Value | None) -> ir.Value:
        """A constant ``[out]``; one that does nothing if there is none."""
        if value is None:
            return self.stored(operand, np.full(self._encoded.shape[0], NEUTRAL[operand], np.float32))
        array = array_of(value)
        assert array is not None
        return value if array.ndim == 1 else self.stored(operand, array.reshape(-1))


def _alone(layer: Layer, product: ir.Node) -> Region:
    """A product with its bias, if it has one."""
    place, steps = product.outputs[0].name or "", () if layer.bias is None else (BIAS,)
    return Region(layer.op, place, layer.output, steps, () if layer.bias is None else (layer.bias,))
