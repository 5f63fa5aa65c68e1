"""The canonical attributes of ONNX ops, whichever opset keeps them as attributes or as constants.

Those that definitions declare are read as these say. All others have a reader for their function, or for what a norm
is over; they give what they know.
"""

from collections.abc import Callable

import onnx_ir as ir

from qcc.ir.graph import attributes as canonical
from qcc.ir.graph.attributes import Attributes, Opaque, known
from qcc.ir.graph.ops import Attribute, Kind
from qcc.ir.onnx.graph.site import NodeSite, is_constant
from qcc.ir.vocabulary.definition import OpDef, Real
from qcc.ir.vocabulary.find import OPS

Wholes = tuple[int, ...]
OnnxReader = Callable[[NodeSite], Attributes]


def attributes(node: ir.Node, kind: Kind, function: str, opset: int) -> Attributes:
    """What a node does beside its function.

    Raises:
        Opaque: it does more, or is not what its operator's definition says.
    """
    site, op = NodeSite(node, opset), OPS.get((kind, function))
    try:
        if kind in _BY_KIND:
            return _BY_KIND[kind](site)
        if op is None:
            return {}
        reader = _NORMS.get(op.over) or _READERS.get(function)
        return _declared(site, op) if reader is None else reader(site)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise Opaque from error


def _product(site: NodeSite) -> Attributes:
    if site.node.op_type == "Einsum":
        ranks = [site.rank(at) for at in range(len(site.node.inputs))]
        return known(terms=canonical.terms_of(site.node.attributes.get_string("equation", ""), ranks))
    transposed = tuple(at for at, name in enumerate(("transA", "transB")) if site.whole(name, 0))
    scaled = site.real("alpha", 1.0) != 1 or (site.real("beta", 1.0) != 1 and site.input(2) is not None)
    if scaled and not any(value is not None and is_constant(value) for value in site.node.inputs[:2]):
        raise Opaque
    return known(transposed=transposed)


def _conv(site: NodeSite) -> Attributes:
    weight = site.shape(1)
    kernel = site.wholes("kernel_shape") or (None if weight is None else canonical.sizes_of(weight[2:]))
    ones = None if kernel is None else (1,) * len(kernel)
    pads = site.wholes("pads") or (None if ones is None else (0,) * 2 * len(ones))
    strides, dilations = (site.wholes(name) or ones for name in ("strides", "dilations"))
    automatic = site.node.attributes.get_string("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", "VALID"):
        pads = _same(site, kernel, strides, dilations, automatic == "SAME_LOWER")
    if "output_shape" in site.node.attributes:
        pads = None
    return known(groups=site.whole("group", 1), kernel=kernel, strides=strides, dilations=dilations, pads=pads)


