"""Chains of convolutions of bytes: what is found, what it becomes, and that the file computes what it did."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.codegen.target.find import targets
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.result import Result
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.ir.kernel.chain_op import ChainOp
from qcc.ir.kernel.kernel_op import parse_kernel
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


def outputs(path: Path, library: Path | None = None) -> np.ndarray:
    found: np.ndarray = Session(path, library or False, 1).run({"x": feed(3)})["y"]
    return found


def test_convolutions_hand_on_bytes(tmp_path: Path) -> None:
    graph = rounded(tmp_path)
    chain = graph.copy()
    assert [op.name for op in chain.chain(lambda op: True)] == CHAIN
    assert [one for one in ops(chain) if one in {*CHAIN, "Transpose", "Conv"}] == [
        "Transpose",
        *CHAIN,
        "Transpose",
        "Conv",
    ]
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
        ("i = Conv <strides", "i = Conv <dilations = [2, 2], strides", CHAIN[:3]),
        ("f = Add (e, b)", "f = Mul (e, b)", [*CHAIN[:2], "qconv1x1_stride1x1_pads0x0x0x0"]),
    ],
    ids=["read_twice", "dilated", "multiplied"],
)
def test_what_is_not_fused(tmp_path: Path, before: str, after: str, names: list[str]) -> None:
    graph = rounded(tmp_path, NETWORK.replace(before, after))
    found = [op.name for op in graph.chain(lambda op: True)]
    assert found[: len(names)] == names
    graph.save(tmp_path / "chain.onnx")
    np.testing.assert_array_equal(outputs(tmp_path / "chain.onnx"), outputs(tmp_path / "out.onnx"))


def test_a_residual_that_is_spread_is_not_added_in_the_op(tmp_path: Path) -> None:
    text = NETWORK.replace("f = Add (e, b)", "m = GlobalAveragePool (b) f = Add (e, m)")
    assert not any(isinstance(op, ChainOp) and op.adds for op in rounded(tmp_path, text).chain(lambda op: True))


@pytest.mark.parametrize("weights", ["int4", "int3", "int7"])
def test_packed_codes_stay_packed(tmp_path: Path, weights: str) -> None:
    graph = rounded(tmp_path, weights=weights)
    size = tmp_path.joinpath("out.onnx").stat().st_size
    found = [op.name for op in graph.chain(lambda op: True)]
    word = "" if weights == "int7" else f"_{weights}"
    assert found == [
        name.replace("1_relu", f"1{word}_relu").replace("_clip", f"{word}_clip").replace("_add", f"{word}_add")
        for name in CHAIN
    ]
    graph.save(tmp_path / "chain.onnx")
    assert tmp_path.joinpath("chain.onnx").stat().st_size < size + 12_000  # the ops' bodies
    np.testing.assert_array_equal(outputs(tmp_path / "chain.onnx"), outputs(tmp_path / "out.onnx"))


@pytest.mark.slow
def test_the_driver_makes_a_library_of_them(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    result = compiled(tmp_path, "target cpu(avx512-vnni)\n")
    made = OnnxGraph.load(result.output)
    assert [one for one in ops(made) if one.startswith("qconv")] == CHAIN
    assert result.kernels is not None and {*CHAIN} <= {*result.ops}
    assert "4 convolutions hand on bytes in kernels of ours, channels last" in result.notes
    np.testing.assert_array_equal(outputs(result.output, result.kernels), outputs(result.output))
    without = compiled(tmp_path, "target cpu(avx512-vnni)\nexport { kernels = none }\n")
    assert not any(one.startswith("qconv") for one in ops(OnnxGraph.load(without.output)))


def test_one_op_for_equal_convolutions() -> None:
    assert len({ChainOp((1, 1)), ChainOp((1, 1), (1, 1)), ChainOp((1, 1), adds=True)}) == 2


def test_kernels_ask_tvm_for_no_memory() -> None:
    """A library has no such function: what is held lies in registers or on the stack, also of single numbers."""
    pytest.importorskip("tvm")
    ops = [parse_kernel(name) for name in (CHAIN[2], "linear_int8_channel_static_bias_gelu")]
    assert "AllocWorkspace" not in targets()["cpu"].show("asm", ops, ["avx512-vnni"], "bf16")
