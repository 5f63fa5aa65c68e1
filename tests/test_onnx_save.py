"""Writing ONNX files: whole or not at all, the same bytes each time, in a stream."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import ModelError
from qcc.ir.forms.decoded import DECODED
from qcc.ir.model.options import ExternalData
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file import save as onnx_save
from tests.onnx_models import MATMUL, X, parse, random, run

BIG = random(64, 64)
SAME = {"x": X}


def _model(folder: Path) -> Path:
    path = folder / "model.onnx"
    body = MATMUL.replace("MatMul(x, w)", "MatMul(x, w) z = Neg(w)").replace(
        "(float[N,M] y", "(float[N,M] y, float[64,64] z"
    )
    model = parse(body, {"w": BIG, "small": random(3), "tiny_half": random(2, dtype=np.float16)})
    model.graph.initializer.append(numpy_helper.from_array(random(64, 80).astype(ml_dtypes.bfloat16), "bf16"))
    model.graph.initializer.append(helper.make_tensor("nibbles", onnx.TensorProto.INT4, [9001], [1] * 9001))
    model.graph.initializer.append(numpy_helper.from_array(np.array(["a", "b"], object), "words"))
    helper.set_model_props(model, {"vocabulary": "a b c"})
    model.ir_version = 10
    onnx.save(model, path)
    return path


def _arrays(model: onnx.ModelProto, folder: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor, str(folder)) for tensor in model.graph.initializer}


@pytest.mark.parametrize("external", ["never", "always", "auto"])
def test_what_is_written_is_what_was_read(external: ExternalData, tmp_path: Path) -> None:
    path = _model(tmp_path)
    written = OnnxGraph.load(path).save(tmp_path / "out.onnx", external, {"qcc.policy": "none"})
    before, after = onnx.load(path), onnx.load(written.path)
    onnx.checker.check_model(str(written.path))
    for name, array in _arrays(before, tmp_path).items():
        np.testing.assert_array_equal(_arrays(after, tmp_path)[name], array)
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]
    assert {entry.key: entry.value for entry in after.metadata_props} == {"vocabulary": "a b c", "qcc.policy": "none"}
    assert (written.data is not None) == (external == "always")
    size = written.path.stat().st_size + (written.data.stat().st_size if written.data else 0)
    assert written.size_bytes == size


def test_external_data_is_aligned_and_beside(tmp_path: Path) -> None:
    written = OnnxGraph.load(_model(tmp_path)).save(tmp_path / "out.onnx", "always")
    assert written.data is not None
    digest = hashlib.sha256(written.data.read_bytes()).hexdigest()
    assert (written.data.name, written.data_sha256) == (f"out.{digest[:16]}.onnx_data", digest)
    tensors = [t for t in onnx.load(written.path, load_external_data=False).graph.initializer if t.external_data]
    assert {tensor.name for tensor in tensors} == {"w", "bf16", "nibbles"}
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert entries["location"] == written.data.name
        assert int(entries["offset"]) % 4096 == 0
    np.testing.assert_allclose(run(written.path, SAME)["y"], X @ BIG, atol=1e-4)


def test_large_models_are_written_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = OnnxGraph.load(_model(tmp_path))
    monkeypatch.setattr(onnx_save, "INLINE_LIMIT_BYTES", 10_000)
    assert graph.save(tmp_path / "auto.onnx").data is not None
    monkeypatch.setattr(onnx_save, "MESSAGE_LIMIT_BYTES", 10_000)
    with pytest.raises(ModelError, match="at most 2 GB") as caught:
        graph.save(tmp_path / "never.onnx", "never")
    assert caught.value.code == "Q404"
    assert not (tmp_path / "never.onnx").exists()


@pytest.mark.parametrize("external", ["never", "always"])
def test_the_same_bytes_each_time(external: ExternalData, tmp_path: Path) -> None:
    _model(tmp_path)
    found = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        graph = OnnxGraph.load(tmp_path / "model.onnx")
        graph.simplify()
        weight = graph.weights()[0]
        encoding = Blocked(IntGrid(3, False), group(32))
        graph.encode(weight, fit.encode(graph.matrix(weight), encoding), DECODED)
        written = graph.save(tmp_path / place / "out.onnx", external, {"b": "1", "a": "2"})
        graph.save(tmp_path / place / "twice.onnx", external, {"b": "1", "a": "2"})
        if external == "never":
            assert (tmp_path / place / "twice.onnx").read_bytes() == written.path.read_bytes()
        found.append((written.path.read_bytes(), written.data.read_bytes() if written.data else b""))
    assert found[0] == found[1]


def test_a_file_may_replace_the_one_it_was_read_from(tmp_path: Path) -> None:
    path = _model(tmp_path)
    graph = OnnxGraph.load(path)
    graph.save(path)
    np.testing.assert_array_equal(OnnxGraph.load(path).constant("w"), BIG)


def test_weights_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing the size of a weight passes through ``write``."""
    graph = OnnxGraph.load(_model(tmp_path))
    graph.replace_constant("bf16", random(64, 80, seed=3).astype(ml_dtypes.bfloat16))
    sizes: list[int] = []
    real = onnx_save._write_payload

    class Watched(io.BufferedWriter):
        def write(self, data: Any) -> int:
            sizes.append(memoryview(data).nbytes)
            return super().write(data)

    def watched(file: BinaryIO, value: Any) -> None:
        with Watched(io.FileIO(file.fileno(), "wb", closefd=False)) as inner:
            file.flush()
            real(inner, value)
        file.seek(0, io.SEEK_END)

    monkeypatch.setattr(onnx_save, "_write_payload", watched)
    graph.save(tmp_path / "out.onnx")
    assert max(sizes, default=0) < BIG.nbytes
    assert set(_arrays(onnx.load(tmp_path / "out.onnx"), tmp_path)) >= {"w", "bf16", "nibbles"}


