"""ONNX models to start from, and what can be wrong with one: mutations that know the format."""

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

FASHION = Path(__file__).parents[2] / "examples" / "fashion" / "fashion-cnn.onnx"
HUGE = (-1, 0, 1, 2**31, 2**40, 2**62, -(2**63))
ODD_NAMES = ("", "x", "é\n\x00", "a" * 5000, "../../etc/passwd", " ")
OTHER_OPS = (
    "Relu",
    "Reluu",
    "Transpose",
    "Reshape",
    "Add",
    "MatMul",
    "Conv",
    "Loop",
    "If",
    "Identity",
    "Softmax",
    "Cast",
)
SEEDS = {
    "mlp": (20, "mlp (float[n,16] x) => (float[n,4] y)", "h = Gemm(x, w1, b1)\nr = Relu(h)\ny = MatMul(r, w2)"),
    "norm": (
        20,
        "norm (float[n,6,16] x) => (float[n,6,16] y)",
        "l = LayerNormalization<axis=-1>(x, g, b)\nq = MatMul(l, s1)\nk = MatMul(l, s2)\nv = MatMul(l, s3)\n"
        "t = Transpose<perm=[0,2,1]>(k)\np = MatMul(q, t)\nw = Softmax<axis=-1>(p)\no = MatMul(w, v)\ny = Add(x, o)",
    ),
    "conv": (
        17,
        "conv (float[n,3,12,12] x) => (float[n,5] y)",
        "c = Conv<pads=[1,1,1,1]>(x, k1)\nn = BatchNormalization(c, g8, b8, m8, v8)\nr = Relu(n)\n"
        "d = Conv<group=8, pads=[1,1,1,1]>(r, k2)\ns = Add(d, r)\np = GlobalAveragePool(s)\nf = Flatten(p)\n"
        "y = Gemm<transB=1>(f, w5)",
    ),
    "embed": (
        18,
        "embed (int64[n,t] ids) => (float[n,t,20] y)",
        "e = Gather(table, ids)\nh = MatMul(e, s1)\nr = Relu(h)\ntt = Transpose<perm=[1,0]>(table)\ny = MatMul(r, tt)",
    ),
    "old": (11, "old (float[2,16] x) => (float[2,4] y)", "h = MatMul(x, w1)\ns = Softmax(h)\ny = MatMul(s, w2)"),
    "lstm": (
        14,
        "lstm (float[t,n,16] x) => (float[t,1,n,4] y)",
        "y, h, c = LSTM<hidden_size=4>(x, lw, lr)",
    ),
}
SHAPES = {
    "w1": (16, 16), "b1": (16,), "w2": (16, 4), "g": (16,), "b": (16,), "s1": (16, 16), "s2": (16, 16), "s3": (16, 16),
    "k1": (8, 3, 3, 3), "k2": (8, 1, 3, 3), "g8": (8,), "b8": (8,), "m8": (8,), "v8": (8,), "w5": (5, 8),
    "table": (20, 16), "lw": (1, 16, 16), "lr": (1, 16, 4),
}  # fmt: skip


def seeds() -> dict[str, ModelProto]:
    """Small models of every kind of layer, by name."""
    found = {name: _seed(*parts) for name, parts in SEEDS.items()}
    found["if"] = _with_branches(found["mlp"])
    found["fashion"] = onnx.load(FASHION)
    return found


def _seed(opset: int, signature: str, body: str) -> ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{signature} {{\n{body}\n}}')
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        if any(name in node.input for node in model.graph.node):
            array = rng.standard_normal(shape).astype(np.float32) * (0.3 if len(shape) > 1 else 0.1) + (name[0] in "gv")
            model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return model


def _with_branches(model: ModelProto) -> ModelProto:
    model = copy.deepcopy(model)
    cond = onnx.helper.make_node("Less", ["zero", "one"], ["cond"])
    value = onnx.helper.make_tensor_value_info("yy", TensorProto.FLOAT, None)
    branch = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["r", "w2"], ["yy"])], "branch", [], [value])
    other = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["h", "w2"], ["yy"])], "other", [], [value])
    del model.graph.node[-1]
    choice = onnx.helper.make_node("If", ["cond"], ["y"], then_branch=branch, else_branch=other)
    model.graph.node.extend([cond, choice])
    for name, number in (("zero", 0.0), ("one", 1.0)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(number, np.float32), name))
    return model


