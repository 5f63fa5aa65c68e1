"""Graphs drawn at random: chains of the pieces that exact passes look for, with residuals and shared weights.

Every graph is valid and its numbers are tame, so that a difference beyond what rounding makes of the graph itself is a
fault of what was done to it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.parser
from onnx import ModelProto

WIDTHS = (8, 12, 16, 32)
ACTIVATIONS = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "LeakyRelu<alpha=0.1>",
    "Elu",
    "Softplus",
    "HardSwish",
    "Identity",
    "Abs",
    "Neg",
)
CHAINED_WIDTHS = (24, 32, 48, 64, 72)
CHAINED_ACTIVATIONS = ("Relu", "Relu", "Relu", "LeakyRelu<alpha=0.1>", "HardSwish", "Identity")
OPSET = 20


@dataclass
class _Drawing:
    """A graph as far as it is drawn: its lines, its constants, and the value that goes on."""

    rng: random.Random
    value: str = "x"
    width: int = 16
    lines: list[str] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    shared: dict[tuple[int, ...], list[str]] = field(default_factory=dict)
    count: int = 0
    widths: Sequence[int] = WIDTHS
    activations: Sequence[str] = ACTIVATIONS

    def op(self, text: str) -> str:
        """Add a line; `{}` is the value that goes on."""
        self.count += 1
        name = f"v{self.count}"
        self.lines.append(f"{name} = {text.replace('{}', self.value)}")
        return name

    def constant(self, *shape: int, like_one: bool = False, share: bool = True) -> str:
        """A new constant, or one that another layer reads already."""
        if share and not like_one and self.shared.get(shape) and self.rng.random() < 0.1:
            return self.rng.choice(self.shared[shape])
        name = f"c{len(self.constants)}"
        numbers = np.random.default_rng(self.rng.randrange(2**32))
        fan_in = int(np.prod(shape[1:] if len(shape) > 2 else shape[:1]))
        array = (
            numbers.standard_normal(shape) / np.sqrt(max(fan_in, 1))
            if len(shape) > 1
            else numbers.normal(0, 0.2, shape)
        )
        self.constants[name] = (1 + np.abs(array) if like_one else array).astype(np.float32)
        if share and not like_one:
            self.shared.setdefault(shape, []).append(name)
        return name

    def number(self, value: object) -> str:
        """A constant that is given."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name


def drawn(rng: random.Random) -> ModelProto:
    """A graph of two to eight pieces over tokens or over images."""
    image = rng.random() < 0.4
    return _of_pieces(_Drawing(rng, width=rng.choice(WIDTHS)), _IMAGE if image else _TOKENS, image)


def drawn_chain(rng: random.Random) -> ModelProto:
    """Convolutions of so many channels that integers gain, with what may stand between those that hand on bytes."""
    drawing = _Drawing(rng, width=rng.choice(CHAINED_WIDTHS), widths=CHAINED_WIDTHS, activations=CHAINED_ACTIVATIONS)
    return _of_pieces(drawing, _CHAIN, True)


def _of_pieces(drawing: _Drawing, pieces: Sequence[Callable[[_Drawing], None]], image: bool) -> ModelProto:
    rng, start = drawing.rng, drawing.width
    for _ in range(rng.randrange(2, 9)):
        rng.choice(pieces)(drawing)
    shape = "n,{},9,9" if image else "n,7,{}"
    ends = f"(float[{shape.format(start)}] x) => (float[{shape.format(drawing.width)}] y)"
    drawing.lines.append(f"y = Identity({drawing.value})")
    body = "\n".join(drawing.lines)
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\ndrawn {ends} {{\n{body}\n}}')
    for name, array in drawing.constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def _linear(to: _Drawing) -> None:
    width = to.rng.choice((to.width, *WIDTHS))
    if to.rng.random() < 0.2:
        weight = to.constant(width, to.width)
        to.value = to.op(f"MatMul({{}}, {to.op(f'Transpose<perm=[1,0]>({weight})')})")
    else:
        to.value = to.op(f"MatMul({{}}, {to.constant(to.width, width)})")
    if to.rng.random() < 0.6:
        to.value = to.op(f"Add({{}}, {to.constant(width)})")
    to.width = width


def _mlp(to: _Drawing) -> None:
    before, width, inner = to.value, to.width, to.rng.choice(WIDTHS)
    to.value = to.op(f"MatMul({{}}, {to.constant(width, inner)})")
    gate = to.value
    _activation(to)
    if to.rng.random() < 0.4:
        other = to.op(f"MatMul({before}, {to.constant(width, inner)})")
        to.value = to.op(f"Mul({to.rng.choice((gate, '{}'))}, {other})")
    to.value = to.op(f"MatMul({{}}, {to.constant(inner, width)})")
    if to.rng.random() < 0.7:
        to.value = to.op(f"Add({before}, {{}})")


def _norm(to: _Drawing) -> None:
    gain, bias = to.constant(to.width, like_one=True), to.constant(to.width)
    if to.rng.random() < 0.5:
        to.value = to.op(f"LayerNormalization<axis=-1>({{}}, {gain}, {bias})")
        return
    square = to.op("Mul({}, {})")
    mean = to.op(f"ReduceMean<keepdims=1>({square}, {to.number(np.array([-1]))})")
    root = to.op(f"Sqrt({to.op(f'Add({mean}, {to.number(np.float32(1e-5))})')})")
    to.value = to.op(f"Div({{}}, {root})")
    to.value = to.op(f"Mul({{}}, {gain})")


