"""Kernels for another architecture: they link, and they compute in an emulator what they should."""

import importlib.util
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import qcc
from qcc.codegen.cpu.library.build import SHIM, build, write_sources
from qcc.codegen.cpu.processors.processors import named, native
from qcc.codegen.library import c_compiler
from qcc.codegen.library.c_compiler import compiler
from qcc.codegen.library.link import SHIM as SHARED
from qcc.codegen.target.errors import BuildError, TargetError
from qcc.codegen.target.target import Arithmetic
from qcc.compiler.plan.catalog import schema
from qcc.compiler.runtime.build_kernels import kernels_of
from qcc.dsl.load import load_text
from qcc.ir.kernel.op import LinearOp, parse
from tests.block_models import drawn, model, wanted
from tests.codegen_models import Layer, draw

ARM, EMULATOR = "armv8.2-dotprod", "qemu-aarch64"
HARNESS = Path(__file__).parent / "c" / "fake_ort.c"
OPS = tuple(
    map(
        parse,
        (
            *(f"linear_int{bits}_group32" for bits in (2, 4, 5, 8)),
            *(f"linear_int{bits}_group64_asym" for bits in (3, 8)),
            "linear_int4_channel_bias_gelu",
            "linear_int8_channel_add_keep_layer_norm",
            "linear_bf16",
        ),
    )
)
BLOCKS = tuple(
    map(parse, ("linear_blocks16x16_fp32_bias", "linear_blocks4x1_fp32", "linear_blocks1x16_int8_channel_gelu"))
)
FLOAT = 1e-6  # of the sum of magnitudes, as for the kernels that run here
STEPS = 2e-5  # what gelu and a norm may add

has_zig = bool(c_compiler.zig_version())
needs_tvm = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs TVM")
needs_zig = pytest.mark.skipif(not has_zig, reason="needs ziglang")
needs_emulator = pytest.mark.skipif(not (has_zig and shutil.which(EMULATOR)), reason=f"needs ziglang and {EMULATOR}")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of x86-64 without any compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in [name for name in os.environ if name.partition("_")[0] == "CC"]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(c_compiler, "here", lambda: "x86_64")
    monkeypatch.setattr(c_compiler, "zig_version", lambda: "")