def mutated(models: list[ModelProto], rng: random.Random) -> bytes:
    """One of the models after one to three mutations, as a file holds it."""
    model = copy.deepcopy(rng.choice(models))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        try:
            rng.choice(MUTATIONS)(model, rng)
        except (IndexError, ValueError, TypeError):  # nothing to mutate, or not with this value
            continue
    data = model.SerializeToString()
    return _bytes(data, rng) if rng.random() < 0.15 else data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    raw = bytearray(data)
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(raw[: rng.randrange(len(raw))])
    if kind == 1:
        return bytes(raw) + rng.randbytes(rng.randrange(1, 40))
    for _ in range(rng.randrange(1, 6)):
        if not raw:
            break
        at = rng.randrange(len(raw))
        if kind == 2:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            raw[at : at + rng.randrange(8)] = rng.randbytes(rng.randrange(8))
        else:
            del raw[at : at + rng.randrange(1, 30)]
    return bytes(raw)


def _node(model: ModelProto, rng: random.Random) -> NodeProto:
    node: NodeProto = rng.choice(model.graph.node)
    return node


def _values(model: ModelProto) -> list[str]:
    graph = model.graph
    names = [one.name for one in (*graph.input, *graph.initializer)]
    return names + [name for node in graph.node for name in node.output]


def drop_node(model: ModelProto, rng: random.Random) -> None:
    """A node is gone, what it made is still read."""
    del model.graph.node[rng.randrange(len(model.graph.node))]


def duplicate_node(model: ModelProto, rng: random.Random) -> None:
    """A value is made twice."""
    model.graph.node.append(copy.deepcopy(_node(model, rng)))


def shuffle_nodes(model: ModelProto, rng: random.Random) -> None:
    """What is read is made later."""
    nodes = [copy.deepcopy(node) for node in model.graph.node]
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def rename_node(model: ModelProto, rng: random.Random) -> None:
    """A node's name is odd, or another's."""
    _node(model, rng).name = rng.choice((*ODD_NAMES, _node(model, rng).name))


def redirect_input(model: ModelProto, rng: random.Random) -> None:
    """A node reads another value: of another type or shape, its own, or none."""
    node = _node(model, rng)
    node.input[rng.randrange(len(node.input))] = rng.choice((*_values(model), *ODD_NAMES))


def redirect_output(model: ModelProto, rng: random.Random) -> None:
    """A node makes a value of another name."""
    node = _node(model, rng)
    node.output[rng.randrange(len(node.output))] = rng.choice((*_values(model), *ODD_NAMES))


def resize_inputs(model: ModelProto, rng: random.Random) -> None:
    """A node has an input too many or too few."""
    node = _node(model, rng)
    if rng.random() < 0.5:
        node.input.append(rng.choice(_values(model)))
    else:
        node.input.pop()


def swap_inputs(model: ModelProto, rng: random.Random) -> None:
    """A node's inputs stand the other way round."""
    node = _node(model, rng)
    given = list(node.input)[::-1]
    del node.input[:]
    node.input.extend(given)


def change_op(model: ModelProto, rng: random.Random) -> None:
    """A node is of another kind or domain."""
    node = _node(model, rng)
    if rng.random() < 0.7:
        node.op_type = rng.choice(OTHER_OPS)
    else:
        node.domain = rng.choice(("ai.onnx", "qcc", "com.microsoft", "none", "\n"))


def change_attribute(model: ModelProto, rng: random.Random) -> None:
    """An attribute is gone, of another name, type or value."""
    node = rng.choice([one for one in model.graph.node if one.attribute])
    attribute = rng.choice(node.attribute)
    kind = rng.randrange(5)
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1:
        attribute.name = rng.choice(("axis", "group", *ODD_NAMES))
    elif kind == 2:
        attribute.type = rng.choice(list(AttributeProto.AttributeType.values()))
    else:
        attribute.i = rng.choice((*HUGE, 3, 7))
        attribute.f = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice((*HUGE, 3))
        if attribute.ints and rng.random() < 0.3:
            attribute.ints.append(rng.choice(HUGE))


def add_attribute(model: ModelProto, rng: random.Random) -> None:
    """A node has an attribute that it does not know."""
    name = rng.choice(("axis", "group", "keepdims", "pads", "none"))
    _node(model, rng).attribute.append(onnx.helper.make_attribute(name, rng.choice((0, 3, 1.5, "text", [1, 2], -9))))


def change_dims(model: ModelProto, rng: random.Random) -> None:
    """A constant has another shape than its numbers."""
    tensor = rng.choice(model.graph.initializer)
    if tensor.dims and rng.random() < 0.7:
        at = rng.randrange(len(tensor.dims))
        tensor.dims[at] = rng.choice((*HUGE, tensor.dims[at] + 1, tensor.dims[at] * 2))
    elif rng.random() < 0.5:
        tensor.dims.append(rng.choice((1, *HUGE)))
    else:
        del tensor.dims[:]


