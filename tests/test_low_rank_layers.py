"""Layers made two: they compute what the layer did where its rank is that low, else what data says is nearest to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim

from qcc.compiler.build.rewrite import watching
from qcc.compiler.calibrate.samples import load
from qcc.compiler.compile import compile
from qcc.compiler.observe.statistics import layer_statistics
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.dsl.diagnostics.source import Source
from qcc.ir.errors import Refused
from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.names import spellings
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.graph.run import reference
from qcc.passes.contract.contract import Context, Edit
from qcc.passes.structure.low_rank import StructureLowRank
from tests.axes_models import chain, feeds, run
from tests.onnx_models import parse, random
from tests.torch_export import to_onnx

TOLERANCE = 1e-4  # of the largest value: the same sums in float32, in two steps
WIDTH, HIDDEN = 24, 96
HALF = HIDDEN * WIDTH // (2 * (HIDDEN + WIDTH))  # the channels that half of the multiplications allow


class Mlp(nn.Module):
    """A feed-forward part in a residual stream, one layer of it without a bias, and two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH, bias=False)
        self.one, self.other = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.other.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.down(torch.nn.functional.gelu(self.up(x)))
        result: torch.Tensor = x + self.other(torch.tanh(self.one(x)))
        return result


def _exported(module: Mlp, folder: Path, kind: str) -> Graph:
    example, shapes = torch.zeros(2, 5, WIDTH), ({0: Dim("batch")},)
    if kind == "fx":
        graph: Graph = FxGraph.export(module, (example,), dynamic_shapes=shapes)
    else:
        to_onnx(module, (example,), folder / "mlp.onnx", dynamic_shapes=shapes, external_data=False)
        graph = OnnxGraph.load(folder / "mlp.onnx")
    graph.simplify()
    return graph


