"""What moves numbers or makes axes shorter, in torch."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from qcc.ir.fx.piece.call import Call, Unsupported, torch_does
from qcc.ir.graph.ops import Kind

IMAGE = 2  # the axes before those of space


@torch_does(Kind.RESHAPE, "reshape", "squeeze", "unsqueeze", sized=True)
def _reshape(call: Call) -> Tensor:
    return call[0].reshape(call.sizes[0])


@torch_does(Kind.RESHAPE, "expand", sized=True)
def _expand(call: Call) -> Tensor:
    return call[0].expand(call.sizes[0])


@torch_does(Kind.TRANSPOSE, "transpose", needs="perm")
def _transpose(call: Call) -> Tensor:
    return call[0].permute(call.wholes("perm"))


@torch_does(Kind.CONCAT, "concat", needs="axis")
def _concat(call: Call) -> Tensor:
    return torch.cat([call[at] for at in range(len(call.given))], call.whole("axis"))


@torch_does(Kind.SPLIT, "split", needs="axis sizes")
def _split(call: Call) -> tuple[Tensor, ...]:
    axis, sizes = call.whole("axis"), call.wholes("sizes")
    if min(sizes, default=-1) < 0:
        raise Unsupported("a split in parts of unknown sizes")
    return torch.split(call[0], list(sizes), axis)


@torch_does(Kind.SPLIT, "unbind", needs="axis")
def _unbind(call: Call) -> tuple[Tensor, ...]:
    return torch.unbind(call[0], call.whole("axis"))


@torch_does(Kind.GATHER, "gather", needs="axis")
def _gather(call: Call) -> Tensor:
    x, index, axis = call[0], call[1].long(), call.whole("axis")
    found = x.index_select(axis, index.reshape(-1) % x.shape[axis])
    return found.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@torch_does(Kind.GATHER, "gather_elements", needs="axis")
def _gather_elements(call: Call) -> Tensor:
    axis = call.whole("axis")
    return torch.gather(call[0], axis, call[1].long() % call[0].shape[axis])


@torch_does(Kind.GATHER, "slice", needs="axes starts ends steps")
def _slice(call: Call) -> Tensor:
    places = [slice(None)] * call[0].dim()
    for axis, *bounds in zip(*map(call.wholes, ("axes", "starts", "ends", "steps")), strict=True):
        if bounds[-1] <= 0:
            raise Unsupported("a slice that goes backwards")
        places[axis] = slice(*bounds)
    return call[0][tuple(places)]


@torch_does(Kind.GATHER, "pad", needs="pads mode value")
def _pad(call: Call) -> Tensor:
    pads, rank = call.wholes("pads"), call[0].dim()
    if call.op.attributes["mode"] != "constant" or len(pads) != 2 * rank:
        raise Unsupported("a padding of this mode")
    ends = [end for at in reversed(range(rank)) for end in (pads[at], pads[at + rank])]
    return functional.pad(call[0], ends, value=call.number("value"))


@torch_does(Kind.REDUCE, "mean", "sum", "max", "min", "l2", "sum_square", "logsumexp", needs="axes keepdims")
def _reduce(call: Call) -> Tensor:
    x, axes, kept = call[0], list(call.wholes("axes")), bool(call.whole("keepdims"))
    name = call.op.function
    if name in ("l2", "sum_square"):
        total = (x * x).sum(axes, keepdim=kept)
        return total.sqrt() if name == "l2" else total
    found: Tensor = getattr(torch, {"max": "amax", "min": "amin"}.get(name, name))(x, axes, keepdim=kept)
    return found


@torch_does(Kind.POOL, "max_pool", needs="kernel strides", sized=True)
def _max_pool(call: Call) -> Tensor:
    """Padded at both ends alike as far as the result's sizes tell; whoever runs the piece holds it to the graph."""
    kernel, strides = call.wholes("kernel"), call.wholes("strides")
    run = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(kernel) - 1]
    found: Tensor = run(functional.pad(call[0], _pads(call), value=-math.inf), list(kernel), list(strides))
    return found


@torch_does(Kind.POOL, "avg_pool", needs="kernel strides", sized=True)
def _avg_pool(call: Call) -> Tensor:
    kernel, strides = call.wholes("kernel"), call.wholes("strides")
    if any(_pads(call)):
        raise Unsupported("an average over a padding, which may count or not")
    run = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(kernel) - 1]
    found: Tensor = run(call[0], list(kernel), list(strides))
    return found


@torch_does(Kind.POOL, "adaptive_avg_pool", needs="sizes")
def _adaptive_avg_pool(call: Call) -> Tensor:
    sizes = call.wholes("sizes")
    run = getattr(functional, f"adaptive_avg_pool{len(sizes)}d")
    found: Tensor = run(call[0], list(sizes))
    return found


def _pads(call: Call) -> list[int]:
    """As torch pads: the last axis first, its begin and its end."""
    found = []
    for at, (size, stride) in enumerate(zip(call.wholes("kernel"), call.wholes("strides"), strict=True)):
        more = max((call.sizes[0][IMAGE + at] - 1) * stride + size - call[0].shape[IMAGE + at], 0)
        found.append((more - more // 2, more // 2))
    return [end for ends in reversed(found) for end in ends]
