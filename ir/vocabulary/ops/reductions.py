"""What makes axes one, or shorter."""

from qcc.ir.vocabulary.definition import OpDef

BOTH = "axes keepdims"
REDUCTIONS = (
    OpDef(
        "reduce",
        "mean",
        read=BOTH,
        onnx="GlobalAveragePool ReduceMean",
        aten="mean",
        law="linear",
        plain=True,
        affine="first",
        integer="computes",
    ),
    OpDef("reduce", "sum", read=BOTH, onnx="ReduceSum", aten="sum", law="linear", plain=True, affine="first"),
    OpDef("reduce", "max", read=BOTH, onnx="GlobalMaxPool ReduceMax", aten="amax max", law="homogeneous"),
    OpDef("reduce", "min", read=BOTH, onnx="ReduceMin", aten="amin min", law="homogeneous"),
    OpDef("reduce", "prod", read=BOTH, onnx="ReduceProd", aten="prod"),
    OpDef("reduce", "l1", read=BOTH, onnx="ReduceL1"),
    OpDef("reduce", "l2", read=BOTH, onnx="ReduceL2", aten="linalg_vector_norm", law="squared", plain=True),
    OpDef("reduce", "logsumexp", read=BOTH, onnx="ReduceLogSumExp", aten="logsumexp"),
    OpDef("reduce", "sum_square", read=BOTH, onnx="ReduceSumSquare", law="squared", plain=True),
    OpDef("reduce", "argmax", read=BOTH, onnx="ArgMax", aten="argmax"),
    OpDef("reduce", "argmin", read=BOTH, onnx="ArgMin", aten="argmin"),
    OpDef("reduce", "any", read=BOTH, aten="any"),
    OpDef("reduce", "all", read=BOTH, aten="all"),
    OpDef("reduce", "cumsum", read="axis", onnx="CumSum", aten="cumsum"),
)
POOLS = (
    OpDef("pool", "max_pool", read="kernel strides", onnx="MaxPool",
          aten="max_pool1d max_pool2d max_pool3d max_pool2d_with_indices", law="homogeneous", integer="moves"),
    OpDef("pool", "avg_pool", read="kernel strides", onnx="AveragePool", aten="avg_pool1d avg_pool2d avg_pool3d",
          law="linear", integer="computes"),
    OpDef("pool", "lp_pool", read="kernel strides", onnx="LpPool"),
    OpDef("pool", "adaptive_avg_pool", read="sizes",
          aten="adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d", law="linear"),
    OpDef("pool", "adaptive_max_pool", read="sizes", aten="adaptive_max_pool1d adaptive_max_pool2d",
          law="homogeneous"),
    OpDef("pool", "global_lp_pool", onnx="GlobalLpPool"),
)  # fmt: skip
