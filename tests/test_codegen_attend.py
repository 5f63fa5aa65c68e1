"""Attention over kept blocks: the kernel against float64, the body, and who writes a library of it."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper

import qcc
from benchmarks.attention.block_sparse import BODY, exported_graph
from qcc.codegen.cpu.attend.template import ATTENDS
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import PROCESSORS
from qcc.compiler.runtime.register import register
from qcc.compiler.runtime.serves import serves
from qcc.ir.attention.find import attentions
from qcc.ir.graph.attention import Attention, BlockSparseScores
from qcc.ir.kernel.attend_op import AttendOp, parse_attend
from qcc.ir.kernel.kernel_op import parse_kernel
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.domain import DOMAIN, VERSION

pytest.importorskip("tvm")
OP = AttendOp(64, 128, 64)
EXACT = 1e-5  # of the largest result: float32, in another order of sums
HERE = [name for name in ("avx2", "avx512-vnni") if not PROCESSORS[name].obstacle]
Arrays = dict[str, np.ndarray]


def drawn(op: AttendOp, segments: int, size: float = 1.0, seed: int = 0) -> Arrays:
    """Two samples, two heads of keys, and three of queries for each."""
    rng, rows, blocks = np.random.default_rng(seed), segments * op.segment, segments * op.segment // op.block
    shapes: dict[str, tuple[int, ...]] = {"queries": (2, 2, 3, rows, op.channels)}
    shapes |= dict.fromkeys(("keys", "values"), (2, 2, 1, rows, op.channels))
    shapes |= dict.fromkeys(("sorted_keys", "sorted_values"), (2, 2, rows, op.channels))
    part = np.arange(blocks) // (op.segment // op.block)
    kept = (rng.random((2, 2, 3, blocks, blocks)) < 0.4) & (part < part[:, None])
    return {name: size * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()} | {"kept": kept}


def wanted(op: AttendOp, given: Arrays) -> np.ndarray:
    """By a softmax of all scores in float64."""
    q, k, v, others, theirs = (given[name].astype(np.float64) for name in op.inputs[:-1])
    row = np.arange(q.shape[3])
    own = (row[:, None] >= row) & (row[:, None] // op.segment == row // op.segment)
    kept = given["kept"].repeat(op.block, 3).repeat(op.block, 4)
    mine = np.where(own, q @ k.swapaxes(-1, -2), -np.inf)
    more = np.where(kept, q @ others[:, :, None].swapaxes(-1, -2), -np.inf)
    scores = np.concatenate([mine, more], -1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    every = np.concatenate([np.broadcast_to(v, (*q.shape[:2], 1, *v.shape[3:])), theirs[:, :, None]], 3)
    return np.asarray(weights @ every)


def session(library: Path, op: AttendOp, threads: int = 1) -> onnxruntime.InferenceSession:
    kinds = {"kept": onnx.TensorProto.BOOL}
    values = [
        helper.make_tensor_value_info(one, kinds.get(one, onnx.TensorProto.FLOAT), None) for one in (*op.inputs, "y")
    ]
    graph = helper.make_graph(
        [helper.make_node(op.name, list(op.inputs), ["y"], domain=DOMAIN)], "one", values[:-1], values[-1:]
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    register(options, str(library))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.sampled
@pytest.mark.parametrize("processor", HERE)
def test_the_kernel_is_a_softmax_over_what_is_kept(tmp_path: Path, processor: str) -> None:
    path = build([OP], (PROCESSORS[processor],), tmp_path / "attend.so")
    assert serves(str(path), [OP]) == {OP}
    for at, (segments, size, threads) in enumerate([(1, 1.0, 1), (3, 1.0, 2), (2, 6.0, 1), (2, 1e-3, 1)]):
        given = drawn(OP, segments, size, at)
        (found,) = session(path, OP, threads).run(None, given)
        expected = wanted(OP, given)
        slack = EXACT * max(size * size, 1)  # scores are rounded, and powers of large ones feel it
        assert np.abs(found - expected).max() <= slack * np.abs(expected).max()
    given = drawn(OP, 2)
    with pytest.raises(Exception, match="do not fit each other"):
        session(path, OP).run(None, given | {"kept": given["kept"][..., :2]})


def test_names() -> None:
    assert OP.name == "attend_block64_segment128_of64"
    assert parse_attend(OP.name) == parse_kernel(OP.name) == OP
    assert parse_attend("attend_block064_segment128_of64") is None


@pytest.mark.parametrize(
    "op", [AttendOp(32, 64, 64), AttendOp(64, 128, 80), AttendOp(64, 96, 64), AttendOp(1024, 1024, 64)]
)
def test_sizes_reject(op: AttendOp) -> None:
    assert not ATTENDS.serves(op, PROCESSORS["avx512-vnni"], "exact")
    assert not ATTENDS.serves(OP, PROCESSORS["generic"], "exact")


def test_the_op_s_body_is_what_stood_there(tmp_path: Path) -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 500, 576), np.float32)}
    graph = exported_graph(BODY, 500, alone=False)
    (one,) = attentions(graph, {"x": feeds["x"][:, :32]})
    assert isinstance(one, Attention)
    graph.write_attention(one, BlockSparseScores(64, 128, 0.5))
    graph.simplify()
    before = graph.runner(["x"], ["y"])(feeds)["y"]
    assert graph.copy().chain(lambda _: False) == ()
    ops = graph.chain(lambda _: True)
    assert ops == (OP,) and [op.function for op in graph.ops()].count(OP.name) == 1
    assert "ScatterND" not in [node.op_type for node in graph.model.graph]
    # the same ops in a function: a product may be cut for threads in another place
    assert np.abs(graph.runner(["x"], ["y"])(feeds)["y"] - before).max() <= EXACT * np.abs(before).max()
    path = build(ops, (PROCESSORS[HERE[-1]],), tmp_path / "attend.so")
    options = onnxruntime.SessionOptions()
    register(options, str(path))
    model = ir.serde.serialize_model(graph.model).SerializeToString()
    (found,) = onnxruntime.InferenceSession(model, options).run(["y"], feeds)
    assert np.abs(found - before).max() <= EXACT * np.abs(before).max()


@pytest.mark.slow
def test_the_driver_makes_a_library_of_it(tmp_path: Path) -> None:
    exported_graph(BODY, 500, alone=False).save(tmp_path / "net.onnx")
    np.savez(tmp_path / "long.npz", x=np.random.default_rng(1).standard_normal((4, 300, 576), np.float32))
    rule = "rule attention { pattern = block_sparse(block = 64, segment = 128, mass = 80%) }\n"
    policy = f'qpolicy 1\ntarget cpu({HERE[-1]})\ncalibrate "long.npz"\n{rule}rule linear {{ keep }}\n'
    (tmp_path / "p.qpolicy").write_text(policy, encoding="utf-8")
    result = qcc.compile(tmp_path / "net.onnx", tmp_path / "p.qpolicy")
    assert result.kernels is not None and OP.name in result.ops
    assert OP.name in [op.function for op in OnnxGraph.load(result.output).ops()]
