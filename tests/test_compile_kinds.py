"""Every kind of model gets in: sequences, optionals, maps, old files, odd ends; right, or one clear word."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import qcc
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import ModelError
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.graph.run import OnnxRunner, as_arrays
from tests.onnx_models import parse, random

INT4 = "qpolicy 1\nrule any { weights = int4 group 32; rounding = nearest }\n"
W = random(64, 64)
X = random(5, 64, seed=3)
FLOAT16 = "g (float16[A,64] x) => (float16[A,B] y) { y = MatMul(x, w) }"

CASES: dict[str, tuple[int, str, Mapping[str, Any], Mapping[str, Any]]] = {
    "sequence inside": (
        17,
        """g (float[A,64] x) => (float[A,B] y) {
            s = SplitToSequence <axis=1, keepdims=1> (x, n) a = SequenceAt(s, z) h = Concat <axis=1> (a, a)
            y = MatMul(h, w) }""",
        {"n": np.array(32), "z": np.array(1)},
        {"x": X},
    ),
    "sequence between layers, raised": (
        11,
        """g (float[A,64] x) => (float[A,B] y) {
            h = MatMul(x, w) s = SequenceConstruct(h, x) a = SequenceAt(s, z) t = SequenceInsert(s, a)
            c = ConcatFromSequence <axis=0> (t) y = MatMul(c, w) }""",
        {"z": np.array(0)},
        {"x": X},
    ),
    "sequence out": (
        17,
        "g (float[A,64] x) => (seq(float[A,64]) s) { h = MatMul(x, w) s = SequenceConstruct(h, x) }",
        {},
        {"x": X},
    ),
    "sequence in": (
        17,
        "g (seq(float[A,64]) s) => (float[A,64] y) { h = ConcatFromSequence <axis=0> (s) y = MatMul(h, w) }",
        {},
        {"s": [X, X + 1]},
    ),
    "optional inside": (
        18,
        "g (float[A,64] x) => (float[A,64] y) { o = Optional(x) h = OptionalGetElement(o) y = MatMul(h, w) }",
        {},
        {"x": X},
    ),
    "optional out": (
        18,
        "g (float[A,64] x) => (optional(float[A,64]) y) { h = MatMul(x, w) y = Optional(h) }",
        {},
        {"x": X},
    ),
    "text inside": (
        17,
        """g (float[A,64] x, string[N] t) => (float[A,64] y, string[N] u) {
            u = Concat <axis=0> (t, t) y = MatMul(x, w) }""",
        {},
        {"x": X, "t": np.array(["A", "b"], object)},
    ),
    "double": (
        17,
        "g (double[A,64] x) => (double[A,B] y) { y = MatMul(x, w) }",
        {"w": W.astype(np.float64)},
        {"x": X.astype(np.float64)},
    ),
    "half": (17, FLOAT16, {"w": W.astype(np.float16)}, {"x": X.astype(np.float16)}),
    "half, raised": (11, FLOAT16, {"w": W.astype(np.float16)}, {"x": X.astype(np.float16)}),
    "the runtime's own ops": (
        17,
        "g (float[A,64] x) => (float[A,64] y) { h = com.microsoft.FastGelu(x) y = MatMul(h, w) }",
        {},
        {"x": X},
    ),
    "the runtime's own ops, raised": (
        11,
        """g (float[A,64] x) => (float[A,64] y) {
            h = com.microsoft.FastGelu(x) s = Softmax <axis=0> (h) y = MatMul(s, w) }""",
        {},
        {"x": X},
    ),
    "an output that is an input": (
        17,
        "g (float[A,64] x) => (float[A,64] y, float[A,64] x) { y = MatMul(x, w) }",
        {},
        {"x": X},
    ),
    "an output that is stored": (
        17,
        "g (float[A,64] x) => (float[A,64] y, float[64,64] w) { y = MatMul(x, w) }",
        {},
        {"x": X},
    ),
    "inputs left out": (
        11,
        "g (float[A,64] x) => (float[A,B] y) { h = MatMul(x, w) y = Clip(h, , m) }",
        {"m": np.array(0.5, np.float32)},
        {"x": X},
    ),
    "names that branches share": (
        11,
        """g (float[A,64] x, bool c) => (float[A,64] y) {
            h = MatMul(x, w)
            y = If (c) <then_branch = t () => (float[A,64] a) { q = Softmax <axis=0> (h) a = Neg(q) },
                        else_branch = e () => (float[A,64] a) { q = Neg(h) a = Abs(q) }> }""",
        {},
        {"x": X, "c": np.array(True)},
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CASES)
def test_it_is_compiled_and_runs(name: str, tmp_path: Path) -> None:
    opset, body, weights, feeds = CASES[name]
    path = tmp_path / "model.onnx"
    model = parse(body, {"w": W, **weights}, opset)
    onnx.save(model, path)
    (tmp_path / "p.qpolicy").write_text(INT4, encoding="utf-8")
    result = qcc.compile(path, tmp_path / "p.qpolicy", data=[feeds])
    wanted, got = (OnnxRunner(one)(feeds) for one in (path, result.output))
    assert set(wanted) == set(got)
    for key, array in wanted.items():
        assert array.dtype == got[key].dtype
        if array.dtype.kind == "f":
            error = got[key].astype(np.float64) - array
            assert np.sum(error**2) < 0.05 * np.sum(array.astype(np.float64) ** 2)  # 4 bits lose 0.6 % a layer
        else:
            np.testing.assert_array_equal(got[key], array)


@pytest.mark.sampled
@pytest.mark.parametrize("ir_version", [3, 4, 6, 8, 10, 11, 13])
def test_every_ir_version_comes_in_with_its_weights_as_inputs(ir_version: int, tmp_path: Path) -> None:
    model = parse("g (float[A,64] x) => (float[A,B] y) { y = MatMul(x, w) }", {"w": W}, 8, ir_version)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, W.shape))
    onnx.save(model, tmp_path / "model.onnx")
    result = qcc.compile(tmp_path / "model.onnx", "balanced")
    assert result.passed
    assert result.output_bytes < result.input_bytes / 3


@pytest.mark.parametrize("container", ["seq", "optional"])
def test_what_is_no_tensor_cannot_be_generated(container: str, tmp_path: Path) -> None:
    take = {"seq": "ConcatFromSequence <axis=0>", "optional": "OptionalGetElement"}[container]
    body = f"g ({container}(float[A,64]) s) => (float[A,64] y) {{ h = {take} (s) y = MatMul(h, w) }}"
    onnx.save(parse(body, {"w": W}, 18), tmp_path / "model.onnx")
    with pytest.raises(QccError, match=r"Q421.*input `s` takes an? (sequence|optional), which cannot be generated"):
        qcc.compile(tmp_path / "model.onnx", "balanced")


def test_outputs_that_are_no_tensors_come_as_arrays() -> None:
    parts = dict(as_arrays("y", [{1: 0.5, 2: 0.25}, {1: 0.125}]))
    assert list(parts) == ["y", "y.sizes", "y.keys"]
    np.testing.assert_array_equal(parts["y"], [0.5, 0.25, 0.125])
    np.testing.assert_array_equal(parts["y.keys"], [1, 2, 1])
    assert dict(as_arrays("y", None))["y"].size == 0
    np.testing.assert_array_equal(dict(as_arrays("y", [X, X[0]]))["y.sizes"], [2, 5, 64, 1, 64])


def test_a_negative_size_is_one_that_is_not_known(tmp_path: Path) -> None:
    model = parse("g (float[A,64] x) => (float[A,B] y) { y = MatMul(x, w) }", {"w": W})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, tmp_path / "model.onnx")
    assert OnnxGraph.load(tmp_path / "model.onnx").inputs[0].shape == (None, 64)
    assert qcc.compile(tmp_path / "model.onnx", "balanced").passed


def test_an_input_without_a_type_is_told(tmp_path: Path) -> None:
    model = parse("g (float[A,64] x) => (float[A,B] y) { y = MatMul(x, w) }", {"w": W})
    model.graph.input[0].ClearField("type")
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="input `x` has no type") as caught:
        OnnxGraph.load(tmp_path / "model.onnx")
    assert caught.value.code == "Q401"


def test_a_file_name_that_cannot_be_is_told(tmp_path: Path) -> None:
    model = parse("g (float[A,64] x) => (float[A,B] y) { y = MatMul(x, w) }", {"w": W})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="a\0b")
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="name cannot be") as caught:
        OnnxGraph.load(tmp_path / "model.onnx")
    assert caught.value.code == "Q403"
