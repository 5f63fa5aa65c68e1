"""An encoded weight in an ONNX file computes what its decoded matrix computes, in every form, wherever it stands."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import Refused
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.fusible import fusible_as
from qcc.ir.forms.rows import ROWS
from qcc.ir.graph.form import Form
from qcc.ir.onnx.adapter import OnnxGraph
from tests.chooser import choose
from tests.onnx_models import CASES, CHAINS, CONV, EMBEDDING, LINEAR, Case, Emitted, emit, loaded, run

INT3 = Blocked(IntGrid(3), group(16))
INT4 = Blocked(IntGrid(4), group(16))
BLOCKS = {"tensor": TENSOR, "channel": CHANNEL, "group": group(16), "ragged": group(20), "tile": Block(5, 12)}
FUSIBLE = ("matmul", "matmul_ragged", "matmul_3d", "gemm", "gemm_no_bias", "gemm_trans_b")


def check(case: Case, emitted: Emitted, tolerance: float = 1e-5, optimized: Path | None = None) -> None:
    """The file computes what it must, relative to the largest output."""
    actual = run(emitted.path, case.feeds, optimized)
    assert set(actual) == set(emitted.expected)
    for name, expected in emitted.expected.items():
        assert actual[name].shape == expected.shape
        assert actual[name].dtype == expected.dtype
        largest = np.abs(expected).max(initial=0)
        np.testing.assert_allclose(actual[name], expected, rtol=0, atol=tolerance * max(largest, 1e-30), err_msg=name)


def tolerance_of(case: Case) -> float:
    """Half-precision weights are rounded once more on the way; two sums in half precision differ by its ulp."""
    return 2e-3 if any(array.dtype.itemsize == 2 for array in case.weights.values()) else 1e-5


def op_types(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.sampled
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_decoded_stands_for_any_weight(name: str, symmetric: bool, tmp_path: Path) -> None:
    case = CASES[name]
    encoding = Blocked(IntGrid(3, symmetric), CHANNEL)
    check(case, emit(case, encoding, DECODED, tmp_path), tolerance_of(case))


@pytest.mark.sampled
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_decoded_takes_any_encoding(bits: int, symmetric: bool, block: str, tmp_path: Path) -> None:
    # 61 x 21 fills no byte and no block; conv_transpose is neither a matrix nor a transposed one
    for case in (CASES["matmul_ragged"], CASES["conv_transpose"], CASES["gemm_trans_b"]):
        encoding = Blocked(IntGrid(bits, symmetric), BLOCKS[block], "fp32" if bits % 2 else "fp16")
        check(case, emit(case, encoding, DECODED, tmp_path))


@pytest.mark.sampled
@pytest.mark.parametrize("name", [*LINEAR, *CONV, *CHAINS])
def test_decoded_folds_when_the_session_starts(name: str, tmp_path: Path) -> None:
    emitted = emit(CASES[name], Blocked(IntGrid(3, False), group(20)), DECODED, tmp_path)
    run(emitted.path, CASES[name].feeds, tmp_path / "optimized.onnx")
    left = set(op_types(tmp_path / "optimized.onnx"))
    # the left operand of a product may be turned by the runtime's own fusions
    assert left <= {
        "MatMul",
        "FusedMatMul",
        "Gemm",
        "Conv",
        "FusedConv",
        "ConvTranspose",
        "ReorderOutput",
        "ReorderInput",
    }


@pytest.mark.sampled
@pytest.mark.parametrize("block", ["channel", "group", "ragged"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_rows_take_any_width(bits: int, symmetric: bool, block: str, tmp_path: Path) -> None:
    for case in (CASES["gather_2d"], CASES["gather_ragged"]):
        encoding = Blocked(IntGrid(bits, symmetric), BLOCKS[block], "fp32" if bits % 2 else "fp16")
        check(case, emit(case, encoding, ROWS, tmp_path))


@pytest.mark.sampled
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", [*EMBEDDING, "fp16_embedding", "cast_embedding"])
def test_rows_stand_for_any_table(name: str, symmetric: bool, tmp_path: Path) -> None:
    case = CASES[name]
    check(case, emit(case, Blocked(IntGrid(3, symmetric), group(20)), ROWS, tmp_path), tolerance_of(case))


@pytest.mark.parametrize("name", ["gather_1d", "gather_3d", "fp16_embedding"])
def test_rows_gathers_bytes(name: str, tmp_path: Path) -> None:
    emitted = emit(CASES[name], INT3, ROWS, tmp_path)
    run(emitted.path, CASES[name].feeds, tmp_path / "optimized.onnx")
    proto = onnx.load(tmp_path / "optimized.onnx")
    tables = {tensor.name: tensor for tensor in proto.graph.initializer}
    gathered = [tables[node.input[0]] for node in proto.graph.node if node.op_type == "Gather" and "i" in node.input]
    assert {tensor.data_type for tensor in gathered} == {onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16}
    floats = [tensor for tensor in tables.values() if tensor.data_type == onnx.TensorProto.FLOAT]
    assert all(np.prod(tensor.dims) < 64 for tensor in floats)


@pytest.mark.parametrize("name", ["tied_transpose", "tied_gemm"])
def test_a_tied_head_multiplies_by_the_packed_table(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    emitted = emit(case, INT4, ROWS, tmp_path)
    assert "MatMulNBits" in op_types(emitted.path)
    assert sum(len(tensor.raw_data) for tensor in emitted.stored) == 7 * 64 // 2 + 7 * 4 * 2
    check(case, emitted, 0.03)  # the kernel rounds activations to 8 bits


@pytest.mark.sampled
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", FUSIBLE)
def test_fused_becomes_one_kernel(name: str, bits: int, symmetric: bool, tmp_path: Path) -> None:
    case = CASES[name]
    if bits == 2 and name == "matmul_ragged":
        pytest.skip("the runtime's 2-bit kernel is wrong where outputs fill no byte: see the refusals")
    emitted = emit(case, Blocked(IntGrid(bits, symmetric), group(32)), FUSED, tmp_path)
    check(case, emitted, 1e-5, tmp_path / "optimized.onnx")
    left = op_types(tmp_path / "optimized.onnx")
    assert "MatMulNBits" in left
    assert "DequantizeLinear" not in left
    assert "MatMul" not in left


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("matmul", Blocked(IntGrid(3), group(16))),
        ("matmul_ragged", Blocked(IntGrid(2), group(16))),
        ("matmul", Blocked(IntGrid(4), CHANNEL)),
        ("matmul", Blocked(IntGrid(4), group(20))),
        ("matmul_left", INT4),
        ("matmul_vector", INT4),
        ("matmul_experts", INT4),
        ("gemm_trans_a", INT4),
        ("gemm_scaled", INT4),
        ("gemm_left", INT4),
        ("shared", INT4),
        ("also_added", INT4),
        ("also_output", INT4),
        ("output_of_chain", INT4),
        ("in_if", INT4),
        ("fp16", INT4),
        ("double", INT4),
        ("conv2d_pointwise", INT4),
        ("gather_2d", INT4),
    ],
)
def test_fused_refuses_what_no_kernel_takes(name: str, encoding: Blocked, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        emit(CASES[name], encoding, FUSED, tmp_path)


@pytest.mark.parametrize("block", [Block(2, 16), Block(0, 16)])
def test_rows_refuses_scales_that_rows_share(block: Block, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="they share scales"):
        emit(CASES["gather_2d"], Blocked(IntGrid(4), block), ROWS, tmp_path)


@pytest.mark.sampled
@pytest.mark.parametrize("name", CASES)
def test_the_chosen_form_is_never_refused(name: str, tmp_path: Path) -> None:
    for block in BLOCKS.values():
        encoding = Blocked(IntGrid(4), block)
        weight = loaded(CASES[name], tmp_path).weights()[0]
        emit(CASES[name], encoding, choose(weight, encoding).form, tmp_path)


@pytest.mark.sampled
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_stored_bytes_are_what_is_stored(bits: int, symmetric: bool, tmp_path: Path) -> None:
    for form, name in ((DECODED, "matmul_ragged"), (ROWS, "gather_ragged"), (FUSED, "matmul")):
        for block in (CHANNEL, group(16), group(20)):
            encoding = Blocked(IntGrid(bits, symmetric), block)
            shape = loaded(CASES[name], tmp_path).weights()[0].shape
            if form == FUSED and fusible_as(encoding, shape) is None:
                continue
            emitted = emit(CASES[name], encoding, form, tmp_path)
            stored = sum(len(tensor.raw_data) for tensor in emitted.stored)
            assert form.stored_bytes(encoding, shape) - form.node_bytes == stored
            narrow = 0 if symmetric or form != FUSED else block.grid(shape)[0] * block.grid(shape)[1] * (8 - bits)
            assert stored * 8 >= encoding.size_bits(shape) - narrow  # the runtime's own zero points take no whole byte


@pytest.mark.parametrize(("form", "name"), [(DECODED, "matmul"), (FUSED, "matmul"), (ROWS, "gather_1d")])
def test_the_file_is_about_as_large_as_told(form: Form, name: str, tmp_path: Path) -> None:
    emitted = emit(CASES[name], INT4, form, tmp_path)
    told = form.stored_bytes(INT4, loaded(CASES[name], tmp_path).weights()[0].shape)
    function = 1500  # the decoding function, once a model
    assert -300 < emitted.path.stat().st_size - told < function  # names as short as here cost less
    assert emitted.graph.size_bytes() == emitted.path.stat().st_size


@dataclasses.dataclass(frozen=True)
class _Crowded(Case):
    """A model that has taken the names that the weight ``layer`` would use."""

    def proto(self) -> onnx.ModelProto:
        model = super().proto()
        model.graph.node[0].name = "layer/decode_int3_asym"
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "layer.scale"
        return model


def test_names_that_are_taken_are_left_alone(tmp_path: Path) -> None:
    body = "g (float[N,64] x) => (float[N,32] y) { q = Relu(x) y = MatMul(q, layer) }"
    case = _Crowded(body, {"layer": CASES["matmul"].weights["w"]}, CASES["matmul"].feeds)
    emitted = emit(case, Blocked(IntGrid(3, False), group(16)), DECODED, tmp_path)
    assert "layer.scale#2" in {tensor.name for tensor in emitted.stored}
    check(case, emitted)


def test_nothing_is_stored_twice(tmp_path: Path) -> None:
    for name, form in (("in_if", DECODED), ("shared", DECODED), ("table_in_subgraph", ROWS)):
        emitted = emit(CASES[name], INT3, form, tmp_path)
        assert "w" not in {tensor.name for tensor in onnx.load(emitted.path).graph.initializer}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CASES)
def test_what_is_encoded_is_told_as_it_came(name: str, tmp_path: Path) -> None:
    for symmetric, block in ((True, CHANNEL), (False, group(20)), (False, group(16))):
        encoding = Blocked(IntGrid(4, symmetric), block)
        graph = loaded(CASES[name], tmp_path)
        emitted = emit(CASES[name], encoding, choose(graph.weights()[0], encoding).form, tmp_path)
        again = OnnxGraph.load(emitted.path)
        again.simplify()
        assert all(weight.given for weight in again.weights())
        again.save(tmp_path / "again.onnx")
        check(CASES[name], dataclasses.replace(emitted, path=tmp_path / "again.onnx"), 3e-2)
