"""Products of one input as one op: bit by bit what they are one by one, and joined only where that may be."""

import itertools
from collections.abc import Sequence
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
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.kernel.op import LinearOp, OpError, parse
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.emit.join import join_products
from qcc.ir.onnx.emit.kernel_body import kernel_function
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from tests.codegen_models import draw, session, tried
from tests.onnx_models import run

NAMES = (
    "linear_int8_channel_bias_and_bias_and_bias",
    "linear_int4_group32_and_and",
    "linear_int4_group32_silu_and_mul",
    "linear_int3_group64_asym_bias_and_bias_silu_mul",
    "linear_int5_channel_asym_gelu_and_add_bias",
    "linear_nf4_group32_and_bias_relu",
    "linear_int4_group32_fp32_bias_and_and_bias_and",
)
SIZES = {2: (192, 192), 3: (192, 64, 128), 4: (64, 128, 64, 64)}
INPUTS, OPSET = 128, 21
TARGETS = [("native", "int8"), ("native", "exact"), ("avx2", "int8")]
SLOW = pytest.param("sapphire-rapids", "int8", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_back(name: str) -> None:
    assert parse(name).name == name
    assert len(parse(name).members) == name.count("_and") + 1


@pytest.mark.parametrize(
    "name",
    [
        "linear_int4_group32_mul_and_mul",
        "linear_int4_group32_and_mul_and",
        "linear_int4_group32_and_mul_add",
        "linear_int4_group32_and_layer_norm",
        "linear_int8_channel_static_and",
        "linear_bf16_and",
        "linear_blocks16x16_fp32_and",
        "conv1x1_int8_channel_and",
        "linear_int8_channel_and_and_and_and",
    ],
)
def test_names_reject(name: str) -> None:
    with pytest.raises(OpError):
        parse(name)


def joined_and_apart(op: LinearOp) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model of one node, and one of a node each, of the same weights; both with the functions' bodies."""
    each = len(op.weight_inputs) // len(op.members)
    weights, vectors, inputs = [], [], iter(op.step_inputs)
    nodes, constants, result, results = [], [], "", iter(op.outputs)
    for at, (one, size) in enumerate(zip(op.members, SIZES[len(op.members)], strict=True)):
        layer = draw(one, size, INPUTS, at)
        held = [*layer.model().graph.initializer]
        for new, stored in zip(op.weight_inputs[at * each : (at + 1) * each], held, strict=False):
            stored.name = new
        for stored in held[each:]:
            stored.name = next(inputs)[0]
        constants += held
        own = iter(tensor.name for tensor in held[each:])
        operands = [result if kind == "tensor" else next(own) for _, kind in one.step_inputs]
        result = "between" if op.chained and not at else next(results)
        nodes.append(
            helper.make_node(one.name, ["x", *(c.name for c in held[:each]), *operands], [result], domain="qcc")
        )
        weights += [c.name for c in held[:each]]
        vectors += [c.name for c in held[each:]]
    whole = helper.make_node(op.name, ["x", *weights, *vectors], op.outputs, domain="qcc")
    functions = [ir.to_proto(kernel_function(one, OPSET)) for one in {op, *op.members}]
    return _model([whole], op, constants, functions), _model(nodes, op, constants, functions)


def _model(
    nodes: Sequence[onnx.NodeProto],
    op: LinearOp,
    constants: Sequence[onnx.TensorProto],
    functions: Sequence[onnx.FunctionProto],
) -> onnx.ModelProto:
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in op.outputs]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], outputs, constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("qcc", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


@pytest.mark.sampled
@pytest.mark.parametrize(("target", "activations"), [*TARGETS, SLOW])
def test_one_op_computes_what_several_do(tmp_path: Path, target: str, activations: Arithmetic) -> None:
    pytest.importorskip("tvm")
    from qcc.codegen.cpu.library.build import build
    from qcc.codegen.cpu.library.spec import served

    processor = tried(target)
    ops = served(map(parse, NAMES), processor, activations)
    alone = {one for op in ops for one in op.members}
    library = build([*ops, *alone], (processor,), tmp_path / "k.so", activations)
    for op, threads in itertools.product(ops, (1, 2)):
        models = joined_and_apart(op)
        for model in models:
            del model.functions[:]  # so that nothing but kernels can run
        one, several = (session(model, library, threads) for model in models)
        for rows in (1, 2, 3, 6, 33, 200):
            x = np.random.default_rng(rows).standard_normal((rows, INPUTS)).astype(np.float32)
            for made, wanted in zip(one.run(None, {"x": x}), several.run(None, {"x": x}), strict=True):
                np.testing.assert_array_equal(made, wanted, err_msg=f"{op.name}, {rows} rows, {threads} threads")


@pytest.mark.parametrize("name", NAMES)
def test_body_in_plain_onnx_runtime(name: str) -> None:
    one, several = (session(model, None) for model in joined_and_apart(parse(name)))
    x = np.random.default_rng(0).standard_normal((5, INPUTS)).astype(np.float32)
    for made, wanted in zip(one.run(None, {"x": x}), several.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_int4_group32_silu_and_mul", "linear_int8_channel_bias_and_bias_and_bias"])
def test_layers_reject(tmp_path: Path, name: str) -> None:
    """Products whose outputs are no whole strips, or are not as many, are told when the session is made."""
    pytest.importorskip("tvm")
    from qcc.codegen.cpu.library.build import build

    op = parse(name)
    library = build([op], (native(),), tmp_path / "k.so")
    model, _ = joined_and_apart(op)
    del model.functions[:]
    for constant in model.graph.initializer:  # the first product has fewer outputs
        array = numpy_helper.to_array(constant)
        if not constant.name.split("_and")[0][-1:].isdigit() or "_and" not in constant.name:
            constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[:40]), constant.name))
    with pytest.raises(Exception, match=r"multiples of 64|as many outputs"):
        session(model, library)


