"""Removing what cannot change the function of an ONNX model, by the library's own passes."""

import hashlib
from collections import defaultdict

import onnx_ir as ir
from onnx_ir.passes import common

from qcc.ir.errors import ModelError, first_line
from qcc.ir.onnx_functions import DOMAIN
from qcc.ir.onnx_load import normalise

FREE_INITIALISERS = 4  # the IR version from which constants need not be graph inputs too


def simplify(model: ir.Model) -> list[str]:
    """Simplify in place; one line per kind of edit.

    Raises:
        ModelError: the model breaks a rule that nobody checked so far.
    """
    before = _counts(model)
    try:
        for step in (
            common.InlinePass(lambda function: function.domain != DOMAIN),
            common.RemoveInitializersFromInputsPass(),
            common.IdentityEliminationPass(),
            _DeduplicateConstants(),
            common.CommonSubexpressionEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
            _infer_shapes(),
        ):
            step(model)
        normalise(model)
    except Exception as error:  # the passes trust their input: what they raise on a bad one is any error at all
        raise ModelError("Q401", f"the model is not valid: {first_line(error.__cause__ or error)}") from error
    model.ir_version = max(model.ir_version, FREE_INITIALISERS)
    return [f"{name}: {old} -> {new}" for name, old, new in zip(NAMES, before, _counts(model), strict=True) if new != old]


NAMES = ("ops", "constants")


def _counts(model: ir.Model) -> tuple[int, int]:
    return model.graph.num_nodes(), len(model.graph.initializers)


def _infer_shapes() -> common.ShapeInferencePass:
    """Not strict: one op that cannot be inferred, or a wrong annotation, must not cost all the others their shapes."""
    return common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)


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
    kept: dict[bytes, ir.Value] = {}
    merged = False
    for value in values:
        first = kept.setdefault(_digest(value), value)
        if first is not value:
            value.replace_all_uses_with(first)
            del graph.initializers[value.name or ""]
            merged = True
    return merged


def _digest(value: ir.Value) -> bytes:
    tensor = value.const_value
    assert tensor is not None
    if isinstance(tensor, ir.StringTensor):
        return repr(list(tensor.string_data())).encode()
    return hashlib.sha256(tensor.tobytes()).digest()
