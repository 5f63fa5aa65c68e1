"""`activations = static`, from policy to file: what is written, what it computes, and what is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import qcc
from qcc.compiler.compile import decide_plan
from qcc.compiler.measure.time_forms import FLOAT, Timings
from qcc.compiler.plan.activations import saturating, untargeted
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import plan_of
from qcc.compiler.runtime.session import Session
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Policy
from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import STATIC_BYTES, STATIC_INT8, EncodedValue, ValueEncoding
from qcc.ir.forms.integers import INTEGERS
from qcc.ir.kernel.op import LinearOp, OpError, parse
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.activations.static import Static
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.encode import Encode
from tests import onnx_models
from tests.codegen_models import linear
from tests.onnx_models import random

INT8, INT7 = Blocked(IntGrid(8)), Blocked(IntGrid(7))
TOLERANCE = 1e-5  # of the largest output: float32 scaling in another order
WEIGHTS = {"w1": random(64, 96), "w2": random(96, 32, seed=1), "w3": random(96, 32, seed=2), "b": random(32, seed=3)}
BODY = """
three ({shape} x) => ({out} y, {out} z)
{{
    h = MatMul (x, w1)
    r = Relu (h)
    p = MatMul (r, w2)
    y = Add (p, b)
    z = MatMul (r, w3)
}}
"""
MATRICES = BODY.format(shape="float[n, 64]", out="float[n, 32]")
BATCHES = BODY.format(shape="float[n, 3, 64]", out="float[n, 3, 32]")
STATIC = "rule linear { weights = int8 channel; activations = static }\n"


def policy(text: str) -> Policy:
    return load_text("qpolicy 1\n" + text, schema())


@pytest.fixture(params=[MATRICES, BATCHES], ids=["matrices", "batches"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "three.onnx"
    onnx.save(onnx_models.parse(request.param, WEIGHTS, opset=21, ir_version=10), path)
    return path


@pytest.fixture
def x(model: Path) -> np.ndarray:
    shape = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[1:]
    return random(40, *(size.dim_value for size in shape), seed=5)


def wanted(x: np.ndarray, encoding: Blocked, how: ValueEncoding) -> dict[str, np.ndarray]:
    """In float64, with each product's input rounded by the range of the float model."""

    def rounded(x: np.ndarray, seen: np.ndarray) -> np.ndarray:
        return Static().encoded(how, Magnitudes.of(seen)).rounded(x.astype(np.float32)).astype(np.float64)

    weights = {name: fit.encode(WEIGHTS[name].T, encoding).decode().T.astype(np.float64) for name in ("w1", "w2", "w3")}
    h = np.maximum(rounded(x, x) @ weights["w1"], 0)
    r = rounded(h, np.maximum(x @ WEIGHTS["w1"], 0))
    return {"y": r @ weights["w2"] + WEIGHTS["b"], "z": r @ weights["w3"]}


def close(found: dict[str, np.ndarray], x: np.ndarray, encoding: Blocked, how: ValueEncoding) -> None:
    """Almost everywhere as it should be: float32 may round a value right between two integers to the other."""
    for name, array in wanted(x, encoding, how).items():
        errors = np.abs(found[name] - array) / np.abs(array).max()
        assert np.median(errors) < TOLERANCE and errors.max() < 0.02


