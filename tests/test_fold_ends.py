"""Folding branches that end the graph, or whose layer's weight is made of a constant: the fold ends, names stay."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.branches.fold_branches import FoldBranches
from qcc.passes.contract.contract import Context
from tests.onnx_models import parse, random

FEED = {"x": np.random.default_rng(0).standard_normal((2, 7, 8)).astype(np.float32)}
BODIES = {
    "a vector where there was none, at an output": (
        "a = MatMul(x, w_8x12)\nd = MatMul(x, d_8x3)\nu = MatMul(d, u_3x12)\ns = Add(a, u)\ny = Add(s, b_12)",
        2,
    ),
    "a weight stored turned, and a name for the output": (
        "t = Transpose<perm=[1,0]>(w_12x8)\na = MatMul(x, t)\ns = Add(a, b_12)\ny = Identity(s)",
        3,
    ),
    "a weight stored turned, with a branch": (
        "t = Transpose<perm=[1,0]>(w_12x8)\na = MatMul(x, t)\nd = MatMul(x, d_8x3)\n"
        "u = MatMul(d, u_3x12)\ny = Add(a, u)",
        2,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_fold_ends_and_the_function_stays(name: str) -> None:
    body, left = BODIES[name]
    model = parse(f"ends (float[n,7,8] x) => (float[n,7,12] y) {{\n{body}\n}}")
    made = {name for node in model.graph.node for name in node.output}
    for one in sorted({name for node in model.graph.node for name in node.input} - made - {"x"}):
        shape = [int(size) for size in one.partition("_")[2].split("x")]
        model.graph.initializer.append(onnx.numpy_helper.from_array(random(*shape), one))
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    graph.simplify()
    weights = [weight.name for weight in graph.weights()]
    after, edits = FoldBranches().apply(graph.copy(), weights, Context())
    assert len(after.ops()) == left and len(edits) <= len(weights)
    wanted, found = (one.runner(("x",), ("y",))(FEED)["y"] for one in (graph, after))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
