"""A weight stored in 16-bit floats computes what its cast computes, costs two bytes a number, and is folded at load."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import FLOAT_ENCODINGS
from qcc.ir.errors import Refused
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.rows import ROWS
from qcc.ir.graph.form import CAST_BYTES, Form
from qcc.ir.onnx.adapter import OnnxGraph
from tests.chooser import choose
from tests.onnx_models import CASES, CHAINS, CONV, EMBEDDING, LINEAR, emit, loaded, run
from tests.test_onnx_emit import check, op_types, tolerance_of

FORMATS = FLOAT_ENCODINGS.items()
TYPES = {"bf16": onnx.TensorProto.BFLOAT16, "fp16": onnx.TensorProto.FLOAT16}
TIED = ("tied_transpose", "tied_gemm")
every = pytest.mark.parametrize("form", FLOAT_ENCODINGS)


@pytest.mark.sampled
@every
@pytest.mark.parametrize("name", CASES)
def test_decoded_stands_for_any_weight(name: str, form: str, tmp_path: Path) -> None:
    case = CASES[name]
    emitted = emit(case, FLOAT_ENCODINGS[form], DECODED, tmp_path)
    check(case, emitted, tolerance_of(case))
    (tensor,) = emitted.stored
    assert tensor.data_type == TYPES[form]


@pytest.mark.sampled
@every
@pytest.mark.parametrize("name", [*LINEAR, *CONV, *CHAINS])
def test_decoded_folds_when_the_session_starts(name: str, form: str, tmp_path: Path) -> None:
    emitted = emit(CASES[name], FLOAT_ENCODINGS[form], DECODED, tmp_path)
    run(emitted.path, CASES[name].feeds, tmp_path / "encoded.onnx")
    run(CASES[name].save(tmp_path), CASES[name].feeds, tmp_path / "plain.onnx")
    assert op_types(tmp_path / "encoded.onnx") == op_types(tmp_path / "plain.onnx")


@every
@pytest.mark.parametrize("name", [*EMBEDDING, "fp16_embedding", "cast_embedding"])
def test_rows_stand_for_any_table(name: str, form: str, tmp_path: Path) -> None:
    case = CASES[name]
    emitted = emit(case, FLOAT_ENCODINGS[form], ROWS, tmp_path)
    check(case, emitted, tolerance_of(case))
    assert len(emitted.stored) == 1  # tied tables too


@every
@pytest.mark.parametrize("name", ["gather_1d", "gather_3d", *TIED])
def test_rows_gathers_what_is_stored(name: str, form: str, tmp_path: Path) -> None:
    emitted = emit(CASES[name], FLOAT_ENCODINGS[form], ROWS, tmp_path)
    run(emitted.path, CASES[name].feeds, tmp_path / "optimized.onnx")
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    tables = {tensor.name: tensor.data_type for tensor in graph.initializer}
    gathered = [tables[node.input[0]] for node in graph.node if node.op_type == "Gather" and node.input[0] in tables]
    assert gathered == [TYPES[form]]
    assert [node.op_type for node in graph.node].count("Cast") == 1  # the head's is folded


@pytest.mark.sampled
@every
@pytest.mark.parametrize("name", CASES)
def test_the_chosen_form_is_never_refused(name: str, form: str, tmp_path: Path) -> None:
    encoding = FLOAT_ENCODINGS[form]
    choice = choose(loaded(CASES[name], tmp_path).weights()[0], encoding)
    assert choice.form in (DECODED, ROWS)
    emit(CASES[name], encoding, choice.form, tmp_path)


@every
@pytest.mark.parametrize(("kind", "name"), [(DECODED, "matmul_ragged"), (ROWS, "gather_ragged")])
def test_stored_bytes_are_what_is_stored(kind: Form, name: str, form: str, tmp_path: Path) -> None:
    case, encoding = CASES[name], FLOAT_ENCODINGS[form]
    emitted = emit(case, encoding, kind, tmp_path)
    shape = loaded(case, tmp_path).weights()[0].shape
    told = kind.stored_bytes(encoding, shape)
    stored = sum(len(tensor.raw_data) for tensor in emitted.stored)
    assert told - CAST_BYTES == stored == encoding.size_bits(shape) // 8
    rest = case.save(tmp_path).stat().st_size - 4 * shape[0] * shape[1]
    assert abs(emitted.path.stat().st_size - rest - told) < 200  # names as short as here cost less
    assert emitted.graph.size_bytes() == emitted.path.stat().st_size


@every
def test_what_is_stored_is_the_cast(form: str, tmp_path: Path) -> None:
    case = CASES["matmul"]
    (tensor,) = emit(case, FLOAT_ENCODINGS[form], DECODED, tmp_path).stored
    dtype = np.dtype({"bf16": ml_dtypes.bfloat16, "fp16": np.float16}[form])
    assert tensor.raw_data == case.weights["w"].astype(dtype).tobytes()


@every
@pytest.mark.parametrize("name", ["matmul", "gather_1d", "tied_gemm"])
def test_the_file_has_a_weight_of_16_bits(name: str, form: str, tmp_path: Path) -> None:
    encoding = FLOAT_ENCODINGS[form]
    kind = choose(loaded(CASES[name], tmp_path).weights()[0], encoding).form
    again = OnnxGraph.load(emit(CASES[name], encoding, kind, tmp_path).path)
    again.simplify()
    (weight,) = again.weights()
    assert weight.stored == {"bf16": "bfloat16", "fp16": "float16"}[form]
    assert kind.stored_bytes(encoding, weight.shape) > weight.size_bytes


@every
@pytest.mark.parametrize("name", ["matmul", "conv2d_pointwise", "gather_1d"])
def test_fused_refuses_floats(name: str, form: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no compressed kernel"):
        emit(CASES[name], FLOAT_ENCODINGS[form], FUSED, tmp_path)


@every
@pytest.mark.parametrize("name", ["matmul", "gather_1d"])
def test_an_old_opset_is_raised_as_far_as_needed(name: str, form: str, tmp_path: Path) -> None:
    model = CASES[name].proto()
    model.opset_import[0].version = 11
    onnx.save(model, tmp_path / "old.onnx")
    graph = OnnxGraph.load(tmp_path / "old.onnx")
    graph.simplify()
    (weight,) = graph.weights()
    encoding = FLOAT_ENCODINGS[form]
    graph.encode(weight, fit.encode(graph.matrix(weight), encoding), choose(weight, encoding).form)
    graph.save(tmp_path / "new.onnx")
    run(tmp_path / "new.onnx", CASES[name].feeds)
    (opset,) = onnx.load(tmp_path / "new.onnx").opset_import
    assert opset.version == 13
