"""Products of attentions on whole numbers: the file computes the reference, and the runtime computes it in integers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import plan_of
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.ir.attention.find import attentions
from qcc.ir.encoding.value import DYNAMIC_INT8, EncodedValue
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Feeds
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.activations.blocks import Blockwise
from qcc.passes.activations.dynamic import Dynamic
from qcc.passes.activations.static import Static
from qcc.passes.attention.multiply import Multiply
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.contract import Context, Edit, Watch
from tests import attention_models as models
from tests.attention_models import ALL, BATCH, ROWS, Spelling, case
from tests.onnx_models import random
from tests.test_static_conv import optimised

TOLERANCE = 2e-5  # of the largest result: sums of eight products in float32 beside those of integers
SPELLINGS = {"plain": models.PLAIN, "grouped": models.GROUPED, "rotary": models.turned("half")}


def watching(feeds: Feeds) -> Watch:
    def watch(graph: Graph, names: Sequence[str], _: bool) -> Iterator[dict[str, Array]]:
        return iter([graph.runner(list(feeds), names)(feeds)])

    return watch


def rounded(folder: Path, spelling: Spelling, how: Activations) -> tuple[OnnxGraph, Attention, Feeds, list[Edit]]:
    one = case(spelling)
    graph = OnnxGraph.load(one.save(folder))
    graph.simplify()
    (found,) = attentions(graph, one.feeds)
    assert isinstance(found, Attention)
    graph.require_opset(18)
    context = Context(sample=one.feeds, watch=watching(one.feeds))
    after, edits = Multiply(how).apply(graph, [found.name], context)
    return after, found, one.feeds, edits


def product(graph: OnnxGraph, reader: str) -> tuple[list[str], str]:
    op = next(op for op in graph.ops() if op.name == reader)
    return list(op.inputs), op.outputs[0]


def close(found: Array, wanted: Array) -> None:
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("how", [Static(), Static("mse"), Static("percentile", 95.0)])
@pytest.mark.parametrize("name", SPELLINGS)
def test_the_file_computes_the_reference(name: str, how: Static, tmp_path: Path) -> None:
    graph, one, feeds, edits = rounded(tmp_path, SPELLINGS[name], how)
    assert [(edit.refused, edit.text) for edit in edits] == [(False, "both products are rounded")]
    known = graph.encoded_values()
    for (reader, left), (_, right) in (one.reads, one.sums):
        inputs, output = product(graph, reader)
        encoded = [known[inputs[at]] for at in (left, right)]
        sources = [next(name for name, how in known.items() if how is one and name not in inputs) for one in encoded]
        made = graph.runner(list(feeds), [*sources, output])(feeds)
        sides = [how.rounded(made[source]) for how, source in zip(encoded, sources, strict=True)]
        close(made[output], sides[0].astype(np.float64) @ sides[1])


@pytest.mark.parametrize("how", [Static(), Dynamic()])
@pytest.mark.parametrize("name", SPELLINGS)
def test_the_runtime_multiplies_integers(name: str, how: Static | Dynamic, tmp_path: Path) -> None:
    graph, *_ = rounded(tmp_path, SPELLINGS[name], how)
    before = optimised(case(SPELLINGS[name]).save(tmp_path), tmp_path)
    after = optimised(graph.save(tmp_path / "after.onnx").path, tmp_path)
    floats = ("MatMul", "FusedMatMul")
    assert after.count("MatMulIntegerToFloat") == 2
    assert sum(map(after.count, floats)) == sum(map(before.count, floats)) - 2
    assert after.count("Softmax") == before.count("Softmax") == 1


@pytest.mark.parametrize("name", SPELLINGS)
def test_rows_and_columns_have_steps_of_their_own(name: str, tmp_path: Path) -> None:
    before = OnnxGraph.load(case(SPELLINGS[name]).save(tmp_path))
    before.simplify()
    graph, one, feeds, edits = rounded(tmp_path, SPELLINGS[name], Dynamic())
    assert [edit.text for edit in edits] == ["both products are rounded"]
    how = EncodedValue(DYNAMIC_INT8)
    (inputs, scores), (values, out) = (product(before, pair[0][0]) for pair in (one.reads, one.sums))
    made = graph.runner(list(feeds), [*inputs, *values, scores, out])(feeds)
    for (left, right), result in ((inputs, scores), (values, out)):
        columns = how.rounded(np.swapaxes(made[right], -1, -2)).swapaxes(-1, -2)
        close(made[result], how.rounded(made[left]).astype(np.float64) @ columns)


def test_no_product_reject(tmp_path: Path) -> None:
    graph = OnnxGraph.load(case(models.PLAIN).save(tmp_path))
    softmax = next(op for op in graph.ops() if op.function == "softmax")
    with pytest.raises(Refused, match="no product of two matrices"):
        graph.multiply_rounded(softmax.outputs[0])


def test_time_is_told(tmp_path: Path) -> None:
    one = case(models.PLAIN)
    graph = OnnxGraph.load(one.save(tmp_path))
    graph.simplify()
    graph.require_opset(18)
    (found,) = attentions(graph, one.feeds)
    context = Context(sample=one.feeds, race=lambda *_: 1.5)
    _, (edit,) = Multiply(Dynamic()).apply(graph, [found.name], context)
    assert edit.text == "both products are rounded; timed here, of the time of floats: 1.50x, 1.50x"


def test_blocks_lie_along_channels(tmp_path: Path) -> None:
    """Keys are rounded before they are transposed, row by row as queries are."""
    how = Blockwise(4, bits=6)
    graph, one, feeds, edits = rounded(tmp_path, models.PLAIN, how)
    assert edits[0].text.startswith("one of its products stays float: `p` has")  # as many channels as rows
    inputs, output = product(graph, one.reads[0][0])
    made = graph.runner(list(feeds), ["qh", "kh", output])(feeds)
    value = how.encoded(graph.encoded_values()[inputs[0]].encoding, None)
    close(made[output], value.rounded(made["qh"]) @ value.rounded(made["kh"]).swapaxes(-1, -2))
    graph, _, _, edits = rounded(tmp_path, models.PLAIN, Blockwise(by="token"))
    assert edits[0].text == "both products are rounded"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (Static(by="token"), "steps of channels or of places are for layers"),
        (Static(by="channel"), "steps of channels or of places are for layers"),
        (Static(float_tokens=1), "`float_tokens` is for layers"),
    ],
)
def test_other_steps_reject(how: Activations, reason: str, tmp_path: Path) -> None:
    graph, _, _, (edit,) = rounded(tmp_path, models.PLAIN, how)
    assert edit.refused and reason in edit.text
    assert not graph.encoded_values()


def test_one_op_reject(tmp_path: Path) -> None:
    one = case(models.MANY)
    graph = OnnxGraph.load(one.save(tmp_path))
    graph.simplify()
    (found,) = attentions(graph, one.feeds)
    _, (edit,) = Multiply(Static()).apply(graph, [found.name], Context(sample=one.feeds))
    assert edit.refused and edit.text == "one op is all of it"


def policy(text: str, folder: Path) -> Path:
    np.savez(folder / "data.npz", x=random(16, BATCH, ROWS, ALL))
    path = folder / "a.qpolicy"
    path.write_text(f'calibrate "data.npz"\n{text}\n', encoding="utf-8")
    return path


def test_layers_and_attentions_in_one_rule(tmp_path: Path) -> None:
    model = case(models.PLAIN).save(tmp_path)
    rules = "rule linear { weights = int8 channel }\nrule linear, attention { activations = static }"
    result = qcc.compile(model, policy(rules, tmp_path), output=tmp_path / "out.onnx")
    assert "1 attention: both products are rounded" in result.notes
    ops = optimised(result.output, tmp_path)
    assert ops.count("MatMulIntegerToFloat") + ops.count("QLinearMatMul") == 5 and "MatMul" not in ops
    plan = plan_of(result.lock)
    assert from_text(Source("p", to_text(plan))) == plan


def test_off_takes_it_back(tmp_path: Path) -> None:
    model = case(models.PLAIN).save(tmp_path)
    asked = "\n".join(f"rule attention {{ activations = {how} }}" for how in ("static", "off"))
    rules = f"rule linear {{ weights = int8 channel }}\n{asked}"
    result = qcc.compile(model, policy(rules, tmp_path), output=tmp_path / "out.onnx")
    assert not any("attention" in line for line in result.notes)


def test_without_data_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.qpolicy"
    path.write_text("rule attention { activations = static }\n", encoding="utf-8")
    result = qcc.compile(case(models.PLAIN).save(tmp_path), path, output=tmp_path / "out.onnx")
    assert [one.code for one in result.warnings].count("Q692") == 1


def test_a_rule_of_layers_alone_is_none_of_attentions() -> None:
    found = load_text("rule linear, attention { activations = static }", schema())
    assert found.rules[0].assignments[0].name == "activations"


@pytest.mark.parametrize(("provider", "codes"), [("tensorrt", np.int8), ("openvino", np.uint8), ("qnn", np.uint8)])
def test_providers_get_products_by_their_rules(provider: str, codes: type, tmp_path: Path) -> None:
    """The driver reads each file back, and holds it to the provider's rules."""
    rules = f"target qdq({provider})\nrule linear {{ weights = int8 tensor }}"
    rules += "\nrule linear, attention { activations = static }"
    result = qcc.compile(case(models.PLAIN).save(tmp_path), policy(rules, tmp_path), output=tmp_path / "out.onnx")
    assert any("rounded" in line or "one of its products stays float" in line for line in result.notes)
    graph = onnx.load(result.output).graph
    held = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    zeros = [held[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {zero.dtype for zero in zeros} == {np.dtype(codes)}
    products = [node for node in graph.node if node.op_type == "MatMul" and not {*node.input} & {*held}]
    makers = {name: node.op_type for node in graph.node for name in node.output}
    sides = [{makers.get(name) for name in node.input} for node in products]
    assert sides.count({"DequantizeLinear"}) >= (5 if provider != "qnn" else 4)


def test_providers_take_no_steps_of_rows_reject(tmp_path: Path) -> None:
    rules = "target qdq(tensorrt)\nrule attention { activations = dynamic }"
    result = qcc.compile(case(models.PLAIN).save(tmp_path), policy(rules, tmp_path), output=tmp_path / "out.onnx")
    assert "steps that are known before" in str(result.warnings)
