"""Raising a model's opset, by onnx's own converter, without handing it the weights."""

import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.errors import ModelError, first_line
from qcc.ir.onnx_functions import DOMAIN
from qcc.ir.onnx_load import normalise

SMALL_BYTES = 1024  # constants up to this size may decide how an op is converted
FREE_INITIALISERS = 4  # the IR version from which constants need not be graph inputs too: the converter insists


def raise_opset(model: ir.Model, target: int) -> None:
    """Convert a model in place; nodes, values and weights keep their names.

    The converter sees large weights as inputs: it neither reads nor copies them. It looks into no function, so foreign
    ones are inlined first; ours are written in ops that all opsets from their own on share.

    Raises:
        ModelError: a node has no equivalent at the target.
    """
    common.InlinePass(lambda function: function.domain != DOMAIN)(model)
    model.ir_version = max(model.ir_version, FREE_INITIALISERS)
    large = _set_aside(model.graph)
    try:
        proto = ir.serde.serialize_model(model)
        converted = ir.serde.deserialize_model(onnx.version_converter.convert_version(proto, target))
    except Exception as error:  # the converter raises RuntimeError, ConvertError and ValueError alike
        _put_back(model.graph, large)
        raise ModelError(
            "Q407",
            f"the model's opset cannot be raised to {target}: {_last_line(error)}",
            help="export the model with a newer opset",
        ) from error
    functions = dict(model.functions)
    _put_back(converted.graph, large)
    _keep_metadata(model.graph, converted.graph)
    model.graph = converted.graph
    for key, function in functions.items():
        function.opset_imports[""] = target
        model.functions[key] = function
    model.ir_version = max(model.ir_version, converted.ir_version)
    normalise(model)


class _Weight:
    """A weight set aside: its tensor, and whether the graph had it as an input too."""

    def __init__(self, value: ir.Value, was_input: bool) -> None:
        assert value.name is not None and value.const_value is not None
        self.name, self.tensor, self.was_input = value.name, value.const_value, was_input


def _set_aside(graph: ir.Graph) -> list[_Weight]:
    """Turn large initialisers into inputs without data."""
    large = []
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype is ir.DataType.STRING or tensor.nbytes <= SMALL_BYTES:
            continue
        weight = _Weight(value, value in graph.inputs)
        large.append(weight)
        del graph.initializers[weight.name]
        if not weight.was_input:
            value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
            graph.inputs.append(value)
    return large


def _put_back(graph: ir.Graph, large: list[_Weight]) -> None:
    inputs = {value.name: value for value in graph.inputs}
    for weight in large:
        value = inputs[weight.name]
        value.const_value = weight.tensor
        if not weight.was_input:
            graph.inputs.remove(value)
        graph.initializers.add(value)


def _keep_metadata(old: ir.Graph, new: ir.Graph) -> None:
    """The converter drops node metadata, from which layers get their names."""
    known = {node.name: node.metadata_props for node in old}
    for node in new:
        node.metadata_props.update(known.get(node.name, {}))


def _last_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[-1] if text else first_line(error)
