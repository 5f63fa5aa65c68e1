"""Finding the weights of an ONNX graph: which, under what names, in what order, seen how."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.decoded import DECODED
from qcc.ir.graph.ops import Kind, Weight
from qcc.ir.graph.view import MatrixView
from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import CASES, Case, loaded, parse, random
from tests.test_onnx_recurrent import CASES as RECURRENT

SCOPES = "pkg.torch.onnx.name_scopes"


def _weights(model: onnx.ModelProto, folder: Path) -> tuple[Weight, ...]:
    onnx.save(model, folder / "model.onnx")
    graph = OnnxGraph.load(folder / "model.onnx")
    graph.simplify()
    return graph.weights()


def _product(nodes: str, **weights: np.ndarray) -> onnx.ModelProto:
    return parse(f"g (float[N,64] x, int64[K] i) => (float[N,M] y) {{ {nodes} }}", weights)


@st.composite
def views(draw: st.DrawFn) -> MatrixView:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    axes = draw(st.permutations(range(len(shape))))
    return MatrixView(shape, tuple(axes[: draw(st.integers(0, len(shape)))]))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(views())
def test_a_view_and_back(view: MatrixView) -> None:
    array = np.arange(np.prod(view.shape)).reshape(view.shape)
    matrix = view.matrix(array)
    assert matrix.shape == view.matrix_shape
    np.testing.assert_array_equal(view.array(matrix), array)
    if view.is_matrix:
        np.testing.assert_array_equal(matrix.ravel(), array.ravel())
    if view.is_transposed:
        np.testing.assert_array_equal(matrix.T.ravel(), array.ravel())


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(views(), st.data())
def test_views_compose_with_transpositions(view: MatrixView, data: st.DataObject) -> None:
    """A layer that reads ``transpose(transpose(w))`` sees the matrix of what it reads."""
    first, second = (tuple(data.draw(st.permutations(range(len(view.shape))))) for _ in range(2))
    behind = view.permuted(second).permuted(first)
    constant = np.arange(np.prod(behind.shape)).reshape(behind.shape)
    read = constant.transpose(first).transpose(second)
    assert read.shape == view.shape
    np.testing.assert_array_equal(behind.matrix(constant), view.matrix(read))


KINDS = {"matmul": Kind.LINEAR, "gemm": Kind.LINEAR, "conv": Kind.CONV, "gather": Kind.EMBEDDING}
MATRICES = {
    "matmul": (32, 64),
    "matmul_left": (32, 64),
    "matmul_experts": (3 * 32, 64),
    "gemm_trans_b": (32, 64),
    "gemm_left": (32, 64),
    "conv1d": (8, 15),
    "conv2d_grouped": (6, 18),
    "conv2d_depthwise": (4, 9),
    "conv_transpose": (8, 12),
    "gather_2d": (7, 64),
    "transpose": (32, 64),
    "reshape": (32, 64),
}


@pytest.mark.parametrize("name", CASES)
def test_every_weight_is_found_once(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (weight,) = loaded(case, tmp_path).weights()
    assert weight.constant == "w"
    assert len(weight.layers) == len(case.layers)
    if name in MATRICES:
        assert weight.shape == MATRICES[name]
    kind = next((kind for prefix, kind in KINDS.items() if name.startswith(prefix)), None)
    assert kind is None or weight.layers[0].kind is kind


@pytest.mark.sampled
@pytest.mark.parametrize("name", [*CASES, *RECURRENT])
def test_a_layer_does_what_its_op_does(name: str, tmp_path: Path) -> None:
    graph = loaded((CASES | RECURRENT)[name], tmp_path)
    functions = {op.name: op.function for op in graph.ops()}
    for layer in (layer for weight in graph.weights() for layer in weight.layers):
        assert name.startswith("in_") or layer.function == functions[layer.op]  # a body's op is no op of the graph
        assert layer.function in schema().ops


@pytest.mark.parametrize("name", ["matmul", "gemm_trans_b", "matmul_experts", "transpose", "reshape", "cast_fp16"])
def test_the_matrix_is_what_the_layer_multiplies_by(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    graph = loaded(case, tmp_path)
    (weight,) = graph.weights()
    matrix = graph.matrix(weight)
    assert matrix.dtype == np.float32
    x = case.feeds["x"]
    y = graph.runner(["x"], ["y"])(case.feeds)["y"]
    if "b" in case.weights:
        y = y - case.weights["b"]
    if name == "matmul_experts":
        np.testing.assert_allclose(np.einsum("eok,enk->eno", matrix.reshape(3, 32, 64), x), y, atol=1e-4)
    else:
        np.testing.assert_allclose(x @ matrix.T, y, atol=1e-4)


def test_conv_layers_know_their_groups_and_kernels(tmp_path: Path) -> None:
    for name, groups, kernel in (
        ("conv2d_depthwise", 4, (3, 3)),
        ("conv3d", 1, (2, 3, 2)),
        ("conv_transpose_grouped", 2, (2, 2)),
    ):
        (weight,) = loaded(CASES[name], tmp_path).weights()
        assert (weight.layers[0].groups, weight.layers[0].kernel) == (groups, kernel)


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Add(x, w)",  # no layer
        "v = Cast <to=6> (w) u = Cast <to=1> (v) y = MatMul(x, u)",  # whole numbers
        "v = Gather <axis=1> (w, i) y = MatMul(x, v)",  # columns
        "v = my.Turn (w) y = MatMul(x, v)",
    ],
)
def test_what_is_no_weight(nodes: str, tmp_path: Path) -> None:
    model = _product(nodes, w=random(64, 64), s=np.array([64, 64]))
    model.opset_import.append(helper.make_opsetid("my", 1))
    assert not _weights(model, tmp_path)


def test_weights_come_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    nodes = "a = MatMul(x, later) b = Relu(a) c = MatMul(b, first) d = MatMul(c, middle) y = Add(d, a)"
    sizes = {name: random(64, 64, seed=seed) for seed, name in enumerate(("first", "middle", "later"))}
    assert [weight.name for weight in _weights(_product(nodes, **sizes), tmp_path)] == ["later", "first", "middle"]


def test_equal_constants_are_one_weight(tmp_path: Path) -> None:
    model = _product("a = MatMul(x, left) y = MatMul(a, right)", left=random(64, 64), right=random(64, 64))
    (weight,) = _weights(model, tmp_path)
    assert [layer.name for layer in weight.layers] == ["left", "left#2"]


def test_names_are_unique_whatever_people_call_things(tmp_path: Path) -> None:
    nodes = "a = MatMul(x, q) b = MatMul(a, q) c = MatMul(b, r) d = MatMul(c, s) y = MatMul(d, t)"
    model = _product(nodes, **{name: random(64, 64, seed=seed) for seed, name in enumerate("qrst")})
    for tensor, name in zip(model.graph.initializer, ("m.weight", "m#2", "m", "line\nbreak"), strict=True):
        for node in model.graph.node:
            node.input[:] = [name if read == tensor.name else read for read in node.input]
        tensor.name = name
    names = [layer.name for weight in _weights(model, tmp_path) for layer in weight.layers]
    assert len(set(names)) == 5
    assert {"m", "m#2", "line_break"} <= set(names)


@pytest.mark.parametrize(
    ("scopes", "name"),
    [
        ("['', 'encoder.layer.0', 'linear']", "encoder.layer.0"),
        ("['', '']", "w_named"),
        ("[]", "w_named"),
        ("", "w_named"),
        ("not python", "w_named"),
        ("{'a': 1}", "w_named"),
        ("[1, 2, 3]", "w_named"),
        ("['a', ['b'], 'c']", "w_named"),
        ("__import__('os').abort()", "w_named"),
        ("[" * 9000, "w_named"),
        ("[" * 200 + "]" * 200, "w_named"),
        ("['" + "a" * 20_000 + "', 'x']", "w_named"),
        ("'\\ud800', 'x'", "w_named"),
        ("\x00", "w_named"),
    ],
)
def test_metadata_is_not_trusted(scopes: str, name: str, tmp_path: Path) -> None:
    model = _product("y = MatMul(x, w_named)", w_named=random(64, 8))
    model.graph.node[0].metadata_props.add(key=SCOPES, value=scopes)
    assert [weight.name for weight in _weights(model, tmp_path)] == [name]


@pytest.mark.parametrize(
    ("constant", "node", "name"),
    [
        ("bert.dense.weight", "", "bert.dense"),
        ("onnx::MatMul_123", "/bert/dense/MatMul", "bert/dense"),
        ("val_7", "", "node_MatMul_0"),
        (".weight", "n", ".weight"),
    ],
)
def test_layers_are_called_after_modules_then_weights_then_nodes(
    constant: str, node: str, name: str, tmp_path: Path
) -> None:
    model = _product("y = MatMul(x, w)", w=random(64, 8))
    model.graph.node[0].name, model.graph.node[0].input[1], model.graph.initializer[0].name = node, constant, constant
    (weight,) = _weights(model, tmp_path)
    assert weight.name == name or not node


@pytest.mark.parametrize(("attribute", "value"), [("transB", 1.5), ("alpha", "x"), ("transB", [1, 2])])
def test_attributes_of_another_type_hide_the_layer(attribute: str, value: object, tmp_path: Path) -> None:
    model = _product("y = Gemm(x, w)", w=random(64, 8))
    model.graph.node[0].attribute.append(helper.make_attribute(attribute, value))
    onnx.save(model, tmp_path / "model.onnx")
    assert not OnnxGraph.load(tmp_path / "model.onnx").weights()


@pytest.mark.slow
def test_form_free_is_false_where_others_read_the_weight(tmp_path: Path) -> None:
    free = {name: loaded(CASES[name], tmp_path).weights()[0].layers[-1].form_free for name in CASES}
    assert [name for name in ("matmul", "matmul_3d", "gemm", "transpose", "reshape", "shared") if not free[name]] == []
    tied = "tied_transpose", "tied_gemm"
    assert all(free[name] for name in tied)
    for name in (
        "matmul_left",
        "matmul_vector",
        "gemm_scaled",
        "also_added",
        "also_output",
        "output_of_chain",
        "in_if",
    ):
        assert not free[name]


def test_a_table_keeps_its_name_whoever_reads_it_first(tmp_path: Path) -> None:
    body = """g (float[N,64] x, int64[N] i) => (float[N,64] y) {
        t = Transpose(tab) a = MatMul(x, t) b = Gather(tab, i) c = MatMul(a, tab) y = Add(b, c) }"""
    (weight,) = _weights(parse(body, {"tab": random(7, 64)}), tmp_path)
    assert [layer.name for layer in weight.layers] == ["tab", "tab#2", "tab#3"]
    assert weight.layers[0].kind is Kind.EMBEDDING


@pytest.mark.parametrize(
    ("constant", "nodes", "name"),
    [
        ("block.conv.weight", "y = Conv(x, w)", "block.conv"),  # a norm folded into a convolution leaves its scope
        ("val_12", "y = Conv(x, w)", "norm"),
        ("onnx::Conv_3", "y = Conv(x, w)", "norm"),
        ("block.kernel", "y = Conv(x, w)", "norm"),
        ("block.conv.weight", "a = Conv(x, w) y = Conv(a, w)", "norm"),  # the path is one reader's only
    ],
)
def test_paths_of_weights_go_before_scopes(constant: str, nodes: str, name: str, tmp_path: Path) -> None:
    model = parse(f"g (float[1,4,9,9] x) => (float[A,B,C,D] y) {{ {nodes} }}", {"w": random(4, 4, 3, 3)})
    model.graph.initializer[0].name = constant
    for node in model.graph.node:
        node.input[1] = constant
        node.metadata_props.add(key=SCOPES, value="['', 'norm', 'conv2d']")
    assert [weight.name for weight in _weights(model, tmp_path)] == [name]


BIASES = {
    "y = Gemm(x, w, b)": ("b", None, "y"),
    "y = Gemm <beta = 2.0> (x, w, b)": (None, None, "y"),
    "y = Gemm(x, w, one)": (None, None, "y"),
    "p = MatMul(x, w) y = Add(p, b)": ("b", "node_1", "y"),
    "p = MatMul(x, w) y = Add(b, p)": ("b", "node_1", "y"),
    "p = Gemm(x, w) y = Add(p, row)": ("row", "node_1", "y"),
    "p = MatMul(x, w) y = Add(p, one)": (None, None, "p"),
    "p = MatMul(x, w) y = Add(p, cube)": (None, None, "p"),
    "p = MatMul(x, w) y = Sub(p, b)": (None, None, "p"),
    "p = MatMul(x, w) y = Add(p, p)": (None, None, "p"),
    "p = MatMul(x, w) q = Add(p, b) y = Mul(p, q)": (None, None, "p"),
    "y = MatMul(x, w)": (None, None, "y"),
}


@pytest.mark.parametrize("nodes", BIASES)
def test_biases(nodes: str, tmp_path: Path) -> None:
    others = {"b": random(8), "row": random(1, 8), "one": random(1), "cube": random(1, 1, 8)}
    model = _product(nodes, w=random(64, 8), **others)
    (layer,) = _weights(model, tmp_path)[0].layers
    assert (layer.bias, layer.bias_op, layer.output) == BIASES[nodes]


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose_grouped"])
def test_biases_of_convolutions(name: str, tmp_path: Path) -> None:
    model = CASES[name].proto()
    model.graph.node[0].input.append("b")
    model.graph.initializer.append(numpy_helper.from_array(random(8 if name == "conv2d" else 6), "b"))
    (layer,) = _weights(model, tmp_path)[0].layers
    assert (layer.bias, layer.bias_op, layer.output) == ("b", None, "y")


def test_a_product_that_is_an_output_keeps_its_bias_apart(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,8] p, float[N,8] y) { p = MatMul(x, w) y = Add(p, b) }"
    (layer,) = _weights(parse(body, {"w": random(64, 8), "b": random(8)}), tmp_path)[0].layers
    assert (layer.bias, layer.output) == (None, "p")


TIED = "g (int64[N] i) => (float[N,V] y, float[N,64] e) { e = Gather(w, i) y = MatMul(e, v) }"


@pytest.mark.parametrize(
    ("table", "head", "tied"),
    [
        (random(300, 64), random(300, 64).T, True),
        (random(64, 64), random(64, 64).T, True),
        (np.full((300, 64), np.nan, np.float32), np.full((64, 300), np.nan, np.float32), True),
        (random(300, 64), random(300, 64, seed=1).T, False),
        (np.zeros((300, 64), np.float32), -np.zeros((64, 300), np.float32), False),
        (random(7, 64), random(7, 64).T, False),  # not worth it
    ],
)
def test_a_table_stored_twice_is_tied_again(table: np.ndarray, head: np.ndarray, tied: bool, tmp_path: Path) -> None:
    model = parse(TIED, {"w": table, "v": np.ascontiguousarray(head)})
    onnx.save(model, tmp_path / "model.onnx")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    feeds = {"i": np.array([1, 0, 6])}
    before = graph.runner(["i"], ["y"])(feeds)["y"]
    graph.simplify()
    assert (graph.constant("v") is None) is tied
    assert len(graph.weights()) == (1 if tied else 2)
    np.testing.assert_array_equal(graph.runner(["i"], ["y"])(feeds)["y"], before)
    assert graph.simplify() == []


def test_what_no_embedding_reads_is_not_tied(tmp_path: Path) -> None:
    nodes = "h = MatMul(x, w) y = MatMul(h, v)"
    assert len(_weights(_product(nodes, w=random(64, 32), v=random(64, 32).T.copy()), tmp_path)) == 2


def test_numbers_too_large_for_float32_are_infinite(tmp_path: Path) -> None:
    case = Case(CASES["double"].body, {"w": np.full((64, 32), 1e300)}, {})
    graph = loaded(case, tmp_path)
    assert np.isinf(graph.matrix(graph.weights()[0])).all()


def test_ops_tell_layers_from_products(tmp_path: Path) -> None:
    case = Case(
        "g (float[N,64] x) => (float[N,N] y) { h = MatMul(x, w) t = Transpose(h) y = MatMul(h, t) }",
        {"w": random(64, 32)},
        {},
    )
    assert [op.kind for op in loaded(case, tmp_path).ops()] == [Kind.LINEAR, Kind.TRANSPOSE, Kind.MATMUL]


A, B = np.array([1]), np.array([3])
ATTRIBUTES = {
    "y = Squeeze <axes = [-1]> (x)": (11, "squeeze", {"axes": (3,)}),
    "y = Squeeze(x, a)": (13, "squeeze", {"axes": (1,)}),
    "y = Unsqueeze(x, a)": (13, "unsqueeze", {"axes": (1,)}),
    "y = ReduceMean <axes = [-1, 2], keepdims = 0> (x)": (13, "mean", {"axes": (2, 3), "keepdims": 0}),
    "y = ReduceMean(x, a)": (18, "mean", {"axes": (1,), "keepdims": 1}),
    "y = ReduceMax(x)": (18, "max", {"axes": (0, 1, 2, 3), "keepdims": 1}),
    "y = GlobalAveragePool(x)": (18, "mean", {"axes": (2, 3), "keepdims": 1}),
    "y = Softmax <axis = 3> (x)": (11, "softmax", {"axis": 3}),
    "y = Softmax(x)": (11, "Softmax", {}),  # over all axes but the first
    "y = Softmax(x) ": (13, "softmax", {"axis": 3}),
    "y = Slice <axes = [1], starts = [-2], ends = [99]> (x)": (
        9,
        "slice",
        {"axes": (1,), "starts": (2,), "ends": (4,), "steps": (1,)},
    ),
    "y = Slice(x, a, b, b)": (13, "slice", {"axes": (3,), "starts": (1,), "ends": (3,), "steps": (1,)}),
    "y = Pad(x, p, , a)": (18, "pad", {"pads": (0, 1, 0, 0, 0, 2, 0, 0), "mode": "constant", "value": 0.0}),
    "y = Transpose(x)": (13, "transpose", {"perm": (3, 2, 1, 0)}),
    "y = Flatten <axis = 2> (x)": (13, "reshape", {"sizes": (8, 25)}),
    "y = Reshape(x, r)": (13, "reshape", {"sizes": (2, 100)}),
    "y, z = Split <axis = 1> (x)": (13, "split", {"axis": 1, "sizes": (2, 2)}),
    "y = LeakyRelu(x)": (13, "leaky_relu", {"alpha": 0.01}),
    "y = Cast <to = 10> (x)": (13, "cast", {"to": "float16"}),
    "y = Clip(x, , f)": (13, "clip", {"max": 6.0}),
    "y = MaxPool <kernel_shape = [2, 2]> (x)": (13, "max_pool", {"kernel": (2, 2), "strides": (1, 1)}),
    "y = Swish(x)": (24, "silu", {}),
    "y = Swish <alpha = 2.0> (x)": (24, "Swish", {}),
    "y = MatMul(x, x)": (13, "matmul", {"transposed": ()}),
    "y = Gather <axis = -1> (x, a)": (13, "gather", {"axis": 3}),
    "y = CumSum(x, s)": (14, "cumsum", {"axis": 3}),
    'y = Conv <auto_pad = "SAME_UPPER"> (x, w)': (
        13,
        "conv",
        {"groups": 1, "kernel": (3, 3), "strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1)},
    ),
    "y = Trilu(x)": (14, "Trilu", {}),
    "y = Concat <axis = 1.5> (x, x)": (13, "Concat", {}),
}


@pytest.mark.parametrize("nodes", ATTRIBUTES)
def test_attributes_are_the_same_in_every_opset(nodes: str, tmp_path: Path) -> None:
    opset, function, attributes = ATTRIBUTES[nodes]
    weights = {"a": A, "b": B, "p": np.array([1, 2]), "r": np.array([0, -1]), "s": np.array(-1)}
    weights |= {"f": np.array(6, np.float32), "w": random(4, 4, 3, 3)}
    outputs = "float[A,B,C,D] y, float[A,B,C,D] z" if "z =" in nodes else "float[A,B,C,D] y"
    model = parse(f"g (float[2,4,5,5] x) => ({outputs}) {{ {nodes} }}", weights, opset)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    graph.simplify()
    (op,) = graph.ops()
    assert (op.function, dict(op.attributes)) == (function, attributes)
    assert (op.kind is Kind.OTHER) is (function[0].isupper())


def test_an_encoded_convolution_is_still_one(tmp_path: Path) -> None:
    graph = loaded(CASES["conv2d_grouped"], tmp_path)
    (weight,) = graph.weights()
    graph.encode(weight, fit.encode(graph.matrix(weight), Blocked(IntGrid(3), CHANNEL)), DECODED)
    op = graph.ops()[-1]
    assert (op.kind, op.function, op.attributes["groups"]) == (Kind.CONV, "conv", 2)


def test_layers_that_share_a_name_keep_their_numbers_when_one_is_encoded(tmp_path: Path) -> None:
    """`cell#2` would be `cell` once the weight before it is no constant any more."""
    body = "g (float[N,64] x) => (float[N,32] y) { a = MatMul(x, val_1) y = MatMul(a, val_2) }"
    proto = parse(body, {"val_1": random(64, 64), "val_2": random(64, 32)})
    for node in proto.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'cell', 'matmul']")
        node.name = node.output[0]
    onnx.save(proto, tmp_path / "net.onnx")
    rules = "rule any { weights = int8 channel }\nrule any[params < 4k] { weights = int4 group 32 }"
    result = qcc.compile(tmp_path / "net.onnx", f"qpolicy 1\n{rules}\nverify {{ cosine >= 0 }}")
    assert {row.name: row.format.split(" sym")[0] for row in result.layers} == {
        "cell": "int8 channel",
        "cell#2": "int4 group 32",
    }
