"""Which canonical kind an ONNX op is. Data: an op that is missing here is opaque, never wrong."""

import onnx_ir as ir

from qcc.ir.graph import Kind

_UNARY = (
    "Relu LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid Tanh Gelu Erf Exp Log Sqrt Reciprocal Neg Abs Clip "
    "Softplus Softsign Mish HardSwish Swish Identity Cast Dropout Floor Ceil Round Sign Not IsNaN ThresholdedRelu"
)
_BINARY = "Add Sub Mul Div Pow Min Max Mod And Or Xor Equal Less LessOrEqual Greater GreaterOrEqual Where Sum Mean"
_NORM = (
    "BatchNormalization LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LRN "
    "LpNormalization"
)
_POOL = "MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool"
_REDUCE = (
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare "
    "ArgMax ArgMin CumSum"
)
_RESHAPE = "Reshape Flatten Squeeze Unsqueeze Expand"
_GATHER = "Gather GatherElements GatherND ScatterElements ScatterND Slice Pad"

KINDS: dict[str, Kind] = {
    **dict.fromkeys(_UNARY.split(), Kind.ELEMENTWISE),
    **dict.fromkeys(_BINARY.split(), Kind.BINARY),
    **dict.fromkeys(_NORM.split(), Kind.NORM),
    **dict.fromkeys(_POOL.split(), Kind.POOL),
    **dict.fromkeys(_REDUCE.split(), Kind.REDUCE),
    **dict.fromkeys(_RESHAPE.split(), Kind.RESHAPE),
    **dict.fromkeys(_GATHER.split(), Kind.GATHER),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), Kind.SOFTMAX),
    "Attention": Kind.ATTENTION,
    "MatMul": Kind.MATMUL,
    "Gemm": Kind.MATMUL,
    "Transpose": Kind.TRANSPOSE,
    "Concat": Kind.CONCAT,
    "Split": Kind.SPLIT,
    "Constant": Kind.CONSTANT,
    "ConstantOfShape": Kind.CONSTANT,
    "Range": Kind.CONSTANT,
    "Shape": Kind.CONSTANT,
}

DEFAULT_DOMAINS = ("", "ai.onnx")


def kind_of(node: ir.Node) -> Kind:
    """The kind of a node that reads no weight; layers are told apart by `onnx_layers`."""
    if node.domain not in DEFAULT_DOMAINS:
        return Kind.OTHER
    return KINDS.get(node.op_type, Kind.OTHER)
