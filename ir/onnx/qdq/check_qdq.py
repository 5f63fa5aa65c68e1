"""Whether a file is as an execution provider takes graphs in which values are rounded, by its rules alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from qcc.ir.forms.qdq_rules import SIXTEEN, QdqRules
from qcc.ir.onnx.file.load import array_of

CODE, DECODE = "QuantizeLinear", "DequantizeLinear"
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
WEIGHT, BIAS, OPERANDS = 1, 2, 3
OWN_TYPES = 21  # the opset from which 16 bits are ONNX's own
CLOSE = 1e-5  # of a scale: two float32 multiplied
CUTS = ("Relu", "Clip")


def qdq_faults(path: Path, rules: QdqRules) -> list[str]:
    """What breaks the rules, a line each, in the order of the graph; without any, the provider takes it.

    Args:
        path: of an ONNX file.
        rules: of the provider.
    """
    model = ir.load(path)
    return [one for node in model.graph for one in _Checked(node, rules, model.graph.opset_imports.get("", 0)).faults()]


class _Checked:
    """One op."""

    def __init__(self, node: ir.Node, rules: QdqRules, opset: int) -> None:
        self._node, self._rules, self._opset = node, rules, opset
        self._name = f"`{node.name or node.op_type}`"

    def faults(self) -> Iterator[str]:
        """What is wrong with it."""
        if self._node.op_type in (CODE, DECODE):
            yield from self._coded()
        elif self._node.op_type in LAYERS and _decoded(_input(self._node, WEIGHT)) is not None:
            yield from self._layer()
        if self._node.op_type in self._rules.steps:
            yield from self._fixed()

    def _coded(self) -> Iterator[str]:
        """Types, zeros and, of values, one scale for all."""
        stored = self._node.op_type == DECODE and _constant(_input(self._node, 0)) is not None
        if stored and self._is_bias():
            return
        scale, zero = (_constant(_input(self._node, at)) for at in (1, 2))
        if scale is None:
            yield f"{self._name}: its scale is computed, and must be a constant"
            return
        kind = _codes(self._node)
        taken = self._rules.weights if stored else self._rules.values
        if kind not in taken:
            yield f"{self._name}: codes are {kind}, and must be {' or '.join(taken)}"
        if self._rules.centred and zero is not None and np.any(zero):
            yield f"{self._name}: the code of zero is {int(zero.reshape(-1)[0])}, and must be 0"
        if kind in SIXTEEN and self._opset < OWN_TYPES and self._node.domain != "com.microsoft":
            yield f"{self._name}: codes of 16 bits are ops of com.microsoft before opset {OWN_TYPES}"
        if not stored and scale.size > 1:
            yield f"{self._name}: a value has {scale.size:,} scales, and must have one"

    def _layer(self) -> Iterator[str]:
        """Its input rounded too, scales along the axis that it takes, its bias as the rules have it, and its result."""
        op_type, weight = self._node.op_type, _decoded(_input(self._node, WEIGHT))
        assert weight is not None
        if _decoded(_input(self._node, 0)) is None:
            yield f"{self._name}: its weight has codes, and what it reads has none"
        scale = _constant(_input(weight, 1))
        if scale is not None and scale.size > 1:
            yield from self._axis(op_type, weight)
        bias = _input(self._node, BIAS)
        decoder = _decoded(bias)
        if self._rules.bias == "float" and decoder is not None:
            yield f"{self._name}: its bias has codes, and must be floats"
        if self._rules.bias == "int32" and bias is not None:
            yield from self._whole_bias(decoder, scale)
        if self._rules.results and not _goes_into_codes(self._node):
            yield f"{self._name}: what it makes is not rounded, and must be"

    def _axis(self, op_type: str, weight: ir.Node) -> Iterator[str]:
        found, wanted = weight.attributes.get("axis"), self._rules.axes.get(op_type)
        axis = 1 if found is None else found.as_int()
        turned = self._node.attributes.get("transB")
        if op_type == "Gemm" and wanted is not None and (turned is None or not turned.as_int()):
            wanted = 1 - wanted
        if wanted is None:
            yield f"{self._name}: {op_type} takes one scale for all of a weight"
        elif axis != wanted:
            yield f"{self._name}: scales of its weight lie along axis {axis}, and must along {wanted}"

    def _whole_bias(self, decoder: ir.Node | None, scale: np.ndarray | None) -> Iterator[str]:
        read = _decoded(_input(self._node, 0))
        if decoder is None or _codes(decoder) != "int32":
            yield f"{self._name}: its bias must be codes in int32"
            return
        steps = (_constant(_input(one, 1)) for one in (decoder, read) if one is not None)
        sums, step = (*steps, None, None)[:2]
        if sums is None or step is None or scale is None:
            return
        if not np.allclose(sums, step * scale, rtol=CLOSE, atol=0):
            yield f"{self._name}: the scale of its bias is not that of what it reads times its weight's"

    def _fixed(self) -> Iterator[str]:
        """The one step that what it makes has."""
        for user in self._node.outputs[0].consumers():
            wanted = self._rules.steps[self._node.op_type].get(_codes(user)) if user.op_type == CODE else None
            if wanted is None:
                continue
            scale, zero = (_constant(_input(user, at)) for at in (1, 2))
            have = (None if scale is None else float(scale), 0 if zero is None else int(zero))
            if have != (wanted[0], wanted[1]):
                must = f"must have {wanted[0]} around {wanted[1]}"
                yield f"{self._name}: what it makes has a step of {have[0]}, and {must}"

    def _is_bias(self) -> bool:
        return any(at == BIAS and user.op_type in LAYERS for user, at in self._node.outputs[0].uses())


def _input(node: ir.Node, at: int) -> ir.Value | None:
    return node.inputs[at] if at < len(node.inputs) else None


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None else array_of(value)


def _decoded(value: ir.Value | None) -> ir.Node | None:
    """The op that decodes a value, if one does."""
    maker = None if value is None else value.producer()
    return maker if maker is not None and maker.op_type == DECODE else None


def _codes(node: ir.Node) -> str:
    """The type of an op's codes."""
    zero = _constant(_input(node, OPERANDS - 1))
    if zero is not None:
        return str(zero.dtype)
    stored = _constant(_input(node, 0)) if node.op_type == DECODE else None
    return "uint8" if stored is None else str(stored.dtype)


def _goes_into_codes(node: ir.Node) -> bool:
    """All that reads what an op makes rounds it, or cuts it off and then rounds it."""
    value = node.outputs[0]
    users = list(value.consumers())
    if len(users) == 1 and users[0].op_type in CUTS:
        value = users[0].outputs[0]
        users = list(value.consumers())
    return bool(users) and not value.is_graph_output() and all(user.op_type == CODE for user in users)