@pytest.fixture(scope="module", params=["fx", "onnx"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    torch.manual_seed(0)
    return _exported(Mlp().eval(), tmp_path_factory.mktemp("mlp"), request.param)


def _of_rank(graph: Graph, rank: int) -> Graph:
    """The same with matrices of a rank."""
    copy = graph.copy()
    for weight in copy.weights():
        rows, columns = weight.shape
        copy.replace_matrix(weight, random(rows, rank) @ random(rank, columns) / np.float32(rank))
    return copy


def _rows(count: int, seed: int) -> np.ndarray:
    """Rows whose channels have a mean, and little but eight directions."""
    draw = np.random.default_rng(seed)
    mixed = draw.standard_normal((count, 5, 8)) @ np.random.default_rng(9).standard_normal((8, WIDTH))
    return np.asarray(mixed + 1 + 0.1 * draw.standard_normal((count, 5, WIDTH)), np.float32)


def _outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    (fed,), names = graph.inputs, [value.name for value in graph.outputs]
    return graph.runner([fed.name], names)({fed.name: x})[names[0]].astype(np.float64)


def _made(graph: Graph, name: str, x: np.ndarray) -> np.ndarray:
    """What a layer makes."""
    (fed,), output = graph.inputs, next(one.layers[0].output for one in graph.weights() if one.name == name)
    return graph.runner([fed.name], [output])({fed.name: x})[output].astype(np.float64)


def _names(graph: Graph) -> list[str]:
    return [weight.name for weight in graph.weights()]


def _with_data(graph: Graph) -> Context:
    (fed,) = graph.inputs
    samples = load([{fed.name: _rows(1, seed)} for seed in range(64)], graph, None, 0)
    moments = layer_statistics(graph, samples, lambda *_: None, moments=_names(graph)).moments
    return Context(moments=moments, watch=watching(samples))


def _treated(edits: Sequence[Edit]) -> list[str]:
    return [edit.subject for edit in edits if not edit.refused]


@given(st.integers(1, HALF), st.floats(0.5, 1.0), st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_matrix_of_so_low_a_rank_is_factored_without_a_loss(graph: Graph, rank: int, keep: float, data: bool) -> None:
    graph = _of_rank(graph, rank)
    context = _with_data(graph) if data else Context()
    after, edits = StructureLowRank(keep=keep).apply(graph, _names(graph), context)
    assert _treated(edits) == ["up", "down"]
    x = _rows(3, 100)
    wanted = _outputs(graph, x)
    np.testing.assert_allclose(_outputs(after, x), wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


@given(st.floats(0.1, 0.95), st.booleans())
@settings(max_examples=10, deadline=None)
def test_two_layers_are_what_is_meant_and_multiply_no_more(graph: Graph, keep: float, data: bool) -> None:
    context, action = (_with_data(graph) if data else Context()), StructureLowRank(keep=keep)
    after, edits = action.apply(graph, _names(graph), context)
    x = _rows(3, 100)
    wanted = _outputs(action.meant(graph, _names(graph), context), x)
    np.testing.assert_allclose(_outputs(after, x), wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())
    params = {weight.name: weight.params for weight in after.weights()}
    for name in _treated(edits):
        pair = params[f"{name}#down"] + params[f"{name}#up"]
        assert keep * WIDTH * HIDDEN - (WIDTH + HIDDEN) < pair <= keep * WIDTH * HIDDEN
        assert name not in params


def test_the_error_on_data_held_out_falls_with_what_stays_and_is_least_by_data(graph: Graph) -> None:
    context, found = _with_data(graph), dict[float, tuple[float, float]]()
    x = _rows(64, 100)
    wanted = _made(graph, "up", x)
    for keep in (0.15, 0.3, 0.6, 0.9):
        lost = []
        for given_ in (context, Context()):
            after, edits = StructureLowRank(keep=keep).apply(graph, ["up"], given_)
            assert _treated(edits) == ["up"]
            lost.append(float(np.square(_made(after, "up#up", x) - wanted).mean()))
        found[keep] = lost[0], lost[1]
        (told,) = edits
        assert "no data was given" in told.text
    by_data = [one for one, _ in found.values()]
    assert by_data == sorted(by_data, reverse=True)
    assert all(one <= other for one, other in found.values())
    assert by_data[2] < 0.2 * found[0.6][1]  # data has eight directions, a mean and little else; eleven channels stay


def test_what_is_told_is_what_data_held_out_loses(graph: Graph) -> None:
    context = _with_data(graph)
    _, (edit,) = StructureLowRank(keep=0.3).apply(graph, ["down"], context)
    after, _ = StructureLowRank(keep=0.3).apply(graph, ["down"], context)
    assert context.watch is not None
    before = next(one.layers[0].output for one in graph.weights() if one.name == "down")
    made = next(one.layers[0].output for one in after.weights() if one.name == "down#up")
    noise = signal = 0.0
    for one, other in zip(context.watch(graph, [before], True), context.watch(after, [made], True), strict=True):
        noise += float(np.square(one[before].astype(np.float64) - other[made]).sum())
        signal += float(np.square(one[before].astype(np.float64)).sum())
    assert edit.error == pytest.approx(noise / signal, rel=1e-3)
    assert f"{edit.error:.2%}" in edit.text


def test_what_cannot_be_two_layers_stays_and_says_why(graph: Graph) -> None:
    def refused(keep: float) -> dict[str, str]:
        return {site.subject: site.refused for site in StructureLowRank(keep=keep).sites(graph, _names(graph))}

    assert "read elsewhere, too" in refused(0.5)["one"]
    assert "not one channel" in refused(0.01)["up"]
    assert not refused(1.0)["up"]
    after, edits = StructureLowRank(keep=0.01).apply(graph, _names(graph), Context())
    assert not _treated(edits)
    assert _names(after) == _names(graph)


@pytest.mark.parametrize(("multiple", "rank"), [(1, HALF), (4, 8), (HALF + 1, HALF)])
def test_channels_between_are_what_kernels_take_where_there_is_room(graph: Graph, multiple: int, rank: int) -> None:
    after, _ = StructureLowRank(keep=0.5, multiple=multiple).apply(graph, ["up"], Context())
    assert {one.name: one.shape for one in after.weights()}["up#down"] == (rank, WIDTH)


OTHERS = """net (float[n,4,6,6] image, int64[n] ids) => (float[n,6] y) {
    shaped = Conv(image, conv_w)
    pooled = GlobalAveragePool(shaped)
    flat = Flatten(pooled)
    rows = Gather(table_w, ids)
    sum = Add(flat, rows)
    small = MatMul(sum, small_w)
    y = Gemm<alpha = 0.5>(small, scaled_w)
}"""


def test_convolutions_tables_and_small_layers_are_refused(tmp_path: Path) -> None:
    shapes = {"conv_w": (8, 4, 1, 1), "table_w": (10, 8), "small_w": (8, 2), "scaled_w": (2, 6)}
    onnx.save(parse(OTHERS, {name: random(*shape) for name, shape in shapes.items()}), tmp_path / "net.onnx")
    graph = OnnxGraph.load(tmp_path / "net.onnx")
    found = {site.subject: site.refused for site in StructureLowRank(keep=1.0).sites(graph, _names(graph))}
    assert "no linear layer" in found["conv_w"]
    assert "is a table" in found["table_w"]
    assert "no plain product" in found["scaled_w"]
    tiny = StructureLowRank(keep=1.0)
    one = parse("net (float[n,2] x) => (float[n,2] y) { y = MatMul(x, only_w) }", {"only_w": random(2, 2)})
    onnx.save(one, tmp_path / "tiny.onnx")
    alone = OnnxGraph.load(tmp_path / "tiny.onnx")
    (site,) = tiny.sites(alone, _names(alone))
    assert "two layers would multiply 4 times, one does 4 times" in site.refused


@pytest.mark.parametrize("block", ["linear", "biased", "feedforward", "gated", "layer_norm", "attention", "transposed"])
def test_blocks_compute_what_is_meant(block: str) -> None:
    graph = chain([block], 0)
    action = StructureLowRank(keep=0.5)
    after, edits = action.apply(graph, _names(graph), Context())
    assert _treated(edits)
    wanted = run(action.meant(graph, _names(graph), Context()), feeds())
    np.testing.assert_allclose(run(after, feeds()), wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


RULES = """qpolicy 1
rule linear[name ~ "up"], linear[name ~ "down"] { structure = low_rank(keep = 50%); weights = int8 channel }
"""


@pytest.mark.slow
def test_rules_that_name_the_layer_hold_for_both_and_a_plan_does_it_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    to_onnx(Mlp().eval(), (torch.zeros(2, 5, WIDTH),), tmp_path / "mlp.onnx", external_data=False)
    fed = onnx.load(tmp_path / "mlp.onnx").graph.input[0].name
    data = [{fed: _rows(2, seed)} for seed in range(24)]
    result = compile(tmp_path / "mlp.onnx", RULES, output=tmp_path / "two.onnx", data=data)
    stored = {row.name: row.shape for row in result.layers if row.format.startswith("int8")}
    assert stored == {
        "up#down": (HALF, WIDTH),
        "up#up": (HIDDEN, HALF),
        "down#down": (HALF, HIDDEN),
        "down#up": (WIDTH, HALF),
    }
    assert {one.code for one in result.warnings} >= {"Q650"}
    again = from_text(Source("p.plan", to_text(result.plan)))
    assert again == result.plan
    compile(
        tmp_path / "mlp.onnx", "qpolicy 1\nrule any { keep }", output=tmp_path / "again.onnx", plan=again, data=data
    )
    x = {fed: _rows(2, 100)}
    for one, other in zip(
        reference(tmp_path / "two.onnx")(x).values(), reference(tmp_path / "again.onnx")(x).values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_both_are_called_as_the_layer_was() -> None:
    for mark in ("#down", "#up"):
        assert {f"a.0.b{mark}", "a.0.b", "a.0/b"} == set(spellings(f"a.0.b{mark}")) - {"a/a.0/b"}
    assert "a.0" not in spellings("a.0.b#down")


def test_a_layer_is_put_behind_a_value(graph: Graph) -> None:
    copy = graph.copy()
    (fed,) = copy.inputs
    matrix = random(WIDTH, 3)
    value = copy.insert("linear", fed.name, matrix, (), "new#down")
    x = _rows(2, 0)
    made = copy.runner([fed.name], [value])({fed.name: x})[value]
    np.testing.assert_allclose(made, x @ matrix, rtol=0, atol=TOLERANCE * np.abs(made).max())
    assert (copy.value(value).shape or ())[-1] == 3
    for array, message in ((random(3, WIDTH), "does not multiply"), (random(WIDTH), "by a matrix")):
        with pytest.raises(Refused, match=message):
            copy.insert("linear", fed.name, array, ())
