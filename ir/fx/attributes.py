"""The canonical attributes of ATen ops. One reader for each function that has attributes; they give what they know."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from qcc.ir.fx.kinds import arguments, aten_name
from qcc.ir.fx.tensors import dtype_name
from qcc.ir.graph import attributes as canonical
from qcc.ir.graph.attributes import END, Attributes, Opaque, Sizes, known
from qcc.ir.graph.ops import Attribute, Kind
from qcc.ir.vocabulary.definition import OpDef, Real
from qcc.ir.vocabulary.find import OPS


class FxCall:
    """A node with its arguments by name."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.name = aten_name(node)
        self._given = arguments(node)
        self.get = self._given.get

    def __getitem__(self, argument: str) -> Any:  # noqa: ANN401 - whatever the schema says
        return self._given[argument]

    def __contains__(self, argument: str) -> bool:
        return argument in self._given


FxReader = Callable[[FxCall], Attributes]


def attributes(node: Node, kind: Kind, function: str) -> Attributes:
    """What a node does beside its function.

    Raises:
        Opaque: it does more.
    """
    call, op = FxCall(node), OPS.get((kind, function))
    if kind in _BY_KIND:
        return _BY_KIND[kind](call)
    if op is None:
        return {}
    reader = _NORMS.get(op.over) or _READERS.get(function)
    return _declared(call, op) if reader is None else reader(call)


def _declared(call: FxCall, op: OpDef) -> Attributes:
    """The attributes that the definition says to be kept as they are."""
    if any(call.get(name, number) != number for name, number in op.aten_only.items()):
        raise Opaque
    found: dict[str, Attribute | None] = {}
    for one in op.attributes:
        if not isinstance(one, Real):
            found[one.name] = call[one.name]
        elif one.aten:
            found[one.name] = _real(call[one.aten] if isinstance(one.aten, str) else one.aten)
    return known(**found)


def order_of(node: Node, rank: int) -> tuple[int, ...] | None:
    """The permutation that a node makes of its axes; None where it makes none."""
    name, given = aten_name(node), arguments(node)
    order = list(range(rank))
    if name == "permute":
        return tuple(axis % rank for axis in given["dims"])
    if name == "transpose" and rank:
        first, second = given["dim0"] % rank, given["dim1"] % rank
        order[first], order[second] = second, first
        return tuple(order)
    return tuple(order[::-1]) if name in ("t", "numpy_T") else None


def sizes_at(node: object) -> Sizes | None:
    """A tensor's shape, with None for what is not known; None for anything else."""
    value = node.meta.get("val") if isinstance(node, Node) else node
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _rank(node: object) -> int | None:
    shape = sizes_at(node)
    return None if shape is None else len(shape)


def _whole(number: object) -> int | None:
    return number if isinstance(number, int) else None


def _wholes(numbers: object) -> tuple[int, ...] | None:
    given = numbers if isinstance(numbers, (list, tuple)) else [numbers]
    found = tuple(number for number in given if isinstance(number, int))
    return found if len(found) == len(given) else None


def _real(number: object) -> float | None:
    return canonical.rounded(number) if isinstance(number, (int, float)) else None


def _product(call: FxCall) -> Attributes:
    if call.name == "addmm" and (call["alpha"] != 1 or call["beta"] != 1):
        raise Opaque
    return _transposed(call)


def _transposed(call: FxCall) -> Attributes:
    if call.name == "einsum":
        shapes = [sizes_at(one) for one in call["tensors"]]
        return known(terms=canonical.terms_of(call["equation"], [None if one is None else len(one) for one in shapes]))
    return known(transposed=(1,) if call.name == "linear" else ())


def _conv(call: FxCall) -> Attributes:
    weight = sizes_at(call["weight"])
    kernel = None if weight is None else canonical.sizes_of(weight[2:])
    count = len(kernel or ())
    strides, dilations = (canonical.spread(call[name], count) for name in ("stride", "dilation"))
    pads = _pads(call["padding"], kernel, dilations)
    return known(groups=call["groups"], kernel=kernel, strides=strides, dilations=dilations, pads=pads)


