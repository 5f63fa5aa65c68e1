"""Functions of single values that nets have between products."""

from collections.abc import Sequence
from typing import Any

from qcc.ir.vocabulary.definition import EpilogueStep, Lines, OpDef, Real, WordAttribute, node, number

GELU_OPSET = 20


def _gelu(v: str, y: str, _: Sequence[str], opset: int) -> Lines:
    if opset >= GELU_OPSET:
        return [f"{y} = Gelu ({v})"]
    return [
        number(f"{y}_root", 1.4142135381698608),
        number(f"{y}_one", 1.0),
        number(f"{y}_half", 0.5),
        f"{y}_scaled = Div ({v}, {y}_root)",
        f"{y}_erf = Erf ({y}_scaled)",
        f"{y}_sum = Add ({y}_erf, {y}_one)",
        f"{y}_product = Mul ({v}, {y}_sum)",
        f"{y} = Mul ({y}_product, {y}_half)",
    ]


def _gelu_by_logistic(m: Any, v: Any) -> Any:  # noqa: ANN401 - of the interpreter
    """``1 + tanh(x)`` is twice the logistic function of ``2 x``: with ``2 sqrt(2 / pi)`` in front."""
    return v * m.logistic(v * (v * v * 0.0713548162726 + 1.59576912161))


def _gelu_tanh(v: str, y: str, _: Sequence[str], opset: int) -> Lines:
    if opset >= GELU_OPSET:
        return [f'{y} = Gelu <approximate: string = "tanh"> ({v})']
    return [
        number(f"{y}_three", 3.0),
        number(f"{y}_cubic", 0.044715),
        number(f"{y}_root", 0.7978845834732056),
        number(f"{y}_one", 1.0),
        number(f"{y}_half", 0.5),
        f"{y}_cube = Pow ({v}, {y}_three)",
        f"{y}_small = Mul ({y}_cubic, {y}_cube)",
        f"{y}_inner = Add ({v}, {y}_small)",
        f"{y}_scaled = Mul ({y}_root, {y}_inner)",
        f"{y}_tanh = Tanh ({y}_scaled)",
        f"{y}_sum = Add ({y}_one, {y}_tanh)",
        f"{y}_halved = Mul ({v}, {y}_half)",
        f"{y} = Mul ({y}_halved, {y}_sum)",
    ]


def _silu(v: str, y: str, _: Sequence[str], __: int) -> Lines:
    return [f"{y}_sigmoid = Sigmoid ({v})", f"{y} = Mul ({v}, {y}_sigmoid)"]


def _relu6(v: str, y: str, _: Sequence[str], __: int) -> Lines:
    return [number(f"{y}_low", 0.0), number(f"{y}_high", 6.0), f"{y} = Clip ({v}, {y}_low, {y}_high)"]


RELU = OpDef(
    "elementwise", "relu", onnx="Relu", aten="relu", law="homogeneous", plain=True,
    steps=(EpilogueStep("relu", lambda m, v: m.above(v, 0.0), lines=node("Relu")),),
)  # fmt: skip
GELU = OpDef(
    "elementwise", "gelu", (WordAttribute("approximate", "none"),), onnx="Gelu", aten="gelu", plain=True,
    steps=(
        EpilogueStep("gelu", lambda m, v: v * m.normal(v), lines=_gelu),
        EpilogueStep("gelu_tanh", _gelu_by_logistic, lines=_gelu_tanh),
    ),
)  # fmt: skip
SILU = OpDef(
    "elementwise", "silu", onnx="Swish", aten="silu", onnx_only={"alpha": 1.0}, plain=True,
    steps=(EpilogueStep("silu", lambda m, v: v * m.logistic(v), lines=_silu),),
)  # fmt: skip
SIGMOID = OpDef(
    "elementwise", "sigmoid", onnx="Sigmoid", aten="sigmoid", plain=True, integer="computes",
    steps=(EpilogueStep("sigmoid", lambda m, v: m.logistic(v), lines=node("Sigmoid")),),
)  # fmt: skip
TANH = OpDef(
    "elementwise", "tanh", onnx="Tanh", aten="tanh", plain=True,
    steps=(EpilogueStep("tanh", lambda m, v: m.tanh(v), lines=node("Tanh")),),
)  # fmt: skip
HARD_SWISH = OpDef(
    "elementwise", "hard_swish", onnx="HardSwish", aten="hardswish", plain=True,
    steps=(EpilogueStep("hard_swish", lambda m, v: v * m.clamp(v * (1 / 6) + 0.5, 0.0, 1.0), lines=node("HardSwish")),),
)  # fmt: skip
CLIP = OpDef(
    "elementwise", "clip", read="min max", onnx="Clip", aten="clamp clamp_min clamp_max hardtanh relu6",
    law="homogeneous", plain=True, steps=(EpilogueStep("relu6", lambda m, v: m.clamp(v, 0.0, 6.0), lines=_relu6),),
)  # fmt: skip

OTHERS = (
    OpDef("elementwise", "leaky_relu", (Real("alpha", 0.01, "negative_slope"),), onnx="LeakyRelu", aten="leaky_relu",
          law="homogeneous", plain=True, integer="computes"),
    OpDef("elementwise", "prelu", onnx="PRelu", aten="prelu", law="homogeneous"),
    OpDef("elementwise", "elu", (Real("alpha", 1.0, "alpha"),), onnx="Elu", aten="elu",
          aten_only={"scale": 1, "input_scale": 1}),
    OpDef("elementwise", "selu", onnx="Selu", aten="selu"),
    OpDef("elementwise", "celu", (Real("alpha", 1.0, "alpha"),), onnx="Celu", aten="celu",
          aten_only={"scale": 1, "input_scale": 1}),
    OpDef("elementwise", "hard_sigmoid", (Real("alpha", 0.2, 1 / 6), Real("beta", 0.5, 0.5)), onnx="HardSigmoid",
          aten="hardsigmoid", plain=True),
    OpDef("elementwise", "softplus", onnx="Softplus", aten="softplus", plain=True),
    OpDef("elementwise", "softsign", onnx="Softsign"),
    OpDef("elementwise", "mish", onnx="Mish", aten="mish"),
    OpDef("elementwise", "thresholded_relu", (Real("alpha", 1.0),), onnx="ThresholdedRelu"),
)  # fmt: skip
