"""What may stand behind a product, as exporters write it: the nodes as text, and the steps that they are."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from tests.onnx_models import Case, random

IN, OUT = 64, 32
SCALARS = {
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "most": 65504.0,
    "least": -65504.0,
    "six": 6.0,
    "zero": 0.0,
    "root": 2**0.5,
    "inverse_root": 0.5**0.5,
    "tanh_root": (2 / np.pi) ** 0.5,
    "cubic": 0.044715,
    "quick": 1.702,
    "eps": 1e-6,
    "other_eps": 1e-3,
}
VECTORS = {
    "b": random(OUT, seed=2),
    "row": random(1, 1, OUT, seed=3),
    "gain": random(OUT, seed=4),
    "shift": random(OUT, seed=5),
    "gain_row": random(1, 1, OUT, seed=6),
    "matrix": random(3, OUT, seed=7),
    "last": np.array([-1]),
    "first": np.array([1]),
}
CONSTANTS = VECTORS | {name: np.array(number, np.float32) for name, number in SCALARS.items()}
INPUTS = f"float[N,S,{IN}] x, float[N,S,{OUT}] t, float[N,S,{OUT}] u, float[N,1,{OUT}] narrow, float[N,S,1] thin"
RESULT = f"float[N,S,{OUT}] y"


def case(nodes: str, outputs: str = RESULT, inputs: str = INPUTS, opset: int = 18) -> Case:
    """A product ``h`` and what stands behind it."""
    weights = {"w": random(IN, OUT) / 8} | {name: array for name, array in CONSTANTS.items() if _reads(nodes, name)}
    body = f"g ({inputs}) => ({outputs}) {{ h = MatMul(x, w) {nodes} }}"
    return Case(body, weights, {}, opset=opset, ir_version=10)


def _reads(nodes: str, name: str) -> bool:
    return name in nodes.replace("(", " ").replace(")", " ").replace(",", " ").split()


ACTIVATIONS = {
    "relu": ("relu", "y = Relu(h)"),
    "relu_max": ("relu", "y = Max(h, zero)"),
    "sigmoid": ("sigmoid", "y = Sigmoid(h)"),
    "sigmoid_exp": ("sigmoid", "a = Neg(h) c = Exp(a) d = Add(one, c) y = Div(one, d)"),
    "tanh": ("tanh", "y = Tanh(h)"),
    "tanh_sigmoid": ("tanh", "a = Mul(h, two) c = Sigmoid(a) d = Mul(two, c) y = Sub(d, one)"),
    "silu_left": ("silu", "a = Sigmoid(h) y = Mul(h, a)"),
    "silu_right": ("silu", "a = Sigmoid(h) y = Mul(a, h)"),
    "silu_exp": ("silu", "a = Neg(h) c = Exp(a) d = Add(c, one) y = Div(h, d)"),
    "hard_swish": ("hard_swish", "y = HardSwish(h)"),
    "hard_swish_clip": ("hard_swish", "a = Add(h, three) c = Clip(a, zero, six) d = Mul(h, c) y = Div(d, six)"),
    "hard_swish_sigmoid": (
        "hard_swish",
        "a = HardSigmoid <alpha = 0.16666667, beta = 0.5> (h) y = Mul(h, a)",
    ),
    "relu6": ("relu6", "y = Clip(h, zero, six)"),
    "relu6_min": ("relu6", "a = Relu(h) y = Min(a, six)"),
    "gelu_erf": ("gelu", "a = Div(h, root) c = Erf(a) d = Add(c, one) e = Mul(h, d) y = Mul(e, half)"),
    "gelu_erf_half_first": (
        "gelu",
        "z = Mul(half, h) a = Mul(h, inverse_root) c = Erf(a) d = Add(one, c) y = Mul(z, d)",
    ),
    "gelu_tanh": (
        "gelu_tanh",
        """a = Pow(h, three) c = Mul(cubic, a) d = Add(h, c) e = Mul(tanh_root, d) f = Tanh(e)
        i = Add(one, f) j = Mul(half, h) y = Mul(j, i)""",
    ),
    "gelu_tanh_products": (
        "gelu_tanh",
        """a = Mul(h, h) c = Mul(a, h) d = Mul(c, cubic) e = Add(d, h) f = Mul(e, tanh_root) i = Tanh(f)
        j = Add(i, one) k = Mul(h, j) y = Mul(k, half)""",
    ),
}

RMS = "a = Pow(h, two) c = ReduceMean(a, last) d = Add(c, {eps}) e = Sqrt(d)"
CENTRED = "m = ReduceMean(h, last) a = Sub(h, m) c = Mul(a, a) d = ReduceMean(c, last) e = Add(d, eps) f = Sqrt(e)"
NORMS: dict[str, tuple[str, tuple[str, ...], float, str]] = {
    "layer_norm": (
        "layer_norm",
        ("gain", "shift"),
        1e-12,
        "y = LayerNormalization <epsilon = 1e-12> (h, gain, shift)",
    ),
    "layer_norm_no_shift": ("layer_norm", ("gain", ""), 1e-5, "y = LayerNormalization (h, gain)"),
    "layer_norm_pieces": (
        "layer_norm",
        ("gain", "shift"),
        1e-6,
        CENTRED + " i = Div(a, f) j = Mul(i, gain) y = Add(j, shift)",
    ),
    "layer_norm_pieces_turned": (
        "layer_norm",
        ("gain_row", "shift"),
        1e-6,
        """m = ReduceMean(h, last) a = Sub(h, m) c = Pow(a, two) d = ReduceMean(c, last) e = Add(eps, d) f = Sqrt(e)
        r = Reciprocal(f) i = Mul(r, a) j = Mul(gain_row, i) y = Add(shift, j)""",
    ),
    "layer_norm_bare": ("layer_norm", ("", ""), 1e-6, CENTRED + " y = Div(a, f)"),
    "layer_norm_only_shift": ("layer_norm", ("", "shift"), 1e-6, CENTRED + " i = Div(a, f) y = Add(i, shift)"),
    "rms_norm": ("rms_norm", ("gain",), 1e-6, RMS.format(eps="eps") + " f = Div(h, e) y = Mul(f, gain)"),
    "rms_norm_reciprocal": (
        "rms_norm",
        ("gain",),
        1e-3,
        RMS.format(eps="other_eps") + " f = Reciprocal(e) i = Mul(h, f) y = Mul(gain, i)",
    ),
    "rms_norm_bare": ("rms_norm", ("",), 1e-6, RMS.format(eps="eps") + " y = Div(h, e)"),
}

OPERANDS = {
    "bias": ("y = Add(h, b)", ("bias",), ("b",), "h"),
    "bias_left": ("y = Add(b, h)", ("bias",), ("b",), "h"),
    "bias_row": ("y = Add(h, row)", ("bias",), ("row",), "h"),
    "add": ("y = Add(h, t)", ("add",), ("t",), "y"),
    "add_left": ("y = Add(t, h)", ("add",), ("t",), "y"),
    "mul": ("y = Mul(h, t)", ("mul",), ("t",), "y"),
    "two": ("a = Mul(h, t) y = Add(a, u)", ("mul", "add"), ("t", "u"), "y"),
    "bias_last": ("a = Relu(h) c = Mul(a, t) y = Add(c, b)", ("relu", "mul", "bias"), ("t", "b"), "c"),
    "all": (
        """a = Add(h, b) s = Sigmoid(a) c = Mul(a, s) d = Mul(c, t) e = Add(u, d)
        y = LayerNormalization (e, gain, shift)""",
        ("bias", "silu", "mul", "add", "layer_norm"),
        ("b", "t", "u", "gain", "shift"),
        "e",
    ),
}

KEPT = {
    "read": ("a = Add(h, t) y = LayerNormalization (a, gain, shift) z = Neg(a)", "z"),
    "read_before": ("a = Add(h, t) z = Neg(a) y = LayerNormalization (a, gain, shift)", "z"),
    "returned": ("a = Add(h, t) y = LayerNormalization (a, gain, shift)", "a"),
}


class Block(nn.Module):
    """A gated feed-forward between norms, and gelus, as PyTorch spells them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = (nn.Linear(32, 32, bias=False) for _ in range(3))
        self.one, self.two, self.three = (nn.Linear(32, 32) for _ in range(3))
        self.gain = nn.Parameter(torch.rand(32) + 0.5)
        self.norm = nn.LayerNorm(32, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        normal = self.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))
        x = x + F.gelu(self.one(normal))
        x = F.gelu(self.two(x), approximate="tanh")
        result: Tensor = self.norm(F.hardswish(self.three(x)))
        return result
