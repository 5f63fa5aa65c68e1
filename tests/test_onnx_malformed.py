"""A model at fault gets one clear line, or works; nothing else comes out of the ONNX adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qcc.ir.errors import ModelError
from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import CASES, X, parse, random, run

Edit = Callable[[onnx.ModelProto], object]
W = random(64, 32)


def _base() -> onnx.ModelProto:
    body = "g (float[N,64] x) => (float[N,32] y) { h = MatMul(x, w) y = Relu(h) }"
    return parse(body, {"w": W})


def _edited(edit: Edit, folder: Path) -> Path:
    model = _base()
    edit(model)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _use(path: Path, out: Path) -> None:
    """All that the compiler does to a model before it runs it."""
    graph = OnnxGraph.load(path)
    graph.weights()
    graph.simplify()
    for weight in graph.weights():
        graph.matrix(weight)
    graph.ops()
    graph.save(out)


def _function(name: str, calls: str) -> onnx.FunctionProto:
    text = f'<domain: "my", opset_import: ["": 17, "my": 1]> {name} (a) => (b) {{ b = {calls} (a) }}'
    return onnx.parser.parse_function(text)


def _with_functions(model: onnx.ModelProto, *functions: onnx.FunctionProto) -> None:
    model.opset_import.append(helper.make_opsetid("my", 1))
    model.functions.extend(functions)
    model.graph.node[1].domain, model.graph.node[1].op_type = "my", functions[0].name


def _tensor(**changes: Any) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for key, value in changes.items():
            if key == "dims":
                del tensor.dims[:]
                tensor.dims.extend(value)
            else:
                setattr(tensor, key, value)

    return edit


def _sparse(model: onnx.ModelProto) -> None:
    indices = numpy_helper.from_array(np.array([1, 3]), "i")
    values = numpy_helper.from_array(random(2), "s")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [5]))


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[1])


def _opset(*versions: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid("", version) for version in versions)

    return edit


def _node(place: int, **changes: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        for key, value in changes.items():
            getattr(model.graph.node[place], key)[0] = value

    return edit


REJECTED: dict[str, tuple[Edit, str, str]] = {
    "cycle": (_node(0, input="y"), "Q401", "waits for its own output"),
    "dangling input": (_node(1, input="nowhere"), "Q401", "reads `nowhere`, which nothing makes"),
    "dangling output": (lambda m: m.graph.output.add(name="nowhere"), "Q401", "`nowhere` is made by nothing"),
    "value made twice": (_twice, "Q401", "`y` is made twice"),
    "input made again": (_node(0, output="x"), "Q401", "`x` is made twice"),
    "two initialisers of one name": (
        lambda m: m.graph.initializer.append(m.graph.initializer[0]),
        "Q401",
        "two initialisers are named `w`",
    ),
    "two inputs of one name": (lambda m: m.graph.input.append(m.graph.input[0]), "Q401", "two inputs are named `x`"),
    "nameless initialiser": (_tensor(name=""), "Q401", "has no name"),
    "no opset": (_opset(), "Q401", "does not say which opset"),
    "two opsets": (_opset(13, 17), "Q401", "two versions"),
    "opset 29": (_opset(29), "Q402", "uses opset 29"),
    "opset 0": (_opset(0), "Q402", "uses opset 0"),
    "sparse": (_sparse, "Q401", "sparse"),
    "unknown element type": (_tensor(data_type=99), "Q401", "unknown element type"),
    "no element type": (_tensor(data_type=0), "Q401", "unknown element type"),
    "negative size": (_tensor(dims=[-1, 32]), "Q401", "negative size"),
    "too few bytes": (_tensor(dims=[64, 64]), "Q403", "does not fit"),
    "too few small bytes": (_tensor(dims=[64, 64], raw_data=b"1234"), "Q401", ""),
    "recursion": (lambda m: _with_functions(m, _function("A", "my.B"), _function("B", "my.A")), "Q401", "calls itself"),
    "self": (lambda m: _with_functions(m, _function("A", "my.A")), "Q401", "calls itself"),
    "two functions of one name": (
        lambda m: _with_functions(m, _function("A", "Relu"), _function("A", "Neg")),
        "Q401",
        "one name",
    ),
    "empty graph": (lambda m: m.graph.Clear(), "Q401", "no graph"),
    "no outputs": (lambda m: m.graph.ClearField("output"), "Q401", "no outputs"),
    "no graph": (lambda m: m.ClearField("graph"), "Q401", "no graph"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_it_is_rejected_in_one_line(name: str, tmp_path: Path) -> None:
    edit, code, words = REJECTED[name]
    path = _edited(edit, tmp_path)
    with pytest.raises(ModelError) as caught:
        _use(path, tmp_path / "out.onnx")
    assert caught.value.code == code
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "out.onnx").exists()


def _reverse(model: onnx.ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _no_types(model: onnx.ModelProto) -> None:
    model.graph.output[0].ClearField("type")


def _long_domain(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = model.graph.node[0].domain = "ai.onnx"


def _same_names(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = "n"


def _dead_scalar(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(3, np.float32), "scalar"))
    model.graph.node.insert(0, helper.make_node("MatMul", ["scalar", "scalar"], ["dead"]))


def _typed_data(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [64, 32], W.ravel().tolist()))


ACCEPTED: dict[str, Edit] = {
    "as it is": lambda _: None,
    "unsorted": _reverse,
    "no type of the output": _no_types,
    "the long name of the default domain": _long_domain,
    "nodes of one name": _same_names,
    "a dead op on scalars": _dead_scalar,
    "numbers in a typed field": _typed_data,
    "nested functions": lambda m: _with_functions(m, _function("A", "my.B"), _function("B", "Relu")),
    "an unknown field": lambda m: m.MergeFromString(bytes([0xFA, 0x7F, 0x03]) + b"new"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_works_nevertheless(name: str, tmp_path: Path) -> None:
    _use(_edited(ACCEPTED[name], tmp_path), tmp_path / "out.onnx")
    np.testing.assert_allclose(run(tmp_path / "out.onnx", {"x": X})["y"], np.maximum(X @ W, 0), atol=1e-4)
    onnx.checker.check_model(str(tmp_path / "out.onnx"))


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("g (float[N] x) => (float[N] y) { y = Identity(x) }", {}),
        ("g (float[N] x) => (float[N] x) { }", {}),
        ("g () => (float[3] y) { y = Identity(w) }", {"w": random(3)}),
        ("g () => (float[3] w) { }", {"w": random(3)}),
        ("g (float[N] x) => (float[N] y, float[N] z) { y = Relu(x) z = Identity(y) }", {}),
        ("g (float[N,0] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": random(0, 4)}),
        ("g (float[N,4] x) => (float[N,0] y) { y = MatMul(x, w) }", {"w": random(4, 0)}),
        ("g (float[N,4] x) => (float[N] y) { y = MatMul(x, w) }", {"w": random(4)}),
        ("g (float[N] x) => (float[N] y) { y = Mul(x, w) }", {"w": random()}),
        ("g (float[N] x) => (float[N] y) { y = Mul(x, w) }", {"w": random(1)}),
        ("g (int64[N] i) => (string[N] y) { y = Gather(w, i) }", {"w": np.array(["a", "b"], object)}),
        (
            "g (float[N] x) => (float[N] y) { a = Mul(x, s) b = Mul(a, t) y = Mul(b, u) }",
            {"s": random(1), "t": random(1), "u": random(1)},
        ),
    ],
)
def test_degenerate_graphs_work(body: str, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = parse(body, weights)
    onnx.save(model, tmp_path / "model.onnx")
    _use(tmp_path / "model.onnx", tmp_path / "out.onnx")
    feeds = {"x": random(3)} if "float[N] x" in body else {"i": np.array([1, 0])} if "int64" in body else {}
    if not feeds and "(float" in body.split("=>")[0]:
        feeds = {"x": random(3, 0 if "N,0" in body.split("=>")[0] else 4)}
    before, after = run(tmp_path / "model.onnx", feeds), run(tmp_path / "out.onnx", feeds)
    assert set(before) == set(after)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_ops_of_unknown_domains_are_opaque(tmp_path: Path) -> None:
    model = parse("g (float[N,64] x) => (float[N,32] y) { h = my.Thing (x) y = MatMul(h, w) }", {"w": W})
    model.opset_import.append(helper.make_opsetid("my", 3))
    onnx.save(model, tmp_path / "model.onnx")
    _use(tmp_path / "model.onnx", tmp_path / "out.onnx")
    graph = OnnxGraph.load(tmp_path / "out.onnx")
    assert [op.kind.value for op in graph.ops()] == ["other", "linear"]
    with pytest.raises(ModelError) as caught:
        graph.runner(["x"], ["y"])
    assert caught.value.code == "Q405"


def test_random_ops_are_not_merged(tmp_path: Path) -> None:
    model = parse("g (float[N] x) => (float[N] y) { a = Bernoulli(x) b = Bernoulli(x) y = Add(a, b) }")
    onnx.save(model, tmp_path / "model.onnx")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    graph.simplify()
    assert [op.name != "" and op.function for op in graph.ops()] == ["Bernoulli", "Bernoulli", "add"]


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"hello, this is no model", b"\x08\x08", b"\x3a\xff\xff\x7f"])
def test_files_of_other_kinds(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        OnnxGraph.load(path)
    assert caught.value.code == "Q401"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.onnx", tmp_path, Path("/dev/null/x"), tmp_path / ("x" * 300)):
        with pytest.raises(ModelError) as caught:
            OnnxGraph.load(path)
        assert caught.value.code == "Q400"


def test_deep_nesting(tmp_path: Path) -> None:
    body = "a = Relu(x)"
    for _ in range(30):
        other = "else_branch = e () => (float[N] b) { b = Neg(x) }"
        body = f"a = If (c) <then_branch = t () => (float[N] a) {{ {body} }}, {other}>"
    onnx.save(parse(f"g (float[N] x, bool c) => (float[N] a) {{ {body} }}"), tmp_path / "model.onnx")
    try:
        _use(tmp_path / "model.onnx", tmp_path / "out.onnx")
    except ModelError as error:
        assert error.code == "Q401"


FUZZED = [
    CASES[name].proto().SerializeToString() for name in ("gemm", "tied_transpose", "in_if", "cast_fp16", "conv2d")
]


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_told_or_work(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(FUZZED)))
    start = data.draw(st.integers(0, min(len(content) - 1, 600)))  # names and shapes, not weights
    match data.draw(st.sampled_from(("flip", "cut", "drop", "insert"))):
        case "flip":
            content[start] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[start:]
        case "drop":
            del content[start : start + data.draw(st.integers(1, 8))]
        case "insert":
            content[start:start] = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    try:
        _use(path, tmp_path / "out.onnx")
    except ModelError as error:
        assert error.code.startswith("Q4")
        assert "\n" not in error.message


@pytest.mark.parametrize("location", ["a\0b", "x" * 5000, "a/" * 3000 + "b", "loop"])
def test_weights_in_a_file_that_cannot_be(location: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="whose name cannot be"):
        OnnxGraph.load(tmp_path / "m.onnx")
