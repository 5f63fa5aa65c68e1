"""Functions of single values, and norms, in torch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from qcc.ir.fx.piece.call import Call, Unsupported, torch_does
from qcc.ir.fx.tensors import torch_dtype
from qcc.ir.graph.ops import Kind

SAME_NAME = (
    *("relu", "silu", "sigmoid", "tanh", "selu", "softplus", "softsign", "mish", "erf", "exp", "log", "sqrt", "rsqrt"),
    *("reciprocal", "neg", "abs", "sin", "cos", "isnan"),
)
_UNARY: dict[str, Callable[[Call, Tensor], Tensor]] = {
    "identity": lambda _, x: x,
    "dropout": lambda _, x: x,
    "cast": lambda call, x: x.to(torch_dtype(str(call.op.attributes["to"]))),
    "gelu": lambda call, x: functional.gelu(x, approximate=str(call.op.attributes.get("approximate", "none"))),
    "hard_swish": lambda _, x: functional.hardswish(x),
    "hard_sigmoid": lambda call, x: (x * call.number("alpha") + call.number("beta")).clamp(0, 1),
    "leaky_relu": lambda call, x: functional.leaky_relu(x, call.number("alpha")),
    "elu": lambda call, x: functional.elu(x, call.number("alpha")),
    "celu": lambda call, x: functional.celu(x, call.number("alpha")),
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mul": torch.mul,
    "sub": torch.sub,
    "div": torch.div,
    "pow": torch.pow,
    "min": torch.minimum,
    "max": torch.maximum,
}


@torch_does(Kind.ELEMENTWISE, *SAME_NAME)
def _same(call: Call) -> Tensor:
    name = call.op.function
    run: Callable[[Tensor], Tensor] = getattr(torch, name, None) or getattr(functional, name)
    return run(call[0])


@torch_does(Kind.ELEMENTWISE, *_UNARY)
def _unary(call: Call) -> Tensor:
    return _UNARY[call.op.function](call, call[0])


@torch_does(Kind.ELEMENTWISE, "clip")
def _clip(call: Call) -> Tensor:
    x, low, high = call[0], call.get(1), call.get(2)
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@torch_does(Kind.ELEMENTWISE, "prelu")
def _prelu(call: Call) -> Tensor:
    return torch.where(call[0] < 0, call[0] * call[1], call[0])


@torch_does(Kind.BINARY, "add", *_BINARY)
def _binary(call: Call) -> Tensor:
    run = _BINARY.get(call.op.function, torch.add)
    found = call[0]
    for at in range(1, len(call.given)):
        found = run(found, call[at])
    return found


@torch_does(Kind.BINARY, "where")
def _where(call: Call) -> Tensor:
    return torch.where(call[0].bool(), call[1], call[2])


@torch_does(Kind.NORM, "layer_norm", needs="axis epsilon")
def _layer_norm(call: Call) -> Tensor:
    shape = list(call[0].shape[call.whole("axis") :])
    return functional.layer_norm(call[0], shape, call.get(1), call.get(2), call.number("epsilon"))


@torch_does(Kind.NORM, "rms_norm", needs="axis epsilon")
def _rms_norm(call: Call) -> Tensor:
    x, gain = call[0], call.get(1)
    axes = list(range(call.whole("axis"), x.dim()))
    found = x * torch.rsqrt((x * x).mean(axes, keepdim=True) + call.number("epsilon"))
    return found if gain is None else found * gain


@torch_does(Kind.NORM, "batch_norm", needs="epsilon")
def _batch_norm(call: Call) -> Tensor:
    return functional.batch_norm(call[0], call[3], call[4], call.get(1), call.get(2), False, 0, call.number("epsilon"))


@torch_does(Kind.NORM, "group_norm", needs="groups epsilon")
def _group_norm(call: Call) -> Tensor:
    x, groups = call[0], call.whole("groups")
    affine = (call.get(1), call.get(2))  # a number a channel, or a group
    gain, shift = (one if one is None else one.repeat_interleave(x.shape[1] // len(one)) for one in affine)
    return functional.group_norm(x, groups, gain, shift, call.number("epsilon"))


@torch_does(Kind.NORM, "instance_norm", needs="epsilon")
def _instance_norm(call: Call) -> Tensor:
    if len(call.given) > 3 and any(one is not None for one in call.given[3:]):
        raise Unsupported("an instance norm of kept statistics")
    return functional.instance_norm(call[0], None, None, call.get(1), call.get(2), eps=call.number("epsilon"))


@torch_does(Kind.SOFTMAX, "softmax", needs="axis")
def _softmax(call: Call) -> Tensor:
    return torch.softmax(call[0], call.whole("axis"))


@torch_does(Kind.SOFTMAX, "log_softmax", needs="axis")
def _log_softmax(call: Call) -> Tensor:
    return torch.log_softmax(call[0], call.whole("axis"))
