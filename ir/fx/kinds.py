"""Which canonical kind and function an ATen op is. Data: an op that is missing here is opaque, never wrong.

The table lists ATen names: ``name=function`` where the canonical name differs, ``name.overload`` where that matters.
"""

from typing import Any

import torch
from torch.fx import Node

from qcc.ir.graph.functions import table
from qcc.ir.graph.ops import Kind

KINDS = table(
    {
        Kind.ELEMENTWISE: (
            "relu leaky_relu prelu elu selu celu sigmoid hardsigmoid=hard_sigmoid tanh gelu erf exp log sqrt rsqrt "
            "reciprocal neg abs clamp=clip clamp_min=clip clamp_max=clip hardtanh=clip relu6=clip softplus mish "
            "hardswish=hard_swish silu floor ceil round sign logical_not=not bitwise_not=not isnan sin cos dropout "
            "_to_copy=cast to=cast clone=identity contiguous=identity alias=identity detach=identity "
            "lift_fresh_copy=identity"
        ),
        Kind.BINARY: (
            "add sub rsub=sub mul div pow minimum=min maximum=max min.other=min max.other=max fmod=mod remainder=mod "
            "where logical_and=and logical_or=or logical_xor=xor bitwise_and=and bitwise_or=or bitwise_xor=xor "
            "eq=equal ne=not_equal lt=less le=less_or_equal gt=greater ge=greater_or_equal masked_fill=where"
        ),
        Kind.MATMUL: "matmul mm=matmul bmm=matmul linear=matmul addmm=matmul",
        Kind.CONV: (
            "conv1d=conv conv2d=conv conv3d=conv convolution=conv conv_transpose1d=conv_transpose "
            "conv_transpose2d=conv_transpose conv_transpose3d=conv_transpose"
        ),
        Kind.NORM: (
            "layer_norm native_layer_norm=layer_norm batch_norm _native_batch_norm_legit_no_training=batch_norm "
            "group_norm native_group_norm=group_norm instance_norm rms_norm"
        ),
        Kind.SOFTMAX: "softmax _softmax=softmax log_softmax _log_softmax=log_softmax",
        Kind.ATTENTION: "scaled_dot_product_attention=attention",
        Kind.RESHAPE: (
            "view=reshape reshape _unsafe_view=reshape unflatten=reshape flatten=reshape squeeze unsqueeze expand "
            "expand_as=expand broadcast_to=expand"
        ),
        Kind.TRANSPOSE: "transpose permute=transpose t=transpose numpy_T=transpose",
        Kind.CONCAT: "cat=concat",
        Kind.SPLIT: "split split_with_sizes=split chunk=split unbind",
        Kind.GATHER: (
            "embedding=gather index_select=gather select=gather index=gather gather=gather_elements slice "
            "pad constant_pad_nd=pad index_put=scatter_nd scatter"
        ),
        Kind.POOL: (
            "max_pool1d=max_pool max_pool2d=max_pool max_pool3d=max_pool max_pool2d_with_indices=max_pool "
            "avg_pool1d=avg_pool avg_pool2d=avg_pool avg_pool3d=avg_pool adaptive_avg_pool1d=adaptive_avg_pool "
            "adaptive_avg_pool2d=adaptive_avg_pool _adaptive_avg_pool2d=adaptive_avg_pool "
            "adaptive_max_pool1d=adaptive_max_pool adaptive_max_pool2d=adaptive_max_pool"
        ),
        Kind.REDUCE: (
            "mean sum amax=max amin=min max min prod argmax argmin cumsum linalg_vector_norm=l2 logsumexp any all"
        ),
        Kind.CONSTANT: (
            "sym_size=shape full=fill zeros=fill ones=fill full_like=fill zeros_like=fill ones_like=fill arange=range"
        ),
        Kind.OTHER: "view.dtype",  # not what its other overload does
    },
    str,
)
_IMPLIED = {"relu6": {"min_val": 0.0, "max_val": 6.0}}
LAYER_FUNCTIONS = {Kind.LINEAR: "linear", Kind.EMBEDDING: "embedding"}


def aten_name(node: Node) -> str:
    """The name of an ATen op without namespace and overload; empty for anything else."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return ""
    return str(node.target.overloadpacket.__name__)


def kind_of(node: Node, layer: Kind | None = None) -> tuple[Kind, str]:
    """The kind and function of a node; ``layer`` is the kind that `fx_layers` tells it to be, if it does."""
    name = aten_name(node)
    if name and isinstance(node.target, torch._ops.OpOverload):
        known = KINDS.get(f"{name}.{node.target._overloadname}") or KINDS.get(name, (Kind.OTHER, name))
        if name == "convolution" and arguments(node)["transposed"]:
            known = (Kind.CONV, "conv_transpose")
        if known[1] == "adaptive_avg_pool" and all(size == 1 for size in arguments(node)["output_size"]):
            known = (Kind.REDUCE, "mean")
        return known if layer is None else (layer, LAYER_FUNCTIONS.get(layer, known[1]))
    if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float)):
        return Kind.CONSTANT, "shape"  # arithmetic on sizes
    return Kind.OTHER, getattr(node.target, "__name__", str(node.target))


def is_check(node: Node) -> bool:
    """The op has no result: torch.export's assertions on sizes and types."""
    return isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.returns


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of an ATen op by their names in its schema, in its order, defaults included."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {}
    declared = node.target._schema.arguments
    bound = {argument.name: argument.default_value for argument in declared}
    bound.update(zip(bound, node.args, strict=False))
    return {**bound, **node.kwargs, **_IMPLIED.get(aten_name(node), {})}
