"""Norms, and what compares numbers along an axis."""

from collections.abc import Sequence

from qcc.ir.vocabulary.definition import EpilogueStep, Lines, OpDef, node, number


def _rms_norm(v: str, y: str, operands: Sequence[str], _: int) -> Lines:
    return [
        number(f"{y}_two", 2.0),
        f"{y}_axes = Constant <value_ints: ints = [-1]> ()",
        f"{y}_epsilon = Constant <value_float: float = @epsilon> ()",
        f"{y}_square = Pow ({v}, {y}_two)",
        f"{y}_mean = ReduceMean <keepdims: int = 1> ({y}_square, {y}_axes)",
        f"{y}_positive = Add ({y}_mean, {y}_epsilon)",
        f"{y}_root = Sqrt ({y}_positive)",
        f"{y}_normalised = Div ({v}, {y}_root)",
        f"{y} = Mul ({y}_normalised, {operands[0]})",
    ]


LAYER_NORM = OpDef(
    "norm", "layer_norm", read="axis epsilon", onnx="LayerNormalization", aten="layer_norm native_layer_norm",
    over="last", plain=True,
    steps=(
        EpilogueStep(
            "layer_norm", operands=(("gain", "vector"), ("shift", "vector")), centred=True,
            lines=node("LayerNormalization <axis: int = -1, epsilon: float = @epsilon>"),
        ),
    ),
)  # fmt: skip
RMS_NORM = OpDef(
    "norm", "rms_norm", read="axis epsilon", onnx="RMSNormalization", aten="rms_norm", over="last", plain=True,
    steps=(EpilogueStep("rms_norm", operands=(("gain", "vector"),), centred=False, lines=_rms_norm),),
)  # fmt: skip
OTHERS = (
    OpDef("norm", "batch_norm", read="epsilon", onnx="BatchNormalization",
          aten="batch_norm _native_batch_norm_legit_no_training", over="batch", affine="first"),
    OpDef("norm", "group_norm", read="groups epsilon", onnx="GroupNormalization",
          aten="group_norm native_group_norm", over="group"),
    OpDef("norm", "instance_norm", read="epsilon", onnx="InstanceNormalization", aten="instance_norm",
          over="instance"),
    OpDef("norm", "local_response_norm", onnx="LRN"),
    OpDef("norm", "lp_norm", read="axis", onnx="LpNormalization", over="one"),
    OpDef("softmax", "softmax", read="axis", onnx="Softmax", aten="softmax _softmax"),
    OpDef("softmax", "log_softmax", read="axis", onnx="LogSoftmax", aten="log_softmax _log_softmax"),
    OpDef("softmax", "hardmax", read="axis", onnx="Hardmax"),
)  # fmt: skip
