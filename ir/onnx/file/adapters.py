"""How ops are spelt from a version on: what an opset changed in an op, one function each.

An adapter sees a node as it is written at the version before, and leaves it as its own version has it. It changes the
node in place; where one op becomes several, the node is the last of them.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.onnx.file.load import array_of

Adapter = Callable[[ir.Node, "Writer"], None]

FLOAT_RANGE = float(np.finfo(np.float32).max)
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


class Writer:
    """Adds constants and nodes to a graph and its subgraphs under names that are free; equal constants are one."""

    def __init__(self, graph: ir.Graph) -> None:
        self._taken = {node.name for node in graph.all_nodes()}
        for part in (graph, *graph.subgraphs()):
            self._taken.update(part.initializers)
            self._taken.update(value.name for value in part.inputs)
            self._taken.update(value.name for node in part for value in node.outputs)
        self._constants: dict[tuple[int, str, tuple[int, ...], bytes], ir.Value] = {}

    def constant(self, node: ir.Node, array: np.ndarray) -> ir.Value:
        """A constant that a node may read."""
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        key = (id(graph), array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            tensor = ir.Tensor(array)
            value = ir.Value(
                name=self._fresh(f"{node.outputs[0].name}.constant"),
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(array.shape),
                const_value=tensor,
            )
            graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def before(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr] = (),
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """What a new node in front of another makes."""
        new = ir.Node("", op_type, inputs, attributes, name=self._fresh(f"{node.name}/{op_type}"))
        new.outputs[0].name = self._fresh(f"{node.outputs[0].name}/{op_type}")
        if dtype is not None:
            new.outputs[0].dtype = dtype
        node.prepend(new)
        return new.outputs[0]

    def _fresh(self, name: str) -> str:
        free, count = name, 1
        while free in self._taken:
            count += 1
            free = f"{name}#{count}"
        self._taken.add(free)
        return free


def become(node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = ()) -> None:
    """Let a node be another op: it keeps its name and what it makes."""
    node.op_type = op_type
    node.attributes.clear()
    node.attributes.update({attribute.name: attribute for attribute in attributes})
    read(node, inputs)


def read(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    """Let a node read other values; those left out at the end are not written."""
    kept = list(inputs)
    while kept and kept[-1] is None:
        kept.pop()
    node.resize_inputs(len(kept))
    for position, value in enumerate(kept):
        node.replace_input_with(position, value)


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of a value that is stored, and for which no caller may give another."""
    return None if value is None or value.is_graph_input() or not value.is_initializer() else array_of(value)


def _to_inputs(*names: str) -> Adapter:
    """Integer attributes become inputs, in order; one that is left out is left out there too."""

    def adapt(node: ir.Node, writer: Writer) -> None:
        inputs: list[ir.Value | None] = [node.inputs[0]]
        for name in names:
            attribute = node.attributes.pop(name, None)
            array = None if attribute is None else np.atleast_1d(np.array(attribute.value, np.int64))
            inputs.append(None if array is None else writer.constant(node, array))
        read(node, inputs)

    return adapt


def _float_inputs(names: Sequence[str], unset: Sequence[float], scalar_at: int) -> Adapter:
    """Numbers of the data's type become inputs; those that say nothing are left out."""

    def adapt(node: ir.Node, writer: Writer) -> None:
        data, inputs = node.inputs[0], list(node.inputs[:scalar_at])
        for name, nothing in zip(names, unset, strict=True):
            attribute = node.attributes.pop(name, None)
            number = nothing if attribute is None else np.float32(attribute.as_float())
            if number == np.float32(nothing):
                inputs.append(None)
                continue
            dtype = node.outputs[0].dtype if data is None or data.dtype is None else data.dtype
            if dtype not in FLOATS:
                raise Refused(f"the type of what {node.op_type} reads is not known")
            inputs.append(writer.constant(node, np.array(number, dtype.numpy())))
        read(node, inputs)

    return adapt


_clip = _float_inputs(("min", "max"), (-FLOAT_RANGE, FLOAT_RANGE), 1)
_pad_value = _float_inputs(("value",), (0.0,), 2)


