"""Specs, targets, the cache, and polite refusals."""

import ctypes
import dataclasses
import importlib.util
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import FunctionProto, helper

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import PROCESSORS, CpuProcessor, named, native
from qcc.codegen.cpu.product import product_of
from qcc.codegen.cpu.templates import templates
from qcc.codegen.target.errors import BuildError, TargetError
from qcc.ir.kernel.op import BIAS, LinearOp, OpError, parse
from tests.codegen_models import draw, linear, session

KERNEL = linear(4, 32)
LIMIT_BYTES = 300_000
CACHED_S = 1.0

needs_tvm = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs TVM")


@pytest.mark.parametrize(
    ("op", "kernel"),
    [
        ("linear_int4_group32", linear(4, 32)),
        ("linear_int3_group128_asym", linear(3, 128, False)),
        ("linear_int8_channel_bias", linear(8, None, True, (BIAS,))),
        ("linear_int4_group32_bias_gelu_tanh_mul", linear(4, 32, True, (BIAS, "gelu_tanh", "mul"))),
        ("linear_int4_channel_add_keep_rms_norm", linear(4, None, True, ("add", "keep", "rms_norm"))),
        ("linear_int2_group64_asym_bias", linear(2, 64, False, (BIAS,))),
    ],
)
def test_names(op: str, kernel: LinearOp) -> None:
    assert (parse(op), kernel.name) == (kernel, op)


@pytest.mark.parametrize(
    "op", ["linear_int9_group32", "linear_int4_group48", "linear_int4_group0", "linear_int4", "int4_group32"]
)
def test_names_reject(op: str) -> None:
    with pytest.raises(OpError):
        parse(op)


def test_steps_whose_names_read_as_others_are_refused() -> None:
    with pytest.raises(OpError, match="read as other steps"):
        linear(4, 32, True, ("gelu", "tanh"))


def _templates(op: LinearOp, target: str, activations: str = "bf16") -> list[str]:
    return [one.name for one in templates(product_of(op), PROCESSORS[target], activations)]


def test_templates() -> None:
    """The first that accepts: one for few rows, and one for many where there is one."""
    integers, grouped, table, floats = linear(8), linear(4, 32), parse("linear_nf4_group64"), linear(16)
    assert _templates(integers, "sapphire-rapids") == ["int8 by VNNI", "codes by AMX"]
    assert _templates(integers, "sapphire-rapids", "int8") == ["int8 by VNNI", "int8 by AMX"]
    assert _templates(linear(8, static=True), "sapphire-rapids") == ["int8 by VNNI", "int8 by AMX"]
    assert _templates(grouped, "sapphire-rapids", "int8") == ["int8 by VNNI", "codes by AMX"]
    assert _templates(table, "sapphire-rapids", "int8") == ["int8 by VNNI", "codes by AMX"]
    assert _templates(floats, "sapphire-rapids") == ["bf16 weights", "bf16 by AMX"]
    assert _templates(table, "avx512-vnni") == ["int8 by VNNI"] and _templates(table, "avx2") == ["int8 by AVX2"]
    assert _templates(grouped, "armv8.2-dotprod") == ["int8 by NEON"]
    assert _templates(table, "armv8.2-dotprod") == _templates(table, "generic") == []
    assert _templates(grouped, "sapphire-rapids", "exact") == _templates(table, "avx512-vnni", "exact") == ["exact"]
    convolution = linear(8, pointwise=True)
    assert _templates(convolution, "sapphire-rapids") == ["convolutions by AMX"]
    assert _templates(convolution, "avx2") == _templates(convolution, "sapphire-rapids", "exact") == []


def test_targets() -> None:
    assert named("native") == native()
    with pytest.raises(TargetError, match="unknown target"):
        named("avx3")


@needs_tvm
def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("qcc.codegen.library.c_compiler.zig_version", lambda: "")
    with pytest.raises(BuildError, match="C compiler"):
        build([KERNEL], (native(),), tmp_path / "k.so")


@pytest.mark.slow
@needs_tvm
def test_cached_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = build([KERNEL], (native(),), tmp_path / "a.so").read_bytes()
    start = time.perf_counter()
    again = build([KERNEL, KERNEL], (native(),), tmp_path / "b.so").read_bytes()
    assert time.perf_counter() - start < CACHED_S
    assert again == first
    assert len(first) < LIMIT_BYTES
    assert {path.name for path in tmp_path.iterdir()} - {"zig"} == {"a.so", "b.so", "qcc"}


@pytest.mark.slow
@needs_tvm
def test_same_kernels_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        made.append(build([KERNEL], (named("avx2"),), tmp_path / f"{name}.so").read_bytes())
    assert made[0] == made[-1]


def body() -> FunctionProto:
    """A function of the kernel's name that gives back its input, so that one sees who ran."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return helper.make_function("qcc", KERNEL.name, ["x", "w", "s"], ["y"], nodes, [helper.make_opsetid("", 21)])


@pytest.mark.slow
@needs_tvm
def test_takes_over_the_function(tmp_path: Path) -> None:
    layer = draw(KERNEL, 64, 64)
    x = np.ones((2, 64), np.float32)
    library = build([KERNEL], (native(),), tmp_path / "k.so")
    np.testing.assert_array_equal(session(layer.model(body=body()), None).run(None, {"x": x})[0], x)
    assert not np.array_equal(session(layer.model(body=body()), library).run(None, {"x": x})[0], x)


@pytest.mark.slow
@needs_tvm
def test_on_another_processor_the_function_runs(tmp_path: Path) -> None:
    flag = "amx_never"
    lacking = dataclasses.replace(native(), features=(*native().features, flag))
    library = build([KERNEL], (lacking,), tmp_path / "k.so")
    x = np.ones((2, 64), np.float32)
    result = session(draw(KERNEL, 64, 64).model(body=body()), library).run(None, {"x": x})[0]
    np.testing.assert_array_equal(result, x)


@needs_tvm
def test_weights_that_are_no_constants_are_refused(tmp_path: Path) -> None:
    library = build([KERNEL], (native(),), tmp_path / "k.so")
    with pytest.raises(Exception, match="must be a constant"):
        session(draw(KERNEL, 64, 64).model(constant=False), library)


@needs_tvm
def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    library = build([KERNEL], (native(),), tmp_path / "k.so")
    layer = draw(KERNEL, 64, 64)
    wrong = dataclasses.replace(layer, stored_scale=layer.scale[:, :1])
    with pytest.raises(Exception, match="scales are"):
        session(wrong.model(), library)
    with pytest.raises(Exception, match="last axis"):
        session(layer.model(), library).run(None, {"x": np.ones((2, 32), np.float32)})


@needs_tvm
def test_exports_one_symbol(tmp_path: Path) -> None:
    library = ctypes.CDLL(str(build([KERNEL], (native(),), tmp_path / "k.so")))
    assert hasattr(library, "RegisterCustomOps")
    assert not hasattr(library, "TVMFFIErrorSetRaisedFromCStrParts")
    assert not hasattr(library, "one_int4_sym")
    assert onnxruntime.__version__


def test_target_is_data() -> None:
    assert all(isinstance(target, CpuProcessor) and target.name == name for name, target in PROCESSORS.items())
