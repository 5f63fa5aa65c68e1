"""The Graph face over PyTorch, and that it sees the same network as the ONNX adapter does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, Block, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import ModelError, Refused
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.rows import ROWS
from qcc.ir.fx.graph import FxGraph
from qcc.ir.fx.kinds import KINDS
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.ir.onnx.adapter import OnnxGraph
from tests import models_torch as models
from tests.chooser import choose
from tests.torch_export import to_onnx

INT4 = Blocked(IntGrid(4), group(32))
INT3 = Blocked(IntGrid(3, symmetric=False), CHANNEL)
TOLERANCE = 1e-4  # float32 summed in another order, on activations of about 1
BATCH = Dim("batch")


@dataclass(frozen=True)
class Case:
    """A module, what it is exported with, and inputs of other sizes to run it on."""

    make: Callable[[], nn.Module]
    args: tuple[torch.Tensor, ...]
    shapes: Any
    feeds: dict[str, Array]


@dataclass(frozen=True)
class Pair:
    """One module as both adapters see it."""

    fx: Graph
    onnx: Graph
    feeds: dict[str, Array]


def _random(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


IMAGES, IDS = torch.zeros(2, 3, 16, 16), torch.zeros(2, 8, dtype=torch.int64)
CASES = {
    "cnn": Case(models.SmallCnn, (IMAGES,), ({0: BATCH},), {"image": _random(3, 3, 16, 16)}),
    "transformer": Case(
        models.SmallTransformer,
        (IDS,),
        ({0: BATCH, 1: Dim("seq", max=32)},),
        {"ids": np.random.default_rng(1).integers(0, models.VOCAB, (3, 11))},
    ),
    "encoder": Case(
        lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True),
        (torch.zeros(2, 5, 32),),
        None,
        {"src": _random(2, 5, 32)},
    ),
    "upsampler": Case(models.Upsampler, (torch.zeros(2, 4, 4, 4),), None, {"x": _random(2, 4, 4, 4)}),
    "shared_storage": Case(
        models.Softmaxed,
        (torch.zeros(2, 5, 16), torch.zeros(2, 5, 5, dtype=torch.bool)),
        None,
        {"x": _random(2, 5, 16), "mask": _random(2, 5, 5) > 1},
    ),
}


def _pair(case: Case, folder: Path) -> Pair:
    torch.manual_seed(0)
    module = case.make().eval()
    path = folder / "model.onnx"
    to_onnx(module, case.args, path, dynamic_shapes=case.shapes)
    pair = Pair(FxGraph.export(module, case.args, dynamic_shapes=case.shapes), OnnxGraph.load(path), case.feeds)
    pair.fx.simplify()
    pair.onnx.simplify()
    return pair


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return _pair(CASES[request.param], tmp_path_factory.mktemp(request.param))


def _run(graph: Graph, feeds: dict[str, Array], outputs: list[str] | None = None) -> list[Array]:
    names = outputs or [value.name for value in graph.outputs]
    results = graph.runner([value.name for value in graph.inputs], names)(feeds)
    return [results[name] for name in names]


def _assert_close(got: list[Array], want: list[Array]) -> None:
    assert len(got) == len(want)
    for left, right in zip(got, want, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, rtol=0, atol=TOLERANCE)


def _seen(weight: Weight) -> tuple[Any, ...]:
    layers = [(x.name, x.kind, x.groups, x.kernel, x.form_free) for x in weight.layers]
    return weight.name, weight.shape, weight.dtype, weight.params, layers


# parity with ONNX


@pytest.mark.slow
def test_weights_are_the_same(pair: Pair) -> None:
    assert [_seen(weight) for weight in pair.fx.weights()] == [_seen(weight) for weight in pair.onnx.weights()]


@pytest.mark.slow
def test_values_fed_and_returned_are_the_same(pair: Pair) -> None:
    for fx, onnx in ((pair.fx.inputs, pair.onnx.inputs), (pair.fx.outputs, pair.onnx.outputs)):
        assert [(x.name, x.dtype) for x in fx] == [(x.name, x.dtype) for x in onnx]
        assert [[type(size) for size in x.shape or ()] for x in fx] == [
            [type(size) for size in x.shape or ()] for x in onnx
        ]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [INT4, INT3], ids=lambda encoding: encoding.text)
def test_codes_and_forms_are_the_same(pair: Pair, encoding: Blocked) -> None:
    for fx, onnx in zip(pair.fx.weights(), pair.onnx.weights(), strict=True):
        np.testing.assert_array_equal(pair.fx.matrix(fx), pair.onnx.matrix(onnx))
        left, right = fit.encode(pair.fx.matrix(fx), encoding), fit.encode(pair.onnx.matrix(onnx), encoding)
        assert left.codes.tobytes() == right.codes.tobytes()
        assert left.scales.scale.tobytes() == right.scales.scale.tobytes()
        assert choose(fx, encoding) == choose(onnx, encoding)


def test_results_are_the_same(pair: Pair) -> None:
    _assert_close(_run(pair.fx, pair.feeds), _run(pair.onnx, pair.feeds))


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", [INT4, INT3], ids=lambda encoding: encoding.text)
def test_results_are_the_same_once_encoded(pair: Pair, encoding: Blocked) -> None:
    before = _run(pair.fx, pair.feeds)
    results = []
    for graph in (pair.fx.copy(), pair.onnx.copy()):
        for weight in graph.weights():
            graph.encode(weight, fit.encode(graph.matrix(weight), encoding), DECODED)
        assert graph.weights() == ()
        results.append(_run(graph, pair.feeds))
    _assert_close(*results)
    assert any(np.abs(new - old).max() > TOLERANCE for new, old in zip(results[0], before, strict=True))
    _assert_close(_run(pair.fx, pair.feeds), before)


def test_what_layers_read_is_the_same(pair: Pair) -> None:
    given = {value.name for value in pair.fx.inputs}
    layers = zip(
        (layer for weight in pair.fx.weights() for layer in weight.layers),
        (layer for weight in pair.onnx.weights() for layer in weight.layers),
        strict=True,
    )
    pairs = [(fx.input, onnx.input) for fx, onnx in layers if fx.input not in given]
    fx, onnx = [left for left, _ in pairs], [right for _, right in pairs]
    _assert_close(_run(pair.fx, pair.feeds, fx), _run(pair.onnx, pair.feeds, onnx))


def test_suffixes_are_the_same(pair: Pair) -> None:
    for graph in (pair.fx, pair.onnx):
        start, ends = graph.weights()[-1].layers[-1].input, [value.name for value in graph.outputs]
        given = [value.name for value in graph.inputs]
        held = graph.runner(given, [start])(pair.feeds) | pair.feeds
        suffix = graph.runner([start, *given], ends)
        _assert_close([suffix(held)[name] for name in ends], _run(graph, pair.feeds))


def test_free_constants_are_the_same(pair: Pair) -> None:
    results = []
    for graph in (pair.fx, pair.onnx):
        name = graph.weights()[0].constant
        array = graph.constant(name)
        assert array is not None
        ends = [value.name for value in graph.outputs]
        run = graph.runner([value.name for value in graph.inputs], ends, free=[name])
        _assert_close([run(pair.feeds)[end] for end in ends], _run(graph, pair.feeds))
        changed = graph.copy()
        changed.replace_constant(name, array / 2)
        results.append([run({**pair.feeds, name: array / 2})[end] for end in ends])
        _assert_close(results[-1], _run(changed, pair.feeds))
    _assert_close(*results)


@pytest.mark.slow
def test_batch_norm(tmp_path: Path) -> None:
    # torch.onnx.export folds it into the convolution, and so does what simplifies a program
    case = Case(models.NormalisedCnn, (IMAGES,), ({0: BATCH},), {"image": _random(3, 3, 16, 16)})
    pair = _pair(case, tmp_path)
    _assert_close(_run(pair.fx, pair.feeds), _run(pair.onnx, pair.feeds))
    assert [weight.kinds for weight in pair.fx.weights()] == [weight.kinds for weight in pair.onnx.weights()]
    assert "batch_norm" not in [op.function for op in pair.fx.ops()]


# the adapter alone


def _graph(name: str) -> FxGraph:
    torch.manual_seed(0)
    return FxGraph.export(CASES[name].make(), CASES[name].args, dynamic_shapes=CASES[name].shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ops_are_in_order_and_named_once(name: str) -> None:
    graph = _graph(name)
    known = {value.name for value in graph.inputs}
    for op in graph.ops():
        reads = [source for source in op.inputs if source and graph.constant(source) is None]
        assert known.issuperset(reads), op
        known.update(op.outputs)
    assert len({op.name for op in graph.ops()}) == len(graph.ops())


@pytest.mark.slow
def test_kinds() -> None:
    ops = {op.name: (op.kind, op.function) for op in (*_graph("transformer").ops(), *_graph("cnn").ops())}
    assert ops["embedding"] == (Kind.EMBEDDING, "embedding")
    assert ops["layer_norm"] == (Kind.NORM, "layer_norm")
    assert ops["scaled_dot_product_attention"] == (Kind.ATTENTION, "attention")
    assert ops["matmul"] == (Kind.LINEAR, "linear")
    assert ops["rsqrt"] == (Kind.ELEMENTWISE, "rsqrt")
    assert ops["hardtanh"] == (Kind.ELEMENTWISE, "clip")
    assert ops["max_pool2d"] == (Kind.POOL, "max_pool")


@pytest.mark.slow
def test_numbers_in_calls_are_constants() -> None:
    ops = {op.name: op for op in (*_graph("transformer").ops(), *_graph("cnn").ops())}
    assert ops["pow_1"].inputs == ("add_1", "pow_1:exponent")
    graph = _graph("cnn")
    low, high = (graph.constant(name) for name in ops["hardtanh"].inputs[1:])
    assert low is not None
    assert high is not None
    assert (low.shape, low.item(), high.item(), high.dtype.name) == ((), 0.0, 6.0, "float32")
    assert graph.value("hardtanh:min_val").shape == ()
    with pytest.raises(Refused, match="a number in the program"):
        graph.replace_constant("hardtanh:min_val", low)


def test_operands_stand_in_one_order() -> None:
    class Reordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.weight = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(8, 4))

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            x = torch.addmm(self.bias, x, self.weight).masked_fill(mask, 2.0)
            return (1 - x).clamp_max(3.0) + torch.add(x, x, alpha=3)

    graph = FxGraph.export(Reordered(), (torch.zeros(3, 8), torch.zeros(3, 4, dtype=torch.bool)))
    ops = {op.name: op for op in graph.ops()}
    assert ops["addmm"].inputs == ("x", "weight", "bias")
    assert (ops["masked_fill"].function, ops["masked_fill"].inputs) == ("where", ("mask", "masked_fill:value", "addmm"))
    assert (ops["rsub"].function, ops["rsub"].inputs) == ("sub", ("rsub:other", "masked_fill"))
    assert ops["clamp_max"].inputs == ("rsub", "", "clamp_max:max")
    assert ops["clamp_max"].attributes == {"max": 3.0}
    assert ops["add"].kind is Kind.OTHER  # it scales one side
    (layer,) = graph.weights()[0].layers
    assert (layer.bias, layer.bias_op, layer.output) == ("bias", None, "addmm")


@pytest.mark.slow
def test_a_bias_added_after_a_product_is_the_layers() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.mix = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(8, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ self.mix + self.bias).relu()

    (layer,) = FxGraph.export(Added(), (torch.zeros(3, 8),)).weights()[0].layers
    assert (layer.bias, layer.bias_op, layer.output) == ("bias", "add", "add")


def test_copies_stay_where_something_sees_memory() -> None:
    class Strided(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.t().clone(memory_format=torch.contiguous_format).as_strided((4, 2), (2, 1)) + 1

    x = _random(3, 4)
    graph = FxGraph.export(Strided(), (torch.zeros(3, 4),))
    before = _run(graph, {"x": x})
    graph.simplify()
    assert "identity" in {op.function for op in graph.ops()}
    np.testing.assert_array_equal(_run(graph, {"x": x})[0], before[0])


@pytest.mark.slow
def test_unknown_ops_are_opaque_and_run() -> None:
    (op,) = [op for op in _graph("shared_storage").ops() if op.kind is Kind.OTHER]
    assert (op.function, op.inputs, op.outputs) == ("topk", ("softmax",), ("getitem", ""))


def test_the_table_names_real_ops() -> None:
    assert not [name for name in KINDS if not hasattr(torch.ops.aten, name.partition(".")[0])]


@pytest.mark.slow
def test_constants_are_read_only_and_known_by_every_path() -> None:
    graph = _graph("transformer")
    table, tied = graph.constant("tokens.weight"), graph.constant("head.weight")
    assert table is not None
    assert tied is not None
    assert not table.flags.writeable
    assert np.shares_memory(table, tied)
    assert graph.constant("ids") is None
    assert graph.constant("layer_norm") is None
    assert graph.value("second_norm.gain").shape == (models.WIDTH,)


def test_the_module_is_left_as_it_was() -> None:
    module = models.SmallCnn().train()
    module.stem.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    graph = FxGraph.export(module, (IMAGES,))
    for weight in graph.weights():
        graph.encode(weight, fit.encode(graph.matrix(weight), INT3), DECODED)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert (module.training, module.stem.training, module.head.training) == (True, False, True)
    assert list(graph.encoded) == list(graph.forms) == ["stem", "depthwise", "pointwise", "grouped", "features", "head"]


def test_encoding_reaches_every_use_of_shared_storage() -> None:
    graph = _graph("shared_storage")
    (weight,) = graph.weights()
    assert [layer.name for layer in weight.layers] == ["query", "key"]
    encoded = fit.encode(graph.matrix(weight), INT4)
    graph.encode(weight, encoded, DECODED)
    for path in ("query.weight", "key.weight"):
        np.testing.assert_array_equal(graph.constant(path), encoded.decode())


def test_bfloat16() -> None:
    module = models.GatedMlp().to(torch.bfloat16)
    x = torch.randn(2, models.WIDTH, dtype=torch.bfloat16)
    graph = FxGraph.export(module, (x,))
    weight = graph.weights()[0]
    array = graph.constant(weight.constant)
    assert array is not None
    assert (weight.dtype, array.dtype.name, graph.matrix(weight).dtype.name) == ("bfloat16", "bfloat16", "float32")
    feed = x.to(torch.float32).numpy().astype(ml_dtypes.bfloat16)
    (result,) = _run(graph, {graph.inputs[0].name: feed})
    np.testing.assert_array_equal(result.astype(np.float32), module(x).detach().float().numpy())
    encoded = fit.encode(graph.matrix(weight), INT4)
    graph.encode(weight, encoded, DECODED)
    np.testing.assert_array_equal(graph.constant(weight.constant), encoded.decode().astype(ml_dtypes.bfloat16))


@pytest.mark.slow
def test_untidy_modules_become_pure() -> None:
    torch.manual_seed(0)
    module = models.Untidy()
    graph = FxGraph.export(module, (torch.zeros(4, 8),))
    x = _random(4, 8)
    kept = x.copy()
    (result,) = _run(graph, {"x": x})
    _assert_close([result], [module(torch.from_numpy(x)).detach().numpy()])
    np.testing.assert_array_equal(x, kept)
    (weight,) = graph.weights()
    assert (weight.name, weight.shape) == ("linear", (8, 8))
    assert graph.simplify() == ["ops: 9 -> 6", "constants: 4 -> 3"]  # `unused` goes; torch had removed its dead reader
    assert graph.simplify() == []
    _assert_close(_run(graph, {"x": x}), [result])


@pytest.mark.parametrize(
    ("kernel", "dilation", "pads"), [(3, 1, (1, 1, 1, 1)), (4, 1, (1, 1, 2, 2)), (2, 3, (1, 1, 2, 2))]
)
def test_what_padding_in_words_adds(kernel: int, dilation: int, pads: tuple[int, ...]) -> None:
    module, x = nn.Conv2d(2, 2, kernel, padding="same", dilation=dilation), torch.randn(1, 2, 6, 6)
    (op,) = FxGraph.export(module, (x,)).ops()
    assert op.attributes["pads"] == pads
    wide = nn.functional.pad(x, (pads[1], pads[3], pads[0], pads[2]))
    said = nn.functional.conv2d(wide, module.weight, module.bias, dilation=dilation)
    torch.testing.assert_close(said, module(x))


def test_indices_that_are_constants_make_no_layer() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Embedding(8, 4)
            self.table = nn.Parameter(torch.randn(6, 4))

        def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            positions: torch.Tensor = self.positions(torch.arange(8))
            return x + positions + self.table[ids]

    graph = FxGraph.export(Fixed(), (torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64)))
    assert [weight.name for weight in graph.weights()] == ["table"]


@pytest.mark.slow
def test_refusals() -> None:
    graph = _graph("cnn")
    conv = graph.weights()[0]
    encoded = fit.encode(graph.matrix(conv), INT4)
    with pytest.raises(Refused, match="no compressed kernel"):
        graph.encode(conv, encoded, FUSED)
    with pytest.raises(Refused, match="by rows"):
        graph.encode(conv, fit.encode(graph.matrix(conv), Blocked(IntGrid(4), Block(2, 2))), ROWS)
    with pytest.raises(Refused, match="not of the weight's shape"):
        graph.encode(graph.weights()[1], encoded, DECODED)
    with pytest.raises(Refused, match="cannot take"):
        graph.replace_constant("stem.bias", np.zeros(16))
    with pytest.raises(Refused, match="cannot take"):
        graph.replace_constant("relu", np.zeros(16, np.float32))


@pytest.mark.slow
def test_modules_with_side_effects_are_refused() -> None:
    class Counter(nn.Module):
        count: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x + self.count

    with pytest.raises(ModelError, match="side effects: buffer_mutation of `count`") as caught:
        FxGraph.export(Counter(), (torch.zeros(2),))
    assert caught.value.code == "Q441"


def test_modules_that_cannot_be_exported_are_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"torch\.export cannot export the module: ") as caught:
        FxGraph.export(Branching(), (torch.zeros(2),))
    assert caught.value.code == "Q440"


@pytest.mark.slow
def test_bad_feeds_are_refused() -> None:
    graph = _graph("cnn")
    with pytest.raises(ValueError, match="depend on `image`"):
        graph.runner([], ["relu"])
    run = graph.runner(["image"], ["relu"])
    for feeds, message in (({}, "not fed"), ({"image": _random(1, 2)}, "PyTorch failed")):
        with pytest.raises(ModelError, match=message) as caught:
            run(feeds)
        assert caught.value.code == "Q406"


def test_a_copy_keeps_a_name_that_is_a_builtin() -> None:
    class Plain(nn.Module):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return torch.relu(input)

    graph = FxGraph.export(Plain(), (torch.zeros(2, 4),))
    assert [value.name for value in graph.copy().inputs] == ["input"]