def _pads(padding: str | Sequence[int], kernel: tuple[int, ...] | None, dilations: Sequence[int]) -> Attribute | None:
    """All begins, then all ends, of what a convolution adds to its input's borders, in numbers or as a word."""
    if not isinstance(padding, str):
        return canonical.spread(padding, len(kernel or ())) * 2
    if kernel is None:
        return None
    added = [
        0 if padding == "valid" else dilation * (size - 1) for size, dilation in zip(kernel, dilations, strict=True)
    ]
    return (*(one // 2 for one in added), *(one - one // 2 for one in added))


def _pool(call: FxCall) -> Attributes:
    rank = _rank(call["self"])
    digit = next((int(letter) for letter in call.name if letter.isdigit()), rank and rank - 2)
    kernel = canonical.spread(call["kernel_size"], digit or 0)
    return known(kernel=kernel, strides=canonical.spread(call["stride"], digit or 0) or kernel)


def _layer_norm(call: FxCall) -> Attributes:
    rank, epsilon = _rank(call["input"]), call["eps"]
    if epsilon is None:
        epsilon = torch.finfo(call["input"].meta["val"].dtype).eps
    axis = None if rank is None else rank - len(call["normalized_shape"])
    return known(axis=axis, epsilon=_real(epsilon))


def _batch_norm(call: FxCall) -> Attributes:
    if call.get("training"):
        raise Opaque
    return known(epsilon=_real(call["eps"]))


def _instance_norm(call: FxCall) -> Attributes:
    if not call["use_input_stats"]:
        raise Opaque
    return known(epsilon=_real(call["eps"]))


def _group_norm(call: FxCall) -> Attributes:
    return known(groups=_whole(call.get("num_groups", call.get("group"))), epsilon=_real(call["eps"]))


def _attention(call: FxCall) -> Attributes:
    queries, keys = sizes_at(call["query"]), sizes_at(call["key"])
    scale = canonical.scale_of(call["scale"], queries[-1] if queries else None)
    return known(causal=int(call["is_causal"]), scale=scale, heads=canonical.heads_of(queries, keys), cap=0.0)


def _sizes(call: FxCall) -> Attributes:
    return known(sizes=canonical.sizes_of(sizes_at(call.node)))


def _adaptive(call: FxCall) -> Attributes:
    return known(sizes=_wholes(call["output_size"]))


def _size(call: FxCall) -> Attributes:
    """Of a size; nothing is told of arithmetic on sizes, which is no op of ATen."""
    axis = call.get("dim")
    return {} if axis is None else known(start=axis, end=axis + 1 or END)


def _squeeze(call: FxCall) -> Attributes:
    shape = sizes_at(call["self"]) or ()
    axes = range(len(shape)) if call.get("dim") is None else _wholes(call["dim"]) or ()
    return known(axes=tuple(axis for axis in canonical.axes_of(axes, len(shape)) or () if shape[axis] == 1))


def _unsqueeze(call: FxCall) -> Attributes:
    return known(axes=canonical.axes_of((call["dim"],), _rank(call.node)))


def _transpose(call: FxCall) -> Attributes:
    return known(perm=order_of(call.node, _rank(call.node) or 0))


def _along(call: FxCall) -> Attributes:
    return known(axis=canonical.axis_of(call["dim"], _rank(call["self"])))


def _concat(call: FxCall) -> Attributes:
    return known(axis=canonical.axis_of(call["dim"], _rank(call.node)))


def _split(call: FxCall) -> Attributes:
    axis = canonical.axis_of(call["dim"], _rank(call["self"]))
    parts = [sizes_at(part) for part in call.node.meta["val"]]
    sizes = [part[axis] for part in parts if part is not None and axis is not None]
    return known(axis=axis, sizes=_wholes(sizes) if len(sizes) == len(parts) else None)


def _gather(call: FxCall) -> Attributes:
    name = call.name
    if name == "embedding":
        return known(axis=0)
    if name != "index":
        return _along(call)
    picked = [axis for axis, index in enumerate(call["indices"]) if index is not None]
    if len(picked) != 1 or call["indices"][picked[0]].meta["val"].dtype in (torch.bool, torch.uint8):
        raise Opaque  # several axes at once, or those that a mask says
    return known(axis=picked[0])


def _slice(call: FxCall) -> Attributes:
    starts = _wholes([0 if call["start"] is None else call["start"]])
    ends = _wholes([END if call["end"] is None else call["end"]])
    return canonical.slices_of((call["dim"],), starts, ends, _wholes([call["step"]]), sizes_at(call["self"]))


def _pad(call: FxCall) -> Attributes:
    pads, rank = _wholes(call["pad"]), _rank(call["self"])
    if pads is not None and rank is not None:
        begins, ends = ([0] * rank for _ in range(2))
        for at in range(len(pads) // 2):  # the last axis comes first
            begins[rank - 1 - at], ends[rank - 1 - at] = pads[2 * at : 2 * at + 2]
        pads = (*begins, *ends)
    mode = {"replicate": "edge", "circular": "wrap"}.get(call.get("mode", ""), call.get("mode", "constant"))
    return known(pads=pads, mode=mode, value=_real(call.get("value") or 0.0))


def _reduce(call: FxCall) -> Attributes:
    if call.name == "linalg_vector_norm" and call["ord"] != 2:
        raise Opaque
    rank = _rank(call["self"])
    if rank is not None and "output_size" in call:  # a pool to one pixel
        return known(axes=tuple(range(rank - len(call["output_size"]), rank)), keepdims=1)
    dims: int | Sequence[int] | None = call.get("dim")
    if dims is None or dims == []:
        dims = range(rank or 0)
    axes = canonical.axes_of([dims] if isinstance(dims, int) else dims, rank)
    return known(axes=axes, keepdims=int(call.get("keepdim", False)))


def _clip(call: FxCall) -> Attributes:
    low, high = (call.get(name, call.get(f"{name}_val")) for name in ("min", "max"))
    return known(min=_real(low), max=_real(high))


def _arithmetic(call: FxCall) -> Attributes:
    if call.get("alpha", 1) != 1 or call.get("rounding_mode"):
        raise Opaque
    return {}


_BY_KIND: dict[Kind, FxReader] = {
    Kind.LINEAR: _transposed,
    Kind.MATMUL: _product,
    Kind.CONV: _conv,
    Kind.EMBEDDING: lambda _: {},
    Kind.BINARY: _arithmetic,
    Kind.REDUCE: lambda call: (_along if call.name == "cumsum" else _reduce)(call),
}
_NORMS: dict[str, FxReader] = {
    "last": _layer_norm,
    "batch": _batch_norm,
    "group": _group_norm,
    "instance": _instance_norm,
}
"""By what a norm is over."""
_READERS: dict[str, FxReader] = {
    "clip": _clip,
    "cast": lambda call: known(to=dtype_name(call.node.meta["val"].dtype)),
    "shape": _size,
    "softmax": _along,
    "log_softmax": _along,
    "attention": _attention,
    "reshape": _sizes,
    "expand": _sizes,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "transpose": _transpose,
    "concat": _concat,
    "split": _split,
    "unbind": _along,
    "gather": _gather,
    "gather_elements": _along,
    "scatter": _along,
    "slice": _slice,
    "pad": _pad,
    "max_pool": _pool,
    "avg_pool": _pool,
    "adaptive_avg_pool": _adaptive,
    "adaptive_max_pool": _adaptive,
}
