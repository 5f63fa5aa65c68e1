"""Which canonical kind and function an ONNX op is. Data: an op that is missing here is opaque, never wrong.

The table lists ONNX names: ``Name=function`` where the canonical name is not the same words in snake_case.
"""

import re

import onnx_ir as ir

from qcc.ir.graph.functions import table
from qcc.ir.graph.ops import Kind

_REDUCTIONS = "Mean Sum Max Min Prod L1 L2 SumSquare"


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


KINDS = table(
    {
        Kind.ELEMENTWISE: (
            "Relu LeakyRelu PRelu=prelu Elu Selu Celu Sigmoid HardSigmoid Tanh Gelu Erf Exp Log Sqrt Reciprocal Neg "
            "Abs Clip Softplus Softsign Mish HardSwish Swish=silu Identity Cast CastLike=cast Dropout Floor Ceil Round "
            "Sign Not BitwiseNot=not IsNaN=isnan ThresholdedRelu Sin Cos"
        ),
        Kind.BINARY: (
            "Add Sub Mul Div Pow Min Max Mod And Or Xor BitwiseAnd=and BitwiseOr=or BitwiseXor=xor Equal Less "
            "LessOrEqual Greater GreaterOrEqual Where Sum=add Mean=average"
        ),
        Kind.MATMUL: "MatMul=matmul Gemm=matmul",
        Kind.CONV: "Conv ConvTranspose",
        Kind.RECURRENT: "LSTM=lstm GRU=gru RNN=rnn",
        Kind.NORM: (
            "BatchNormalization=batch_norm LayerNormalization=layer_norm InstanceNormalization=instance_norm "
            "GroupNormalization=group_norm RMSNormalization=rms_norm LRN=local_response_norm LpNormalization=lp_norm"
        ),
        Kind.SOFTMAX: "Softmax LogSoftmax Hardmax",
        Kind.ATTENTION: "Attention",
        Kind.RESHAPE: "Reshape Flatten=reshape Squeeze Unsqueeze Expand",
        Kind.TRANSPOSE: "Transpose",
        Kind.CONCAT: "Concat",
        Kind.SPLIT: "Split",
        Kind.GATHER: (
            "Gather GatherElements GatherND=gather_nd ScatterElements=scatter ScatterND=scatter_nd Slice Pad"
        ),
        Kind.POOL: "MaxPool AveragePool=avg_pool LpPool GlobalLpPool",
        Kind.REDUCE: (
            "ArgMax=argmax ArgMin=argmin CumSum=cumsum ReduceLogSumExp=logsumexp GlobalAveragePool=mean "
            "GlobalMaxPool=max " + " ".join(f"Reduce{name}={_snake_case(name)}" for name in _REDUCTIONS.split())
        ),
        Kind.CONSTANT: "Constant ConstantOfShape=fill Range Shape",
    },
    _snake_case,
)
LAYER_FUNCTIONS = {Kind.LINEAR: "linear", Kind.EMBEDDING: "embedding"}
DEFAULT_DOMAINS = ("", "ai.onnx")


def kind_of(node: ir.Node, layer: Kind | None = None) -> tuple[Kind, str]:
    """The kind and function of a node; ``layer`` is the kind that `onnx_layers` tells it to be, if it does."""
    known = KINDS.get(node.op_type) if node.domain in DEFAULT_DOMAINS else None
    if layer is not None:
        return layer, LAYER_FUNCTIONS.get(layer) or (known[1] if known else node.op_type)
    return known or (Kind.OTHER, node.op_type)
