"""Raising a model's opset in place: nodes stay the objects that they are, so that layers and weights keep theirs.

An op whose definition is the same at both versions is not touched. Of the others, what is spelt otherwise from some
version on is rewritten (`onnx_adapters`), defaults that change are written out, and what has no equivalent is refused.
What the definitions do not tell is for a comparison of both models to find out.
"""

import onnx.defs
import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.errors import ModelError, Refused
from qcc.ir.onnx.file.adapters import ADAPTERS, Writer
from qcc.ir.onnx.file.domain import DOMAIN
from qcc.ir.onnx.file.load import align_functions, normalise

ABANDONED = "consumed_inputs"  # a hint about memory that most ops had until opset 6


def raise_opset(model: ir.Model, target: int) -> tuple[str, ...]:
    """Convert a model in place; nodes, values and weights keep their names, and weights stay where they lie.

    Foreign functions are inlined first; ours are written in ops that all opsets from their own on share.

    Returns:
        The types of the ops whose definitions differ between the two versions; none if the models are the same.

    Raises:
        ModelError: a node has no equivalent at the target. The model is as it was.
    """
    raised = model.clone()
    align_functions(raised)
    common.InlinePass(lambda function: function.domain != DOMAIN)(raised)
    source = raised.opset_imports.get("", 1)
    writer = Writer(raised.graph)
    changed = {
        node.op_type: None
        for node in list(raised.graph.all_nodes())
        if node.domain == "" and _raise_node(node, source, target, writer)
    }
    raised.graph.opset_imports[""] = target
    for function in raised.functions.values():
        function.opset_imports[""] = target
    normalise(raised)
    model.graph = raised.graph
    model.functions.clear()
    model.functions.update(raised.functions)
    return tuple(changed)


def _raise_node(node: ir.Node, source: int, target: int, writer: Writer) -> bool:
    """Rewrite a node for the target; whether its definition differs there."""
    old, new = _schema(node.op_type, source), _schema(node.op_type, target)
    if old is None:
        return True  # the runtime may know it
    if new is not None and old.since_version == new.since_version:
        return False
    try:
        _check(node, old, old)
        if ABANDONED in old.attributes:
            node.attributes.pop(ABANDONED, None)
        if new is not None:
            _write_defaults(node, old, new)
        for version in range(source + 1, target + 1):
            adapter = ADAPTERS.get((node.op_type, version))
            if adapter is not None:
                adapter(node, writer)
        new = _schema(node.op_type, target)
        if new is None or new.deprecated:
            raise Refused(f"{node.op_type} is no more")
        _check(node, old, new)
    except Refused as refused:
        raise ModelError(
            "Q407",
            f"the model's opset cannot be raised from {source} to {target}: node `{node.name}`, {refused.reason}",
            help="export the model with a newer opset, or keep the layers that need it",
        ) from refused
    return True


def _schema(op_type: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None


def _write_defaults(node: ir.Node, old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> None:
    """An attribute that is left out goes on to mean what it meant."""
    for name, attribute in old.attributes.items():
        before = attribute.default_value
        if name in node.attributes or name not in new.attributes or not before.type:
            continue
        if before != new.attributes[name].default_value:
            before.name = name
            node.attributes.add(ir.serde.deserialize_attribute(before))


def _check(node: ir.Node, old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> None:
    """Hold a node to a definition, old or new."""
    for name, attribute in node.attributes.items():
        if name not in new.attributes and name in old.attributes:
            raise Refused(f"{node.op_type} has no `{name}` any more")
        if name in new.attributes and attribute.type.name != _kind(new.attributes[name]):
            raise Refused(f"`{name}` of {node.op_type} has another type")
    missing = [name for name, one in new.attributes.items() if one.required and name not in node.attributes]
    if missing:
        raise Refused(f"{node.op_type} needs `{missing[0]}`")
    if not new.min_input <= len(node.inputs) <= new.max_input or len(node.outputs) > new.max_output:
        raise Refused(f"{node.op_type} reads or makes other values")


def _kind(attribute: onnx.defs.OpSchema.Attribute) -> str:
    return str(attribute.type).rsplit(".", 1)[-1]