@pytest.mark.parametrize("external", ["never", "always"])
def test_a_failure_in_the_middle_leaves_all_as_it_was(
    external: ExternalData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = OnnxGraph.load(_model(tmp_path))
    for name in ("out.onnx", "out.onnx_data"):
        (tmp_path / name).write_text(f"old {name}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    calls = 0

    def full(file: BinaryIO, _: object) -> None:
        nonlocal calls
        calls += 1
        file.write(bytes(100))
        if calls == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_save, "_write_payload", full)
    with pytest.raises(ModelError, match="No space left on device") as caught:
        graph.save(tmp_path / "out.onnx", external)
    assert caught.value.code == "Q404"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failure_between_two_renames_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = OnnxGraph.load(_model(tmp_path))
    (tmp_path / "out.onnx_data").write_text("old data")
    (tmp_path / "out.onnx").write_text("old model")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        if target.name == "out.onnx":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(ModelError, match="Input/output error"):
        graph.save(tmp_path / "out.onnx", "always")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = OnnxGraph.load(_model(tmp_path))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_save, "_write_payload", interrupted)
    with pytest.raises(KeyboardInterrupt):
        graph.save(tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("name", ["missing/out.onnx", "folder", "x" * 300])
def test_an_unwritable_place(name: str, tmp_path: Path) -> None:
    graph = OnnxGraph.load(_model(tmp_path))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="cannot write") as caught:
        graph.save(tmp_path / name)
    assert caught.value.code == "Q404"
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "folder"}


def test_old_models_get_the_ir_version_that_they_need(tmp_path: Path) -> None:
    model = parse(MATMUL, {"w": BIG}, opset=9, ir_version=3)
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [64, 64]))
    onnx.save(model, tmp_path / "model.onnx")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    graph.simplify()
    graph.save(tmp_path / "out.onnx")
    saved = onnx.load(tmp_path / "out.onnx")
    assert [value.name for value in saved.graph.input] == ["x"]
    assert saved.ir_version == 4
    onnx.checker.check_model(saved)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", SAME)["y"], X @ BIG, atol=1e-4)


def test_metadata_of_nodes_is_left_out(tmp_path: Path) -> None:
    model = parse(MATMUL, {"w": BIG})
    model.graph.node[0].metadata_props.add(key="stack", value="x" * 1000)
    model.graph.node[0].doc_string = "y" * 1000
    onnx.save(model, tmp_path / "model.onnx")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    written = graph.save(tmp_path / "out.onnx")
    assert written.size_bytes < BIG.nbytes + 500
    assert written.size_bytes == graph.size_bytes()
    assert "x" * 1000 not in str(onnx.load(written.path).graph.node[0])
