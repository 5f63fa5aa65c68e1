"""Both adapters say the same of every op, in the same words.

The exporter keeps torch's value names. So each ATen op is compared with the ONNX ops that make the value of its name
out of values that ATen has too; exporters spell some ops in pieces, and which pieces is listed here, with the reasons.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from qcc.ir.fx import kinds as fx_kinds
from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.attributes import sizes_of
from qcc.ir.graph.functions import FUNCTIONS
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.graph import kinds as onnx_kinds
from tests import models_torch as models
from tests.torch_export import to_onnx

Said = tuple[Kind, str, tuple[tuple[str, object], ...]]
BATCH = Dim("batch")
IDS = torch.zeros(2, 8, dtype=torch.int64)
CASES = {
    "cnn": (models.SmallCnn, torch.zeros(2, 3, 16, 16), ({0: BATCH},)),
    "transformer": (models.SmallTransformer, IDS, ({0: BATCH, 1: Dim("seq", max=32)},)),
    "encoder": (lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), torch.zeros(2, 5, 32), None),
}
# what opset 20, to which torch exports, spells in pieces
KEYS = ("transpose", "reshape")  # the keys' last axes are swapped, through a reshape where there are four
SCORES = ("mul", "mul", "matmul")
PIECES: dict[str, set[tuple[str, ...]]] = {
    "attention": {  # an op of its own from opset 23
        (*KEYS, *SCORES, "softmax", "matmul"),
        # a causal mask is made, and sizes are not known
        ("expand", "Trilu", "equal", "where", "reshape", *KEYS, *SCORES, "add", "softmax", "matmul"),
    },
    "mul": {("sigmoid", "mul")},  # of a silu; Swish from opset 24
    "rsqrt": {("sqrt", "reciprocal")},
    "linear": {("linear", "add")},  # Gemm has a bias, but takes two axes only
}
RENAMED = {"adaptive_avg_pool2d": "mean"}  # what the exporter names itself
INLINED = {"view_5"}  # the keys reach the attention through one reshape less
GATES = {"silu_gate", "silu_1_gate"}  # what they are multiplied into is compared with both
# arithmetic on sizes, which ATen does with numbers
SIZES = {"shape", "squeeze", "concat", "slice", "gather"}


@pytest.fixture(scope="module", params=CASES)
def graphs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Graph]:
    make, example, shapes = CASES[request.param]
    torch.manual_seed(0)
    module = make().eval()
    path = tmp_path_factory.mktemp("ops") / "model.onnx"
    to_onnx(module, (example,), path, dynamic_shapes=shapes)
    program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    fx, onnx = FxGraph(program.run_decompositions({})), OnnxGraph.load(path)  # as the exporter sees it
    fx.simplify()
    onnx.simplify()
    return fx, onnx


def _said(graph: Graph, op: Op) -> Said:
    attributes = dict(op.attributes)
    if op.kind is Kind.LINEAR:  # the layout of its weight is the exporter's choice
        read = {layer.input for weight in graph.weights() for layer in weight.layers if layer.op == op.name}
        turned = op.attributes["transposed"]
        assert isinstance(turned, tuple)
        attributes["transposed"] = tuple(at for at in turned if op.inputs[at] in read)
    return op.kind, op.function, tuple(sorted(attributes.items()))


def _is_of_sizes(graph: Graph, op: Op) -> bool:
    """The op computes a size, or only turns a constant around."""
    whole = all(name == "" or graph.value(name).dtype == "int64" for name in (*op.inputs, *op.outputs))
    fed = [name for name in op.inputs if name and graph.constant(name) is None]
    return op.kind is Kind.CONSTANT or not fed or (whole and op.function in SIZES)


def _region(graph: Graph, op: Op, known: set[str]) -> list[Op]:
    """The ops that make an op's value out of known values, in their order."""
    makers = {name: one for one in graph.ops() for name in one.outputs if not _is_of_sizes(graph, one)}
    todo, found = list(op.outputs), set[str]()
    while todo:
        maker = makers.get(todo.pop())
        if maker is not None and maker.name not in found:
            found.add(maker.name)
            todo += [name for name in maker.inputs if name not in known]
    return [one for one in graph.ops() if one.name in found]


def _partner(op: Op, ops: Sequence[Op]) -> Op:
    """The ONNX op that makes the value of an ATen op's name; the parts of a split have names of their own."""
    name = RENAMED.get(op.outputs[0], op.outputs[0])
    alike = (one for one in ops if one.kind is op.kind is Kind.SPLIT and one.inputs[0] == op.inputs[0])
    return next((one for one in ops if one.outputs[0] == name), None) or next(alike)


@pytest.mark.slow
def test_ops_are_the_same(graphs: tuple[Graph, Graph]) -> None:
    fx, onnx = graphs
    compared = [op for op in fx.ops() if not _is_of_sizes(fx, op) and op.name not in INLINED | GATES]
    partners = [_partner(op, onnx.ops()) for op in compared]
    known = {name for partner in partners for name in partner.outputs} | {value.name for value in fx.inputs}
    covered = []
    for op, partner in zip(compared, partners, strict=True):
        region = _region(onnx, partner, known - set(partner.outputs))
        covered += [one.name for one in region]
        if [_said(onnx, one) for one in region] != [_said(fx, op)]:
            assert tuple(one.function for one in region) in PIECES.get(op.function, ()), (op, region)
    assert sorted(covered) == sorted(op.name for op in onnx.ops() if not _is_of_sizes(onnx, op))


@pytest.mark.slow
def test_layers_are_the_same(graphs: tuple[Graph, Graph]) -> None:
    fx, onnx = ([layer for weight in graph.weights() for layer in weight.layers] for graph in graphs)
    for left, right in zip(fx, onnx, strict=True):
        assert (left.name, left.kind, left.output) == (right.name, right.kind, right.output)
        if left.bias is None or right.bias is None:
            assert right.bias is None
            bias = np.zeros(1) if left.bias is None else graphs[0].constant(left.bias)
            assert bias is not None
            assert not bias.any()  # the exporter drops a bias of zeros
        else:
            np.testing.assert_array_equal(graphs[0].constant(left.bias), graphs[1].constant(right.bias))


def test_all_functions_and_attributes_are_listed(graphs: tuple[Graph, Graph]) -> None:
    for graph in graphs:
        for op in graph.ops():
            if op.kind is not Kind.OTHER:
                assert op.attributes.keys() <= FUNCTIONS[op.kind, op.function], op
            assert all(graph.value(name).name == name for name in op.inputs if name)


@pytest.mark.parametrize("table", [fx_kinds.KINDS, onnx_kinds.KINDS])
def test_the_tables_speak_the_same_words(table: dict[str, tuple[Kind, str]]) -> None:
    assert not {known for known in table.values() if known[0] is not Kind.OTHER} - FUNCTIONS.keys()


def test_sizes_that_are_not_known() -> None:
    assert sizes_of(("batch", None, 3)) == (-1, -1, 3)
    assert sizes_of(None) is None
