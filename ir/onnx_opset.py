"""Raising a model's opset, by onnx's own converter, without handing it the weights."""

import onnx
import onnx.version_converter
import onnx_ir as ir

from qcc.ir.errors import ModelError

SMALL_BYTES = 1024  # constants up to this size may decide how an op is converted


def raise_opset(model: ir.Model, target: int) -> None:
    """Convert a model in place.

    The converter sees large weights as inputs: it neither reads nor copies them.

    Raises:
        ModelError: a node has no equivalent at the target.
    """
    graph = model.graph
    large = [v for v in graph.initializers.values() if v.const_value is not None and v.const_value.nbytes > SMALL_BYTES]
    added = [value for value in large if value not in graph.inputs]
    for value in large:
        del graph.initializers[value.name or ""]
        if value in added:
            value.type = ir.TensorType(value.const_value.dtype)  # type: ignore[union-attr]
            value.shape = ir.Shape(value.const_value.shape)  # type: ignore[union-attr]
    graph.inputs.extend(added)
    try:
        proto = ir.serde.serialize_model(model)
        functions = list(model.functions.values())
        converted = ir.serde.deserialize_model(onnx.version_converter.convert_version(proto, target))
    except Exception as error:  # the converter raises RuntimeError, ConvertError and ValueError alike
        _restore(graph, large, added)
        raise ModelError(
            "Q407",
            f"the model's opset cannot be raised to {target}: {str(error).strip().splitlines()[-1]}",
            help="export the model with a newer opset",
        ) from error
    _move_weights(converted.graph, large, {value.name for value in added})
    _keep_metadata(graph, converted.graph)
    for function in functions:
        function.opset_imports[""] = target
        converted.functions[function.identifier()] = function
    model.graph = converted.graph
    model.ir_version = max(model.ir_version, converted.ir_version)


def _restore(graph: ir.Graph, large: list[ir.Value], added: list[ir.Value]) -> None:
    for value in added:
        graph.inputs.remove(value)
    for value in large:
        graph.initializers.add(value)


def _move_weights(graph: ir.Graph, large: list[ir.Value], added: set[str | None]) -> None:
    inputs = {value.name: value for value in graph.inputs}
    for old in large:
        value = inputs[old.name]
        value.const_value = old.const_value
        if old.name in added:
            graph.inputs.remove(value)
        graph.initializers.add(value)


def _keep_metadata(old: ir.Graph, new: ir.Graph) -> None:
    """The converter drops node metadata, from which layers get their names."""
    known = {node.name: node.metadata_props for node in old}
    for node in new:
        node.metadata_props.update(known.get(node.name, {}))