def _attention(to: _Drawing) -> None:
    before, width, heads = to.value, to.width, to.rng.choice((1, 2, 4))
    shape = to.number(np.array([0, 7, heads, width // heads]))
    parts = [to.op(f"MatMul({before}, {to.constant(width, width)})") for _ in range(3)]
    parts = [to.op(f"Reshape({one}, {shape})") for one in parts]
    query, key, value = (
        to.op(f"Transpose<perm={perm}>({one})")
        for one, perm in zip(parts, ("[0,2,1,3]", "[0,2,3,1]", "[0,2,1,3]"), strict=True)
    )
    scores = to.op(f"Mul({to.op(f'MatMul({query}, {key})')}, {to.number(np.float32(0.3))})")
    mixed = to.op(f"MatMul({to.op(f'Softmax<axis=-1>({scores})')}, {value})")
    flat = to.op(f"Reshape({to.op(f'Transpose<perm=[0,2,1,3]>({mixed})')}, {to.number(np.array([0, 7, width]))})")
    to.value = to.op(f"MatMul({flat}, {to.constant(width, width)})")
    to.value = to.op(f"Add({before}, {{}})")


def _activation(to: _Drawing) -> None:
    kind = to.rng.choice(to.activations)
    name, _, options = kind.partition("<")
    to.value = to.op(f"{name}{'<' + options if options else ''}({{}})")


def _arithmetic(to: _Drawing) -> None:
    kind = to.rng.randrange(6)
    if kind == 0:
        to.value = to.op(f"Mul({{}}, {to.number(np.float32(to.rng.choice((0.5, -1, 1.7))))})")
    elif kind == 1:
        to.value = to.op(f"Clip({{}}, {to.number(np.float32(-2))}, {to.number(np.float32(2))})")
    elif kind == 2:
        to.value = to.op("Add({}, {})")
    elif kind == 3 and to.width % 2 == 0:
        half = to.width // 2
        ends = [to.number(np.array([at])) for at in (0, half, to.width)]
        axis = to.number(np.array([-1 if to.value != "image" else 1]))
        parts = [to.op(f"Slice({{}}, {ends[at]}, {ends[at + 1]}, {axis})") for at in (0, 1)]
        to.value = to.op(f"Concat<axis=-1>({parts[1]}, {parts[0]})")
    elif kind == 4:
        other = to.op(f"MatMul({{}}, {to.constant(to.width, to.width)})")
        to.value = to.op(f"Concat<axis=-1>({{}}, {other})")
        to.width *= 2
    else:
        to.value = to.op("Add({}, x)") if to.value == "x" else to.op("Identity({})")


def _conv(to: _Drawing) -> None:
    width, kernel = to.rng.choice((to.width, *to.widths)), to.rng.choice((1, 3))
    group = to.rng.choice((1, 1, 2, 4))
    group = group if width % group == 0 and to.width % group == 0 else 1
    pads = f"pads=[{','.join([str(kernel // 2)] * 4)}]"
    bias = f", {to.constant(width)}" if to.rng.random() < 0.5 else ""
    weight = to.constant(width, to.width // group, kernel, kernel)
    to.value = to.op(f"Conv<{pads}, group={group}>({{}}, {weight}{bias})")
    to.width = width
    if to.rng.random() < 0.5:
        _batch_norm(to)
    if to.rng.random() < 0.7:
        _activation(to)


def _depthwise(to: _Drawing) -> None:
    before = to.value
    to.value = to.op(f"Conv<pads=[1,1,1,1], group={to.width}>({{}}, {to.constant(to.width, 1, 3, 3)})")
    if to.rng.random() < 0.6:
        _batch_norm(to)
    if to.rng.random() < 0.5:
        to.value = to.op(f"Add({before}, {{}})")


def _batch_norm(to: _Drawing) -> None:
    gain, variance = (to.constant(to.width, like_one=True) for _ in range(2))
    bias, mean = (to.constant(to.width) for _ in range(2))
    to.value = to.op(f"BatchNormalization({{}}, {gain}, {bias}, {mean}, {variance})")


def _squeeze(to: _Drawing) -> None:
    before, inner = to.value, to.rng.choice((4, 8))
    to.value = to.op("GlobalAveragePool({})")
    to.value = to.op(f"Conv({{}}, {to.constant(inner, to.width, 1, 1)})")
    to.value = to.op("Relu({})")
    to.value = to.op(f"Conv({{}}, {to.constant(to.width, inner, 1, 1)})")
    to.value = to.op(f"Mul({before}, {to.op('Sigmoid({})')})")


def _shuffle(to: _Drawing) -> None:
    if to.width % 2:
        return
    split = to.number(np.array([0, 2, to.width // 2, 9, 9]))
    whole = to.number(np.array([0, to.width, 9, 9]))
    to.value = to.op(f"Reshape({{}}, {split})")
    to.value = to.op("Transpose<perm=[0,2,1,3,4]>({})")
    to.value = to.op(f"Reshape({{}}, {whole})")


def _pool(to: _Drawing) -> None:
    kind = to.rng.choice(("MaxPool", "AveragePool"))
    to.value = to.op(f"{kind}<kernel_shape=[3,3], pads=[1,1,1,1]>({{}})")


_TOKENS = (_linear, _mlp, _norm, _attention, _activation, _arithmetic, _mlp, _attention)
_IMAGE = (_conv, _conv, _depthwise, _squeeze, _shuffle, _pool, _activation)
_CHAIN = (_conv, _conv, _conv, _depthwise, _pool, _squeeze, _activation)
