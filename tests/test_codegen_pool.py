"""Pools of bytes, channels last: the kernels against the runtime's own, bit for bit."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import named
from qcc.compiler.runtime.register import register
from qcc.compiler.runtime.serves import serves
from qcc.ir.kernel.kernel_op import parse_kernel
from qcc.ir.kernel.pool_op import Pooled, PoolOp, parse_pool
from qcc.ir.kernel.window import KernelWindow, Sizes
from qcc.ir.onnx.chain.body import pool_function
from qcc.ir.onnx.file.domain import DOMAIN

pytest.importorskip("tvm")
OPSET = 21


def op(pooled: Pooled, kernel: Sizes, strides: Sizes = (), pads: Sizes = (), dilations: Sizes = ()) -> PoolOp:
    """An op of a window."""
    return PoolOp(pooled, KernelWindow(kernel, strides, pads, dilations), len(kernel))


OPS = [
    op("max", (2, 2), (2, 2)),
    op("max", (3, 3), (2, 2), (1, 1, 1, 1)),
    op("max", (3, 2), (1, 3), (0, 1, 2, 0), (1, 2)),
    op("max", (3,), (2,), (1, 1)),
    op("max", (2, 3, 2), (1, 2, 2), (0, 1, 0, 1, 1, 0)),
    op("mean", (2, 2), (2, 2)),
    op("mean", (3, 3), (1, 1), (1, 1, 1, 1)),
    op("mean", (5, 3), (2, 1), (2, 0, 1, 1)),
    op("mean", (4,), (4,)),
    PoolOp("mean", None, 1),
    PoolOp("mean", None, 2),
    PoolOp("mean", None, 3),
]


@pytest.fixture(scope="module", params=["native", "avx2"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = build(OPS, (named(request.param),), tmp_path_factory.mktemp("pool") / "k.so")
    if serves(str(path), OPS) != {*OPS}:
        pytest.skip("this processor has no such kernels")
    return path


def made(op: PoolOp, x: np.ndarray, library: Path | None, seed: int, threads: int = 1) -> np.ndarray:
    """What a model of it alone makes."""
    random = np.random.default_rng(seed)
    held = {
        "x_scale": np.float32(random.uniform(0.005, 0.03)),
        "x_zero": np.uint8(random.choice((0, 128, 255, 77))),
        "y_scale": np.float32(random.uniform(0.005, 0.03)),
        "y_zero": np.uint8(random.choice((0, 128, 100, 3))),
    }
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in ("x", "y")]
    constants = [numpy_helper.from_array(np.asarray(held[name]), name) for name in op.inputs[1:]]
    node = helper.make_node(op.name, list(op.inputs), ["y"], domain=DOMAIN)
    graph = helper.make_graph([node], "one", values[:1], values[1:], constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    functions = [onnx_ir.serde.serialize_function(pool_function(op, OPSET))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if library is not None:
        register(options, str(library))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("channels", [1, 3, 16, 24, 87, 320])
def test_the_runtime_makes_the_same(library: Path, op: PoolOp, channels: int) -> None:
    random = np.random.default_rng(channels)
    for seed, size in enumerate([(5, 7, 9), (8, 12, 13)]):
        x = random.integers(0, 256, (2, *size[-op.axes :], channels)).astype(np.uint8)
        np.testing.assert_array_equal(made(op, x, library, seed, 1 + seed), made(op, x, None, seed))


def test_what_is_larger_than_all_and_small_reject(library: Path) -> None:
    with pytest.raises(Exception, match="smaller than the kernel"):
        made(OPS[0], np.zeros((1, 1, 5, 16), np.uint8), library, 0)
    assert made(OPS[0], np.zeros((0, 4, 4, 16), np.uint8), library, 0).shape == (0, 2, 2, 16)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_names(op: PoolOp) -> None:
    assert parse_kernel(op.name) == op
    assert parse_pool(op.name.replace("qpool", "qpool_0")) is None and parse_pool("qpool_mean_4axes") is None