def _pad(node: ir.Node, writer: Writer) -> None:
    mode = node.attributes.get("mode")
    value = node.attributes.get("value")
    pads = np.array(node.attributes["pads"].as_ints(), np.int64)
    attributes = [attribute for attribute in (mode, value) if attribute is not None]
    become(node, "Pad", [node.inputs[0], writer.constant(node, pads)], attributes)
    _pad_value(node, writer)


def _renamed_pads(node: ir.Node, _: Writer) -> None:
    node.attributes.add(ir.AttrInt64s("pads", node.attributes.pop("paddings").as_ints()))


def _whole_power(node: ir.Node, _: Writer) -> None:
    power = node.attributes.get_float("p", 2.0)
    if power != int(power):
        raise Refused(f"{node.op_type} takes whole powers, not {power}")
    node.attributes.add(ir.AttrInt64("p", int(power)))


def _concat_axis(node: ir.Node, _: Writer) -> None:
    if "axis" not in node.attributes:
        node.attributes.add(ir.AttrInt64("axis", 1))


def _inference_only(node: ir.Node, _: Writer) -> None:
    if not node.attributes.get_int("is_test", 0):
        raise Refused(f"{node.op_type} trains")
    node.attributes.pop("is_test")


def _spatial(node: ir.Node, _: Writer) -> None:
    if not node.attributes.get_int("spatial", 1):
        raise Refused("BatchNormalization has statistics for each place, which newer opsets cannot say")
    node.attributes.pop("spatial", None)


