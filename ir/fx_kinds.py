"""Which canonical kind and function an ATen op is. Data: an op that is missing here is opaque, never wrong.

Each table lists ATen names: ``name=function`` where the canonical name differs, ``name.overload`` where that matters.
"""

from typing import Any

import torch
from torch.fx import Node

from qcc.ir.graph import Kind

_TABLES: dict[Kind, str] = {
    Kind.ELEMENTWISE: (
        "relu leaky_relu prelu elu selu celu sigmoid hardsigmoid=hard_sigmoid tanh gelu erf exp log sqrt rsqrt "
        "reciprocal neg abs clamp=clip clamp_min=clip clamp_max=clip hardtanh=clip relu6=clip softplus mish "
        "hardswish=hard_swish silu floor ceil round sign logical_not=not bitwise_not=not isnan sin cos dropout "
        "_to_copy=cast to=cast clone=identity contiguous=identity alias=identity detach=identity "
        "lift_fresh_copy=identity"
    ),
    Kind.BINARY: (
        "add sub rsub mul div pow minimum=min maximum=max min.other=min max.other=max fmod=mod remainder=mod where "
        "logical_and=and logical_or=or logical_xor=xor bitwise_and=and bitwise_or=or bitwise_xor=xor "
        "eq=equal ne=not_equal lt=less le=less_or_equal gt=greater ge=greater_or_equal masked_fill=where"
    ),
    Kind.MATMUL: "matmul mm=matmul bmm=matmul linear addmm=gemm",
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
    Kind.TRANSPOSE: "transpose permute=transpose t=transpose movedim=transpose",
    Kind.CONCAT: "cat=concat",
    Kind.SPLIT: "split split_with_sizes=split chunk=split unbind=split",
    Kind.GATHER: (
        "embedding=gather index_select=gather select=gather index=gather gather=gather_elements slice "
        "pad constant_pad_nd=pad select_scatter=scatter slice_scatter=scatter index_put=scatter scatter"
    ),
    Kind.POOL: (
        "max_pool1d=max_pool max_pool2d=max_pool max_pool3d=max_pool max_pool2d_with_indices=max_pool "
        "avg_pool1d=avg_pool avg_pool2d=avg_pool avg_pool3d=avg_pool adaptive_avg_pool1d=adaptive_avg_pool "
        "adaptive_avg_pool2d=adaptive_avg_pool _adaptive_avg_pool2d=adaptive_avg_pool "
        "adaptive_max_pool1d=adaptive_max_pool adaptive_max_pool2d=adaptive_max_pool"
    ),
    Kind.REDUCE: (
        "mean sum amax=max amin=min max min prod argmax argmin cumsum linalg_vector_norm=norm logsumexp any all"
    ),
    Kind.CONSTANT: (
        "sym_size=shape full=fill zeros=fill ones=fill full_like=fill zeros_like=fill ones_like=fill arange=range"
    ),
}
KINDS: dict[str, tuple[Kind, str]] = {
    name: (kind, function or name.partition(".")[0])
    for kind, words in _TABLES.items()
    for name, _, function in (word.partition("=") for word in words.split())
}
LAYER_FUNCTIONS: dict[Kind | None, str] = {Kind.LINEAR: "linear", Kind.EMBEDDING: "embedding"}


def aten_name(node: Node) -> str:
    """The name of an ATen op without namespace and overload; empty for anything else."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return ""
    return str(node.target.overloadpacket.__name__)


def kind_of(node: Node) -> tuple[Kind, str]:
    """The kind and function of a node that reads no weight; layers are told apart by `fx_layers`."""
    name = aten_name(node)
    if name and isinstance(node.target, torch._ops.OpOverload):
        opaque = (Kind.OTHER, name)
        return KINDS.get(f"{name}.{node.target._overloadname}") or KINDS.get(name, opaque)
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
    return bound | node.kwargs


def operands(node: Node) -> tuple[Node | None, ...]:
    """What an op reads, in the order of its schema; None for an optional tensor left out, except at the end."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return tuple(node.all_input_nodes)
    types = {argument.name: str(argument.type) for argument in node.target._schema.arguments}
    found: list[Node | None] = []
    for name, value in arguments(node).items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        found += [part for part in parts if isinstance(part, Node) or (part is None and "Tensor" in types[name])]
    while found and found[-1] is None:
        found.pop()
    return tuple(found)
