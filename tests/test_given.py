"""Models that come compressed: their weights are weights, kept to the byte, or encoded anew in fewer bits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as helper
import onnx.numpy_helper as arrays
import pytest

from qcc.compiler.compile import compile
from qcc.compiler.files.open_model import open_model
from qcc.compiler.report.reach import GIVEN, reach
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.graph.run import reference
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import Context

INPUTS, HIDDEN, OUTPUTS = 128, 512, 256
DRAW = np.random.default_rng(0)
FIRST = (DRAW.standard_normal((INPUTS, HIDDEN)) / 8).astype(np.float32)
SECOND = (DRAW.standard_normal((HIDDEN, OUTPUTS)) / 8).astype(np.float32)
FEEDS = {"x": DRAW.standard_normal((5, INPUTS)).astype(np.float32)}
POLICY = 'qpolicy 1\nrule any[name ~ "*fc2*"] {{ weights = {} }}\n'

Decoded = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]
Way = Callable[[str, np.ndarray], Decoded]


def _scaled(name: str, matrix: np.ndarray, bits: int, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    most = (1 << (bits - 1)) - 1
    size = np.abs(matrix).max() if axis is None else np.abs(matrix).max(1 - axis)
    scale = np.asarray(size / most, np.float32)
    over = scale if axis is None else np.expand_dims(scale, 1 - axis)
    return np.clip(np.rint(matrix / over), -most, most).astype(np.int8), scale


def per_tensor(name: str, matrix: np.ndarray) -> Decoded:
    """Bytes, one scale."""
    codes, scale = _scaled(name, matrix, 8, None)
    node = helper.make_node("DequantizeLinear", [f"{name}_quantized", f"{name}_scale"], [f"{name}_decoded"])
    return [node], [arrays.from_array(codes, f"{name}_quantized"), arrays.from_array(scale, f"{name}_scale")]


def per_channel(name: str, matrix: np.ndarray) -> Decoded:
    """Bytes without a sign, a scale and a zero point each channel."""
    codes, scale = _scaled(name, matrix, 8, 1)
    given = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
    node = helper.make_node("DequantizeLinear", given, [f"{name}_decoded"], axis=1)
    zero = np.full(scale.shape, 120, np.uint8)
    found = (codes.astype(np.int16) + 120).clip(0, 255).astype(np.uint8), scale, zero
    return [node], [arrays.from_array(array, one) for one, array in zip(given, found, strict=True)]


def blocked(name: str, matrix: np.ndarray) -> Decoded:
    """Four bits, a scale each 32 inputs."""
    apart = matrix.reshape(-1, 32, matrix.shape[1])
    scale = np.abs(apart).max(1) / 7
    codes = np.clip(np.rint(apart / scale[:, None]), -8, 7).astype(np.int8).reshape(matrix.shape)
    given = [f"{name}_Q4", f"{name}_scale"]
    node = helper.make_node("DequantizeLinear", given, [f"{name}_decoded"], axis=0, block_size=32)
    packed = helper.make_tensor(given[0], onnx.TensorProto.INT4, matrix.shape, codes.reshape(-1))
    return [node], [packed, arrays.from_array(scale.astype(np.float32), given[1])]


def small_float(name: str, matrix: np.ndarray) -> Decoded:
    """Floats of eight bits under one scale."""
    given = [f"{name}.codes", f"{name}.scale"]
    node = helper.make_node("DequantizeLinear", given, [f"{name}_decoded"])
    values = (matrix * 100).reshape(-1)
    packed = helper.make_tensor(given[0], onnx.TensorProto.FLOAT8E4M3FN, matrix.shape, values)
    return [node], [packed, arrays.from_array(np.array(0.01, np.float32), given[1])]


def trained(name: str, matrix: np.ndarray) -> Decoded:
    """As training aware of rounding leaves it: floats, rounded in the graph."""
    _, scale = _scaled(name, matrix, 8, 1)
    given = [name, f"{name}_scale", f"{name}_zero_point"]
    down = helper.make_node("QuantizeLinear", given, [f"{name}_codes"], axis=1)
    up = helper.make_node("DequantizeLinear", [f"{name}_codes", *given[1:]], [f"{name}_decoded"], axis=1)
    found = matrix, scale, np.zeros(scale.shape, np.int8)
    return [down, up], [arrays.from_array(array, one) for one, array in zip(given, found, strict=True)]


def cast(name: str, matrix: np.ndarray) -> Decoded:
    """Bytes whose scales are stored as halves, behind a transposition."""
    codes, scale = _scaled(name, matrix.T, 8, 0)
    given = [f"{name}_quantized", f"{name}_scale"]
    nodes = [
        helper.make_node("Cast", [given[1]], [f"{name}_wide"], to=1),
        helper.make_node("DequantizeLinear", [given[0], f"{name}_wide"], [f"{name}_turned"], axis=0),
        helper.make_node("Transpose", [f"{name}_turned"], [f"{name}_decoded"], perm=[1, 0]),
    ]
    return nodes, [arrays.from_array(codes, given[0]), arrays.from_array(scale.astype(np.float16), given[1])]


WAYS: dict[Way, str] = {
    per_tensor: "int8 tensor sym",
    per_channel: "int8 channel asym",
    blocked: "int4 group 32 sym",
    small_float: "fp8 e4m3 tensor",
    trained: "int8 channel sym",
    cast: "int8 channel sym",
}


def write(path: Path, way: Way, returned: bool = False) -> Path:
    """Two products whose weights are decoded in a way."""
    (first, held), (second, more) = way("fc1.weight", FIRST), way("fc2.weight", SECOND)
    nodes = [
        *first,
        *second,
        helper.make_node("MatMul", ["x", "fc1.weight_decoded"], ["hidden"], "fc1/MatMul"),
        helper.make_node("Relu", ["hidden"], ["positive"], "relu"),
        helper.make_node("MatMul", ["positive", "fc2.weight_decoded"], ["y"], "fc2/MatMul"),
    ]
    outputs = [helper.make_tensor_value_info("y", 1, ["n", OUTPUTS])]
    if returned:
        outputs.append(helper.make_tensor_value_info("fc2.weight_decoded", 1, list(SECOND.shape)))
    inputs = [helper.make_tensor_value_info("x", 1, ["n", INPUTS])]
    graph = helper.make_graph(nodes, "given", inputs, outputs, [*held, *more])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def products(path: Path, bits: int, order: bool = False, bias: bool = False) -> Path:
    """Products that hold their weights themselves."""
    nodes, held, source = [], list[onnx.TensorProto](), "x"
    for name, matrix, result in (("fc1", FIRST, "hidden"), ("fc2", SECOND, "y")):
        rows, columns = matrix.T.shape
        codes = DRAW.integers(0, 256, (rows, columns // 32, 32 * bits // 8), np.uint8)
        scale = DRAW.uniform(0.01, 0.02, rows * columns // 32).astype(np.float32)
        given = [f"{name}.weight_Q4", f"{name}.weight_scales"]
        held += [arrays.from_array(codes, given[0]), arrays.from_array(scale, given[1])]
        if order:
            held.append(arrays.from_array((np.arange(columns, dtype=np.int32) % (columns // 32)), f"{name}.order"))
        if bias:
            held.append(arrays.from_array(np.ones(rows, np.float32), f"{name}.bias"))
        reads = [source, *given, "", f"{name}.order" if order else "", f"{name}.bias" if bias else ""]
        while not reads[-1]:
            reads.pop()
        sizes = {"K": columns, "N": rows, "bits": bits, "block_size": 32}
        nodes.append(
            helper.make_node("MatMulNBits", reads, [result], f"{name}/MatMul", domain="com.microsoft", **sizes)
        )
        source = result
    inputs = [helper.make_tensor_value_info("x", 1, ["n", INPUTS])]
    graph = helper.make_graph(nodes, "held", inputs, [helper.make_tensor_value_info("y", 1, ["n", OUTPUTS])], held)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def _stored(path: Path) -> dict[str, bytes]:
    model = onnx.load(path)
    return {one.name: arrays.to_array(one).tobytes() for one in model.graph.initializer if "fc1" in one.name}


@pytest.mark.parametrize("way", WAYS)
def test_decoded_weights_are_weights(way: Way, tmp_path: Path) -> None:
    opened = open_model(write(tmp_path / "given.onnx", way))
    first, second = opened.graph.weights()
    assert (first.name, second.name) == ("fc1", "fc2")
    assert first.given is not None and first.given.text == WAYS[way]
    assert first.size_bytes < FIRST.nbytes / 3
    error = opened.graph.matrix(first) - FIRST.T
    assert np.abs(error).max() < 0.06  # half a step of four bits, or of floats of eight


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_changed_is_written_as_it_came(way: Way, tmp_path: Path) -> None:
    path = write(tmp_path / "given.onnx", way)
    cleaned, _ = Clean().apply(OnnxGraph.load(path), (), Context())
    cleaned.save(tmp_path / "out.onnx")
    assert np.array_equal(reference(tmp_path / "out.onnx")(FEEDS)["y"], reference(path)(FEEDS)["y"])
    if way is not trained:
        assert _stored(path) == _stored(tmp_path / "out.onnx")
    assert cleaned.size_bytes() == (tmp_path / "out.onnx").stat().st_size


def test_what_training_left_as_floats_is_written_as_its_codes(tmp_path: Path) -> None:
    path = write(tmp_path / "given.onnx", trained)
    cleaned, _ = Clean().apply(OnnxGraph.load(path), (), Context())
    cleaned.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < path.stat().st_size / 3


@pytest.mark.sampled
@pytest.mark.parametrize("way", WAYS)
def test_fewer_bits_are_encoded_anew_beside_what_is_kept(way: Way, tmp_path: Path) -> None:
    path = write(tmp_path / "given.onnx", way)
    result = compile(path, POLICY.format("int3 channel"), output=tmp_path / "out.onnx")
    kept, changed = result.layers
    assert result.passed and changed.form and not kept.form and kept.size_bytes == kept.original_bytes
    if way is not trained:
        assert _stored(path) == _stored(tmp_path / "out.onnx")
    assert result.reach is not None and GIVEN in dict(result.reach.rest)
    expected, found = reference(path)(FEEDS)["y"], reference(tmp_path / "out.onnx")(FEEDS)["y"]
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("way", [per_tensor, per_channel, small_float, cast])
def test_as_many_bits_are_not_rounded_again_reject(way: Way, tmp_path: Path) -> None:
    result = compile(write(tmp_path / "given.onnx", way), POLICY.format("int8 channel"))
    assert not result.layers[1].form and "no format asked for has fewer bits" in result.layers[1].reason


@pytest.mark.parametrize(
    ("bits", "order", "bias"), [(2, False, False), (4, False, True), (4, True, False), (8, False, True)]
)
def test_products_that_hold_their_weights_are_kept(bits: int, order: bool, bias: bool, tmp_path: Path) -> None:
    path = products(tmp_path / "held.onnx", bits, order, bias)
    cleaned, _ = Clean().apply(OnnxGraph.load(path), (), Context())
    first, second = cleaned.weights()
    assert first.given is not None and first.given.text == f"int{bits} group 32 sym"
    cleaned.save(tmp_path / "out.onnx")
    assert _stored(path) == _stored(tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    assert [node.op_type for node in written.graph.node].count("MatMulNBits") == 2
    # a bias is added after the product instead of in it: the same sum in float32
    assert np.abs(reference(tmp_path / "out.onnx")(FEEDS)["y"] - reference(path)(FEEDS)["y"]).max() < 1e-4
    plain = FEEDS["x"] @ cleaned.matrix(first).T + bias
    want = plain @ cleaned.matrix(second).T + bias
    assert np.abs(want - reference(path)(FEEDS)["y"]).max() < 1e-3


@pytest.mark.slow
def test_a_product_is_encoded_anew(tmp_path: Path) -> None:
    path = products(tmp_path / "held.onnx", 8, bias=True)
    result = compile(path, POLICY.format("int4 group 32"), output=tmp_path / "out.onnx")
    assert result.passed and [bool(row.form) for row in result.layers] == [False, True]
    assert _stored(path) == _stored(tmp_path / "out.onnx")


@pytest.mark.slow
def test_qcc_reads_its_own_files(tmp_path: Path) -> None:
    plain = tmp_path / "plain.onnx"
    nodes = [
        helper.make_node("MatMul", ["x", "fc1.weight"], ["hidden"], "fc1/MatMul"),
        helper.make_node("MatMul", ["hidden", "fc2.weight"], ["y"], "fc2/MatMul"),
    ]
    held = [arrays.from_array(FIRST, "fc1.weight"), arrays.from_array(SECOND, "fc2.weight")]
    inputs = [helper.make_tensor_value_info("x", 1, ["n", INPUTS])]
    outputs = [helper.make_tensor_value_info("y", 1, ["n", OUTPUTS])]
    graph = helper.make_graph(nodes, "plain", inputs, outputs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), plain)
    compile(plain, "qpolicy 1\nrule linear { weights = int6 channel }", output=tmp_path / "once.onnx")
    first, second = open_model(tmp_path / "once.onnx").graph.weights()
    assert first.given is not None and second.given is not None and (first.name, second.name) == ("fc1", "fc2")
    assert first.size_bytes < FIRST.size * 6.5 / 8
    result = compile(tmp_path / "once.onnx", POLICY.format("int3 group 32"), output=tmp_path / "twice.onnx")
    assert result.passed and result.output_bytes < (tmp_path / "once.onnx").stat().st_size
    assert _stored(tmp_path / "once.onnx") == _stored(tmp_path / "twice.onnx")


def test_a_weight_that_is_returned_stays_where_it_is_reject(tmp_path: Path) -> None:
    path = write(tmp_path / "given.onnx", per_tensor, returned=True)
    opened = open_model(path)
    assert [weight.name for weight in opened.graph.weights()] == ["fc1"]


@pytest.mark.slow
def test_a_fold_leaves_what_is_kept_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "given.onnx", per_channel)
    policy = 'qpolicy 1\nrule any[name ~ "*fc2*"] { weights = int3 channel; equalize = on }\n'
    result = compile(path, policy, output=tmp_path / "out.onnx")
    assert _stored(path) == _stored(tmp_path / "out.onnx")
    assert any("comes in int8 channel" in edit.text for row in result.rewrites for edit in row.edits)


def test_codes_that_integer_ops_read_are_told(tmp_path: Path) -> None:
    path = tmp_path / "integers.onnx"
    codes, _ = _scaled("w", FIRST, 8, None)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "s", "z"], "round"),
        helper.make_node("MatMulInteger", ["a", "w", "z"], ["i"], "multiply"),
        helper.make_node("Cast", ["i"], ["y"], "cast", to=1),
    ]
    inputs = [helper.make_tensor_value_info("x", 1, ["n", INPUTS])]
    outputs = [helper.make_tensor_value_info("y", 1, ["n", HIDDEN])]
    graph = helper.make_graph(nodes, "integers", inputs, outputs, [arrays.from_array(codes, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    opened = open_model(path)
    assert dict(reach(opened.graph, opened.size_bytes).rest)["codes read by MatMulInteger"] == codes.nbytes
