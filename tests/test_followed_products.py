"""Products behind each other as one op: bit by bit what two ops are, and made only where that may be."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcc.codegen.cpu.processors.processors import native
from qcc.codegen.target.target import Arithmetic
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.kernel.kernel_op import parse_kernel
from qcc.ir.kernel.op import OpError
from qcc.ir.kernel.sequence_op import SequenceOp
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.emit.follow import follow_products
from qcc.ir.onnx.emit.kernel_body import kernel_function
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from tests.codegen_models import draw, session, tried
from tests.onnx_models import run

OPSET = 21
FIRST_INPUTS, BETWEEN, OUTPUTS = 128, 320, 128
ROWS = (0, 1, 3, 32, 65, 512, 1600)  # the last outgrow a second cache of 1 MB with those of a task
MOST_L2 = 1 << 20
TARGETS = [("native", "int8"), ("native", "bf16"), ("native", "exact"), ("avx2", "int8")]
SLOW = [pytest.param("sapphire-rapids", one, marks=pytest.mark.slow) for one in ("int8", "bf16")]
NAMES = (
    "linear_int8_channel_bias_gelu_then_linear_int8_channel_bias_add_layer_norm",
    "linear_int4_group32_silu_and_mul_then_linear_int4_group32_add_keep_rms_norm",
    "linear_int3_group64_asym_bias_relu_mul_then_linear_int8_channel_static",
    "linear_int8_channel_static_gelu_then_linear_nf4_group32_mul_bias",
    "linear_bf16_tanh_then_linear_int5_channel_asym_layer_norm",
)


def sequence(name: str) -> SequenceOp:
    found = parse_kernel(name)
    assert isinstance(found, SequenceOp)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_back(name: str) -> None:
    op = sequence(name)
    assert op.name == name
    assert len(set(op.inputs)) == len(op.inputs) == sum(len(one.inputs) for one in op.members) - 1


@pytest.mark.parametrize(
    "name",
    [
        "linear_int8_channel_layer_norm_then_linear_int8_channel",
        "linear_int8_channel_and_then_linear_int8_channel",
        "linear_int8_channel_then_linear_int8_channel_and",
        "conv1x1_int8_channel_then_conv1x1_int8_channel",
        "linear_blocks16x16_fp32_then_linear_int8_channel",
        "linear_int8_channel_then_",
        "_then_linear_int8_channel",
        "linear_int8_channel_then_linear_int8_channel_then_linear_int8_channel",
    ],
)
def test_names_reject(name: str) -> None:
    with pytest.raises(OpError):
        parse_kernel(name)


Pair = tuple[onnx.ModelProto, onnx.ModelProto]


def one_and_two(op: SequenceOp, sizes: tuple[int, int, int] = (FIRST_INPUTS, BETWEEN, OUTPUTS)) -> Pair:
    """A model of one node, and one of two, of the same weights; both with the functions' bodies."""
    names, held = iter(op.inputs[1:]), []
    inputs, nodes, read = ["x"], [], "x"
    for member, (columns, rows) in zip(op.members, itertools.pairwise(sizes), strict=True):
        stored: dict[str, onnx.TensorProto] = {}
        for at, one in enumerate(member.members):  # a gate's halves have weights of their own
            tensors, count = draw(one, rows, columns, at).model().graph.initializer, len(one.weight_inputs)
            stored |= dict(zip(member.weight_inputs[at * count : (at + 1) * count], tensors, strict=False))
            stored |= {tensor.name: tensor for tensor in tensors[count:]}
        own = [next(names) for _ in member.inputs[1:]]
        for name, inner in zip(own, member.inputs[1:], strict=True):
            if inner in stored:
                stored[inner].name = name
                held.append(stored[inner])
            else:
                inputs.append(name)
        results = ["between"] if member is op.first else op.outputs
        nodes.append(helper.make_node(member.name, [read, *own], results, domain="qcc"))
        for key, number in member.attributes.items():
            nodes[-1].attribute.append(helper.make_attribute(key, number))
        read = "between"
    whole = helper.make_node(op.name, op.inputs, op.outputs, domain="qcc")
    whole.attribute.extend(nodes[-1].attribute)
    every = {*op.members, *(one for member in op.members for one in member.members)}
    functions = [ir.to_proto(kernel_function(one, OPSET)) for one in every]
    functions.append(ir.to_proto(kernel_function(op, OPSET)))
    return _model([whole], inputs, op, held, functions), _model(nodes, inputs, op, held, functions)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str],
    op: SequenceOp,
    constants: Sequence[onnx.TensorProto],
    functions: Sequence[onnx.FunctionProto],
) -> onnx.ModelProto:
    read = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in op.outputs]
    graph = helper.make_graph(nodes, "g", read, made, constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("qcc", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def feeds(model: onnx.ModelProto, rows: int) -> dict[str, np.ndarray]:
    """Values for all inputs; only a first product's own tensors are as wide as what lies between."""
    random = np.random.default_rng(rows)
    names = [one.name for one in model.graph.input[1:]]
    widths = {"x": FIRST_INPUTS} | {name: OUTPUTS if name.endswith("_then") else BETWEEN for name in names}
    return {name: random.standard_normal((rows, width)).astype(np.float32) for name, width in widths.items()}


@pytest.mark.sampled
@pytest.mark.parametrize(("target", "activations"), [*TARGETS, *SLOW])
def test_one_op_computes_what_two_do(tmp_path: Path, target: str, activations: Arithmetic) -> None:
    pytest.importorskip("tvm")
    from qcc.codegen.cpu.library.build import build
    from qcc.codegen.cpu.library.spec import sequences

    found = tried(target)
    processor = replace(found, l2_bytes=min(found.l2_bytes, MOST_L2))
    ops = sequences([*map(sequence, NAMES)], processor, activations)
    assert ops
    library = build(ops, (processor,), tmp_path / "k.so", activations)
    for op, threads in itertools.product(ops, (1, 2)):
        models = one_and_two(op)
        for model in models:
            del model.functions[:]  # so that nothing but kernels can run
        one, two = (session(model, library, threads) for model in models)
        for rows in ROWS:
            given = feeds(models[0], rows)
            for made, wanted in zip(one.run(None, given), two.run(None, given), strict=True):
                np.testing.assert_array_equal(made, wanted, err_msg=f"{op.name}, {rows} rows, {threads} threads")


@pytest.mark.parametrize("name", NAMES)
def test_body_in_plain_onnx_runtime(name: str) -> None:
    models = one_and_two(sequence(name))
    one, two = (session(model, None) for model in models)
    given = feeds(models[0], 5)
    for made, wanted in zip(one.run(None, given), two.run(None, given), strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_layers_reject(tmp_path: Path) -> None:
    """A second product that reads more than the first makes is told when the session is made."""
    pytest.importorskip("tvm")
    from qcc.codegen.cpu.library.build import build

    op = sequence(NAMES[0])
    library = build([op], (native(),), tmp_path / "k.so")
    model, _ = one_and_two(op)
    del model.functions[:]
    for constant in model.graph.initializer:
        if not constant.name.endswith("_then"):
            array = numpy_helper.to_array(constant)
            constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[:64]), constant.name))
    with pytest.raises(Exception, match="reads what the first makes"):
        session(model, library)


