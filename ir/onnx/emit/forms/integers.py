"""The form ``integers``."""

import math

import numpy as np
import onnx_ir as ir

from qcc.ir.encoding.value import DYNAMIC_INT8
from qcc.ir.graph.ops import Layer
from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.writer import FormWriter
from qcc.ir.onnx.file.load import array_of

LARGEST_BIAS = 2.0**30  # in the integers of the sum that it is added to: the sum itself takes as much
Written = dict[tuple[bool, bytes, bytes], list[ir.Value]]
SMALLEST_SCALE = 2.0**-120  # of a sum: the next smaller ones lose digits


class IntegersWriter(FormWriter):
    """Writes weights that the runtime multiplies as integers with the rounded values that their layers read."""

    def write(self) -> tuple[LinearOp, ...]:
        """``op(x, W)  -->  op(x, DequantizeLinear(codes, scale))``, of which the runtime makes an op of integers."""
        if self._weight.kinds == {"linear"}:
            self._products()
        else:
            written: Written = {}
            for layer in self._weight.layers:
                self._in_place(layer, written)
        self.drop()
        return ()

    def _in_place(self, layer: Layer, written: Written) -> None:
        """The op stays as it is; its bias becomes one of the integers that are added up.

        A channel whose sums are too small beside its bias gets a wider scale, which a rounded result does not see.
        Layers that share a weight share what is ``written`` of it, where none has such a channel.
        """
        node, rows = self._nodes[layer.op], self._encoded.shape[0]
        numbers, scale = self._numbers().astype(np.float64), self._encoded.scales.scale.reshape(-1).astype(np.float64)
        bias = node.inputs[2] if len(node.inputs) > len(("x", "w")) else None
        added = np.zeros(rows) if bias is None else np.asarray(array_of(bias), np.float64).reshape(-1)
        step = float(self.read(layer).step)
        numbers[scale == 0] = 0
        least = np.maximum(np.abs(added) / LARGEST_BIAS, SMALLEST_SCALE) / step
        wider = np.where(np.abs(scale) < least, least, scale)
        numbers = np.rint(numbers * (scale / wider)[:, None])
        scales = wider.astype(np.float32)
        signed, whole_numbers = self._signed(layer), numbers.astype(np.int8)
        key = signed, scales.tobytes(), whole_numbers.tobytes()
        if key not in written:
            codes, zero = self._codes(whole_numbers.reshape(rows, -1, *layer.kernel), signed)
            written[key] = [codes, self.stored("scale", scales), zero]
        codes = written[key][0]
        weight = self._decoded(written[key], node, 0)
        weight.shape = ir.Shape(codes.shape or ())
        node.replace_input_with(1, weight)
        if bias is not None:
            sums = (scales * np.float32(step)).astype(np.float32)
            whole = self.stored("bias", np.rint(added / sums.astype(np.float64)).astype(np.int32))
            node.replace_input_with(2, self._decoded([whole, self.stored("bias_scale", sums)], node, 0))
            self.remove_unread(bias)

    def _products(self) -> None:
        """``x @ W  -->  DequantizeLinear(QuantizeLinear(x, step)) @ DequantizeLinear(codes, scale)``.

        With a step a token that is done to ``x`` over it, and the product multiplied by it, which keeps it from a bias.
        The runtime makes that a product of integers. But of a matrix product and its bias it makes a ``Gemm`` before,
        which it does not; nor a product that is clipped alone. The axis in front keeps it from both. And where layers
        read the same value it only multiplies bytes without a sign, so the activations are such, around 128. The
        weights have one: ``vpmaddubsw``, which multiplies such where there is no VNNI, adds two products in 16 bits,
        which two with codes of 7 bits fit. Those of 8 do not: whoever asks for them knows the processor.
        """
        steps = [self.step(layer) for layer in self._weight.layers]
        codes = self.integers("codes", self._numbers().view(np.uint8).T, ir.DataType.INT8)
        zero = self._zeros(self._encoded.shape[0])
        scale = self.stored("scale", self._encoded.scales.scale.reshape(-1).astype(np.float32))
        middle = self.shared("qcc.number.uint8.128", np.array(128, np.uint8))
        front = None if self._weight.reads == {DYNAMIC_INT8} else self.shape((0,))
        for layer, step in zip(self._weight.layers, steps, strict=True):
            old, read = self._nodes[layer.op], self.read(layer)
            x = read.source
            apart = read.scale is None and (x.shape is None or len(x.shape) == 2 or _clipped(old))
            value = self.node("Unsqueeze", [x, front], old, dtype=ir.DataType.FLOAT) if apart else x
            rounded = self.node("QuantizeLinear", [value, step, middle], old, dtype=ir.DataType.UINT8)
            value = self.node("DequantizeLinear", [rounded, step, middle], old, dtype=ir.DataType.FLOAT)
            weight = self._decoded([codes, scale, zero], old, 1)
            product = self.node("MatMul", [value, weight], old, dtype=ir.DataType.FLOAT)
            if apart:
                product = self.node("Squeeze", [product, front], old, dtype=ir.DataType.FLOAT)
            if read.scale is not None:
                product = self.node("Mul", [product, read.scale], old, dtype=ir.DataType.FLOAT)
            before = old.inputs[0]
            self.finish(old, product)
            self.remove_rounded(before, layer)

    def _numbers(self) -> np.ndarray:
        """What the codes stand for, ``[out, in]``, in bytes with a sign."""
        lowest = self._integers_of().grid.lowest
        return (self._encoded.codes + np.uint8(lowest % 256)).view(np.int8)

    def _codes(self, numbers: np.ndarray, signed: bool) -> tuple[ir.Value, ir.Value]:
        """Numbers in bytes with a sign, or without one around 128; and the zeros of the channels."""
        if signed:
            return self.integers("codes", numbers.view(np.uint8), ir.DataType.INT8), self._zeros(len(numbers))
        middles = self.shared(f"qcc.middles.uint8.{len(numbers)}", np.full(len(numbers), 128, np.uint8))
        return self.integers("codes", numbers.view(np.uint8) ^ np.uint8(128), ir.DataType.UINT8), middles

    def _signed(self, layer: Layer) -> bool:
        """The codes of a layer have a sign."""
        return True

    def _depth(self, layer: Layer) -> int:
        """The input channels of a group."""
        return self._encoded.shape[1] // math.prod(layer.kernel)

    def _zeros(self, count: int) -> ir.Value:
        return self.shared(f"qcc.zeros.int8.{count}", np.zeros(count, np.int8))

    def _decoded(self, inputs: list[ir.Value], anchor: ir.Node, axis: int) -> ir.Value:
        return self.node("DequantizeLinear", inputs, anchor, [ir.AttrInt64("axis", axis)], dtype=ir.DataType.FLOAT)


def _clipped(node: ir.Node) -> bool:
    """What a node makes goes right into a clip."""
    return any(reader.op_type in ("Clip", "Relu") for reader in node.outputs[0].consumers())
