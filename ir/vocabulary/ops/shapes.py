"""What moves numbers and computes none, and what makes constants."""

from qcc.ir.vocabulary.definition import OpDef

SHAPES = (
    OpDef("reshape", "reshape", read="sizes", onnx="Reshape Flatten",
          aten="view reshape _unsafe_view unflatten flatten", affine="first", integer="moves"),
    OpDef("reshape", "squeeze", read="axes", onnx="Squeeze", aten="squeeze", affine="first", integer="moves"),
    OpDef("reshape", "unsqueeze", read="axes", onnx="Unsqueeze", aten="unsqueeze", affine="first", integer="moves"),
    OpDef("reshape", "expand", read="sizes", onnx="Expand", aten="expand expand_as broadcast_to",
          affine="first", integer="moves"),
    OpDef("transpose", "transpose", read="perm", onnx="Transpose", aten="transpose permute t numpy_T",
          affine="first", integer="moves"),
    OpDef("concat", "concat", read="axis", onnx="Concat", aten="cat", affine="all", integer="computes"),
    OpDef("split", "split", read="axis sizes", onnx="Split", aten="split split_with_sizes chunk",
          affine="first", integer="moves"),
    OpDef("split", "unbind", read="axis", aten="unbind", affine="first", integer="moves"),
    OpDef("gather", "gather", read="axis", onnx="Gather", aten="embedding index_select select index", affine="first"),
    OpDef("gather", "gather_elements", read="axis", onnx="GatherElements", aten="gather", affine="first"),
    OpDef("gather", "gather_nd", read="axis", onnx="GatherND", affine="first"),
    OpDef("gather", "scatter", read="axis", onnx="ScatterElements", aten="scatter"),
    OpDef("gather", "scatter_nd", onnx="ScatterND", aten="index_put"),
    OpDef("gather", "slice", read="axes starts ends steps", onnx="Slice", aten="slice",
          affine="first", integer="moves"),
    OpDef("gather", "pad", read="pads mode value", onnx="Pad", aten="pad constant_pad_nd", integer="moves"),
)  # fmt: skip
CONSTANTS = (
    OpDef("constant", "constant", onnx="Constant"),
    OpDef("constant", "fill", onnx="ConstantOfShape", aten="full zeros ones full_like zeros_like ones_like"),
    OpDef("constant", "range", onnx="Range", aten="arange"),
    OpDef("constant", "shape", read="start end", onnx="Shape", aten="sym_size"),
)
