"""Sessions with a kernel library beside the model: what is loaded, what runs where, what is refused."""

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import qcc
from qcc.codegen.cpu.processors.processors import native
from qcc.dsl.diagnostics.report import QccError
from tests.kernel_files import INPUTS, OP, OTHER, library, model, needs_tvm
from tests.onnx_models import parse, random

ONES = {"x": np.ones((2, INPUTS), np.float32)}


def by_kernel(session: qcc.Session) -> dict[str, bool]:
    return {node.name: node.by_kernel for node in session.nodes}


def _mapped_bytes(path: Path) -> list[int]:
    """What of each mapping of a file is in memory."""
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(encoding="utf-8"))
    return [1024 * int(part.split("Rss:")[1].split()[0]) for part in parts if str(path) in part]


@needs_tvm
def test_codes_of_a_data_file_are_let_go(tmp_path: Path) -> None:
    path, data = model(tmp_path / "net.onnx", OP, OP), tmp_path / "net.data"
    library(tmp_path / "net.kernels.so", OP)
    within = qcc.Session(path).run(ONES)["y"]
    apart = onnx.load(path)
    onnx.save(apart, path, save_as_external_data=True, location=data.name, size_threshold=4096)
    plain, session = qcc.Session(path, kernels=False), qcc.Session(path)
    mapped = _mapped_bytes(data)
    assert mapped and sum(mapped) < data.stat().st_size / 4
    np.testing.assert_array_equal(session.run(ONES)["y"], within)
    assert plain.run(ONES)


@needs_tvm
def test_the_library_beside_the_model_is_taken(tmp_path: Path) -> None:
    path, beside = model(tmp_path / "net.onnx", OP), library(tmp_path / "net.kernels.so", OP)
    session, plain = qcc.Session(path), qcc.Session(path, kernels=False)
    assert (session.kernels, plain.kernels) == (beside, None)
    assert (by_kernel(session), by_kernel(plain)) == ({"layer0": True}, {"layer0": False})
    assert np.array_equal(plain.run(ONES)["y"], ONES["x"])
    assert not np.array_equal(session.run(ONES)["y"], ONES["x"])
    assert session.report().startswith("net.onnx with net.kernels.so: kernels run 1 of 1 node\n")
    assert plain.report().startswith("net.onnx without a kernel library: kernels run 0 of 1 node\n")


@needs_tvm
def test_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model(Path("net.onnx"), OP)
    library(Path("other.so"), OP)
    assert qcc.Session("net.onnx").kernels is None
    assert by_kernel(qcc.Session("net.onnx", "other.so", threads=1)) == {"layer0": True}


@needs_tvm
def test_nodes_agree_with_what_the_runtime_ran(tmp_path: Path) -> None:
    path, part = model(tmp_path / "net.onnx", OP, OTHER, OP), library(tmp_path / "net.kernels.so", OP)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    options.register_custom_ops_library(str(part))
    profiled = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    profiled.run(None, ONES)
    events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    ran = {event["args"]["op_name"] for event in events if event.get("name", "").endswith("_kernel_time")}
    session = qcc.Session(path)
    assert ran & {OP, OTHER} == {node.op for node in session.nodes if node.by_kernel} == {OP}
    assert by_kernel(session) == {"layer0": True, "layer1": False, "layer2": True}
    assert "kernels run 2 of 3 nodes" in session.report()


@pytest.mark.slow
@needs_tvm
def test_on_another_processor_functions_run(tmp_path: Path) -> None:
    lacking = dataclasses.replace(native(), features=(*native().features, "amx_never"))
    library(tmp_path / "net.kernels.so", OP, target=lacking)
    session = qcc.Session(model(tmp_path / "net.onnx", OP))
    assert session.kernels is not None
    assert by_kernel(session) == {"layer0": False}
    assert np.array_equal(session.run(ONES)["y"], ONES["x"])


