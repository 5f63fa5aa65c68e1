"""Cutting heads: with a head go queries, keys, values and what reads them, and the rest computes what it did."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.compiler.compile import compile
from qcc.compiler.files.open_model import open_model
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.graph.run import reference
from qcc.passes.contract.contract import Context, Edit
from qcc.passes.structure.heads import Heads
from tests.axes_models import chain, feeds, run
from tests.onnx_models import parse, random

TOLERANCE = 1e-5  # of the largest value: the same terms are added up, without the zeros
ENDS = 2 * 16 * 16  # weights of the layers at both ends
BLOCKS = ["attention", "keys_in_batches", "einsums", "grouped_query", "fused"]


def _names(graph: Graph) -> list[str]:
    return [weight.name for weight in graph.weights()]


def _cut(graph: OnnxGraph, keep: float) -> tuple[OnnxGraph, list[Edit]]:
    return Heads(keep=keep).apply(graph, _names(graph), Context())


@pytest.mark.parametrize("block", BLOCKS)
def test_heads_go_whole_and_the_rest_computes_what_it_did(block: str) -> None:
    graph = chain([block], 0)
    after, edits = _cut(graph, 0.5)
    (told,) = [edit.text for edit in edits if not edit.refused]
    assert told in ("4 -> 2 heads", "2 -> 1 heads")
    before, left = (sum(weight.params for weight in one.weights()) - ENDS for one in (graph, after))
    assert left == before // 2
    wanted = run(Heads(keep=0.5).meant(graph, _names(graph), Context()), feeds())
    found = run(after, feeds())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())
    assert np.abs(found - run(graph, feeds())).max() > TOLERANCE


def test_channels_that_are_no_heads_stay() -> None:
    graph = chain(["feedforward", "layer_norm", "softmax"], 0)
    assert not Heads(keep=0.5).sites(graph, _names(graph))


# sizes of batch and text are read off the input, how many heads there are follows
NET = """net (float[n,s,16] x) => (float[n,s,16] y) {
    sizes = Shape<start=0, end=2>(x)
    apart = Concat<axis=0>(sizes, rest, eight)
    together = Concat<axis=0>(sizes, rest)
    q = MatMul(x, q_w)
    k = MatMul(x, k_w)
    v = MatMul(x, v_w)
    qr = Reshape(q, apart)
    kr = Reshape(k, apart)
    vr = Reshape(v, apart)
    qt = Transpose<perm=[0,2,1,3]>(qr)
    kt = Transpose<perm=[0,2,3,1]>(kr)
    vt = Transpose<perm=[0,2,1,3]>(vr)
    scores = MatMul(qt, kt)
    part = Softmax<axis=-1>(scores)
    z = MatMul(part, vt)
    zt = Transpose<perm=[0,2,1,3]>(z)
    flat = Reshape(zt, together)
    o = MatMul(flat, o_w)
    made = Add(o, o_b)
    y = Add(x, made)
}"""


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four heads of eight channels; the second makes what the first does, with larger weights behind it."""
    weights = {f"{name}_w": random(16, 32) for name in "qkv"}
    weights |= {"o_w": random(32, 16), "o_b": random(16)}
    for name in "qkv":
        weights[f"{name}_w"][:, 8:16] = weights[f"{name}_w"][:, :8]
    weights["o_w"][8:16] *= 4
    weights["v_w"][:, 16:24] *= 0.3  # the least by its weights
    constants = {"rest": np.array([-1]), "eight": np.array([8])}
    path = tmp_path_factory.mktemp("heads") / "net.onnx"
    onnx.save(parse(NET, {**weights, **constants}), path)
    return path


def _texts(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(5)
    return [{"x": draw.standard_normal((1, 12, 16)).astype(np.float32)} for _ in range(count)]


def _noise(model: Path, output: Path) -> float:
    feed = {"x": random(2, 12, 16)}
    wanted, found = (reference(path)(feed)["y"].astype(np.float64) - feed["x"] for path in (model, output))
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


@pytest.mark.slow
def test_a_head_that_another_tells_goes_without_a_loss(alike: Path, tmp_path: Path) -> None:
    lost = {}
    for by, refit in (("magnitude", "false"), ("obs", "true")):
        output = tmp_path / f"{by}.onnx"
        text = f"qpolicy 1\nrule linear {{ structure = heads(keep = 75%, by = {by}, refit = {refit}) }}\n"
        result = compile(alike, text, output=output, data=_texts(16))
        assert result.passed
        assert {one.name: tuple(one.dims) for one in onnx.load(output).graph.initializer}["o_w"] == (24, 16)
        lost[by] = _noise(alike, output)
    assert lost["obs"] < 1e-4 < lost["magnitude"]


def test_what_makes_heads_and_is_not_asked_for_stops_them(alike: Path) -> None:
    graph = open_model(alike).graph
    (site,) = Heads(keep=0.5).sites(graph, ["q_w"])
    assert "writes them too" in site.refused