def _one_output(node: ir.Node, _: Writer) -> None:
    """Further outputs are others: of another type, or in another order."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Refused(f"{node.op_type} makes `{node.outputs[1].name}`, which newer opsets make otherwise")
    node.resize_outputs(1)


def _drop_ratio(node: ir.Node, _: Writer) -> None:
    node.attributes.pop("ratio", None)  # it says nothing where nothing is trained


def _upsample_scales(node: ir.Node, writer: Writer) -> None:
    scales = np.array(node.attributes.pop("scales").as_floats(), np.float32)
    read(node, [node.inputs[0], writer.constant(node, scales)])


def _resize(node: ir.Node, writer: Writer) -> None:
    """Resize-10: places are counted from the edge; nearest is the one before where it grows, after where it shrinks."""
    mode = node.attributes.get_string("mode", "nearest")
    value, scales = node.inputs
    roi = writer.constant(node, np.zeros(0, np.float32))
    if mode != "nearest":
        become(node, "Resize", [value, roi, scales], _asymmetric(mode))
        return
    known = constant_of(scales)
    if known is not None and (known >= 1).all():
        become(node, "Resize", [value, roi, scales], _asymmetric(mode, "floor"))
    elif known is not None and (known <= 1).all():
        become(node, "Resize", [value, roi, scales], _asymmetric(mode, "ceil"))
    else:  # it may do both, each along axes of its own
        one, dtype = writer.constant(node, np.array(1, np.float32)), None if value is None else value.dtype
        up = writer.before(node, "Max", [scales, one], dtype=ir.DataType.FLOAT)
        down = writer.before(node, "Min", [scales, one], dtype=ir.DataType.FLOAT)
        grown = writer.before(node, "Resize", [value, roi, up], _asymmetric(mode, "floor"), dtype)
        become(node, "Resize", [grown, roi, down], _asymmetric(mode, "ceil"))


def _asymmetric(mode: str, nearest: str | None = None) -> list[ir.Attr]:
    named = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": nearest}
    return [ir.AttrString(name, text) for name, text in named.items() if text is not None]


def _tensorflow_nearest(node: ir.Node, _: Writer) -> None:
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_half_pixel_for_nn":
        raise Refused("Resize knows `tf_half_pixel_for_nn` no more")


def _flattening(node: ir.Node, writer: Writer) -> None:
    """Softmax(x, axis)  -->  Reshape(Softmax(Flatten(x, axis), -1), Shape(x)), unless the axis is the last."""
    value, axis = node.inputs[0], node.attributes.get_int("axis", 1)
    rank = None if value is None or value.shape is None else len(value.shape)
    node.attributes.add(ir.AttrInt64("axis", -1))
    if axis == -1 or (rank is not None and axis % rank == rank - 1):
        return
    dtype = None if value is None else value.dtype
    flat = writer.before(node, "Flatten", [value], [ir.AttrInt64("axis", axis)], dtype)
    made = writer.before(node, node.op_type, [flat], list(node.attributes.values()), dtype)
    shape = writer.before(node, "Shape", [value], dtype=ir.DataType.INT64)
    become(node, "Reshape", [made, shape])


def _split_count(node: ir.Node, _: Writer) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes.add(ir.AttrInt64("num_outputs", len(node.outputs)))


def _scatter(node: ir.Node, _: Writer) -> None:
    node.op_type = "ScatterElements"


def _to_resize(node: ir.Node, _: Writer) -> None:
    node.op_type = "Resize"


def _roi_align(node: ir.Node, _: Writer) -> None:
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "output_half_pixel"))


def _grid_sample(node: ir.Node, _: Writer) -> None:
    mode = node.attributes.get_string("mode", "bilinear")
    node.attributes.add(ir.AttrString("mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)))


def _dft(node: ir.Node, writer: Writer) -> None:
    axis = node.attributes.pop("axis", None)
    number = np.array(1 if axis is None else axis.as_int(), np.int64)
    length = node.inputs[1] if len(node.inputs) > 1 else None
    read(node, [node.inputs[0], length, writer.constant(node, number)])


def _group_norm(node: ir.Node, writer: Writer) -> None:
    """Gains and biases, which were one a group, become one a channel."""
    value, gains, biases = node.inputs
    channels = None if value is None or value.shape is None or len(value.shape) < 2 else value.shape[1]
    groups = node.attributes.get_int("num_groups", 1)
    if not isinstance(channels, int) or channels % groups:
        raise Refused("the channels of GroupNormalization are not known")
    each, flat = (writer.constant(node, np.array(shape, np.int64)) for shape in ((groups, channels // groups), (-1,)))
    column = writer.constant(node, np.array((groups, 1), np.int64))
    spread = []
    for one in (gains, biases):
        dtype = None if one is None else one.dtype
        wide = writer.before(
            node, "Expand", [writer.before(node, "Reshape", [one, column], (), dtype), each], (), dtype
        )
        spread.append(writer.before(node, "Reshape", [wide, flat], (), dtype))
    read(node, [value, *spread])


def _gone(reason: str) -> Adapter:
    """What cannot be said any more."""

    def adapt(_node: ir.Node, _writer: Writer) -> None:
        raise Refused(reason)

    return adapt


ADAPTERS: dict[tuple[str, int], Adapter] = {
    ("Pad", 2): _renamed_pads,
    ("LpPool", 2): _whole_power,
    ("GlobalLpPool", 2): _whole_power,
    ("Concat", 4): _concat_axis,
    ("Reshape", 5): _to_inputs("shape"),
    ("BatchNormalization", 7): _inference_only,
    ("Dropout", 7): _inference_only,
    ("BatchNormalization", 9): _spatial,
    ("Upsample", 7): _gone("Upsample has no `height_scale` any more"),
    ("Scan", 9): _gone("Scan has no batches any more"),
    ("Upsample", 9): _upsample_scales,
    ("Dropout", 10): _one_output,
    ("Slice", 10): _to_inputs("starts", "ends", "axes"),
    ("TopK", 10): _to_inputs("k"),
    ("Upsample", 10): _to_resize,
    ("Clip", 11): _clip,
    ("Pad", 11): _pad,
    ("Resize", 11): _resize,
    ("Scatter", 11): _scatter,
    ("Dropout", 12): _drop_ratio,
    ("Resize", 13): _tensorflow_nearest,
    ("Split", 13): _to_inputs("split"),
    ("BatchNormalization", 14): _one_output,
    ("RoiAlign", 16): _roi_align,
    ("Split", 18): _split_count,
    ("GridSample", 20): _grid_sample,
    ("DFT", 20): _dft,
    ("GroupNormalization", 21): _group_norm,
    **{(op, 13): _flattening for op in ("Softmax", "LogSoftmax", "Hardmax")},
    **{(op, 13): _to_inputs("axes") for op in ("Squeeze", "Unsqueeze", "ReduceSum")},
    **{
        (f"Reduce{kind}", 18): _to_inputs("axes")
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
}
"""By op and by the version that writes it otherwise."""
