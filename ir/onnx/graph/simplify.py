"""Removing what cannot change the function of an ONNX model, by the library's own passes."""

import hashlib
from collections import defaultdict
from collections.abc import Container

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.errors import ModelError, first_line
from qcc.ir.onnx.file.domain import DOMAIN
from qcc.ir.onnx.file.infer import InferTypes
from qcc.ir.onnx.file.load import align_functions, array_of, normalise
from qcc.ir.onnx.given.lift import lift_products
from qcc.ir.onnx.graph.fold import FoldConstants
from qcc.ir.onnx.graph.hoist import HoistConstants
from qcc.ir.onnx.graph.pieces import LiftWeights
from qcc.ir.onnx.graph.tie import TieTransposed

NAMES = ("ops", "constants")
BEGINNING = 1024  # numbers of constants that are compared before all of them are


def simplify(model: ir.Model) -> list[str]:
    """Simplify in place; one line per kind of edit.

    Raises:
        ModelError: the model breaks a rule that nobody checked so far.
    """
    before = _counts(model)
    align_functions(model)
    try:
        for step in (
            common.InlinePass(lambda function: function.domain != DOMAIN),
            common.RemoveInitializersFromInputsPass(),
            _RemoveIdentities(),
            HoistConstants(),
            _DeduplicateConstants(),
            TieTransposed(),
            *([] if _draws(model) else [common.CommonSubexpressionEliminationPass()]),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
            InferTypes(),
            FoldConstants(),
        ):
            step(model)
        normalise(model)
        after = _counts(model)
        lift(model)
    except Exception as error:  # the passes trust their input: what they raise on a bad one is any error at all
        raise ModelError("Q401", f"the model is not valid: {first_line(error.__cause__ or error)}") from error
    return [f"{name}: {old} -> {new}" for name, old, new in zip(NAMES, before, after, strict=True) if new != old]


def lift(model: ir.Model, only: Container[str] | None = None) -> None:
    """Let constants stand where weights are decoded; what follows then knows their shapes.

    Args:
        model: edited.
        only: the names of what makes them, or multiplies them; None for all.
    """
    lift_products(model, only)
    InferTypes()(model)
    LiftWeights(only)(model)


def _counts(model: ir.Model) -> tuple[int, int]:
    return model.graph.num_nodes(), len(model.graph.initializers)


def _draws(model: ir.Model) -> bool:
    """Two equal nodes may yet differ: these draw random numbers, and the library knows only of others that do."""
    return any(
        node.op_type == "Bernoulli" or (node.op_type == "Dropout" and len(node.inputs) > 2)
        for node in model.graph.all_nodes()
    )


class _RemoveIdentities(ir.passes.InPlacePass):
    """Read through Identity nodes that make no output.

    The library's pass renames what an output's Identity reads, even if that is another output, or outside the branch.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = [node for node in model.graph.all_nodes() if node.op_type == "Identity" and node.domain == ""]
        removed = 0
        for node in found:
            source, output = node.inputs[0], node.outputs[0]
            if source is None or output.is_graph_output() or node.graph is None:
                continue
            output.replace_all_uses_with(source)
            node.graph.remove(node, safe=True)
            removed += 1
        return ir.passes.PassResult(model, removed > 0)


class _DeduplicateConstants(ir.passes.InPlacePass):
    """Store equal constants once.

    The library's pass hashes every weight there is, and fails on bfloat16 and strings; here only those of one type and
    shape are looked into.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for graph in model.graphs():
            alike: dict[tuple[ir.DataType, tuple[int, ...]], list[ir.Value]] = defaultdict(list)
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is not None and not value.is_graph_input() and not value.is_graph_output():
                    alike[tensor.dtype, tuple(int(size) for size in tensor.shape.numpy())].append(value)
            for values in alike.values():
                modified |= len(values) > 1 and _merge(graph, values)
        return ir.passes.PassResult(model, modified)


def _merge(graph: ir.Graph, values: list[ir.Value]) -> bool:
    beginnings: dict[bytes, list[ir.Value]] = defaultdict(list)
    for value in values:
        beginnings[_digest(value, BEGINNING)].append(value)
    alike = [values for values in beginnings.values() if len(values) > 1]
    return sum(_merge_alike(graph, values) for values in alike) > 0


def _merge_alike(graph: ir.Graph, values: list[ir.Value]) -> bool:
    """Those that begin alike are read whole."""
    kept: dict[bytes, ir.Value] = {}
    merged = False
    for value in values:
        first = kept.setdefault(_digest(value), value)
        if first is not value:
            value.replace_all_uses_with(first)
            del graph.initializers[value.name or ""]
            merged = True
    return merged


def _digest(value: ir.Value, most: int | None = None) -> bytes:
    """Of a constant, or of so many numbers at its beginning."""
    if isinstance(value.const_value, ir.StringTensor):
        return repr(list(value.const_value.string_data())).encode()
    array = array_of(value)
    assert array is not None
    return hashlib.sha256(np.ascontiguousarray(array.reshape(-1)[:most]).view(np.uint8).data).digest()
