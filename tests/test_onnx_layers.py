"""Finding the weights of an ONNX graph: which, under what names, in what order, seen how."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from qcc.ir.graph import Kind, Weight
from qcc.ir.onnx_graph import OnnxGraph
from qcc.ir.view import MatrixView
from tests.onnx_models import CASES, Case, loaded, parse, random

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
        "v = Relu(w) y = MatMul(x, v)",  # not the constant itself
        "v = Cast <to=6> (w) u = Cast <to=1> (v) y = MatMul(x, u)",  # whole numbers
        "v = Transpose(w) u = Reshape(v, s) y = MatMul(x, u)",  # no view of the constant
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


def test_ops_tell_layers_from_products(tmp_path: Path) -> None:
    case = Case(
        "g (float[N,64] x) => (float[N,N] y) { h = MatMul(x, w) t = Transpose(h) y = MatMul(h, t) }",
        {"w": random(64, 32)},
        {},
    )
    assert [op.kind for op in loaded(case, tmp_path).ops()] == [Kind.LINEAR, Kind.TRANSPOSE, Kind.MATMUL]