LAYERS = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[r, 64] x, float[r, 64] y) => (float[r, 64] last{more})
<float[64, 256] up = {{}}, float[256, 64] down = {{}}, float[64, 64] out = {{}}>
{{
  wide = MatMul (x, up)
  open = {activation} (wide)
  narrow = MatMul (open, down)
  sum = Add (narrow, {added})
  last = MatMul (sum, out)
}}
"""


def encoded_graph(folder: Path, added: str = "x", more: str = "", activation: str = "Relu") -> OnnxGraph:
    model = onnx.parser.parse_model(LAYERS.format(added=added, more=more, activation=activation))
    random = np.random.default_rng(0)
    for constant in model.graph.initializer:
        array = random.standard_normal(tuple(constant.dims)).astype(np.float32)
        constant.CopyFrom(numpy_helper.from_array(array, constant.name))
    onnx.save(model, folder / "model.onnx")
    graph = OnnxGraph.load(folder / "model.onnx")
    graph.simplify()
    names = [weight.name for weight in graph.weights()]
    Encode(Blocked(IntGrid(8), CHANNEL), Nearest(), KERNEL).rewrite(graph, names, Context())
    return graph


def outputs(graph: OnnxGraph, path: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    ir.save(graph.model, path)
    return run(path, {name: random.standard_normal((3, 64)).astype(np.float32) for name in ("x", "y")})


@pytest.mark.parametrize("added", ["x", "y"])
def test_made_where_one_reads_the_other(tmp_path: Path, added: str) -> None:
    """What is added may be what comes in, or another value; the third product stays, as no node is in two pairs."""
    graph = encoded_graph(tmp_path, added)
    before = outputs(graph, tmp_path / "before.onnx")
    ((made, gone),) = follow_products(graph.model)
    assert made.name == "linear_int8_channel_relu_then_linear_int8_channel_add"
    assert made.members == gone
    called = [node.op_type for node in graph.model.graph if node.domain == "qcc"]
    assert called == [made.name, "linear_int8_channel"]
    for name, array in outputs(graph, tmp_path / "after.onnx").items():
        np.testing.assert_allclose(array, before[name], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("more", "activation"), [(", float[r, 256] open", "Relu"), ("", "Cos")])
def test_made_reject(tmp_path: Path, more: str, activation: str) -> None:
    """What others read as well, and an op between that is none of ours."""
    graph = encoded_graph(tmp_path, more=more, activation=activation)
    assert "wide" not in {made.first.name for made, _ in follow_products(graph.model)}
    names = {node.op_type for node in graph.model.graph if node.domain == "qcc"}
    assert not any(name.startswith("linear_int8_channel_relu_then") for name in names)