def change_type(model: ModelProto, rng: random.Random) -> None:
    """A constant has another type than its numbers."""
    rng.choice(model.graph.initializer).data_type = rng.choice((0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 16, 17, 22, 23, 99, -1))


def change_data(model: ModelProto, rng: random.Random) -> None:
    """A constant has more or fewer numbers than its shape, or odd ones."""
    tensor = rng.choice(model.graph.initializer)
    data = tensor.raw_data
    odd = np.array([rng.choice((np.nan, np.inf, -np.inf, 1e38, 1e-40, 0))], np.float32).tobytes()
    kinds = (data[: len(data) // 2], data + b"\0" * 5, b"", odd + data[4:], bytes(len(data)), odd * (len(data) // 4))
    tensor.raw_data = rng.choice(kinds)


def drop_constant(model: ModelProto, rng: random.Random) -> None:
    """A constant is gone, there twice, or of another name."""
    at = rng.randrange(len(model.graph.initializer))
    kind = rng.randrange(3)
    if kind == 0:
        del model.graph.initializer[at]
    elif kind == 1:
        model.graph.initializer.append(copy.deepcopy(model.graph.initializer[at]))
    else:
        model.graph.initializer[at].name = rng.choice((*_values(model), *ODD_NAMES))


def make_external(model: ModelProto, rng: random.Random) -> None:
    """A constant lies in a file that is not there, is odd, or is out of bounds."""
    tensor = rng.choice(model.graph.initializer)
    tensor.data_location = TensorProto.EXTERNAL
    for key, values in (
        ("location", ("none.bin", "/dev/zero", "../x", "a\0b", "")),
        ("offset", ("-1", "x", "99999999")),
    ):
        if rng.random() < 0.8:
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=rng.choice(values)))


def change_input(model: ModelProto, rng: random.Random) -> None:
    """An input or output has another type, shape or name, or none."""
    value = rng.choice((*model.graph.input, *model.graph.output))
    kind = rng.randrange(6)
    tensor = value.type.tensor_type
    if kind == 0:
        value.ClearField("type")
    elif kind == 1:
        tensor.elem_type = rng.choice((0, 2, 7, 8, 9, 10, 11, 16, 99))
    elif kind == 2:
        tensor.shape.dim[rng.randrange(len(tensor.shape.dim))].dim_value = rng.choice((*HUGE, 3))
    elif kind == 3:
        tensor.shape.dim.add().dim_value = rng.choice((1, 5, *HUGE))
    elif kind == 4:
        tensor.ClearField("shape")
    else:
        value.name = rng.choice((*_values(model), *ODD_NAMES))


def drop_ends(model: ModelProto, rng: random.Random) -> None:
    """An input or output is gone or there twice."""
    ends = rng.choice((model.graph.input, model.graph.output))
    at = rng.randrange(len(ends))
    if rng.random() < 0.5:
        del ends[at]
    else:
        ends.append(copy.deepcopy(ends[at]))


def change_opset(model: ModelProto, rng: random.Random) -> None:
    """The opset is another, unknown, there twice or gone."""
    kind = rng.randrange(4)
    if kind == 0:
        model.opset_import[0].version = rng.choice((0, 1, 6, 9, 11, 13, 21, 25, 27, 40, -1, 2**40))
    elif kind == 1:
        model.opset_import.append(copy.deepcopy(model.opset_import[0]))
    elif kind == 2:
        del model.opset_import[:]
    else:
        model.ir_version = rng.choice((0, 1, 3, 99, 2**40))


def lie_about_values(model: ModelProto, rng: random.Random) -> None:
    """The file says another type or shape of a value than it has."""
    kind = rng.choice((TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING))
    shape = [rng.choice((1, 3, "n", *HUGE)) for _ in range(rng.randrange(4))]
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(rng.choice(_values(model)), kind, shape))


def clear_a_field(model: ModelProto, rng: random.Random) -> None:
    """Some part of the message is empty."""
    part = rng.choice((model, model.graph, _node(model, rng), rng.choice(model.graph.initializer)))
    fields = [found for found, _ in part.ListFields()]
    if fields:
        part.ClearField(rng.choice(fields).name)


def _mutations() -> Iterator[Callable[[ModelProto, random.Random], None]]:
    for one in list(globals().values()):
        own = callable(one) and getattr(one, "__module__", "") == __name__
        if own and not one.__name__.startswith("_") and one.__name__ not in ("seeds", "mutated"):
            yield one


MUTATIONS = tuple(_mutations())