def tool(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_which_compiler(bare: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for architecture, name in (("x86_64", "cc"), ("aarch64", "aarch64-linux-gnu-gcc")):
        path = str(tool(tmp_path, name))
        assert compiler(architecture).command == (path,)
    monkeypatch.setenv("CC", "cc -g")
    monkeypatch.setenv("CC_aarch64", f"{tool(tmp_path, 'clang')} --target=aarch64-linux-gnu")
    assert compiler("x86_64").command == (str(tmp_path / "cc"), "-g")
    assert compiler("aarch64").command == (str(tmp_path / "clang"), "--target=aarch64-linux-gnu")
    monkeypatch.setenv("CC_aarch64", "nothing")
    with pytest.raises(BuildError, match="CC_aarch64 names a C compiler that is not there"):
        compiler("aarch64")


def test_no_compiler_reject(bare: None) -> None:
    with pytest.raises(BuildError, match=r"pip install 'qcc\[cross\]'.*CC_aarch64"):
        compiler("aarch64")
    with pytest.raises(BuildError, match="install cc, or name one in CC"):
        compiler("x86_64")


def test_two_architectures_reject(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"avx2 is x86_64 and armv8\.2-dotprod is aarch64: compile once for each"):
        build(OPS, (named("avx2"), named(ARM)), tmp_path / "k.so")
    policy = load_text(f"qpolicy 1\ntarget cpu(avx2, {ARM})\nrule linear {{ weights = int4 group 32 }}\n", schema())
    with pytest.raises(qcc.QccError, match="one architecture") as caught:
        kernels_of(policy)
    (told,) = caught.value.diagnostics
    assert (told.code, told.span) == ("Q501", policy.target.span)


def test_native_target_of_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("qcc.codegen.target.machine.cpu_flags", lambda: frozenset({"fp", "asimd", "asimddp"}))
    assert native().name == ARM
    monkeypatch.setattr("qcc.codegen.target.machine.cpu_flags", lambda: frozenset({"fp", "asimd"}))
    with pytest.raises(TargetError, match="lacks asimddp"):
        native()
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(TargetError, match="no native target for Darwin on aarch64"):
        native()


@needs_tvm
@needs_zig
def test_links_for_an_old_system(tmp_path: Path) -> None:
    for name, machine in ((ARM, 183), ("avx2", 62)):
        data = build([parse("linear_int4_group32")], (named(name),), tmp_path / "k.so").read_bytes()
        assert data[:4] == b"\x7fELF" and struct.unpack_from("<H", data, 18) == (machine,)
        assert b"RegisterCustomOps\0" in data
        assert max(int(found) for found in re.findall(rb"GLIBC_2\.(\d+)", data)) <= 28


@pytest.fixture(scope="module", params=["int8", "exact"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arithmetic]:
    """The kernels for ARM in a program that needs nothing else."""
    folder, activations = tmp_path_factory.mktemp("arm"), request.param
    specs = tuple(sorted(OPS + BLOCKS, key=lambda op: op.name))
    sources = write_sources(specs, (named(ARM),), activations, folder)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static", "-O1"]
    words = [
        f"-I{folder}",
        f"-I{SHIM}",
        f"-I{SHARED}",
        str(HARNESS),
        *map(str, [*SHARED.glob("*.c"), *sources]),
        "-o",
        str(folder / "run"),
    ]
    done = subprocess.run([*zig, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run", activations


@needs_tvm
@needs_emulator
def test_arm_in_an_emulator(program: tuple[Path, Arithmetic]) -> None:
    """Every op, for one row, for four and what is left, for outputs that fill no vector."""
    path, activations = program
    shapes = [(1, 64, 64), (4, 70, 128), (7, 5, 192), (3, 130, 320)]
    drawn = [(draw(op, n, k, seed=rows), rows) for op, (rows, n, k) in itertools.product(OPS, shapes)]
    feeds = [_feeds(layer, rows) for layer, rows in drawn]
    told = subprocess.run(
        [EMULATOR, "-cpu", "max", path],
        input=b"".join(map(_case, (one for one, _ in drawn), feeds)),
        capture_output=True,
    )
    assert told.returncode == 0, told.stderr
    left = np.frombuffer(told.stdout, np.float32)
    for (layer, rows), given in zip(drawn, feeds, strict=True):
        found = left[: rows * len(layer.codes)].reshape(rows, -1)
        left = left[found.size * len(layer.kernel.outputs) :]
        assert _error(layer, given, found, activations) < (STEPS if layer.kernel.steps else FLOAT), layer.kernel.name
    assert not left.size


@needs_tvm
@needs_emulator
def test_blocks_on_arm_in_an_emulator(program: tuple[Path, Arithmetic]) -> None:
    for op, rows in itertools.product(BLOCKS, (1, 6, 21)):
        layer = drawn(op, 3, 8, 0.5, rows)
        x = np.random.default_rng(rows).standard_normal((rows, layer.dense.shape[1])).astype(np.float32)
        case = _case_of(op, model(op, layer.stored), 0.0, {"x": x})
        told = subprocess.run([EMULATOR, "-cpu", "max", program[0]], input=case, capture_output=True)
        assert told.returncode == 0, told.stderr
        found = np.frombuffer(told.stdout, np.float32).reshape(rows, -1)
        largest = (np.abs(x) @ np.abs(layer.dense).T).max()
        assert np.abs(found - wanted(layer, {"x": x})).max() < FLOAT * largest, op.name


@needs_tvm
@needs_emulator
def test_arm_without_dot_products_takes_nothing(program: tuple[Path, Arithmetic]) -> None:
    layer = draw(OPS[0], 64, 64)
    case = _case(layer, _feeds(layer, 1))
    told = subprocess.run([EMULATOR, "-cpu", "cortex-a53", program[0]], input=case, capture_output=True)
    assert told.returncode == 3
    assert b"registers nothing on this processor" in told.stderr


def _feeds(layer: Layer, rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(rows)
    shapes = {name: len(layer.codes) for name, kind in layer.kernel.step_inputs if kind == "tensor"}
    shapes["x"] = layer.codes.shape[1]
    return {name: random.standard_normal((rows, width)).astype(np.float32) for name, width in shapes.items()}


def _case(layer: Layer, feeds: dict[str, np.ndarray]) -> bytes:
    return _case_of(layer.kernel, layer.model(), layer.epsilon, feeds)


def _case_of(op: LinearOp, model: ModelProto, epsilon: float, feeds: dict[str, np.ndarray]) -> bytes:
    """As the harness reads it."""
    constants = {one.name: one for one in model.graph.initializer}
    parts = [_numbers(len(op.name)), op.name.encode(), np.float32(epsilon).tobytes(), _numbers(len(op.inputs))]
    for name in op.inputs:
        one = constants.get(name) or numpy_helper.from_array(feeds[name], name)
        data = one.raw_data
        parts += [_numbers(one.data_type, int(name in constants), len(one.dims), *one.dims, len(data)), data]
    return b"".join([*parts, _numbers(len(op.outputs))])


def _numbers(*values: int) -> bytes:
    return np.array(values, np.int64).tobytes()


def _error(layer: Layer, feeds: dict[str, np.ndarray], found: np.ndarray, activations: str) -> float:
    """The largest error, of the sum of magnitudes."""
    x, plain = feeds["x"], Layer(LinearOp(layer.kernel.encoding), layer.codes, layer.stored_scale, layer.zero)
    rounds = activations == "int8" and not layer.kernel.is_float
    wanted = layer.after(plain.rounded(x) if rounds else plain.product(x), feeds)
    return float(np.abs(found - wanted.arrays[0]).max() / (layer.magnitude(x) * wanted.reach))
