"""A product with steps behind it, written as one op, computes in plain ONNX Runtime what the ops computed."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.checker
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch.export import Dim

from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.graph.ops import Array, Feeds, Weight
from qcc.ir.kernel.op import KEEP, STEPS, LinearOp, OpError, parse
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.emit.kernel_body import kernel_function
from qcc.ir.regions.find import regions
from qcc.ir.vocabulary.find import ACTIVATIONS as FUNCTIONS
from qcc.ir.vocabulary.find import NORMS as NORM_FUNCTIONS
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from tests.codegen_models import linear
from tests.models_torch import SmallTransformer
from tests.onnx_models import CASES, Case, loaded, random, run
from tests.region_models import ACTIVATIONS, IN, KEPT, NORMS, OPERANDS, OUT, RESULT, Block, case
from tests.torch_export import to_onnx

TABLES = ("nf4_group64", "nf4_channel", "fp4_group32_e8m0", "fp4_channel_e8m0", "fp4_group32", "int1_group32")
INT4 = Blocked(IntGrid(4), group(32))
ASYM = Blocked(IntGrid(3, False), CHANNEL)
TOLERANCE = 1e-5  # of the largest output: sums of 64 float32 products in another order
FEEDS = {
    "x": random(2, 3, IN, seed=1),
    "t": random(2, 3, OUT, seed=11),
    "u": random(2, 3, OUT, seed=12),
    "narrow": random(2, 1, OUT, seed=13),
    "thin": random(2, 3, 1, seed=14),
}


def encode(graph: OnnxGraph, weights: Sequence[Weight], encoding: Blocked, feeds: Feeds) -> dict[str, Array]:
    """Encode weights with all their regions; what the model must compute then."""
    decoded, found = graph.copy(), regions(graph, weights)
    for weight in weights:
        encoded = fit.encode(graph.matrix(weight), encoding)
        decoded.replace_matrix(weight, encoded.decode())
        graph.encode(weight, encoded, KERNEL, found)
    names = [value.name for value in decoded.outputs]
    return decoded.runner([value.name for value in decoded.inputs], names)(feeds)


def check(path: Path, feeds: Feeds, expected: Feeds, optimized: Path | None = None) -> None:
    onnx.checker.check_model(onnx.load(path), full_check=True)
    actual = run(path, feeds, optimized)
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape
        largest = max(np.abs(wanted).max(), 1e-30)
        np.testing.assert_allclose(actual[name], wanted, rtol=0, atol=TOLERANCE * largest, err_msg=name)


def emitted(one: Case, encoding: Blocked, folder: Path, feeds: Feeds = FEEDS) -> onnx.ModelProto:
    """The model, checked."""
    graph = loaded(one, folder)
    expected = encode(graph, graph.weights(), encoding, feeds)
    graph.save(folder / "encoded.onnx")
    check(folder / "encoded.onnx", feeds, expected)
    return onnx.load(folder / "encoded.onnx")


WRITTEN = (
    {name: (nodes, (step,)) for name, (step, nodes) in ACTIVATIONS.items()}
    | {name: (nodes, (step,)) for name, (step, _, _, nodes) in NORMS.items()}
    | {name: (nodes, steps) for name, (nodes, steps, _, _) in OPERANDS.items()}
)


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", [INT4, ASYM], ids=["int4", "int3_asym"])
@pytest.mark.parametrize("name", WRITTEN)
def test_all_that_is_found_becomes_one_op(name: str, encoding: Blocked, tmp_path: Path) -> None:
    nodes, steps = WRITTEN[name]
    model = emitted(case(nodes), encoding, tmp_path)
    (node,) = model.graph.node
    op = parse(node.op_type)
    assert op.steps == steps
    assert len(node.input) == len(op.inputs)
    assert {tensor.name for tensor in model.graph.initializer} == {name for name in node.input if name not in FEEDS}
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    kinds = zip(node.input, ("", *("" for _ in op.weight_inputs), *(kind for _, kind in op.step_inputs)), strict=True)
    assert all(shapes[name] == [OUT] for name, kind in kinds if kind == "vector")
    assert ("epsilon" in {attribute.name for attribute in node.attribute}) == any(STEPS[step].whole for step in steps)


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_value_is_a_second_output(name: str, tmp_path: Path) -> None:
    nodes, other = KEPT[name]
    model = emitted(case(nodes, f"{RESULT}, float[N,S,{OUT}] {other}"), INT4, tmp_path)
    kernel, *others = model.graph.node
    assert kernel.op_type == "linear_int4_group32_add_keep_layer_norm"
    assert list(kernel.output) == ["y", "a"]
    assert [node.op_type for node in others] == (["Neg"] if other == "z" else [])


@pytest.mark.parametrize("opset", [9, 10])
def test_steps_whose_ops_a_raised_opset_spells_otherwise(opset: int, tmp_path: Path) -> None:
    nodes = """r = Clip <min = 0.0, max = 6.0> (h) a = Add(r, t) p = Mul(a, a)
    c = ReduceMean <axes = [2]> (p) d = Add(c, eps) e = Sqrt(d) f = Div(a, e) y = Mul(f, gain)"""
    model = emitted(case(nodes, opset=opset), INT4, tmp_path)
    assert [node.op_type for node in model.graph.node] == ["linear_int4_group32_relu6_add_rms_norm"]


@pytest.mark.sampled
@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("step", [step for step in STEPS if step != KEEP])
def test_bodies_in_every_opset(step: str, opset: int) -> None:
    _check_body(linear(4, 32, steps=(step,)), opset)


def _chains() -> st.SearchStrategy[tuple[str, ...]]:
    steps = st.lists(st.sampled_from([step for step in STEPS if step != KEEP]), max_size=4).map(tuple)
    kept = st.tuples(steps, st.sampled_from(["layer_norm", "rms_norm"])).map(lambda pair: (*pair[0], KEEP, pair[1]))
    return (steps | kept).filter(_is_op)


def _is_op(steps: tuple[str, ...]) -> bool:
    try:
        linear(4, 32, steps=steps)
    except OpError:
        return False
    return True


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(_chains(), st.sampled_from([(4, 32, True), (3, None, False), (8, 64, False)]), st.sampled_from([18, 20]))
def test_bodies_of_chains(steps: tuple[str, ...], stored: tuple[int, int | None, bool], opset: int) -> None:
    bits, size, symmetric = stored
    _check_body(linear(bits, size, symmetric, steps), opset)


@pytest.mark.sampled
@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("stored", TABLES)
def test_bodies_of_tables(stored: str, opset: int) -> None:
    _check_body(parse(f"linear_{stored}_bias_relu"), opset)


@pytest.mark.parametrize("opset", [18, 23])
def test_bodies_of_bfloat16_weights(opset: int) -> None:
    op = linear(16, steps=("bias", "silu", "mul"))
    matrix = (random(OUT, IN) / 8).astype(ml_dtypes.bfloat16)
    _check_function(op, opset, [matrix], matrix.astype(np.float32))


EPSILON = 1e-3


def _check_body(op: LinearOp, opset: int) -> None:
    """A function of this op against numpy."""
    encoded = fit.encode(random(OUT, IN) / 8, op.encoding)
    _check_function(op, opset, list(op.arrays(encoded.parts).values()), encoded.decode())


def _check_function(op: LinearOp, opset: int, weight: Sequence[Array], matrix: Array) -> None:
    shapes = [(OUT,) if kind == "vector" else (2, 3, OUT) for _, kind in op.step_inputs]
    extra = [random(*shape, seed=at) for at, shape in enumerate(shapes)]
    arrays = dict(zip(op.inputs, [FEEDS["x"], *weight, *extra], strict=True))
    node = helper.make_node(op.name, list(op.inputs), list(op.outputs), domain="qcc")
    if any(STEPS[step].whole for step in op.steps):
        node.attribute.append(helper.make_attribute("epsilon", EPSILON))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "S", IN])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "S", OUT]) for name in op.outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name != "x"],
    )
    body = onnx.FunctionProto.FromString(_serialised(op, opset))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("qcc", 1)]
    model = helper.make_model(graph, functions=[body], opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    actual = session.run(list(op.outputs), {"x": arrays["x"]})
    for made, wanted in zip(actual, _expected(op, matrix, arrays), strict=True):
        np.testing.assert_allclose(made, wanted, rtol=0, atol=TOLERANCE * max(np.abs(wanted).max(), 1))


def _serialised(op: LinearOp, opset: int) -> bytes:
    return bytes(ir.serde.serialize_function(kernel_function(op, opset)).SerializeToString())


def _expected(op: LinearOp, matrix: Array, arrays: Feeds) -> list[Array]:
    value: Array = arrays["x"].astype(np.float64) @ matrix.T.astype(np.float64)
    operands, kept = iter([arrays[name].astype(np.float64) for name, _ in op.step_inputs]), []
    for step in op.steps:
        if step == KEEP:
            kept.append(value)
        elif step in FUNCTIONS:
            value = FUNCTIONS[step].applied(value)
        elif step == "mul":
            value = value * next(operands)
        elif step in NORM_FUNCTIONS:
            value = NORM_FUNCTIONS[step].normalised(value, float(np.float32(EPSILON))) * next(operands)
            value = value + next(operands) if step == "layer_norm" else value
        else:
            value = value + next(operands)
    return [value, *kept]


@pytest.mark.parametrize("name", ["add", "layer_norm", "rms_norm"])
def test_the_runtime_fuses_what_it_knows(name: str, tmp_path: Path) -> None:
    nodes = {
        "add": "a = Add(h, b) y = Gelu(a)",
        "layer_norm": "a = Add(h, b) c = Add(a, t) y = LayerNormalization (c, gain, shift)",
        "rms_norm": NORMS["rms_norm"][-1],
    }[name]
    emitted(case(nodes, opset=20), INT4, tmp_path)
    run(tmp_path / "encoded.onnx", FEEDS, tmp_path / "optimized.onnx")
    left = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    fused = {"add": "BiasGelu", "layer_norm": "SkipLayerNormalization", "rms_norm": "SimplifiedLayerNormalization"}
    assert left == {"MatMul", fused[name]}


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("block") / "model.onnx"
    shapes = ({0: Dim("batch"), 1: Dim("length")},)
    to_onnx(Block().eval(), (torch.zeros(2, 3, 32),), path, dynamic_shapes=shapes)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("order", range(6))
def test_regions_hold_in_any_order(order: int, block: Path, tmp_path: Path) -> None:
    graph = OnnxGraph.load(block)
    graph.simplify()
    weights = [graph.weights()[at] for at in np.random.default_rng(order).permutation(6)]
    feeds = {graph.inputs[0].name: random(2, 5, 32)}
    expected = encode(graph, weights, INT4, feeds)
    graph.save(tmp_path / "encoded.onnx")
    check(tmp_path / "encoded.onnx", feeds, expected)
    nodes = onnx.load(tmp_path / "encoded.onnx").graph.node
    assert [node.domain for node in nodes] == ["qcc"] * 6


@pytest.mark.slow
def test_a_region_holds_while_others_take_other_forms(block: Path, tmp_path: Path) -> None:
    graph = OnnxGraph.load(block)
    graph.simplify()
    weights = graph.weights()
    found = regions(graph, weights[::2])
    decoded = graph.copy()
    for at, weight in reversed(list(enumerate(weights))):
        encoded = fit.encode(graph.matrix(weight), INT4)
        decoded.replace_matrix(weight, encoded.decode())
        graph.encode(weight, encoded, (KERNEL, FUSED)[at % 2], found)
    graph.save(tmp_path / "encoded.onnx")
    feeds = {graph.inputs[0].name: random(2, 5, 32)}
    names = [value.name for value in decoded.outputs]
    check(tmp_path / "encoded.onnx", feeds, decoded.runner(list(feeds), names)(feeds))


@pytest.mark.slow
def test_the_pass_finds_regions(block: Path, tmp_path: Path) -> None:
    graph = OnnxGraph.load(block)
    graph.simplify()
    names = [weight.name for weight in graph.weights()]
    encoded, edits = Encode(INT4, Nearest(), KERNEL).apply(graph, names, Context())
    assert isinstance(encoded, OnnxGraph)
    assert not any(edit.refused for edit in edits)
    encoded.save(tmp_path / "encoded.onnx")
    made = [node.op_type for node in onnx.load(tmp_path / "encoded.onnx").graph.node if node.domain == "qcc"]
    assert sorted(op.name for edit in edits for op in edit.ops) == sorted(made)
    steps = {op.steps for edit in edits for op in edit.ops if isinstance(op, LinearOp)}
    assert steps == {
        (),
        ("silu", "mul"),
        ("add", KEEP, "rms_norm"),
        ("bias", "gelu", "add"),
        ("bias", "gelu_tanh"),
        ("bias", "hard_swish", "layer_norm"),
    }


TIED = ["tied_transpose", "tied_gemm", "tied_stored_transposed"]
FORMATS = [
    Blocked(IntGrid(bits, symmetric), block)
    for bits, symmetric, block in product((3, 4, 8), (True, False), (CHANNEL, group(32)))
]


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", FORMATS, ids=lambda encoding: encoding.text.replace(" ", "_"))
@pytest.mark.parametrize("name", TIED)
def test_a_tied_table_is_stored_once(name: str, encoding: Blocked, tmp_path: Path) -> None:
    model = emitted(CASES[name], encoding, tmp_path, CASES[name].feeds)
    domains = [node.op_type for node in model.graph.node if node.domain == "qcc"]
    assert sum(op.startswith("decode") for op in domains) == 1
    (node,) = (node for node in model.graph.node if node.op_type.startswith("linear"))
    gathered = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    op = parse(node.op_type)
    assert gathered == set(node.input[1 : 1 + len(op.weight_inputs)])
    assert op.steps == (("bias",) if name == "tied_gemm" else ())
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer if tensor.name in gathered)
    assert stored == KERNEL.stored_bytes(encoding, (7, 64)) - KERNEL.node_bytes
    again = OnnxGraph.load(tmp_path / "encoded.onnx")
    again.simplify()
    assert not again.weights()


def test_several_layers_read_one_weight(tmp_path: Path) -> None:
    model = emitted(CASES["shared"], INT4, tmp_path, CASES["shared"].feeds)
    one, other = model.graph.node
    assert (one.op_type, other.op_type) == ("linear_int4_group32_relu", "linear_int4_group32")
    assert one.input[1:] == other.input[1:]


READ_OTHERWISE = {
    "transposed": "g (float[N,64] x) => (float[N,64] y) { h = MatMul(x, w) t = Transpose(w) y = MatMul(h, t) }",
    "table_transposed": """g (int64[N] i, float[N,64] x) => (float[N,64] y, float[N,64] e) {
        e = Gather(w, i) y = MatMul(x, w) }""",
}


@pytest.mark.parametrize("name", READ_OTHERWISE)
def test_layers_that_read_another_matrix_reject(name: str, tmp_path: Path) -> None:
    graph = loaded(Case(READ_OTHERWISE[name], {"w": random(64, 64)}, {}), tmp_path)
    (weight,) = graph.weights()
    assert "read in a way" in KERNEL.refuses(weight, INT4)


@pytest.mark.slow
def test_a_block_that_runs_twice_and_a_tied_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    example = torch.zeros(2, 5, dtype=torch.int64)
    to_onnx(SmallTransformer().eval(), (example,), tmp_path / "model.onnx")
    graph = OnnxGraph.load(tmp_path / "model.onnx")
    graph.simplify()
    weights = [weight for weight in graph.weights() if not KERNEL.refuses(weight, INT4)]
    feeds = {graph.inputs[0].name: np.arange(10, dtype=np.int64).reshape(2, 5)}
    expected = encode(graph, weights, INT4, feeds)
    graph.save(tmp_path / "encoded.onnx")
    check(tmp_path / "encoded.onnx", feeds, expected)
    made = [
        node.op_type for node in onnx.load(tmp_path / "encoded.onnx").graph.node if node.op_type.startswith("linear")
    ]
    assert made.count("linear_int4_group32_silu_mul") == 2
    assert sum(map(made.count, set(made))) == sum(len(weight.layers) for weight in weights) - 1  # the embedding
