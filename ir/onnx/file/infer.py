"""Inferring types and shapes, by onnx's own inference; sequences and optionals stay what they are."""

import onnx
import onnx.shape_inference
import onnx_ir as ir

SMALL_BYTES = 1000  # constants up to this size may decide a shape


class InferTypes(ir.passes.InPlacePass):
    """Give every value the type and shape that follow from the inputs, where they do.

    The library's pass keeps the element type alone, so that a sequence of tensors becomes a tensor.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """One op that cannot be inferred, or a wrong annotation, does not cost all the others their shapes."""
        try:
            inferred = infer(model)
        except Exception:  # of any class; what was known stays known
            return ir.passes.PassResult(model, False)
        modified = False
        for graph, other in zip(model.graphs(), inferred.graphs(), strict=True):
            known = ir.convenience.create_value_mapping(other, include_subgraphs=False)
            for name, value in ir.convenience.create_value_mapping(graph, include_subgraphs=False).items():
                modified |= name in known and _take(value, known[name])
        return ir.passes.PassResult(model, modified)


def infer(model: ir.Model) -> ir.Model:
    """A copy of a model, without its large constants, whose values have the types that follow from the inputs.

    Raises:
        Exception: of any class; an op cannot be inferred, or an annotation is wrong.
    """
    return ir.serde.deserialize_model(_inferred(_without_weights(model)))


def _inferred(bare: onnx.ModelProto) -> onnx.ModelProto:
    """The same with types, also those that follow from numbers that decide shapes.

    Such numbers are followed into functions one by one, those of whole weights among them, for which a head of 32,000
    tokens takes 2 GB. So functions are inferred without them first, and are ops of unknown kind to the second look.
    """
    if not bare.functions:
        return onnx.shape_inference.infer_shapes(bare, data_prop=True)
    typed = onnx.shape_inference.infer_shapes(bare)
    functions = [*typed.functions]
    del typed.functions[:]
    found = onnx.shape_inference.infer_shapes(typed, data_prop=True)
    found.functions.extend(functions)
    return found


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with its large constants as inputs without data."""
    bare = model.clone()
    for value in list(bare.graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > SMALL_BYTES:
            del bare.graph.initializers[value.name or ""]
            value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
            value.const_value = None
        if value not in bare.graph.inputs:
            bare.graph.inputs.append(value)
    return ir.serde.serialize_model(bare)


def _take(value: ir.Value, inferred: ir.Value) -> bool:
    """Take over what was inferred of a value; whether that is news."""
    before = value.type, value.shape
    if inferred.type is not None and inferred.dtype is not ir.DataType.UNDEFINED:
        value.type = inferred.type
    if inferred.shape is not None:
        value.shape = inferred.shape
    return before != (value.type, value.shape)
