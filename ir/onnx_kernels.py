"""The model-local functions that kernel libraries take: a linear layer whose weight is encoded.

Without a library a runtime inlines the standard body: the weight is decoded by the lines of the form ``decoded``, which
fold when the session starts, and multiplied. With one that registers custom ops of domain ``qcc`` under the same
names, the node is theirs, and the codes stay packed.

No shape stands in the body: one function serves all layers of a format, whatever the rank of what they multiply.
"""

from pathlib import Path

import onnx
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.forms import kernel_name, kernel_takes
from qcc.ir.graph import Layer
from qcc.ir.kernel_op import LinearOp, parse
from qcc.ir.onnx_emit import Emitter
from qcc.ir.onnx_functions import DOMAIN, codes, function, stored, values
from qcc.ir.onnx_load import array_of

TURNED = "turned_"


class Kernels(Emitter):
    """Writes one encoded weight, and the layer that reads it, as a node that kernel libraries take."""

    def kernel(self) -> None:
        """``x @ W + b  -->  linear(x, codes, scale, b)``.

        Raises:
            Refused: no kernel could take it.
        """
        reason = kernel_takes(self._weight, self._encoded.encoding)
        if reason:
            raise Refused(reason)
        (layer,) = self._weight.layers
        old, bias = self._nodes[layer.op], self._bias(layer)
        inputs = [old.inputs[0], *self._stored_weight(), *([] if bias is None else [bias])]
        name = self._define_kernel(bias is not None)
        value = self.node(name, inputs, old, dtype=ir.DataType.FLOAT, domain=DOMAIN)
        if bias is None:
            self.finish(old, value)
        else:
            self._finish_biased(layer, value)
        self.drop()

    def _stored_weight(self) -> list[ir.Value]:
        encoded = self._encoded
        if encoded.encoding.scale is None:
            return [self.floats(encoded.codes)]
        zero = [] if encoded.scales.zero is None else [self.stored("zero", self.signed_zero())]
        return [*self.planes(encoded.codes), self.stored("scale", encoded.scales.scale), *zero]

    def _define_kernel(self, bias: bool) -> str:
        encoding = self._encoded.encoding
        name = kernel_name(encoding, self._encoded.shape, bias)
        if encoding.scale is None:
            return self.define(name, lambda opset: float_kernel_function(name, bias, opset))
        return self.define(name, lambda opset: kernel_function(name, encoding.bits, encoding.symmetric, bias, opset))

    def _bias(self, layer: Layer) -> ir.Value | None:
        """The layer's bias ``[out]``, if it has one."""
        known = self._graph.initializers.get(layer.bias or "")
        array = None if known is None else array_of(known)
        return known if array is None or array.ndim == 1 else self.stored("bias", array.reshape(-1))

    def _finish_biased(self, layer: Layer, value: ir.Value) -> None:
        """Put a product and its bias in the place of the ops that made them, and of a bias of another shape."""
        bias, last = self._graph.initializers[layer.bias or ""], self._nodes[layer.bias_op or layer.op]
        value.shape = last.outputs[0].shape
        self.replace(last.outputs[0], value)
        self._graph.remove({last, self._nodes[layer.op]}, safe=True)
        if not (bias.uses() or bias.is_graph_output() or bias.is_graph_input()):
            del self._graph.initializers[layer.bias or ""]


def kernel_function(name: str, bits: int, symmetric: bool, bias: bool, opset: int) -> ir.Function:
    """Build the function.

    Its inputs are ``x [..., in]``, one array of bytes a plane ``plane [out, in * width / 8]`` (lowest bits first),
    ``scale [out, groups]``, ``zero [out, groups]`` (int8, asymmetric only) and ``bias [out]``.
    """
    inputs = ["x", *stored(bits, symmetric), *(["bias"] if bias else [])]
    lines = [*_shapes(), *codes(bits), *_turned(symmetric), *values(symmetric, ir.DataType.FLOAT, TURNED)]
    return function(name, inputs, [*lines, *_product(bias)], "y", opset)


def float_kernel_function(name: str, bias: bool, opset: int) -> ir.Function:
    """Build the function of a weight without scales: ``x [..., in]``, ``weight [out, in]`` and ``bias [out]``."""
    lines = ["turned = Transpose <perm: ints = [1, 0]> (weight)", "wide = Cast <to: int = 1> (turned)"]
    return function(name, ["x", "weight", *(["bias"] if bias else [])], [*lines, *_product(bias, "wide")], "y", opset)


def _shapes() -> list[str]:
    """``blocked [out, groups, in a group]``, and the weight's own ``shape [in, out]``."""
    return [
        "rest = Constant <value_ints: ints = [-1]> ()",
        "groups = Shape (scale)",
        "blocked = Concat <axis: int = 0> (groups, rest)",
        "rows = Shape <start: int = 0, end: int = 1> (scale)",
        "shape = Concat <axis: int = 0> (rest, rows)",
    ]


def _turned(symmetric: bool) -> list[str]:
    """Turn what is stored to ``[groups, in a group, out]`` while it is small: a session keeps all that it folds."""
    lines = [f"{TURNED}codes = Transpose <perm: ints = [1, 2, 0]> (codes)"]
    for name in ("scale",) if symmetric else ("scale", "zero"):
        lines += [
            f"spread_{name} = Unsqueeze ({name}, rest)",
            f"{TURNED}{name} = Transpose <perm: ints = [1, 2, 0]> (spread_{name})",
        ]
    return lines


def _product(bias: bool, weight: str = "weight") -> list[str]:
    product = f"MatMul (x, {weight})"
    return [f"product = {product}", "y = Add (product, bias)"] if bias else [f"y = {product}"]


def kernel_ops(path: Path) -> set[LinearOp]:
    """The kernel ops that a model's main graph calls."""
    found = set()
    for node in onnx.load(path, load_external_data=False).graph.node:
        if node.domain == DOMAIN and node.op_type.startswith("linear_"):
            found.add(parse(node.op_type))
    return found
