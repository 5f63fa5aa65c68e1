"""A layer that kernel libraries take computes, without any library, what its decoded matrix computes."""

import dataclasses
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.checker
import onnxruntime
import pytest

from qcc.ir.encoding import fit
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32, FLOAT_ENCODINGS, Blocked, named
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.formats.composed.blocks import Sparse
from qcc.ir.encoding.formats.composed.scattered import SomeOfEvery
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.packing import planes, unpack
from qcc.ir.errors import Refused
from qcc.ir.forms.kernel import KERNEL, kernel_op
from qcc.ir.graph.ops import Array
from qcc.ir.kernel.op import parse, unmultiplied
from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import CASES, Case, Emitted, emit, loaded, random, run

INT4 = Blocked(IntGrid(4), group(32))
BF16 = FLOAT_ENCODINGS["bf16"]
BLOCKS = {"channel": CHANNEL, "group32": group(32), "group64": group(64), "group128": group(128)}
W, B = random(256, 24), random(24, seed=2)
X2, X3, X4 = random(5, 256, seed=1), random(2, 5, 256, seed=1), random(2, 3, 5, 256, seed=1)
TOLERANCE = 1e-5  # of the largest output: sums of 256 float32 products in another order
NOTHING_TO_DECODE = {"MatMul", "Gemm", "Add", "FusedMatMul"}


def _gemm(attributes: str = "", bias: Array | None = B, w: Array = W) -> Case:
    inputs = "x, w" if bias is None else "x, w, b"
    body = f"g (float[N,256] x) => (float[N,M] y) {{ y = Gemm {attributes} ({inputs}) }}"
    return Case(body, {"w": w} | ({} if bias is None else {"b": bias}), {"x": X2})


def _added(bias: Array, x: Array = X2, swapped: bool = False) -> Case:
    sizes = ",".join("ABCD"[: x.ndim - 1])
    terms = "b, h" if swapped else "h, b"
    body = f"g (float[{sizes},256] x) => (float[{sizes},M] y) {{ h = MatMul(x, w) y = Add({terms}) }}"
    return Case(body, {"w": W, "b": bias}, {"x": x})


def _plain(x: Array) -> Case:
    sizes = ",".join("ABCD"[: x.ndim - 1])
    return Case(f"g (float[{sizes},256] x) => (float[{sizes},M] y) {{ y = MatMul(x, w) }}", {"w": W}, {"x": x})


PLAIN = {
    "matmul": _plain(X2),
    "matmul_3d": _plain(X3),
    "matmul_4d": _plain(X4),
    "gemm": _gemm(bias=None),
    "gemm_trans_b": _gemm("<transB = 1>", bias=None, w=W.T),
}
BIASED = {
    "gemm_bias": _gemm(),
    "gemm_trans_b_bias": _gemm("<transB = 1>", w=W.T),
    "gemm_row_bias": _gemm(bias=B[None]),
    "add": _added(B),
    "add_swapped": _added(B, swapped=True),
    "add_3d": _added(B, X3),
    "add_4d": _added(B, X4),
    "add_row": _added(B[None, None], X3),
}
APART = {  # what is added is no bias, and stays an addition
    "gemm_scalar": _gemm(bias=np.array(2.0, np.float32)),
    "gemm_matrix": _gemm(bias=random(5, 24)),
    "add_matrix": _added(random(5, 24)),
    "add_computed": dataclasses.replace(
        _added(B), body="g (float[N,256] x) => (float[N,M] y) { h = MatMul(x, w) c = Neg(h) y = Add(h, c) }"
    ),
    "product_read_twice": dataclasses.replace(
        _added(B), body="g (float[N,256] x) => (float[N,M] y, float[N,M] h) { h = MatMul(x, w) y = Add(h, b) }"
    ),
}


def check(case: Case, emitted: Emitted, optimized: Path | None = None, tolerance: float = TOLERANCE) -> None:
    """The file passes every check, and computes what it must."""
    onnx.checker.check_model(onnx.load(emitted.path), full_check=True)
    actual = run(emitted.path, case.feeds, optimized)
    assert set(actual) == set(emitted.expected)
    for name, expected in emitted.expected.items():
        assert actual[name].shape == expected.shape
        largest = max(np.abs(expected).max(), 1e-30)
        np.testing.assert_allclose(actual[name], expected, rtol=0, atol=tolerance * largest, err_msg=name)


def kernels(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == "qcc"]


def op_types(path: Path) -> set[str]:
    model = onnx.load(path)
    assert not model.functions
    return {node.op_type for node in model.graph.node}


