"""Products with weights, of matrices, and of queries, keys and values."""

from qcc.ir.vocabulary.definition import OpDef

PRODUCTS = (
    OpDef("linear", "linear", read="transposed terms", affine="first"),
    OpDef("matmul", "matmul", read="transposed", onnx="MatMul Gemm", aten="matmul mm bmm linear addmm",
          affine="first"),
    OpDef("matmul", "einsum", read="terms", onnx="Einsum", aten="einsum", affine="first"),
    OpDef("conv", "conv", read="groups kernel strides dilations pads", onnx="Conv",
          aten="conv1d conv2d conv3d convolution", affine="first"),
    OpDef("conv", "conv_transpose", read="groups kernel strides dilations pads", onnx="ConvTranspose",
          aten="conv_transpose1d conv_transpose2d conv_transpose3d"),
    OpDef("embedding", "embedding"),
    OpDef("recurrent", "lstm", onnx="LSTM", aten="lstm"),
    OpDef("recurrent", "gru", onnx="GRU", aten="gru"),
    OpDef("recurrent", "rnn", onnx="RNN", aten="rnn_tanh rnn_relu"),
    OpDef("attention", "attention", read="causal scale heads cap", onnx="Attention",
          aten="scaled_dot_product_attention"),
    OpDef("attention", "multi_head_attention", read="causal scale heads", onnx="com.microsoft.MultiHeadAttention"),
    OpDef("attention", "grouped_attention", read="scale heads cap rotary window smooth",
          onnx="com.microsoft.GroupQueryAttention"),
    OpDef("attention", "packed_attention", onnx="com.microsoft.Attention"),
)  # fmt: skip
