"""Kernels for CUDA: what can be told of them without a card."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import qcc
from qcc.codegen.cuda import processors
from qcc.codegen.cuda.processors import PROCESSORS
from qcc.codegen.cuda.served import takes
from qcc.codegen.target.errors import TargetError
from qcc.codegen.target.find import targets
from qcc.codegen.tir.codes import Codes, codes_of
from qcc.ir.kernel.op import parse
from tests.onnx_models import random

needs_tvm = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs TVM")
OP = parse("linear_int2_group64_asym_bias_gelu")
BODY = "net (float[n, 64] x) => (float[n, 32] y) { h = MatMul(x, w) y = Relu(h) }"


@pytest.mark.parametrize(
    "name",
    ["linear_int4_group32", "linear_nf4_group64_bias", "linear_int8_channel_bias_gelu_mul", "linear_fp8_e4m3_channel"],
)
def test_what_is_taken(name: str) -> None:
    assert takes(parse(name))


@pytest.mark.parametrize(
    "name",
    [
        "linear_int4_group32_rms_norm", "linear_int8_channel_static", "linear_bf16", "conv1x1_int8_channel",
        "linear_int4_group32_and", "linear_blocks16x16_fp32",
    ],
)  # fmt: skip
def test_what_is_not(name: str) -> None:
    assert not takes(parse(name))


def test_a_machine_without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "capability", lambda: 0)
    assert "no CUDA device" in PROCESSORS["sm_80"].obstacle
    monkeypatch.setattr(processors, "capability", lambda: 80)
    assert PROCESSORS["sm_80"].obstacle == ""
    assert PROCESSORS["sm_90"].obstacle == "the CUDA device is sm_80"
    assert targets()["cuda"].native().name == "sm_80"
    monkeypatch.setattr(processors, "capability", lambda: 0)
    with pytest.raises(TargetError, match="no CUDA device"):
        targets()["cuda"].native()


@needs_tvm
def test_kernels_are_whole_and_call_nothing() -> None:
    """Each variant is an entry of its name, and no function of NVIDIA's library is left to be found."""
    from qcc.codegen.cuda.generate import ptx
    from qcc.codegen.cuda.product import variants

    text, orders = ptx([OP], PROCESSORS["sm_80"])
    entries = re.findall(r"\.visible \.entry (\w+)\(", text)
    assert sorted(entries) == sorted(f"{OP.name}{one.name}_kernel" for one in variants(OP))
    assert ".extern" not in text
    assert "call." not in text
    assert ".target sm_80" in text
    expected = ["bias", "plane0", "scale", "x", "y", "zero", "inputs", "outputs", "rows"]
    assert {name: sorted(order[:-3]) + order[-3:] for name, order in orders.items()} == {
        f"{OP.name}{one.name}": expected for one in variants(OP)
    }


def compiled(folder: Path) -> None:
    """A model of one layer with its library, ``out.onnx``."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {BODY}')
    model.graph.initializer.append(onnx.numpy_helper.from_array(random(64, 32), "w"))
    onnx.save(model, folder / "in.onnx")
    policy = "target cuda(sm_80)\nrule linear { weights = int8 channel }"
    found = qcc.compile(folder / "in.onnx", policy, output=folder / "out.onnx")
    assert [layer.form for layer in found.layers] == ["kernel"]
    assert (folder / "out.kernels.so").exists()


@needs_tvm
def test_a_model_with_a_library_runs_where_there_is_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library registers nothing, and the functions of the file run."""
    monkeypatch.chdir(tmp_path)
    compiled(tmp_path)
    options, x = onnxruntime.SessionOptions(), random(3, 64, seed=1)
    options.register_custom_ops_library("./out.kernels.so")
    got = onnxruntime.InferenceSession("out.onnx", options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    want = np.maximum(x @ random(64, 32), 0)
    assert np.abs(got - want).max() < 0.03 * np.abs(want).max()


DRIVER = """int cuInit(unsigned flags) { return (int)flags; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 9 : device; return 0; }
int cuCtxGetCurrent(void **context) { *context = 0; return 0; }
int cuModuleLoadData(void **module, const void *text) { return module && text; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return function && module && name; }
int cuLaunchKernel(void) { return 1; }
"""
ALONE = """import onnxruntime, qcc
from tests.onnx_models import random
options = onnxruntime.SessionOptions()
options.register_custom_ops_library("./out.kernels.so")
onnxruntime.InferenceSession("out.onnx", options, providers=["CPUExecutionProvider"])
session = qcc.Session("out.onnx")
print([node.by_kernel for node in session.nodes], session.run({"x": random(3, 64, seed=1)})["y"].shape)
"""


@needs_tvm
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_card_beside_a_runtime_of_the_cpu_alone(tmp_path: Path) -> None:
    """A driver is there and answers; nothing is registered that this runtime could not run."""
    compiled(tmp_path)
    source = tmp_path / "driver.c"
    source.write_text(DRIVER, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", tmp_path / "libcuda.so.1"], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.stdout == "[False] (3, 32)\n", run.stderr


def test_the_words_of_the_target() -> None:
    assert targets()["cuda"].words == ("native", "sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90")


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2"])
def test_floats_of_a_byte_are_made_of_bits(name: str) -> None:
    """As the kernel makes them, two in a word at once, times their factor; subnormal ones, too."""
    codes = codes_of(parse(f"linear_{name}_group32").encoding)
    small, words = codes.small, np.arange(256, dtype=np.uint8).view("<u4")
    assert small is not None
    halves = []
    for moved in (words << np.uint32(8), words):
        rest = (moved & np.uint32(0x7F007F00)) >> np.uint32(8 - small.shift)
        halves.append(((moved & np.uint32(0x80008000)) | rest).view("<f2").reshape(-1, 2).astype(np.float64))
    numbers = np.stack(halves, axis=-1).reshape(-1)
    table = np.array(codes.table)
    assert np.array_equal(numbers[np.isfinite(table)] * small.factor, table[np.isfinite(table)])


def test_other_tables_are_no_floats() -> None:
    assert codes_of(parse("linear_nf4_group32").encoding).small is None
    odd = Codes(8, table=tuple(np.linspace(-1, 1, 256)))
    assert odd.small is None
    assert not odd.fits


@pytest.mark.parametrize("processor", ["avx2", "avx512-vnni", "sapphire-rapids"])
def test_no_cpu_reads_tables_of_256(processor: str) -> None:
    assert not targets()["cpu"].serves(parse("linear_fp8_e4m3_group32"), [processor], "int8")
    assert targets()["cuda"].serves(parse("linear_fp8_e4m3_group32"), ["sm_80"], "exact")