@pytest.mark.sampled
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_format_computes_and_folds(bits: int, symmetric: bool, block: str, tmp_path: Path) -> None:
    encoding = Blocked(IntGrid(bits, symmetric), BLOCKS[block], "fp32" if bits % 2 else "fp16")
    for case in (PLAIN["matmul_3d"], BIASED["gemm_trans_b_bias"], BIASED["add_4d"]):
        emitted = emit(case, encoding, KERNEL, tmp_path)
        check(case, emitted, tmp_path / "optimized.onnx")
        assert op_types(tmp_path / "optimized.onnx") <= NOTHING_TO_DECODE


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", [INT4, Blocked(IntGrid(3, False), CHANNEL), BF16], ids=lambda one: one.text)
@pytest.mark.parametrize("name", [*PLAIN, *BIASED])
def test_a_layer_becomes_one_node(name: str, encoding: Blocked, tmp_path: Path) -> None:
    case = (PLAIN | BIASED)[name]
    emitted = emit(case, encoding, KERNEL, tmp_path)
    check(case, emitted, tmp_path / "optimized.onnx")
    assert op_types(tmp_path / "optimized.onnx") <= NOTHING_TO_DECODE
    model = onnx.load(emitted.path)
    (node,) = model.graph.node
    assert node.op_type == kernel_op(encoding, (24, 256), ("bias",) if name in BIASED else ()).name
    assert [function.name for function in model.functions] == [node.op_type]
    if name in BIASED:
        shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
        assert shapes[node.input[-1]] == [24]
    assert {tensor.name for tensor in model.graph.initializer} == set(node.input[1:])


@pytest.mark.parametrize("name", APART)
def test_what_is_no_bias_is_added_apart(name: str, tmp_path: Path) -> None:
    emitted = emit(APART[name], INT4, KERNEL, tmp_path)
    check(APART[name], emitted)
    model = onnx.load(emitted.path)
    assert [node.op_type for node in kernels(model)] == ["linear_int4_group32"]
    assert "Add" in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("bias", [B, B[None]], ids=["vector", "row"])
def test_a_bias_that_others_read_stays(bias: Array, tmp_path: Path) -> None:
    body = "g (float[N,256] x) => (float[N,M] y) { h = MatMul(x, w) a = Add(h, b) y = Mul(a, b) }"
    case = Case(body, {"w": W, "b": bias}, {"x": X2})
    emitted = emit(case, INT4, KERNEL, tmp_path)
    check(case, emitted)
    model = onnx.load(emitted.path)
    assert (kernels(model)[0].input[-1] == "b") == (bias.ndim == 1)
    assert "b" in {tensor.name for tensor in model.graph.initializer}


