"""The vocabulary of ops: what is read off a definition, and that a definition is all that a new op takes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state

from qcc.ir.axes.trace import Law
from qcc.ir.graph.ops import Kind
from qcc.ir.onnx.emit.step_lines import formula_lines, step_lines
from qcc.ir.onnx.graph import kinds as onnx_kinds
from qcc.ir.vocabulary.find import ACTIVATIONS, OPS, STEPS

POINTS = np.concatenate([np.linspace(-9, 9, 1001), [-1e4, -50, 0, 50, 1e4]]).astype(np.float32)
TOLERANCE = 3e-6  # of 1 + |x|: float32, and the runtime's own erf and exp
OPSETS = (18, 21)
NAMES = {  # other canonical names than the op's own in snake_case
    "PRelu": "prelu", "Swish": "silu", "CastLike": "cast", "BitwiseNot": "not", "Sum": "add", "Mean": "average",
    "Gemm": "matmul", "Flatten": "reshape", "AveragePool": "avg_pool", "LRN": "local_response_norm",
}  # fmt: skip


def computed(lines: list[str], x: np.ndarray, opset: int) -> np.ndarray:
    body = "\n".join(lines)
    text = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[N] x) => (float[N] y) {{ {body} }}'
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = onnx.parser.parse_model(text).SerializeToString()
    found: np.ndarray = onnxruntime.InferenceSession(model, options).run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("opset", OPSETS)
def test_onnx_computes_what_a_formula_says(name: str, opset: int) -> None:
    """By the lines of the definition, and by those that the formula gives."""
    step = ACTIVATIONS[name]
    assert step.formula is not None
    expected = step.applied(POINTS.astype(np.float64))
    for lines in (step_lines(step, "x", "y", (), opset), formula_lines(step.formula, "x", "y", ())):
        error = np.abs(computed(lines, POINTS, opset) - expected)
        assert (error <= TOLERANCE * (1 + np.abs(POINTS))).all()


def test_definitions_are_of_kinds_and_laws_that_exist_and_name_an_op_once() -> None:
    for one in OPS.values():
        Kind(one.kind), Law(one.law)
    for names in ([one.onnx for one in OPS.values()], [one.aten for one in OPS.values()]):
        words = [word for text in names for word in text.split()]
        assert len(words) == len(set(words))
    assert len(STEPS) == sum(len(one.steps) for one in OPS.values())


def test_onnx_names_are_ops_of_onnx() -> None:
    """Those of another domain have its name in front: they are the runtime's own."""
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    own = {f"{one.domain}.{one.name}" for one in onnxruntime_pybind11_state.get_all_operator_schema()}
    assert set(onnx_kinds.KINDS) <= known | own
    assert {name: onnx_kinds.KINDS[name][1] for name in NAMES} == NAMES


TOY = """
import sys
from pathlib import Path
import numpy as np, onnx, onnx.parser
import qcc.ir.vocabulary.ops as ops

ops.__path__.append(sys.argv[1])

from qcc.ir.axes.trace import Law
from qcc.ir.axes.rules import law_of
from qcc.ir.graph.ops import Kind, Op
from qcc.ir.kernel.op import parse
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.graph.kinds import KINDS
from qcc.ir.fx.kinds import KINDS as ATEN
from qcc.ir.regions.find import regions

assert KINDS["QuickGelu"] == ATEN["quick_gelu"] == (Kind.ELEMENTWISE, "quick_gelu")
assert law_of(Op("o", Kind.ELEMENTWISE, "quick_gelu", (), ())) is Law.OTHER
assert parse("linear_int4_group32_bias_quick_gelu").steps == ("bias", "quick_gelu")

text = '''<ir_version: 8, opset_import: ["": 18]> g (float[N,64] x) => (float[N,32] y)
<float[64,32] w, float c = {1.702}> { h = MatMul(x, w) s = Mul(h, c) t = Sigmoid(s) y = Mul(h, t) }'''
model = onnx.parser.parse_model(text)
w = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32) / 8
kept = [one for one in model.graph.initializer if one.name != "w"]
del model.graph.initializer[:]
model.graph.initializer.extend([*kept, onnx.numpy_helper.from_array(w, "w")])
onnx.save(model, sys.argv[2])
graph = OnnxGraph.load(Path(sys.argv[2]))
graph.simplify()
(weight,) = graph.weights()
found = regions(graph, [weight])
assert [one.steps for one in found.values()] == [("quick_gelu",)], found

if len(sys.argv) > 3:
    from qcc.codegen.tir.steps import chain
    assert "quick_gelu" in str(chain("chain_quick_gelu", ("bias", "quick_gelu")))
print("ok")
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("kernel",)], ids=["graph", "kernel"])
def test_a_new_op_is_one_definition(more: tuple[str, ...], tmp_path: Path) -> None:
    """Its kind, its law, the name of its kernel, the body, the piece of a graph that computes it, and its kernel."""
    toys = Path(__file__).with_name("toy_ops")
    command = [sys.executable, "-c", TOY, str(toys), str(tmp_path / "model.onnx"), *more]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == "ok\n", run.stderr