def test_plain_runtime_multiplies_integers(model: Path, x: np.ndarray, tmp_path: Path) -> None:
    result = qcc.compile(model, policy(STATIC), data=[{"x": x}])
    assert not result.warnings
    assert {row.form for row in result.layers} == {"integers"}
    assert "activations static" in result.layers[0].reason
    assert {row.format for row in result.layers} == {INT7.text}
    assert "products of 8 bits saturate" in result.layers[0].reason
    for row in result.layers:
        assert row.size_bytes - INTEGERS.node_bytes == row.shape[0] * (row.shape[1] + 4)
    close(Session(result.output, False).run({"x": x}), x, INT7, STATIC_BYTES)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(result.output, options, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert ops.count("MatMulIntegerToFloat") == 3 and "DequantizeLinear" not in ops
    assert plan_of(result.lock) == result.plan


@pytest.mark.slow
def test_kernels(model: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tvm")
    monkeypatch.setattr(Timings, "seconds", lambda *args: dict.fromkeys((FLOAT, *args[3]), 1.0))
    result = qcc.compile(model, policy("target cpu\n" + STATIC), data=[{"x": x}])
    ops = {parse(node.op_type) for node in onnx.load(result.output).graph.node if node.domain == "qcc"}
    assert ops == {linear(8, None, steps=steps, static=True) for steps in ((), ("relu",), ("bias",))}
    for library in (False, result.kernels):
        close(Session(result.output, library).run({"x": x}), x, INT8, STATIC_INT8)


@pytest.mark.slow
def test_kernels_of_blocks(model: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tvm")
    monkeypatch.setattr(Timings, "seconds", lambda *args: dict.fromkeys((FLOAT, *args[3]), 1.0))
    blocks = "weights = int8 channel; sparsity = blocks(16x16, keep = 50%); activations = static"
    text = f"target cpu\nrule linear {{ {blocks} }}\n"
    result = qcc.compile(model, policy(text), data=[{"x": x}])
    ops = {parse(node.op_type) for node in onnx.load(result.output).graph.node if node.domain == "qcc"}
    assert {(op.tile, op.static) for op in ops} == {((16, 16), True)}
    plain, kernels = (Session(result.output, library).run({"x": x}) for library in (False, result.kernels))
    for name, array in plain.items():
        errors = np.abs(kernels[name] - array) / np.abs(array).max()
        assert np.median(errors) < TOLERANCE and errors.max() < 0.02


ODD = {"w": random(48, 16)}
"""Of inputs that no kernel takes, so that the runtime multiplies."""


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    text = "odd (float[n, 48] x) => (float[n, 16] y) { y = MatMul (x, w) }"
    onnx.save(onnx_models.parse(text, ODD, opset=21, ir_version=10), tmp_path / "odd.onnx")
    return tmp_path / "odd.onnx"


@pytest.mark.parametrize(
    ("targets", "bits"),
    [("avx512-vnni", 8), ("avx512-vnni, sapphire-rapids", 8), ("avx512-vnni, avx2", 7), ("avx2", 7)],
)
def test_eight_bits_where_all_targets_have_the_instructions(targets: str, bits: int, odd: Path) -> None:
    plan, _, _ = decide_plan(odd, policy(f"target cpu({targets})\n" + STATIC), data=[{"x": random(4, 48)}])
    (action,) = (step.action for step in plan.steps if isinstance(step.action, Encode))
    assert (action.form, action.encoding.order[0]) == (INTEGERS, bits)
    assert not saturating(plan) and not saturating(untargeted(plan))


def test_eight_bits_have_a_sign(odd: Path) -> None:
    """What is written is in two's complement, whatever this processor makes of the product."""
    graph = OnnxGraph.load(odd)
    (weight,) = graph.weights()
    encoded = fit.encode(graph.matrix(weight), INT8)
    graph.encode(graph.encode_inputs(weight, EncodedValue(STATIC_INT8, np.float32(0.01))), encoded, INTEGERS)
    (codes,) = (one.const_value for name, one in graph.model.graph.initializers.items() if name.endswith(".codes"))
    assert codes is not None and codes.dtype.name == "INT8"
    assert np.array_equal(codes.numpy(), (encoded.codes.astype(int) - 128).T)


@pytest.mark.slow
def test_a_plan_that_saturates_reject(model: Path, x: np.ndarray) -> None:
    made = qcc.compile(model, policy(STATIC), data=[{"x": x}])
    steps = tuple(
        replace(step, action=replace(step.action, encoding=INT8)) if isinstance(step.action, Encode) else step
        for step in made.plan.steps
    )
    assert qcc.compile(model, policy(STATIC), data=[{"x": x}], plan=made.plan).plan == made.plan
    with pytest.raises(QccError) as refused:
        qcc.compile(model, policy(STATIC), data=[{"x": x}], plan=replace(made.plan, steps=steps))
    assert [one.code for one in refused.value.diagnostics] == ["Q504"]


@pytest.mark.sampled
@pytest.mark.parametrize(("spec", "served"), [("int7 channel", True), ("int4 channel", True), ("int7 asym", False)])
def test_what_the_runtime_multiplies(spec: str, served: bool, model: Path, x: np.ndarray) -> None:
    result = qcc.compile(model, policy(STATIC.replace("int8 channel", spec)), data=[{"x": x}])
    assert [one.code for one in result.warnings] == ([] if served else ["Q313"])
    assert {row.form for row in result.layers} == {"integers" if served else "decoded"}


def test_off_undoes_it(model: Path, x: np.ndarray) -> None:
    result = qcc.compile(model, policy(STATIC + "rule linear { activations = off }"), data=[{"x": x}])
    assert {row.form for row in result.layers} == {"decoded"}


def test_generated_data_is_told_of(model: Path) -> None:
    assert [one.code for one in qcc.compile(model, policy(STATIC)).warnings] == ["Q434"]


def test_what_cannot_be_served_is_told_once(model: Path, x: np.ndarray) -> None:
    text = "rule linear { weights = int8 group 32; activations = static }"
    (warning,) = qcc.compile(model, policy(text), data=[{"x": x}]).warnings
    assert warning.code == "Q313" and "one scale a channel" in warning.message
    assert all(f"`{name}`" in warning.message for name in ("node", "node_2", "node_4"))


@pytest.mark.slow
def test_an_open_choice_is_measured_with_its_activations(model: Path, x: np.ndarray) -> None:
    """Both candidates become int7, of which one is left; beside `float` and 4 bits it is measured as it would run."""
    text = "rule linear { weights = int8 channel | int7 channel; activations = static }"
    assert qcc.compile(model, policy(text), data=[{"x": x}]).plan.allocate is None
    text = "rule linear { weights = int8 channel | int4 group 32 | float; activations = static }\n"
    text += "budget { output_error <= 0.1% }\nminimize size"
    result = qcc.compile(model, policy(text), data=[{"x": x}])
    assert [one.code for one in result.warnings] == ["Q313"] and "int4 group 32" in result.warnings[0].message
    rounded = [row for row in result.layers if row.form == "integers"]
    assert rounded and all(row.loss is not None and row.loss > 0 for row in rounded)
    told = sum(row.loss or 0 for row in result.layers)
    run = Session(result.output, False).run({"x": x})
    wanted = Session(model, False).run({"x": x})
    ratios = [float(((run[name] - wanted[name]) ** 2).sum() / (wanted[name] ** 2).sum()) for name in wanted]
    assert 0.5 < told / np.mean(ratios) < 2  # errors of layers are not quite independent
    assert plan_of(result.lock) == result.plan and "  values <policy>:2:63" in to_text(result.plan)


@pytest.mark.parametrize(
    "kernel", [linear(8, None, steps=("bias", "gelu"), static=True), linear(3, None, False, static=True)]
)
def test_names_read_both_ways(kernel: LinearOp) -> None:
    assert parse(kernel.name) == kernel and "_static" in kernel.name


@pytest.mark.parametrize("name", ["linear_int8_group32_static", "linear_bf16_static", "linear_static_int8_channel"])
def test_names_reject(name: str) -> None:
    with pytest.raises(OpError):
        parse(name)