@pytest.mark.parametrize("bits", range(2, 9))
def test_inputs_are_what_kernels_expect(bits: int, tmp_path: Path) -> None:
    encoding = Blocked(IntGrid(bits, False), group(64))
    graph = loaded(BIASED["add"], tmp_path)
    weight = graph.weights()[0]
    encoded = fit.encode(graph.matrix(weight), encoding)
    graph.encode(weight, encoded, KERNEL)
    (node,) = (node for node in graph.model.graph if node.domain == "qcc")
    x, *packed, scale, zero, bias = (value.name for value in node.inputs if value is not None)
    arrays = {name: graph.constant(name or "") for name in (*packed, scale, zero, bias)}
    assert x == "x"
    codes = [_array(arrays[name]) for name in packed]
    assert [array.shape for array in codes] == [(24, 256 * width // 8) for width in planes(bits)]
    np.testing.assert_array_equal(unpack(tuple(codes), bits, 256), encoded.codes)
    for name, dtype in ((scale, "float16"), (zero, "int8")):
        assert (_array(arrays[name]).dtype.name, _array(arrays[name]).shape) == (dtype, (24, 4))
    centred = encoded.codes.astype(np.int32) - 2 ** (bits - 1) - np.repeat(_array(arrays[zero]), 64, axis=1)
    values = centred * np.repeat(_array(arrays[scale]).astype(np.float32), 64, axis=1)
    np.testing.assert_array_equal(values.astype(np.float32), encoded.decode())
    np.testing.assert_array_equal(_array(arrays[bias]), B)


def test_a_kernel_gets_bfloat16_rows(tmp_path: Path) -> None:
    emitted = emit(BIASED["add"], BF16, KERNEL, tmp_path)
    model = onnx.load(emitted.path)
    (node,) = kernels(model)
    assert list(model.functions[0].input) == list(parse(node.op_type).inputs) == ["x", "weight", "bias"]
    (tensor,) = emitted.stored
    assert (tensor.name, tensor.data_type, list(tensor.dims)) == (node.input[1], onnx.TensorProto.BFLOAT16, [24, 256])
    assert tensor.raw_data == W.T.astype(ml_dtypes.bfloat16).tobytes()


def _array(array: Array | None) -> Array:
    assert array is not None
    return array


NAMES = [
    (INT4, (24, 256), False, "linear_int4_group32"),
    (INT4, (24, 256), True, "linear_int4_group32_bias"),
    (Blocked(IntGrid(3, False), group(128)), (24, 256), False, "linear_int3_group128_asym"),
    (Blocked(IntGrid(8, False), CHANNEL), (24, 256), True, "linear_int8_channel_asym_bias"),
    (Blocked(IntGrid(2), group(64)), (24, 64), False, "linear_int2_channel"),
    (Blocked(IntGrid(2), group(128), "fp32"), (24, 64), False, "linear_int2_channel"),
    (BF16, (24, 256), False, "linear_bf16"),
    (BF16, (24, 256), True, "linear_bf16_bias"),
]


@pytest.mark.parametrize(("encoding", "shape", "bias", "name"), NAMES)
def test_names(encoding: Blocked, shape: tuple[int, int], bias: bool, name: str) -> None:
    assert kernel_op(encoding, shape, ("bias",) if bias else ()).name == name


def test_one_function_serves_all_layers_of_a_format(tmp_path: Path) -> None:
    body = """g (float[N,64] x) => (float[N,96] y) {
        h = MatMul(x, a) r = Relu(h) i = MatMul(r, b) s = Relu(i) y = MatMul(s, c) }"""
    weights = {"a": random(64, 128), "b": random(128, 32), "c": random(32, 96)}
    graph = loaded(Case(body, weights, {}), tmp_path)
    for weight in graph.weights():
        encoding = Blocked(IntGrid(3, False), CHANNEL)
        graph.encode(weight, fit.encode(graph.matrix(weight), encoding), KERNEL)
    graph.save(tmp_path / "encoded.onnx")
    model = onnx.load(tmp_path / "encoded.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [function.name for function in model.functions] == ["linear_int3_channel_asym"]
    assert len(kernels(model)) == 3
    run(tmp_path / "encoded.onnx", {"x": random(7, 64)}, tmp_path / "optimized.onnx")
    assert op_types(tmp_path / "optimized.onnx") <= NOTHING_TO_DECODE | {"Relu"}


@pytest.mark.parametrize("opset", [18, 21, 25])
def test_the_function_holds_in_later_opsets(opset: int, tmp_path: Path) -> None:
    case = BIASED["add_3d"]
    emitted = emit(case, Blocked(IntGrid(5, False), group(32)), KERNEL, tmp_path)
    emitted.graph.require_opset(opset)
    emitted.graph.save(emitted.path)
    check(case, emitted, tmp_path / "optimized.onnx")
    assert op_types(tmp_path / "optimized.onnx") <= NOTHING_TO_DECODE


def test_any_batch_runs(tmp_path: Path) -> None:
    emitted = emit(BIASED["add_3d"], INT4, KERNEL, tmp_path)
    session = onnxruntime.InferenceSession(emitted.path, providers=["CPUExecutionProvider"])
    for sizes in ((1, 1), (0, 3), (7, 2), (2, 0)):
        (y,) = session.run(None, {"x": random(*sizes, 256)})
        assert y.shape == (*sizes, 24)


REFUSED = [
    ("conv2d", INT4, "convolutions of one point"),
    ("gather_2d", INT4, "linear layers"),
    ("also_added", INT4, "shared"),
    ("also_output", INT4, "shared"),
    ("matmul_left", INT4, "shared, or read in a way"),
    ("matmul_vector", INT4, "shared, or read in a way"),
    ("matmul_experts", INT4, "shared, or read in a way"),
    ("gemm_trans_a", INT4, "shared, or read in a way"),
    ("gemm_scaled", INT4, "shared, or read in a way"),
    ("fp16", INT4, "float16"),
    ("double", INT4, "float64"),
    ("matmul", Blocked(IntGrid(4), TENSOR), "per channel or per group"),
    ("matmul", Blocked(IntGrid(4), Block(2, 32)), "per channel or per group"),
    ("matmul", Blocked(IntGrid(4), group(16)), "not of 16"),
    ("matmul", Blocked(IntGrid(4), group(48)), "not of 48"),
    ("matmul", FLOAT_ENCODINGS["fp16"], "no kernel multiplies by weights of fp16"),
    ("conv2d", BF16, "convolutions of one point"),
    ("matmul", Sparse(3, 3, 0.5, FLOAT32), "a multiple of 4 outputs or inputs"),
    ("matmul", Sparse(4, 1, 0.5, Blocked(IntGrid(4))), "a multiple of 8 codes"),
    ("matmul", Sparse(8, 8, 0.5, Blocked(IntGrid(4), group(48))), "not int4 group 48"),
    ("matmul", SomeOfEvery(FLOAT32, "magnitude", 0, 2, 4), "gains for a single row alone"),
    ("matmul", Sparse(8, 8, 0.5, Sparse(4, 4, 0.5, FLOAT32)), "no kernel multiplies by blocks of blocks"),
    ("conv2d_pointwise", Sparse(4, 4, 0.5, FLOAT32), "blocks of linear layers"),
    ("matmul", Sparse(160, 4, 0.5, FLOAT32), "do not divide"),
]


@pytest.mark.parametrize(("name", "encoding", "reason"), REFUSED)
def test_kernels_refuse(name: str, encoding: Encoding, reason: str, tmp_path: Path) -> None:
    weight = loaded(CASES[name], tmp_path).weights()[0]
    assert reason in KERNEL.refuses(weight, encoding)
    with pytest.raises(Refused, match=reason):
        emit(CASES[name], encoding, KERNEL, tmp_path)


@pytest.mark.parametrize(("columns", "size"), [(72, 0), (72, 32), (96, 64), (40, 40)])
def test_kernels_refuse_ragged_rows(columns: int, size: int, tmp_path: Path) -> None:
    body = f"g (float[N,{columns}] x) => (float[N,24] y) {{ y = MatMul(x, w) }}"
    case = Case(body, {"w": random(columns, 24)}, {"x": random(3, columns)})
    encoding = Blocked(IntGrid(4), Block(1, size))
    assert KERNEL.refuses(loaded(case, tmp_path).weights()[0], encoding) != ""
    with pytest.raises(Refused, match="multiple"):
        emit(case, encoding, KERNEL, tmp_path)


INSIDE = [FLOAT32, Blocked(IntGrid(4), group(32)), Blocked(IntGrid(5, False)), BF16, named("nf4_group16")]


@pytest.mark.parametrize("tile", [(8, 16), (4, 1), (1, 16)], ids=str)
@pytest.mark.parametrize("inner", INSIDE, ids=lambda one: one.text)
@pytest.mark.parametrize("name", ["matmul_3d", "gemm_trans_b_bias", "add_4d"])
def test_blocks_become_one_node(name: str, inner: Encoding, tile: tuple[int, int], tmp_path: Path) -> None:
    case, encoding = (PLAIN | BIASED)[name], Sparse(*tile, 0.3, inner, "magnitude")
    if unmultiplied(encoding):
        pytest.skip("refused")
    emitted = emit(case, encoding, KERNEL, tmp_path)
    check(case, emitted, tmp_path / "optimized.onnx")
    assert op_types(tmp_path / "optimized.onnx") <= NOTHING_TO_DECODE
    (node,) = onnx.load(emitted.path).graph.node
    assert parse(node.op_type).tile == tile


@pytest.mark.parametrize("name", ["transpose_identity", "transpose_twice", "reshape_transpose", "cast_fp16"])
def test_what_stands_before_the_layer_goes(name: str, tmp_path: Path) -> None:
    emitted = emit(CASES[name], INT4, KERNEL, tmp_path)
    check(CASES[name], emitted, tolerance=1e-3 if "fp16" in name else TOLERANCE)  # decoded weights are not rounded
    (node,) = onnx.load(emitted.path).graph.node
    assert node.op_type == "linear_int4_group32"


@pytest.mark.sampled
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_stored_bytes_are_what_is_stored(bits: int, symmetric: bool, tmp_path: Path) -> None:
    for block in BLOCKS.values():
        encoding = Blocked(IntGrid(bits, symmetric), block)
        emitted = emit(PLAIN["matmul"], encoding, KERNEL, tmp_path)
        stored = sum(len(tensor.raw_data) for tensor in emitted.stored)
        told = KERNEL.stored_bytes(encoding, (24, 256))
        assert told - KERNEL.node_bytes == stored
        functions = sum(function.ByteSize() for function in onnx.load(emitted.path).functions)
        assert abs(emitted.path.stat().st_size - functions - told) < 300  # names as short as here cost less
        assert emitted.graph.size_bytes() == emitted.path.stat().st_size


def test_what_is_encoded_is_no_weight_any_more(tmp_path: Path) -> None:
    emitted = emit(BIASED["add_3d"], INT4, KERNEL, tmp_path)
    again = OnnxGraph.load(emitted.path)
    again.simplify()
    assert not again.weights()
    again.save(tmp_path / "again.onnx")
    check(BIASED["add_3d"], dataclasses.replace(emitted, path=tmp_path / "again.onnx"))
