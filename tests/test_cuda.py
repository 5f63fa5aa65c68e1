"""Kernels for CUDA: what can be told of them without a card."""

import importlib.util
import re
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
from qcc.ir.kernel.op import parse
from tests.onnx_models import random

needs_tvm = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs TVM")
OP = parse("linear_int2_group64_asym_bias_gelu")
BODY = "net (float[n, 64] x) => (float[n, 32] y) { h = MatMul(x, w) y = Relu(h) }"


@pytest.mark.parametrize(
    "name", ["linear_int4_group32", "linear_nf4_group64_bias", "linear_int8_channel_bias_gelu_mul"]
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
    from qcc.codegen.cuda.product import VARIANTS

    text, orders = ptx([OP], PROCESSORS["sm_80"])
    entries = re.findall(r"\.visible \.entry (\w+)\(", text)
    assert sorted(entries) == sorted(f"{OP.name}{one.name}_kernel" for one in VARIANTS)
    assert ".extern" not in text
    assert "call." not in text
    assert ".target sm_80" in text
    expected = ["bias", "plane0", "scale", "x", "y", "zero", "inputs", "outputs", "rows"]
    assert {name: sorted(order[:-3]) + order[-3:] for name, order in orders.items()} == {
        f"{OP.name}{one.name}": expected for one in VARIANTS
    }


@needs_tvm
def test_a_model_with_a_library_runs_where_there_is_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library registers nothing, and the functions of the file run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {BODY}')
    model.graph.initializer.append(onnx.numpy_helper.from_array(random(64, 32), "w"))
    policy = "target cuda(sm_80)\nrule linear { weights = int8 channel }"
    onnx.save(model, "in.onnx")
    found = qcc.compile("in.onnx", policy, output="out.onnx")
    assert [layer.form for layer in found.layers] == ["kernel"]
    assert Path("out.kernels.so").exists()
    options, x = onnxruntime.SessionOptions(), random(3, 64, seed=1)
    options.register_custom_ops_library("./out.kernels.so")
    got = onnxruntime.InferenceSession("out.onnx", options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    want = np.maximum(x @ random(64, 32), 0)
    assert np.abs(got - want).max() < 0.03 * np.abs(want).max()


def test_the_words_of_the_target() -> None:
    assert targets()["cuda"].words == ("native", "sm_70", "sm_80", "sm_90")
