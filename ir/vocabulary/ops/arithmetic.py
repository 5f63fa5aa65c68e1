"""Arithmetic on single values, of one operand or several."""

from qcc.ir.vocabulary.definition import EpilogueStep, OpDef, node

ADD = OpDef(
    "binary", "add", onnx="Add Sum", aten="add", plain=True, affine="all", integer="computes",
    steps=(
        EpilogueStep("bias", lambda _, v, bias: v + bias, (("bias", "vector"),), lines=node("Add")),
        EpilogueStep("add", lambda _, v, added: v + added, (("added", "tensor"),), lines=node("Add")),
    ),
)  # fmt: skip
MUL = OpDef(
    "binary", "mul", onnx="Mul", aten="mul", plain=True, affine="one", integer="computes",
    steps=(EpilogueStep("mul", lambda _, v, factor: v * factor, (("factor", "tensor"),), lines=node("Mul")),),
)  # fmt: skip

ONE_OPERAND = (
    OpDef("elementwise", "erf", onnx="Erf", aten="erf", plain=True),
    OpDef("elementwise", "exp", onnx="Exp", aten="exp", plain=True),
    OpDef("elementwise", "log", onnx="Log", aten="log", plain=True),
    OpDef("elementwise", "sqrt", onnx="Sqrt", aten="sqrt", plain=True),
    OpDef("elementwise", "rsqrt", aten="rsqrt", plain=True),
    OpDef("elementwise", "reciprocal", onnx="Reciprocal", aten="reciprocal", plain=True),
    OpDef("elementwise", "neg", onnx="Neg", aten="neg", law="linear", plain=True, affine="first"),
    OpDef("elementwise", "abs", onnx="Abs", aten="abs", law="homogeneous", plain=True),
    OpDef("elementwise", "floor", onnx="Floor", aten="floor"),
    OpDef("elementwise", "ceil", onnx="Ceil", aten="ceil"),
    OpDef("elementwise", "round", onnx="Round", aten="round"),
    OpDef("elementwise", "sign", onnx="Sign", aten="sign"),
    OpDef("elementwise", "not", onnx="Not BitwiseNot", aten="logical_not bitwise_not"),
    OpDef("elementwise", "isnan", onnx="IsNaN", aten="isnan"),
    OpDef("elementwise", "sin", onnx="Sin", aten="sin"),
    OpDef("elementwise", "cos", onnx="Cos", aten="cos"),
    OpDef("elementwise", "dropout", onnx="Dropout", aten="dropout", law="linear", affine="first"),
    OpDef("elementwise", "identity", onnx="Identity", aten="clone contiguous alias detach lift_fresh_copy",
          law="linear", plain=True, affine="first"),
    OpDef("elementwise", "cast", read="to", onnx="Cast CastLike", aten="_to_copy to", law="linear", plain=True),
)  # fmt: skip
SEVERAL = (
    OpDef("binary", "sub", onnx="Sub", aten="sub rsub", plain=True, affine="all"),
    OpDef("binary", "div", onnx="Div", aten="div", plain=True, affine="first"),
    OpDef("binary", "pow", onnx="Pow", aten="pow", plain=True),
    OpDef("binary", "min", onnx="Min", aten="minimum min.other", plain=True),
    OpDef("binary", "max", onnx="Max", aten="maximum max.other", plain=True),
    OpDef("binary", "mod", onnx="Mod", aten="fmod remainder"),
    OpDef("binary", "and", onnx="And BitwiseAnd", aten="logical_and bitwise_and"),
    OpDef("binary", "or", onnx="Or BitwiseOr", aten="logical_or bitwise_or"),
    OpDef("binary", "xor", onnx="Xor BitwiseXor", aten="logical_xor bitwise_xor"),
    OpDef("binary", "equal", onnx="Equal", aten="eq"),
    OpDef("binary", "not_equal", aten="ne"),
    OpDef("binary", "less", onnx="Less", aten="lt"),
    OpDef("binary", "less_or_equal", onnx="LessOrEqual", aten="le"),
    OpDef("binary", "greater", onnx="Greater", aten="gt"),
    OpDef("binary", "greater_or_equal", onnx="GreaterOrEqual", aten="ge"),
    OpDef("binary", "where", onnx="Where", aten="where masked_fill"),
    OpDef("binary", "average", onnx="Mean"),
)