GATED = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[r, 64] x) => (float[r, 64] qs, float[r, 64] ks, float[r, {size}] vs, float[r, 64] both{more})
<float[64, 64] q = {{}}, float[64, 64] k = {{}}, float[64, {size}] v = {{}},
 float[64, 64] gate = {{}}, float[64, 64] up = {{}}>
{{
  qs = MatMul (x, q)
  ks = MatMul (x, k)
  vs = MatMul (x, v)
  gates = MatMul (x, gate)
  open = Sigmoid (gates)
  gated = Mul (gates, open)
  ups = MatMul (x, up)
  both = Mul (gated, ups)
}}
"""
Formats = dict[str, Blocked]
INT8, INT4, ASYM = Blocked(IntGrid(8), CHANNEL), Blocked(IntGrid(4), group(32)), Blocked(IntGrid(8, False), CHANNEL)


def encoded_graph(folder: Path, size: int = 64, more: str = "", formats: Formats | None = None) -> OnnxGraph:
    model = onnx.parser.parse_model(GATED.format(size=size, more=more))
    random = np.random.default_rng(0)
    for constant in model.graph.initializer:
        array = random.standard_normal(tuple(constant.dims)).astype(np.float32)
        constant.CopyFrom(numpy_helper.from_array(array, constant.name))
    onnx.save(model, folder / "model.onnx")
    graph = OnnxGraph.load(folder / "model.onnx")
    graph.simplify()
    wanted = {weight.name: (formats or {}).get(weight.name, INT8) for weight in graph.weights()}
    for encoding in dict.fromkeys(wanted.values()):
        names = [name for name, one in wanted.items() if one == encoding]
        Encode(encoding, Nearest(), KERNEL).rewrite(graph, names, Context())
    return graph


def outputs(graph: OnnxGraph, path: Path) -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    ir.save(graph.model, path)
    return run(path, {"x": x})


def test_joined_where_one_value_is_read(tmp_path: Path) -> None:
    graph = encoded_graph(tmp_path)
    before = outputs(graph, tmp_path / "before.onnx")
    made = join_products(graph.model)
    joined = ["linear_int8_channel_and_and", "linear_int8_channel_and_silu_mul"]
    assert sorted(op.name for op, _ in made) == joined
    assert all(len(gone) == len(op.members) for op, gone in made)
    assert {node.op_type for node in graph.model.graph if node.domain == "qcc"} == {*joined}
    for name, array in outputs(graph, tmp_path / "after.onnx").items():
        np.testing.assert_allclose(array, before[name], rtol=1e-5, atol=1e-3)
    assert join_products(graph.model) == []


@pytest.mark.parametrize(
    ("size", "more", "formats", "names"),
    [
        (1, "", {}, {"linear_int8_channel_and", "linear_int8_channel_and_silu_mul"}),
        (64, ", float[r, 64] gated", {}, {"linear_int8_channel_and_and_and_silu"}),
        (64, "", {"gate": INT4, "k": ASYM}, {"linear_int8_channel_and"}),
        (64, "", {"gate": INT4, "k": ASYM, "v": Blocked(IntGrid(3), group(32))}, set()),
    ],
)
def test_joined_reject(tmp_path: Path, size: int, more: str, formats: Formats, names: set[str]) -> None:
    """Outputs that are no multiple of 64, a gate that others read, formats that differ."""
    graph = encoded_graph(tmp_path, size, more, formats)
    assert {op.name for op, _ in join_products(graph.model)} == names