def _same(
    site: NodeSite, kernel: Wholes | None, strides: Wholes | None, dilations: Wholes | None, lower: bool
) -> Wholes | None:
    """The pads by which an output is as large as the input over the stride; None where that depends on sizes unknown.

    Where a number of them is odd, there is one more at the end, or at the beginning where ``lower``.
    """
    if site.node.op_type != "Conv" or kernel is None or strides is None or dilations is None:
        return None
    sizes, pads = (site.shape(0) or ())[2:], []
    for at, (wide, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        size = sizes[at] if at < len(sizes) else None
        if stride != 1 and not isinstance(size, int):
            return None
        rest = 0 if stride == 1 or not isinstance(size, int) else (size - 1) % stride
        pads.append(max(dilation * (wide - 1) - rest, 0))
    begins = [(one + lower) // 2 for one in pads]
    return (*begins, *(one - begin for one, begin in zip(pads, begins, strict=True)))


def _pool(site: NodeSite) -> Attributes:
    kernel = site.wholes("kernel_shape")
    ones = None if kernel is None else (1,) * len(kernel)
    return known(kernel=kernel, strides=site.wholes("strides") or ones)


def _global_pool(site: NodeSite) -> Attributes:
    rank = site.rank()
    return known(axes=None if rank is None else tuple(range(2, rank)), keepdims=1)


def _declared(site: NodeSite, op: OpDef) -> Attributes:
    """The attributes that the definition says to be kept as they are."""
    if any(site.real(name, number) != number for name, number in op.onnx_only.items()):
        raise Opaque
    found: dict[str, Attribute | None] = {}
    for one in op.attributes:
        if isinstance(one, Real):
            found[one.name] = site.real(one.name, one.default)
        else:
            found[one.name] = site.node.attributes.get_string(one.name, one.default)
    return known(**found)


def _cast(site: NodeSite) -> Attributes:
    dtype = site.node.outputs[0].dtype
    to = ir.DataType(site.whole("to", dtype or 0)) if dtype is not None or "to" in site.node.attributes else None
    return known(to=None if to is None else to.numpy().name)


def _layer_norm(site: NodeSite) -> Attributes:
    axis = canonical.axis_of(site.whole("axis", -1), site.rank())
    return known(axis=axis, epsilon=site.real("epsilon", 1e-5))


def _batch_norm(site: NodeSite) -> Attributes:
    if site.whole("training_mode", 0) or not site.whole("spatial", 1):
        raise Opaque
    return known(epsilon=site.real("epsilon", 1e-5))


def _group_norm(site: NodeSite) -> Attributes:
    if site.opset < 21:  # its gains were one a group
        raise Opaque
    return known(groups=site.whole("num_groups", 1), epsilon=site.real("epsilon", 1e-5))


def _softmax(site: NodeSite) -> Attributes:
    rank = site.rank()
    axis = canonical.axis_of(site.whole("axis", 1 if site.opset < 13 else -1), rank)
    if site.opset < 13 and axis not in (-1, None if rank is None else rank - 1):  # over all axes from there on
        raise Opaque
    return known(axis=axis)


def _attention(site: NodeSite) -> Attributes:
    queries, keys = site.shape(0), site.shape(1)
    given = site.whole("q_num_heads", 0), site.whole("kv_num_heads", 0)
    heads = given if all(given) else canonical.heads_of(queries, keys)
    width = queries[-1] if queries else None
    if all(given) and queries is not None and len(queries) == 3 and isinstance(width, int):
        width //= given[0]
    scale = canonical.scale_of(site.real("scale", 0.0), width)
    return known(causal=site.whole("is_causal", 0), scale=scale, heads=heads, cap=site.real("softcap", 0.0))


def _fused_attention(site: NodeSite) -> Attributes:
    """Of the runtime's own ops; a scale of 0 is the usual one."""
    queries = site.whole("num_heads", 0)
    heads = queries, site.whole("kv_num_heads", queries)
    shape = site.shape()
    width = shape[-1] if shape else None
    packed = site.input(1) is None  # queries, keys and values are one input
    own = (sum(heads) + heads[1]) if packed else queries
    width = width // own if isinstance(width, int) and own else None
    rotary = ("half", "interleaved")[site.whole("rotary_interleaved", 0)] if site.whole("do_rotary", 0) else "none"
    scale = canonical.scale_of(site.real("scale", 0.0), width)
    cap, causal = site.real("softcap", 0.0), site.whole("unidirectional", 0)
    window, smooth = max(site.whole("local_window_size", -1), 0), max(site.whole("smooth_softmax", 0), 0)
    return known(causal=causal, scale=scale, heads=heads, cap=cap, rotary=rotary, window=window, smooth=smooth)


def _reshape(site: NodeSite) -> Attributes:
    sizes = canonical.sizes_of(site.result())
    target = site.wholes("shape", 1) if site.node.op_type == "Reshape" else None
    if target is None or (sizes is not None and -1 not in sizes):
        return known(sizes=sizes)
    given = canonical.sizes_of(site.shape()) or ()
    kept = tuple(given[at] if at < len(given) else -1 for at in range(len(target)))
    wanted = tuple(size or (0 if site.whole("allowzero", 0) else kept[at]) for at, size in enumerate(target))
    merged = sizes if sizes is not None and len(sizes) == len(wanted) else wanted
    return known(sizes=tuple(max(pair) for pair in zip(merged, wanted, strict=True)))


def _squeeze(site: NodeSite) -> Attributes:
    axes, shape = site.wholes("axes", 1), site.shape()
    if axes is None and site.input(1) is None and shape is not None and all(isinstance(size, int) for size in shape):
        axes = tuple(at for at, size in enumerate(shape) if size == 1)
    return known(axes=canonical.axes_of(axes, site.rank()))


def _unsqueeze(site: NodeSite) -> Attributes:
    axes, rank = site.wholes("axes", 1), site.rank()
    return known(axes=canonical.axes_of(axes, None if axes is None or rank is None else rank + len(axes)))


def _transpose(site: NodeSite) -> Attributes:
    rank = site.rank()
    return known(perm=site.wholes("perm") or (None if rank is None else tuple(range(rank))[::-1]))


def _axis(default: int, rank_from: int = 0) -> OnnxReader:
    return lambda site: known(axis=canonical.axis_of(site.whole("axis", default), site.rank(rank_from)))


def _split(site: NodeSite) -> Attributes:
    axis = canonical.axis_of(site.whole("axis", 0), site.rank())
    sizes = site.wholes("split", 1)
    parts = [site.result(at) for at in range(len(site.node.outputs))]
    if sizes is None and axis is not None and axis >= 0:
        along = tuple(size for part in parts if part is not None and isinstance(size := part[axis], int))
        sizes = along if len(along) == len(parts) else None
    return known(axis=axis, sizes=sizes)


def _slice(site: NodeSite) -> Attributes:
    starts, ends, axes = site.wholes("starts", 1), site.wholes("ends", 2), site.wholes("axes", 3)
    if axes is None and "axes" not in site.node.attributes and site.input(3) is None and starts is not None:
        axes = tuple(range(len(starts)))
    steps = site.wholes("steps", 4)
    if site.input(4) is None and axes is not None:
        steps = (1,) * len(axes)
    return canonical.slices_of(axes, starts, ends, steps, site.shape())


def _pad(site: NodeSite) -> Attributes:
    pads, rank = site.wholes("pads", 1), site.rank()
    if pads is not None and site.input(3) is not None:
        axes = site.wholes("axes", 3)
        if axes is None or rank is None or len(pads) != 2 * len(axes):
            return known(mode=site.node.attributes.get_string("mode", "constant"))
        axes = tuple(axis % rank for axis in axes)
        begins, ends = dict(zip(axes, pads, strict=False)), dict(zip(axes, pads[len(axes) :], strict=True))
        pads = tuple(side.get(at, 0) for side in (begins, ends) for at in range(rank))
    value = site.number("value", 2) if site.input(2) is not None or "value" in site.node.attributes else 0.0
    return known(pads=pads, mode=site.node.attributes.get_string("mode", "constant"), value=value)


def _reduce(site: NodeSite) -> Attributes:
    axes, rank = site.wholes("axes", 1), site.rank()
    everything = site.input(1) is None or axes == ()
    if everything and not axes:
        if site.whole("noop_with_empty_axes", 0):
            raise Opaque
        axes = None if rank is None else tuple(range(rank))
    return known(axes=canonical.axes_of(axes, rank), keepdims=site.whole("keepdims", 1))


def _arg(site: NodeSite) -> Attributes:
    return known(axes=canonical.axes_of((site.whole("axis", 0),), site.rank()), keepdims=site.whole("keepdims", 1))


def _cumsum(site: NodeSite) -> Attributes:
    axes = canonical.axes_of(site.wholes("axis", 1), site.rank())
    return known(axis=axes[0] if axes else None)


def _gather_nd(site: NodeSite) -> Attributes:
    """The axis from which elements are picked by one number each; nothing where several axes are."""
    ids = site.shape(1)
    one = ids is not None and len(ids) > 0 and ids[-1] == 1 and site.whole("batch_dims", 0) == 0
    return known(axis=0 if one else None)


_BY_KIND: dict[Kind, OnnxReader] = {
    Kind.LINEAR: _product,
    Kind.MATMUL: _product,
    Kind.CONV: _conv,
    Kind.EMBEDDING: lambda _: {},
    Kind.SOFTMAX: _softmax,
    Kind.REDUCE: lambda site: _REDUCERS.get(site.node.op_type, _reduce)(site),
}
_REDUCERS: dict[str, OnnxReader] = {
    "ArgMax": _arg,
    "ArgMin": _arg,
    "CumSum": _cumsum,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
}
_NORMS: dict[str, OnnxReader] = {
    "last": _layer_norm,
    "batch": _batch_norm,
    "group": _group_norm,
    "instance": lambda site: known(epsilon=site.real("epsilon", 1e-5)),
    "one": _axis(-1),
}
"""By what a norm is over."""
_READERS: dict[str, OnnxReader] = {
    "clip": lambda site: known(min=site.number("min", 1), max=site.number("max", 2)),
    "cast": _cast,
    "attention": _attention,
    "multi_head_attention": _fused_attention,
    "grouped_attention": _fused_attention,
    "reshape": _reshape,
    "expand": lambda site: known(sizes=canonical.sizes_of(site.result())),
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "transpose": _transpose,
    "concat": _axis(1),
    "split": _split,
    "gather": _axis(0),
    "gather_nd": _gather_nd,
    "gather_elements": _axis(0),
    "scatter": _axis(0),
    "slice": _slice,
    "shape": lambda site: known(start=site.whole("start", 0), end=site.whole("end", canonical.END)),
    "pad": _pad,
    "max_pool": _pool,
    "avg_pool": _pool,
    "lp_pool": _pool,
}
