"""Small graphs drawn for the axis analysis: chains of blocks over tokens or over images."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from qcc.ir.axes.axes import Action, Group
from qcc.ir.onnx.adapter import OnnxGraph

Feeds = dict[str, np.ndarray]

TOKENS, WIDTH, CHANNELS, PIXELS = 6, 16, 8, 5

PARTED_HEADS = (
    "{y}q = MatMul({x}, {w}q_16x16)\n{y}k = MatMul({x}, {w}k_16x16)\n{y}v = MatMul({x}, {w}v_16x16)\n"
    "{y}qr = Reshape({y}q, heads)\n{y}kr = Reshape({y}k, heads)\n{y}vr = Reshape({y}v, heads)\n"
    "{y}qt = Transpose<perm=[0,2,1,3]>({y}qr)\n{y}kt = Transpose<perm=[0,2,3,1]>({y}kr)\n"
    "{y}vt = Transpose<perm=[0,2,1,3]>({y}vr)\n{y}s = MatMul({y}qt, {y}kt)\n{y}p = Softmax<axis=-1>({y}s)\n"
    "{y}o = MatMul({y}p, {y}vt)\n{y}ot = Transpose<perm=[0,2,1,3]>({y}o)\n{y}f = Reshape({y}ot, flat)\n"
    "{y}a, {y}b = Split<axis=-1>({y}f, {parts})\n{y}c = Concat<axis=-1>({y}b, {y}a)\n"
    "{y} = MatMul({y}c, {w}o_16x16)"
)
"""Attention behind which the heads are two parts that change places."""

TOKEN_BLOCKS = {
    "linear": "{y} = MatMul({x}, {w}_16x16)",
    "biased": "{y}a = MatMul({x}, {w}_16x16)\n{y}b = Add({y}a, {w}b_16)\n{y} = Relu({y}b)",
    "shared": "{y} = MatMul({x}, shared_16x16)",
    "transposed": "{y}t = Transpose<perm=[1,0]>({w}_16x16)\n{y} = MatMul({x}, {y}t)",
    "residual": "{y}a = MatMul({x}, {w}_16x16)\n{y}b = Gelu({y}a)\n{y} = Add({x}, {y}b)",
    "feedforward": (
        "{y}a = MatMul({x}, {w}_16x24)\n{y}b = LeakyRelu({y}a)\n{y}c = MatMul({y}b, {w}d_24x16)\n{y} = Add({y}c, {x})"
    ),
    "gated": (
        "{y}a = MatMul({x}, {w}_16x24)\n{y}g = MatMul({x}, {w}g_16x24)\n{y}s = Sigmoid({y}g)\n"
        "{y}m = Mul({y}s, {y}a)\n{y} = MatMul({y}m, {w}d_24x16)"
    ),
    "bilinear": (
        "{y}a = MatMul({x}, {w}_16x24)\n{y}g = MatMul({x}, {w}g_16x24)\n{y}m = Mul({y}g, {y}a)\n"
        "{y} = MatMul({y}m, {w}d_24x16)"
    ),
    "layer_norm": "{y}n = LayerNormalization<axis=-1>({x}, {w}g_16, {w}b_16)\n{y} = MatMul({y}n, {w}_16x16)",
    "rms_norm": (
        "{y}p = Pow({x}, two)\n{y}m = ReduceMean<keepdims=1>({y}p, last)\n{y}e = Add({y}m, small)\n"
        "{y}q = Sqrt({y}e)\n{y}d = Div({x}, {y}q)\n{y}n = Mul({y}d, {w}g_16)\n{y}o = MatMul({y}n, {w}_16x16)\n"
        "{y} = Add({x}, {y}o)"
    ),
    "plain_norm": (
        "{y}p = Mul({x}, {x})\n{y}m = ReduceMean<keepdims=1>({y}p, last)\n{y}e = Add({y}m, small)\n"
        "{y}q = Sqrt({y}e)\n{y}d = Div({x}, {y}q)\n{y} = MatMul({y}d, {w}_16x16)"
    ),
    "centred": "{y}m = ReduceMean<keepdims=1>({x}, last)\n{y}c = Sub({x}, {y}m)\n{y} = MatMul({y}c, {w}_16x16)",
    "softmax": "{y}a = MatMul({x}, {w}_16x16)\n{y}s = Softmax<axis=-1>({y}a)\n{y} = MatMul({y}s, {w}d_16x16)",
    "halves": (
        "{y}a, {y}b = Split<axis=-1, num_outputs=2>({x})\n{y}c = Concat<axis=-1>({y}b, {y}a)\n{y} = Add({x}, {y}c)"
    ),
    "joined": "{y}a = MatMul({x}, {w}_16x8)\n{y}b = Concat<axis=-1>({x}, {y}a)\n{y} = MatMul({y}b, {w}j_24x16)",
    "uneven": ("{y}a, {y}b = Split<axis=-1>({x}, five_eleven)\n{y}c = Relu({y}a)\n{y} = Concat<axis=-1>({y}c, {y}b)"),
    "reversed": "{y} = Slice({x}, minus_one, far_below, last, minus_one)",
    "strided": (
        "{y}a = Slice({x}, zero, sixteen, last, two_step)\n{y}b = Slice({x}, one, sixteen, last, two_step)\n"
        "{y}n = Neg({y}b)\n{y} = Concat<axis=-1>({y}n, {y}a)"
    ),
    "cumulative": "{y} = CumSum({x}, last_scalar)",
    "tokens": (
        "{y}t = Transpose<perm=[0,2,1]>({x})\n{y}m = MatMul({y}t, {w}_6x6)\n{y} = Transpose<perm=[0,2,1]>({y}m)"
    ),
    "pooled": "{y}m = ReduceMean<keepdims=1>({x}, middle)\n{y} = Add({x}, {y}m)",
    "similar": (
        "{y}t = Transpose<perm=[0,2,1]>({x})\n{y}s = MatMul({x}, {y}t)\n{y}p = Softmax<axis=-1>({y}s)\n"
        "{y} = MatMul({y}p, {x})"
    ),
    "attention": (
        "{y}q = MatMul({x}, {w}q_16x16)\n{y}qb = Add({y}q, {w}qb_16)\n{y}k = MatMul({x}, {w}k_16x16)\n"
        "{y}v = MatMul({x}, {w}v_16x16)\n{y}qr = Reshape({y}qb, heads)\n{y}kr = Reshape({y}k, heads)\n"
        "{y}vr = Reshape({y}v, heads)\n{y}qt = Transpose<perm=[0,2,1,3]>({y}qr)\n"
        "{y}kt = Transpose<perm=[0,2,3,1]>({y}kr)\n{y}vt = Transpose<perm=[0,2,1,3]>({y}vr)\n"
        "{y}s = MatMul({y}qt, {y}kt)\n{y}p = Softmax<axis=-1>({y}s)\n{y}o = MatMul({y}p, {y}vt)\n"
        "{y}ot = Transpose<perm=[0,2,1,3]>({y}o)\n{y}f = Reshape({y}ot, flat)\n{y}w = MatMul({y}f, {w}o_16x16)\n"
        "{y} = Add({x}, {y}w)"
    ),
    "keys_in_batches": (  # as torch exports attention: heads and batch are one axis while keys are transposed
        "{y}q = MatMul({x}, {w}q_16x16)\n{y}qb = Add({y}q, {w}qb_16)\n{y}k = MatMul({x}, {w}k_16x16)\n"
        "{y}v = MatMul({x}, {w}v_16x16)\n{y}qr = Reshape({y}qb, heads)\n{y}kr = Reshape({y}k, heads)\n"
        "{y}vr = Reshape({y}v, heads)\n{y}qt = Transpose<perm=[0,2,1,3]>({y}qr)\n"
        "{y}ks = Transpose<perm=[0,2,1,3]>({y}kr)\n{y}km = Reshape({y}ks, merged_heads)\n"
        "{y}kn = Transpose<perm=[0,2,1]>({y}km)\n{y}kt = Reshape({y}kn, turned_heads)\n"
        "{y}vt = Transpose<perm=[0,2,1,3]>({y}vr)\n{y}s = MatMul({y}qt, {y}kt)\n{y}p = Softmax<axis=-1>({y}s)\n"
        "{y}o = MatMul({y}p, {y}vt)\n{y}ot = Transpose<perm=[0,2,1,3]>({y}o)\n{y}f = Reshape({y}ot, flat)\n"
        "{y}w = MatMul({y}f, {w}o_16x16)\n{y} = Add({x}, {y}w)"
    ),
    "einsums": (  # the same attention, whose products say which axes go with which
        '{y}q = Einsum<equation="od,...d->...o">({w}q_16x16, {x})\n{y}qb = Add({y}q, {w}qb_16)\n'
        '{y}k = MatMul({x}, {w}k_16x16)\n{y}v = Einsum<equation="abd,de">({x}, {w}v_16x16)\n'
        "{y}qr = Reshape({y}qb, heads)\n{y}kr = Reshape({y}k, heads)\n{y}vr = Reshape({y}v, heads)\n"
        '{y}s = Einsum<equation="bqhd,bkhd->bhqk">({y}qr, {y}kr)\n{y}p = Softmax<axis=-1>({y}s)\n'
        '{y}o = Einsum<equation="bkhd,bhqk->bqhd">({y}vr, {y}p)\n{y}f = Reshape({y}o, flat)\n'
        "{y}w = MatMul({y}f, {w}o_16x16)\n{y} = Add({x}, {y}w)"
    ),
    "grouped_query": (
        "{y}q = MatMul({x}, {w}q_16x16)\n{y}k = MatMul({x}, {w}k_16x8)\n{y}v = MatMul({x}, {w}v_16x8)\n"
        "{y}qr = Reshape({y}q, heads)\n{y}kr = Reshape({y}k, few_heads)\n{y}vr = Reshape({y}v, few_heads)\n"
        "{y}qt = Transpose<perm=[0,2,1,3]>({y}qr)\n{y}ku = Unsqueeze({y}kr, three)\n"
        "{y}ke = Expand({y}ku, repeated)\n{y}kf = Reshape({y}ke, heads)\n"
        "{y}kt = Transpose<perm=[0,2,3,1]>({y}kf)\n{y}vu = Unsqueeze({y}vr, three)\n"
        "{y}ve = Expand({y}vu, repeated)\n{y}vf = Reshape({y}ve, heads)\n"
        "{y}vt = Transpose<perm=[0,2,1,3]>({y}vf)\n{y}s = MatMul({y}qt, {y}kt)\n{y}p = Softmax<axis=-1>({y}s)\n"
        "{y}o = MatMul({y}p, {y}vt)\n{y}ot = Transpose<perm=[0,2,1,3]>({y}o)\n{y}f = Reshape({y}ot, flat)\n"
        "{y} = MatMul({y}f, {w}o_16x16)"
    ),
    "half_heads": PARTED_HEADS.replace("{parts}", "eight_eight"),
    "one_head": PARTED_HEADS.replace("{parts}", "four_twelve"),
    "rotary": (
        "{y}q = MatMul({x}, {w}q_16x16)\n{y}k = MatMul({x}, {w}k_16x16)\n"
        "{y}a, {y}b = Split<axis=-1, num_outputs=2>({y}q)\n{y}n = Neg({y}b)\n{y}t = Concat<axis=-1>({y}n, {y}a)\n"
        "{y}c = Mul({y}q, {w}c_6x16)\n{y}d = Mul({y}t, {w}c_6x16)\n{y}r = Add({y}c, {y}d)\n"
        "{y}kt = Transpose<perm=[0,2,1]>({y}k)\n{y}s = MatMul({y}r, {y}kt)\n{y}p = Softmax<axis=-1>({y}s)\n"
        "{y} = MatMul({y}p, {x})"
    ),
    "fused": (
        "{y}a = MatMul({x}, {w}_16x48)\n{y}r = Reshape({y}a, three_heads)\n"
        "{y}t = Transpose<perm=[2,0,3,1,4]>({y}r)\n{y}q = Gather<axis=0>({y}t, number0)\n"
        "{y}k = Gather<axis=0>({y}t, number1)\n{y}v = Gather<axis=0>({y}t, number2)\n"
        "{y}kt = Transpose<perm=[0,1,3,2]>({y}k)\n{y}s = MatMul({y}q, {y}kt)\n{y}p = Softmax<axis=-1>({y}s)\n"
        "{y}o = MatMul({y}p, {y}v)\n{y}ot = Transpose<perm=[0,2,1,3]>({y}o)\n{y}f = Reshape({y}ot, flat)\n"
        "{y} = MatMul({y}f, {w}o_16x16)"
    ),
}
IMAGE_BLOCKS = {
    "conv": "{y} = Conv<pads=[1,1,1,1]>({x}, {w}_8x8x3x3, {w}b_8)",
    "relu": "{y}a = Conv({x}, {w}_8x8x1x1)\n{y} = Relu({y}a)",
    "clipped": "{y}a = Conv({x}, {w}_8x8x1x1)\n{y} = Clip({y}a, nought, six)",
    "residual": "{y}a = Conv<pads=[1,1,1,1]>({x}, {w}_8x8x3x3)\n{y}b = Relu({y}a)\n{y} = Add({y}b, {x})",
    "grouped": "{y} = Conv<group=2, pads=[1,1,1,1]>({x}, {w}_8x4x3x3, {w}b_8)",
    "depthwise": "{y}a = Conv<group=8, pads=[1,1,1,1]>({x}, {w}_8x1x3x3)\n{y} = Relu({y}a)",
    "up": "{y}a = ConvTranspose<group=2, pads=[1,1,1,1]>({x}, {w}_8x4x3x3)\n{y} = Sigmoid({y}a)",
    "norm": "{y} = BatchNormalization({x}, {w}g_8, {w}b_8, {w}m_8, positive_8)",
    "group_norm": "{y}r = GroupNormalization<num_groups=2>({x}, {w}g_8, {w}b_8)\n{y} = Conv({y}r, {w}_8x8x1x1)",
    "joined": "{y}a = Conv({x}, {w}_4x8x1x1)\n{y}b = Concat<axis=1>({x}, {y}a)\n{y} = Conv({y}b, {w}j_8x12x1x1)",
    "shuffled": (
        "{y}a = Reshape({x}, two_groups)\n{y}b = Transpose<perm=[0,2,1,3,4]>({y}a)\n{y} = Reshape({y}b, image)"
    ),
    "split": (
        "{y}a, {y}b = Split<axis=1, num_outputs=2>({x})\n{y}c = Conv({y}b, {w}_4x4x1x1)\n"
        "{y} = Concat<axis=1>({y}a, {y}c)"
    ),
    "squeezed": (
        "{y}m = GlobalAveragePool({x})\n{y}a = Conv({y}m, {w}_4x8x1x1)\n{y}b = Relu({y}a)\n"
        "{y}c = Conv({y}b, {w}u_8x4x1x1)\n{y}s = Sigmoid({y}c)\n{y} = Mul({x}, {y}s)"
    ),
    "pooled": "{y} = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>({x})",
    "padded": "{y}a = Pad({x}, pads)\n{y} = Conv({y}a, {w}_8x10x1x1)",
    "scaled": "{y} = Mul({x}, {w}_8x1x1)",
    "sloped": "{y} = PRelu({x}, {w}_8x1x1)",
    "turned": "{y} = Transpose<perm=[0,1,3,2]>({x})",
}
NUMBERS = {
    "two": np.float32(2),
    "small": np.float32(1e-3),
    "nought": np.float32(0),
    "six": np.float32(6),
    "positive_8": np.linspace(0.5, 1.5, 8, dtype=np.float32),
    "last": np.array([-1]),
    "middle": np.array([1]),
    "last_scalar": np.array(-1),
    "five_eleven": np.array([5, 11]),
    "eight_eight": np.array([8, 8]),
    "four_twelve": np.array([4, 12]),
    "zero": np.array([0]),
    "one": np.array([1]),
    "three": np.array([3]),
    "sixteen": np.array([16]),
    "two_step": np.array([2]),
    "minus_one": np.array([-1]),
    "far_below": np.array([-1000]),
    "heads": np.array([0, 6, 4, 4]),
    "few_heads": np.array([0, 6, 2, 4]),
    "repeated": np.array([1, 6, 2, 2, 4]),
    "flat": np.array([0, 6, 16]),
    "three_heads": np.array([0, 6, 3, 4, 4]),
    "number0": np.array(0),
    "number1": np.array(1),
    "number2": np.array(2),
    "two_groups": np.array([0, 2, 4, 5, 5]),
    "merged_heads": np.array([-1, 6, 4]),
    "turned_heads": np.array([-1, 4, 4, 6]),
    "image": np.array([0, 8, 5, 5]),
    "pads": np.array([0, 1, 0, 0, 0, 1, 0, 0]),
}


def chain(kinds: list[str], seed: int, images: bool = False, closed: bool = True) -> OnnxGraph:
    """A model of these blocks, with a layer at both ends if ``closed``, so that channels between are free to move."""
    blocks = IMAGE_BLOCKS if images else TOKEN_BLOCKS
    parts = [blocks[kind] for kind in kinds]
    if closed:
        layer = blocks["conv" if images else "linear"]
        parts = [layer, *parts, layer]
    names = ["x", *(f"h{at}" for at in range(len(parts) - 1)), "y"]
    lines = [part.format(x=names[at], y=names[at + 1], w=f"w{at}") for at, part in enumerate(parts)]
    size = f"{CHANNELS},{PIXELS},{PIXELS}" if images else f"{TOKENS},{WIDTH}"
    body = "\n".join(lines)
    text = f'<ir_version: 10, opset_import: ["" : 21]>\nchain (float[n,{size}] x) => (float[n,{size}] y) {{\n{body}\n}}'
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    made = {name for node in model.graph.node for name in node.output}
    for name in sorted({name for node in model.graph.node for name in node.input} - made - {"x"}):
        array = np.asarray(NUMBERS[name]) if name in NUMBERS else _drawn(name, rng)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    graph.simplify()
    return graph


def feeds(images: bool = False) -> Feeds:
    """Two samples."""
    shape = (2, CHANNELS, PIXELS, PIXELS) if images else (2, TOKENS, WIDTH)
    return {"x": np.random.default_rng(7).standard_normal(shape).astype(np.float32)}


def run(graph: OnnxGraph, given: Feeds) -> np.ndarray:
    """The output."""
    return graph.runner(["x"], ["y"])(given)["y"]


def drawn_change(group: Group, rng: np.random.Generator) -> np.ndarray:
    """Anything that a group allows."""
    shape = (*group.contexts, group.size)
    if group.action is Action.SELECT:
        stays = rng.random(group.size) < 0.6
        stays[rng.integers(group.size)] = True
        return np.asarray(stays)
    if group.action is Action.PERMUTE:
        return rng.permuted(np.broadcast_to(np.arange(group.size), shape), axis=-1)
    if group.action is Action.SCALE:
        signs = np.ones(shape) if group.positive else rng.choice([-1.0, 1.0], shape)
        return np.asarray(np.exp(rng.uniform(-1, 1, shape)) * signs)
    matrices = np.linalg.qr(rng.standard_normal((*shape, group.size)))[0]
    if not group.keeps_mean:
        return np.asarray(matrices)
    ones = np.full(group.size, group.size**-0.5)
    mirror = matrices @ ones - ones  # reflected back onto the ones
    length = np.sum(mirror**2, -1)[..., None, None]
    return np.asarray(matrices - 2 * mirror[..., :, None] * (mirror[..., None, :] @ matrices) / length)


def _drawn(name: str, rng: np.random.Generator) -> np.ndarray:
    shape = [int(size) for size in name.rsplit("_", 1)[-1].split("x")]
    fan = max(int(np.prod(shape)) // shape[0], 1) if len(shape) > 2 else shape[0]
    return np.asarray(rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)
