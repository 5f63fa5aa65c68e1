"""Products with weights and of values, in torch."""

import torch
from torch import Tensor
from torch.nn import functional

from qcc.ir.fx.piece.call import Call, Unsupported, torch_does
from qcc.ir.graph.ops import Kind

IMAGE = 2  # the axes before those of space
HEADS = 4  # axes of queries that are parted in heads


@torch_does(Kind.LINEAR, "linear")
@torch_does(Kind.MATMUL, "matmul", "einsum")
def _product(call: Call) -> Tensor:
    terms, factors = call.op.attributes.get("terms"), [call[0], call[1]]
    if isinstance(terms, str):
        found = torch.einsum(terms, *factors)
    else:
        for at in call.wholes("transposed"):
            factors[at] = factors[at].transpose(-1, -2)
        found = factors[0] @ factors[1]
    bias = call.get(2)
    return found if bias is None else found + bias


@torch_does(Kind.CONV, "conv", needs="groups kernel strides dilations pads")
def _conv(call: Call) -> Tensor:
    pads, count = call.wholes("pads"), len(call.wholes("kernel"))
    x = functional.pad(call[0], [end for at in reversed(range(count)) for end in (pads[at], pads[at + count])])
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[count - 1]
    strides, dilations = list(call.wholes("strides")), list(call.wholes("dilations"))
    found: Tensor = run(x, call[1], call.get(2), strides, 0, dilations, call.whole("groups"))
    return found


@torch_does(Kind.CONV, "conv_transpose", needs="groups kernel strides dilations pads", sized=True)
def _conv_transpose(call: Call) -> Tensor:
    """Without padding, of which then the part is taken that the op's has."""
    count = len(call.wholes("kernel"))
    run = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[count - 1]
    strides, dilations = list(call.wholes("strides")), list(call.wholes("dilations"))
    found: Tensor = run(call[0], call[1], call.get(2), strides, 0, 0, call.whole("groups"), dilations)
    for at, begin in enumerate(call.wholes("pads")[:count]):
        size = call.sizes[0][IMAGE + at]
        if begin + size > found.shape[IMAGE + at]:
            raise Unsupported("a transposed convolution that reaches beyond its products")
        found = found.narrow(IMAGE + at, begin, size)
    return found


@torch_does(Kind.EMBEDDING, "embedding")
def _embedding(call: Call) -> Tensor:
    return functional.embedding(call[1].long() % len(call[0]), call[0])


@torch_does(Kind.ATTENTION, "attention", needs="causal scale")
def _attention(call: Call) -> Tensor:
    q, k, v = call[0], call[1], call[2]
    if q.dim() != HEADS or call.number("cap", 0) or len([one for one in call.given if one is not None]) > HEADS:
        raise Unsupported("an attention of this layout")
    if len(call.op.outputs) > 1 and any(call.op.outputs[1:]):
        raise Unsupported("an attention that gives more than its result")
    k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], 1) for one in (k, v))
    causal, scale = bool(call.whole("causal")), call.number("scale")
    return functional.scaled_dot_product_attention(q, k, v, call.get(3), 0.0, causal, scale=scale)
