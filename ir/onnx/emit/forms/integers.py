"""The form ``integers``."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from qcc.ir.forms.integers import spread, spread_scales, whole_bias, widened
from qcc.ir.graph.ops import Layer
from qcc.ir.kernel.op import LinearOp
from qcc.ir.onnx.emit.interleave import Transposed
from qcc.ir.onnx.emit.ops import OnnxOps, Packed
from qcc.ir.onnx.emit.writer import FormWriter
from qcc.ir.onnx.file.load import array_of

LAST = np.iinfo(np.int64).max  # the end of an axis
Written = dict[tuple[bool, bytes, bytes], list[ir.Value]]


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
        Layers that share a weight share what is ``written`` of it, where none has such a channel. A transposed
        convolution becomes a plain one, whose results are interleaved after they were rounded.
        """
        node = self._nodes[layer.op]
        turned = Transposed.of(node, len(layer.kernel)) if node.op_type == "ConvTranspose" else None
        numbers, scale = self._filters(layer, turned)
        bias = node.inputs[2] if len(node.inputs) > len(("x", "w")) else None
        added = np.zeros(1) if bias is None else np.asarray(array_of(bias), np.float64).reshape(-1)
        added = np.repeat(added, len(numbers) // len(added))
        step = float(self.read(layer).step)
        numbers, scales = _widened(numbers, scale, added, step)
        signed = self._signed(layer, numbers)
        key = signed, scales.tobytes(), numbers.tobytes()
        if key not in written:
            codes, zero = self._codes(numbers, signed, len(numbers), node)
            written[key] = [codes, self.stored("scale", scales), zero]
        weight = self._decoded(written[key], node, 0)
        weight.shape = ir.Shape(numbers.shape)
        node.replace_input_with(1, weight)
        if bias is not None:
            whole, sums = whole_bias(added, scales, step)
            held = self.stored("bias", whole), self.stored("bias_scale", sums)
            node.replace_input_with(2, self._decoded([*held], node, 0))
            self.remove_unread(bias)
        if turned is not None:
            self._interleave(node, turned, layer.kernel, len(numbers))

    def _filters(self, layer: Layer, turned: Transposed | None) -> tuple[np.ndarray, np.ndarray]:
        """Numbers in the layout of a plain convolution, and the scales of its channels."""
        scale = self._scales()
        numbers = self._numbers().astype(np.float64).reshape(len(scale), -1, *layer.kernel)
        numbers[scale == 0] = 0
        if turned is None:
            return numbers, scale
        phases = math.prod(turned.strides)
        return turned.filters(numbers), np.tile(np.repeat(scale, phases), turned.groups)

    def _interleave(self, node: ir.Node, turned: Transposed, kernel: tuple[int, ...], rows: int) -> None:
        """``ConvTranspose(x, W)  -->  interleaved(Conv(x, W'))``, behind the op that rounds."""
        pads, cut = turned.pads(kernel)
        attributes = [ir.AttrInt64("group", turned.groups), ir.AttrInt64s("pads", pads)]
        plain = self.node("Conv", list(node.inputs), node, attributes, dtype=ir.DataType.FLOAT)
        node.outputs[0].replace_all_uses_with(plain)
        self._graph.remove(node, safe=True)
        (coder,) = plain.consumers()
        codes, readers = coder.outputs[0], list(coder.outputs[0].uses())
        anchor, found, stride = readers[0][0], codes, turned.strides[0]
        if stride > 1 and len(kernel) == 1:
            channels = rows // stride
            found = self._moved("Reshape", [found, self.shape((0, channels, stride, -1))], anchor)
            found = self._moved("Transpose", [found], anchor, [ir.AttrInt64s("perm", (0, 1, 3, 2))])
            found = self._moved("Reshape", [found, self.shape((0, channels, -1))], anchor)
        elif stride > 1:
            how = [ir.AttrInt64("blocksize", stride), ir.AttrString("mode", "CRD")]
            found = self._moved("DepthToSpace", [found], anchor, how)
        if any(turned.begins) or any(cut):
            last, axes = [-end or LAST for end in cut], range(2, 2 + len(kernel))
            ends = [self.shape(sizes) for sizes in (turned.begins, last, axes)]
            found = self._moved("Slice", [found, *ends], anchor)
        found.shape, codes.shape = codes.shape, None if found is not codes else codes.shape
        for reader, position in readers:
            reader.replace_input_with(position, found)

    def _moved(
        self, op_type: str, inputs: list[ir.Value], anchor: ir.Node, attributes: Sequence[ir.Attr] = ()
    ) -> ir.Value:
        return self.node(op_type, inputs, anchor, attributes, dtype=ir.DataType.UINT8)

    def _products(self) -> None:
        """``x @ W  -->  DequantizeLinear(QuantizeLinear(x, step)) @ DequantizeLinear(codes, scale)``.

        With a step a token that is done to ``x`` over it, and the product multiplied by it, which keeps it from a bias.
        The runtime makes that a product of integers. But of a matrix product and its bias it makes a ``Gemm`` before,
        which it does not; nor a product that is clipped alone. The axis in front keeps it from both. And where layers
        read the same value it only multiplies bytes without a sign, so the activations are such. Weights with one are
        multiplied by ``vpmaddubsw`` where there is no VNNI, which adds two products in 16 bits: two with codes of 7
        bits fit. Those of 8 do not: whoever asks for them knows the processor.
        """
        numbers = self._numbers()
        signed = self._signed(self._weight.layers[0], numbers)
        codes, zero = self._codes(numbers.T, signed, len(numbers), self.first_reader())
        scale = self.stored("scale", self._scales().astype(np.float32))
        front = None if all(one and one.by_token for one in self._weight.reads) else self.shape((0,))
        for layer in self._weight.layers:
            old, read = self._nodes[layer.op], self.read(layer)
            x, value = read.source, read.codes
            apart = read.scale is None and (x.shape is None or len(x.shape) == 2 or _clipped(old))
            value = self.node("Unsqueeze", [value, front], old, dtype=ir.DataType.UINT8) if apart else value
            value = self.node("DequantizeLinear", [value, *read.how], old, dtype=ir.DataType.FLOAT)
            weight = self._decoded([codes, scale, zero], old, 1)
            product = self.node("MatMul", [value, weight], old, dtype=ir.DataType.FLOAT)
            if apart:
                product = self.node("Squeeze", [product, front], old, dtype=ir.DataType.FLOAT)
            if read.scale is not None:
                product = self.node("Mul", [product, read.scale], old, dtype=ir.DataType.FLOAT)
            if read.first is not None:
                first = self._first(read.first, [codes, scale, zero], old)
                how = [ir.AttrInt64("axis", -2)]
                product = self.node("Concat", [first, product], old, how, dtype=ir.DataType.FLOAT)
            before = old.inputs[0]
            self.finish(old, product)
            self.remove_rounded(before, layer)

    def _first(self, tokens: ir.Value, weight: list[ir.Value], anchor: ir.Node) -> ir.Value:
        """The product of tokens that are not rounded; where they are known, it is a constant."""
        expand = tokens.producer()
        known = expand.inputs[0] if expand is not None and expand.op_type == "Expand" else None
        array = None if known is None else array_of(known)
        if expand is None or array is None or expand.inputs[1] is None:
            found = self._decoded(weight, anchor, 1)
            return self.node("MatMul", [tokens, found], anchor, dtype=ir.DataType.FLOAT)
        product = array.astype(np.float64) @ self._encoded.decode().T.astype(np.float64)
        sizes = expand.inputs[1].producer()
        assert sizes is not None
        own = self.shape(product.shape)
        sizes_of = self.node(
            "Concat", [sizes.inputs[0], own], anchor, [ir.AttrInt64("axis", 0)], dtype=ir.DataType.INT64
        )
        return self.node(
            "Expand", [self.stored("first", product.astype(np.float32)), sizes_of], anchor, dtype=ir.DataType.FLOAT
        )

    def _numbers(self) -> np.ndarray:
        """What the codes stand for, ``[out, in]``, in bytes with a sign; those of few bits spread over 7."""
        lowest = self._integers_of().grid.lowest
        return (self._encoded.codes + np.uint8(lowest % 256)).view(np.int8) * np.int8(self._spread)

    def _scales(self) -> np.ndarray:
        """Of the channels, for those numbers."""
        return spread_scales(self._encoded)

    @property
    def _spread(self) -> int:
        return spread(self._encoded)

    def _codes(
        self, numbers: np.ndarray, signed: bool, count: int, anchor: ir.Node | None
    ) -> tuple[ir.Value, ir.Value]:
        """Numbers in bytes with a sign, or without one around 128; and the zeros of so many channels."""
        spread = self._spread
        if spread > 1 and not (numbers.astype(np.int16) % spread).any():
            return self._unpacked(numbers.astype(np.int16) // spread, anchor), self._zeros(count)
        if signed:
            return self.integers("codes", numbers.view(np.uint8), ir.DataType.INT8), self._zeros(count)
        middles = self.shared(f"qcc.middles.uint8.{count}", np.full(count, 128, np.uint8))
        return self.integers("codes", numbers.view(np.uint8) ^ np.uint8(128), ir.DataType.UINT8), middles

    def _unpacked(self, numbers: np.ndarray, anchor: ir.Node | None) -> ir.Value:
        """Numbers of few bits, packed, which become spread bytes when a session starts."""
        grid, ops = self._integers_of().grid, OnnxOps(self, anchor, ir.DataType.FLOAT)
        flat = (numbers - grid.lowest).astype(np.uint8).reshape(-1)
        part = self._encoded.encoding.parts(self._encoded.shape)["codes"]
        held = Packed(self.planes("codes", flat, part.bits), (), flat.size)
        spread = ops.constant(f"spread.{self._spread}", np.array(self._spread, np.float32))
        found = ops.times(ops.numbers(held, grid, numbers.shape), spread)
        assert isinstance(found, ir.Value)
        return self.cast(found, ir.DataType.INT8, anchor)

    def _signed(self, layer: Layer, numbers: np.ndarray) -> bool:
        """The codes of a layer have a sign."""
        return True

    def _zeros(self, count: int) -> ir.Value:
        return self.shared(f"qcc.zeros.int8.{count}", np.zeros(count, np.int8))

    def _decoded(self, inputs: list[ir.Value], anchor: ir.Node, axis: int) -> ir.Value:
        return self.node("DequantizeLinear", inputs, anchor, [ir.AttrInt64("axis", axis)], dtype=ir.DataType.FLOAT)


def _widened(numbers: np.ndarray, scale: np.ndarray, bias: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers ``[out, ...]`` and scales ``[out]`` under which a bias can be added up in 31 bits."""
    wider = widened(scale, bias, step)
    ratio = (scale / wider).reshape(-1, *[1] * (numbers.ndim - 1))
    return np.rint(numbers * ratio).astype(np.int8), wider.astype(np.float32)


def _clipped(node: ir.Node) -> bool:
    """What a node makes goes right into a clip."""
    return any(reader.op_type in ("Clip", "Relu") for reader in node.outputs[0].consumers())
