"""Chains of convolutions of bytes: what is found, what it becomes, and that the file computes what it did."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.codegen.cpu.chain.template import Chains
from qcc.codegen.cpu.processors.processors import PROCESSORS
from qcc.codegen.target.find import targets
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.result import Result
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.kernel.kernel_op import parse_kernel
from qcc.ir.kernel.window import KernelWindow
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.infer import InferTypes
from tests import onnx_models
from tests.onnx_models import random

POLICY = "qpolicy 1\n{}rule conv {{ weights = int8 channel; activations = static }}\n"
SIZE = 12
NETWORK = """
g (float[n, 3, 12, 12] x) => (float[n, 24, p, q] y) {
  a = Conv <pads = [1, 1, 1, 1]> (x, stem, stem_bias)
  b = Relu (a)
  c = Conv <group = 16, pads = [1, 1, 1, 1]> (b, depth, depth_bias)
  d = Clip (c, zero, six)
  e = Conv (d, point, point_bias)
  f = Add (e, b)
  h = Relu (f)
  i = Conv <strides = [2, 2], pads = [0, 0, 1, 1]> (h, last, last_bias)
  j = Relu (i)
  y = Conv <group = 2> (j, grouped)
}
"""
ARRAYS = {
    "stem": random(16, 3, 3, 3, seed=1),
    "stem_bias": random(16, seed=2),
    "depth": random(16, 1, 3, 3, seed=3),
    "depth_bias": random(16, seed=4),
    "point": random(16, 16, 1, 1, seed=5),
    "point_bias": random(16, seed=6),
    "last": random(24, 16, 3, 3, seed=7),
    "last_bias": random(24, seed=8),
    "grouped": random(24, 12, 1, 1, seed=9),
    "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32),
}
CHAIN = [
    "qconv3x3_stride1x1_pads1x1x1x1_relu",
    "qconv3x3_stride1x1_pads1x1x1x1_depthwise_clip",
    "qconv1x1_stride1x1_pads0x0x0x0_add_relu",
    "qconv3x3_stride2x2_pads0x0x1x1_relu",
    "qconv1x1_stride1x1_pads0x0x0x0_groups2",
]


def compiled(folder: Path, target: str = "", text: str = NETWORK, weights: str = "int8") -> Result:
    onnx.save(onnx_models.parse(text, ARRAYS, opset=21, ir_version=10), folder / "net.onnx")
    policy = load_text(POLICY.format(target).replace("int8", weights), schema())
    return qcc.compile(folder / "net.onnx", policy, output=folder / "out.onnx", data=[{"x": feed(16)}])


def feed(count: int) -> np.ndarray:
    return random(count, 3, SIZE, SIZE, seed=11)


def rounded(folder: Path, text: str = NETWORK, weights: str = "int8") -> OnnxGraph:
    graph = OnnxGraph.load(compiled(folder, text=text, weights=weights).output)
    InferTypes()(graph.model)
    return graph


def ops(graph: OnnxGraph) -> list[str]:
    return [node.op_type for node in graph.model.graph]


def held(graph: OnnxGraph) -> int:
    """Bytes of constants."""
    return sum(one.const_value.nbytes for one in graph.model.graph.initializers.values() if one.const_value)


def outputs(path: Path, library: Path | None = None) -> np.ndarray:
    found: np.ndarray = Session(path, library or False, 1).run({"x": feed(3)})["y"]
    return found


def test_convolutions_hand_on_bytes(tmp_path: Path) -> None:
    graph = rounded(tmp_path)
    chain = graph.copy()
    assert [op.name for op in chain.chain(lambda op: True)] == CHAIN
    assert [one for one in ops(chain) if one in {*CHAIN, "Transpose", "Conv"}] == ["Transpose", *CHAIN, "Transpose"]
    assert "Add" not in ops(chain) and "Clip" not in ops(chain) and "Relu" not in ops(chain)
    chain.save(tmp_path / "chain.onnx")
    np.testing.assert_array_equal(outputs(tmp_path / "chain.onnx"), outputs(tmp_path / "out.onnx"))


def test_what_no_kernel_takes_stays(tmp_path: Path) -> None:
    graph = rounded(tmp_path)
    before = ops(graph)
    assert graph.copy().chain(lambda op: False) == ()
    graph.chain(lambda op: isinstance(op, ChainOp) and op.depthwise)
    assert ops(graph) == before, "one alone is no chain"
    graph.chain(lambda op: isinstance(op, ChainOp) and not op.depthwise)
    assert [one for one in ops(graph) if one.startswith("qconv")] == [CHAIN[0], *CHAIN[2:]]
    graph.save(tmp_path / "chain.onnx")
    np.testing.assert_array_equal(outputs(tmp_path / "chain.onnx"), outputs(tmp_path / "out.onnx"))


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("h = Relu (f)", "g1 = Mul (e, six) h = Max (f, g1)", [*CHAIN[:2], "qconv1x1_stride1x1_pads0x0x0x0"]),
        ("f = Add (e, b)", "f = Mul (e, b)", [*CHAIN[:2], "qconv1x1_stride1x1_pads0x0x0x0"]),
    ],
    ids=["read_twice", "multiplied"],
)
def test_what_is_not_fused(tmp_path: Path, before: str, after: str, names: list[str]) -> None:
    graph = rounded(tmp_path, NETWORK.replace(before, after))
    found = [op.name for op in graph.chain(lambda op: True)]
    assert found[: len(names)] == names
    graph.save(tmp_path / "chain.onnx")
    np.testing.assert_array_equal(outputs(tmp_path / "chain.onnx"), outputs(tmp_path / "out.onnx"))


POOLED = """
g (float[n, 8, 12, 12] x) => (float[n, 48, p, q] y) {{
  a = Conv <pads = [1, 1, 1, 1]> (x, first) b = Relu (a) c = {} d = Conv (c, second) y = {} }}"""


@pytest.mark.parametrize(
    ("between", "end", "names"),
    [
        (
            "MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (b)",
            "Conv (d, third)",
            ["qpool_max3x3_stride2x2_pads1x1x1x1"],
        ),
        ("AveragePool <kernel_shape = [2, 2]> (b)", "Conv (d, third)", ["qpool_mean2x2_stride1x1_pads0x0x0x0"]),
        (
            "AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (b)",
            "Conv (d, third)",
            [],
        ),
        ("MaxPool <kernel_shape = [2, 2], ceil_mode = 1> (b)", "Conv (d, third)", []),
        ("GlobalAveragePool (b)", "Conv (d, third)", ["qpool_mean_2axes"]),
    ],
    ids=["largest", "mean", "counted_reject", "ceil_reject", "whole"],
)
def test_pools_are_in_chains(tmp_path: Path, between: str, end: str, names: list[str]) -> None:
    arrays = {
        "first": random(48, 8, 3, 3, seed=1),
        "second": random(48, 48, 1, 1, seed=2),
        "third": random(48, 48, 1, 1, seed=3),
    }
    text = POOLED.format(between, end)
    onnx.save(onnx_models.parse(text, arrays, opset=21, ir_version=10), tmp_path / "net.onnx")
    x = random(8, 8, 12, 12, seed=3)
    result = qcc.compile(tmp_path / "net.onnx", load_text(POLICY.format(""), schema()), data=[{"x": x}])
    graph = OnnxGraph.load(result.output)
    InferTypes()(graph.model)
    found = [op.name for op in graph.chain(lambda op: True)]
    assert [name for name in found if name.startswith("qpool")] == names and len(found) >= 2
    assert ops(graph).count("Transpose") == (2 if names else 4 if len(found) == 3 else 2)
    graph.save(tmp_path / "chain.onnx")
    made, wanted = (Session(path, False, 1).run({"x": x})["y"] for path in (tmp_path / "chain.onnx", result.output))
    np.testing.assert_array_equal(made, wanted)


@pytest.mark.slow
def test_a_chain_goes_on_to_the_pool_at_the_end(tmp_path: Path) -> None:
    """What the last layer reads is rounded, though there are kernels that would round it themselves."""
    pytest.importorskip("tvm")
    text = """
    g (float[n, 8, 12, 12] x) => (float[n, 64] y) {
      a = Conv (x, first) b = Relu (a) c = Conv (b, second) d = Relu (c) e = GlobalAveragePool (d) f = Flatten (e)
      y = Gemm <transB = 1> (f, last, bias) }"""
    arrays = {
        "first": random(64, 8, 3, 3, seed=1),
        "second": random(64, 64, 1, 1, seed=2),
        "last": random(64, 64, seed=3),
        "bias": random(64, seed=4),
    }
    onnx.save(onnx_models.parse(text, arrays, opset=21, ir_version=10), tmp_path / "net.onnx")
    policy = POLICY.format("target cpu(avx512-vnni)\n").replace("rule conv", "rule conv, linear")
    x = random(8, 8, 12, 12, seed=3)
    result = qcc.compile(
        tmp_path / "net.onnx", load_text(policy, schema()), output=tmp_path / "out.onnx", data=[{"x": x}]
    )
    made = ops(OnnxGraph.load(result.output))
    assert [one for one in made if one.startswith("q")] == [
        "qconv3x3_stride1x1_pads0x0x0x0_relu",
        "qconv1x1_stride1x1_pads0x0x0x0_relu",
        "qpool_mean_2axes",
    ]
    found, wanted = (Session(result.output, one, 1).run({"x": x})["y"] for one in (result.kernels or False, False))
    np.testing.assert_array_equal(found, wanted)
    assert "1 pool between them" in result.notes


def test_a_residual_that_is_spread_is_not_added_in_the_op(tmp_path: Path) -> None:
    text = NETWORK.replace("f = Add (e, b)", "m = GlobalAveragePool (b) f = Add (e, m)")
    assert not any(isinstance(op, ChainOp) and op.adds for op in rounded(tmp_path, text).chain(lambda op: True))


def test_filters_of_one_channel_add_no_residual_reject(tmp_path: Path) -> None:
    """Their kernels have no operand for it, and computed without."""
    text = NETWORK.replace("d = Clip (c, zero, six)", "s = Add (c, b) d = Relu (s)")
    found = rounded(tmp_path, text).chain(lambda op: True)
    assert any(isinstance(op, ChainOp) and op.depthwise for op in found)
    assert not any(isinstance(op, ChainOp) and op.depthwise and op.adds for op in found)
    op = ChainOp(KernelWindow((3, 3)), depthwise=True, adds=True)
    assert not Chains().makes(op, PROCESSORS["avx2"])
    assert Chains().makes(replace(op, adds=False), PROCESSORS["avx2"])


@pytest.mark.parametrize(
    ("axes", "how", "words"),
    [
        (1, "dilations = [2], strides = [2], pads = [2, 1]", "qconv3_stride2_pads2x1_dilated2"),
        (2, "dilations = [1, 2]", "qconv3x3_stride1x1_pads0x0x0x0_dilated1x2"),
        (3, "pads = [1, 0, 1, 1, 0, 1]", "qconv3x3x3_stride1x1x1_pads1x0x1x1x0x1"),
    ],
)
def test_any_axes_and_dilations(tmp_path: Path, axes: int, how: str, words: str) -> None:
    sizes = ", ".join(["6"] * axes)
    free = ", ".join("pqr"[:axes])
    text = f"""g (float[n, 8, {sizes}] x) => (float[n, 96, {free}] y) {{
      a = Conv <{how}> (x, w) b = Relu (a) y = Conv <group = 4> (b, v) }}"""
    arrays = {"w": random(64, 8, *[3] * axes, seed=1), "v": random(96, 16, *[1] * axes, seed=2)}
    onnx.save(onnx_models.parse(text, arrays, opset=21, ir_version=10), tmp_path / "net.onnx")
    x = random(8, 8, *[6] * axes, seed=3)
    result = qcc.compile(tmp_path / "net.onnx", load_text(POLICY.format(""), schema()), data=[{"x": x}])
    graph = OnnxGraph.load(result.output)
    InferTypes()(graph.model)
    point = ChainOp(KernelWindow((1,) * axes), groups=4)
    assert [op.name for op in graph.chain(lambda op: True)] == [f"{words}_relu", point.name]
    graph.save(tmp_path / "chain.onnx")
    found, wanted = (Session(path, False, 1).run({"x": x})["y"] for path in (tmp_path / "chain.onnx", result.output))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("weights", ["int4", "int3", "int7"])
def test_packed_codes_stay_packed(tmp_path: Path, weights: str) -> None:
    graph = rounded(tmp_path, weights=weights)
    size = held(graph)
    found = [op.name for op in graph.chain(lambda op: True)]
    word = "" if weights == "int7" else f"_{weights}"
    assert found == [re.sub(r"(_relu|_clip|_add|$)", rf"{word}\1", name, count=1) for name in CHAIN]
    graph.save(tmp_path / "chain.onnx")
    assert held(graph) < size + 200  # the bias of one that has none, and its scales
    np.testing.assert_array_equal(outputs(tmp_path / "chain.onnx"), outputs(tmp_path / "out.onnx"))


@pytest.mark.slow
def test_the_driver_makes_a_library_of_them(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    result = compiled(tmp_path, "target cpu(avx512-vnni)\n")
    made = OnnxGraph.load(result.output)
    assert [one for one in ops(made) if one.startswith("qconv")] == CHAIN
    assert result.kernels is not None and {*CHAIN} <= {*result.ops}
    assert "5 convolutions hand on bytes in kernels of ours, channels last" in result.notes
    np.testing.assert_array_equal(outputs(result.output, result.kernels), outputs(result.output))
    without = compiled(tmp_path, "target cpu(avx512-vnni)\nexport { kernels = none }\n")
    assert not any(one.startswith("qconv") for one in ops(OnnxGraph.load(without.output)))


def test_one_op_for_equal_convolutions() -> None:
    assert (
        len(
            {
                ChainOp(KernelWindow((1, 1))),
                ChainOp(KernelWindow((1, 1), (1, 1))),
                ChainOp(KernelWindow((1, 1)), adds=True),
            }
        )
        == 2
    )


def test_kernels_ask_tvm_for_no_memory() -> None:
    """A library has no such function: what is held lies in registers or on the stack, also of single numbers."""
    pytest.importorskip("tvm")
    ops = [parse_kernel(name) for name in (CHAIN[2], "linear_int8_channel_static_bias_gelu")]
    assert "AllocWorkspace" not in targets()["cpu"].show("asm", ops, ["avx512-vnni"], "bf16")