@needs_tvm
def test_several_sessions(tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx", OP)
    library(tmp_path / "net.kernels.so", OP)
    first, second = (qcc.Session(path, threads=1).run(ONES)["y"] for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.slow
@needs_tvm
def test_a_library_that_was_built_again_is_loaded_again(tmp_path: Path) -> None:
    path = model(tmp_path / "net.onnx", OP, OTHER)
    library(tmp_path / "net.kernels.so", OTHER)
    first = qcc.Session(path)
    assert by_kernel(first) == {"layer0": False, "layer1": True}
    library(tmp_path / "net.kernels.so", OP, OTHER)
    assert by_kernel(qcc.Session(path)) == {"layer0": True, "layer1": True}
    assert first.run(ONES)["y"].shape == (2, INPUTS)


def test_a_model_without_kernel_nodes() -> None:
    session = qcc.Session(Path(__file__).parent.parent / "examples" / "fashion" / "fashion-cnn.onnx")
    assert (session.kernels, session.nodes) == (None, ())
    assert session.report() == "fashion-cnn.onnx without a kernel library: no node is a kernel's\n"


@pytest.mark.parametrize("kernels", [None, True, "net.kernels.so"])
def test_a_library_that_is_none_reject(
    kernels: bool | str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model(Path("net.onnx"), OP)
    Path("net.kernels.so").write_bytes(b"\x7fELF, cut short")
    with pytest.raises(QccError, match="Q408") as told:
        qcc.Session("net.onnx", kernels)
    assert "kernels=False" in (told.value.diagnostics[0].help or "")
    assert np.array_equal(qcc.Session("net.onnx", False).run(ONES)["y"], ONES["x"])


@pytest.mark.parametrize("kernels", [True, "moved.so"])
def test_a_missing_library_reject(kernels: bool | str, tmp_path: Path) -> None:
    with pytest.raises(QccError, match="no such kernel library"):
        qcc.Session(model(tmp_path / "net.onnx", OP), kernels)


def test_a_sequence_is_fed_as_a_list(tmp_path: Path) -> None:
    body = """
        g (seq(float[n,64]) xs) => (float[n,64] y)
        { one = Constant <value_int = 1> () x = SequenceAt (xs, one) y = MatMul (x, w) }
    """
    path, weight = tmp_path / "net.onnx", random(64, 64)
    onnx.save(parse(body, {"w": weight}, opset=18), path)
    xs = [random(rows, 64, seed=rows) for rows in (2, 3)]
    session = qcc.Session(path)
    assert [(one.dtype, one.container) for one in session.inputs] == [("float32", "sequence")]
    np.testing.assert_allclose(session.run({"xs": xs})["y"], xs[1] @ weight, atol=1e-4)  # sums of 64 in another order
    feeds: Any = [{"xs": xs}]
    result = qcc.compile(path, data=feeds)
    assert result.passed and result.times is not None


def test_threads_reject(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        qcc.Session(model(tmp_path / "net.onnx", OP), threads=0)


def test_threads_without_work_sleep_soon(tmp_path: Path) -> None:
    """By itself the runtime keeps them awake for 3 to 500 ms, which is processor time of this process."""
    size = 512
    net = parse(f"g (float[N, {size}] x) => (float[N, {size}] y) {{ y = MatMul (x, w) }}", {"w": random(size, size)})
    onnx.save(net, tmp_path / "net.onnx")
    session = qcc.Session(tmp_path / "net.onnx", threads=4)
    session.run({"x": random(64, size)})
    before = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - before < 0.005  # three threads awake take 0.05 where two cores are free for it


@pytest.mark.parametrize(("threads", "awake_us"), [(0, 100), (1, -1)])
def test_numbers_of_threads_and_microseconds_reject(tmp_path: Path, threads: int, awake_us: int) -> None:
    net = parse("g (float[N, 8] x) => (float[N, 8] y) { y = Relu (x) }", {})
    onnx.save(net, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="at least"):
        qcc.Session(tmp_path / "net.onnx", threads=threads, awake_us=awake_us)
