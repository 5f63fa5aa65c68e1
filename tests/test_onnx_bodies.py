"""Weights in branches and loop bodies: encoded, decoded once, and in their bodies again when the file is written."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.files.open_model import open_model
from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import parse, random, run

X = random(5, 64, seed=1)
W, V = random(64, 64) / 8, random(64, 64, seed=2) / 8
BRANCHES = """g (float[N,64] x, bool c) => (float[N,64] y) {
    y = If (c) <
        then_branch = t () => (a) { a = MatMul (x, w) },
        else_branch = e () => (b) { r = MatMul (x, v) b = Relu (r) } > }"""
NESTED = """g (float[N,64] x, bool c) => (float[N,64] y) {
    y = If (c) <
        then_branch = t () => (a) { a = If (c) <
            then_branch = tt () => (p) { p = MatMul (x, w) }, else_branch = te () => (q) { q = Neg (x) } > },
        else_branch = e () => (b) { b = MatMul (x, w) } > }"""
LOOP = """g (float[N,64] x, bool c, int64 n) => (float[N,64] y) {
    y = Loop (n, c, x) <body = l (int64 k, bool go, float[N,64] h) => (bool on, float[N,64] i) {
        on = Identity (go) p = MatMul (h, w) i = Tanh (p) }> }"""
MODELS = {"if": (BRANCHES, ["w", "v"]), "nested": (NESTED, ["w"]), "loop": (LOOP, ["w"])}


def _saved(name: str, folder: Path, outside: bool) -> Path:
    """A model whose weights lie in its bodies, or around them."""
    body, names = MODELS[name]
    model = parse(body, {one: {"w": W, "v": V}[one] for one in names} if outside else {})
    if not outside:
        for graph in _bodies(model.graph):
            read = {name for node in graph.node for name in node.input}
            for one in read & set(names):
                graph.initializer.append(onnx.numpy_helper.from_array({"w": W, "v": V}[one], one))
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def _bodies(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    own = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [*own, *(inner for body in own for inner in _bodies(body))]


@pytest.mark.sampled
@pytest.mark.parametrize("outside", [False, True], ids=["inside", "outside"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_of_bodies_are_encoded(name: str, outside: bool, tmp_path: Path) -> None:
    path, output = _saved(name, tmp_path, outside), tmp_path / "out.onnx"
    policy = tmp_path / "int8.qpolicy"
    policy.write_text("qpolicy 1\nrule linear { weights = int8 channel }\n", "utf-8")
    result = qcc.compile(path, policy, output=output)
    assert all(row.format == "int8 channel sym scale fp16" for row in result.layers)
    assert len(result.layers) == len(MODELS[name][1])
    for flag in (True, False):
        feeds = {"x": X, "c": np.array(flag)} | ({"n": np.array(3)} if name == "loop" else {})
        wanted, got = run(path, feeds)["y"], run(output, feeds)["y"]
        assert np.abs(got - wanted).max() <= 0.02 * np.abs(wanted).max()  # 8 bits


@pytest.mark.sampled
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_decoded_while_a_body_runs(name: str, tmp_path: Path) -> None:
    path, output, optimised = _saved(name, tmp_path, False), tmp_path / "out.onnx", tmp_path / "optimised.onnx"
    qcc.compile(path, "balanced", output=output)
    run(output, {"x": X, "c": np.array(True)} | ({"n": np.array(3)} if name == "loop" else {}), optimised)
    proto = onnx.load(optimised)
    ops = {node.op_type for graph in (proto.graph, *_bodies(proto.graph)) for node in graph.node}
    assert not ops & {"Cast", "Gather", "Mul", "Reshape", "Sub", "DequantizeLinear"}


def test_what_is_not_encoded_goes_back_where_it_was(tmp_path: Path) -> None:
    path = _saved("if", tmp_path, False)
    OnnxGraph.load(path).save(tmp_path / "copy.onnx")
    copied = onnx.load(tmp_path / "copy.onnx").graph
    assert not copied.initializer
    assert [len(body.initializer) for body in _bodies(copied)] == [1, 1]


SHARED = """g (float[5,N,64] x, bool c) => (float[5,1,N,32] y) {
    y = If (c) <
        then_branch = t () => (a) {
            low = Slice (w, s0, s1, s1) high = Slice (w, s1, s2, s1) m = Concat <axis=1> (high, low)
            a = RNN <hidden_size=32> (x, m, r) },
        else_branch = e () => (b) {
            low = Slice (w, s0, s1, s1) high = Slice (w, s1, s2, s1) m = Concat <axis=1> (high, low)
            h = RNN <hidden_size=32> (x, m, r) b = Neg (h) } > }"""


def _shared(folder: Path, branches: str = SHARED) -> Path:
    path = folder / "model.onnx"
    where = {f"s{at}": np.array([at], np.int64) for at in (0, 1)} | {"s2": np.array([32], np.int64)}
    weights = {"w": random(1, 32, 64) / 8, "r": random(1, 32, 32, seed=3) / 8, **where}
    onnx.save(parse(branches, weights), path)
    return path


@pytest.mark.slow
def test_what_two_branches_compute_of_constants_is_one_weight(tmp_path: Path) -> None:
    path, output = _shared(tmp_path), tmp_path / "out.onnx"
    policy = tmp_path / "int8.qpolicy"
    policy.write_text("qpolicy 1\nrule recurrent { weights = int8 channel }\n", "utf-8")
    result = qcc.compile(path, policy, output=output)
    assert [row.format for row in result.layers] == 2 * ["int8 channel sym scale fp16"]
    assert output.stat().st_size < 0.5 * path.stat().st_size
    for flag in (True, False):
        feeds = {"x": random(5, 3, 64, seed=1), "c": np.array(flag)}
        wanted, got = run(path, feeds)["y"], run(output, feeds)["y"]
        assert np.abs(got - wanted).max() <= 0.05 * np.abs(wanted).max()  # 8 bits, through five steps


@pytest.mark.slow
def test_one_name_in_two_branches_stays_two_values(tmp_path: Path) -> None:
    apart = SHARED.replace("m = Concat <axis=1> (high, low)", "m = Concat <axis=1> (low, high)", 1)
    path = _shared(tmp_path, branches=apart)
    OnnxGraph.load(path).save(tmp_path / "plain.onnx")
    qcc.compile(path, "lossless", output=tmp_path / "out.onnx")
    for flag in (True, False):
        feeds = {"x": random(5, 3, 64, seed=1), "c": np.array(flag)}
        assert np.array_equal(run(path, feeds)["y"], run(tmp_path / "out.onnx", feeds)["y"])


def test_what_is_drawn_in_a_loop_is_drawn_at_each_turn(tmp_path: Path) -> None:
    drawn = LOOP.replace(
        "p = MatMul (h, w)", "d = RandomNormalLike (w) e = MatMul (h, d) f = MatMul (h, w) p = Add (e, f)"
    )
    path = tmp_path / "model.onnx"
    onnx.save(parse(drawn, {"w": W}), path)
    graph = open_model(path).graph
    assert "RandomNormalLike" not in {op.function for op in graph.ops()}
