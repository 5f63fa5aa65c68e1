"""Folding norms, equalising, and balancing queries with keys: the function stays, and each does what it is for."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind, Weight
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.balance.equalize import Equalize
from qcc.passes.balance.query_key import QueryKey
from qcc.passes.contract.contract import Context, Edit, Rewrite
from qcc.passes.norms.fold_norm import FoldNorm
from tests import onnx_models as models
from tests.torch_export import to_onnx

TOLERANCE = (
    1e-4  # of the largest output: float32 sums in another order, of numbers that were scaled by up to a thousand
)
EVEN = 0.03  # two ranges may differ by a few of the percents that are left alone
WIDTH = 8
IMAGE, ROWS = (2, 6, 5, 5), (4, WIDTH)


class RmsNorm(nn.Module):
    """As Gemma has it: what multiplies is one more than the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) - 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1.0 + self.weight.float())


class Attention(nn.Module):
    """Two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (one(x).view(2, 3, 2, WIDTH // 2).transpose(1, 2) for one in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(2, 3)).softmax(-1) @ v
        out: torch.Tensor = self.o(mixed.transpose(1, 2).reshape(2, 3, WIDTH))
        return out


class Forked(nn.Module):
    """A norm that two linear layers read, and if asked the output too."""

    def __init__(self, norm: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.norm, self.a, self.b = norm, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        out = torch.tanh(self.a(y)) + self.b(y)
        whole: torch.Tensor = out + y if self.residual else out
        return whole


def settled(module: nn.Module) -> nn.Module:
    """With norms that are not trivial."""
    torch.manual_seed(0)
    for part in module.modules():
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm) and tensor.ndim:
                tensor.data = torch.rand_like(tensor) + (0.5 if name in ("weight", "running_var") else -0.5)
    return module.eval()


def fx(module: nn.Module, shape: Sequence[int]) -> Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = FxGraph.export(settled(module), (torch.zeros(*shape),))
    graph.simplify()
    return graph


def both(module: nn.Module, shape: Sequence[int], adapter: str, folder: Path) -> Graph:
    if adapter == "fx":
        return fx(module, shape)
    path = folder / "model.onnx"
    to_onnx(settled(module), (torch.zeros(*shape),), path, external_data=False)
    graph = OnnxGraph.load(path)
    graph.simplify()
    return graph


def text(body: str, weights: Mapping[str, Array], folder: Path) -> Graph:
    path = folder / "model.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(models.parse(body, weights)), path)
    return OnnxGraph.load(path)


def names(graph: Graph) -> list[str]:
    return [weight.name for weight in graph.weights()]


def run(graph: Graph) -> list[Array]:
    feeds = {
        value.name: models.random(*(size if isinstance(size, int) else 4 for size in value.shape or ()), seed=3)
        for value in graph.inputs
    }
    return list(graph.runner(list(feeds), [value.name for value in graph.outputs])(feeds).values())


def apply(graph: Graph, action: Rewrite, takes: Callable[[str], bool] = lambda _: True) -> tuple[Graph, list[Edit]]:
    """Run a pass, hold it to its promises, and run it on its result, where nothing is left to do."""
    kept = [(weight.name, weight.shape, len(weight.layers)) for weight in graph.weights()]
    found = {site.subject for site in action.sites(graph, names(graph))}
    after, edits = action.apply(graph, names(graph), Context(takes=takes))
    assert found.issuperset(edit.subject for edit in edits)
    assert [(weight.name, weight.shape, len(weight.layers)) for weight in after.weights()] == kept
    for want, got in zip(run(graph), run(after), strict=True):
        assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()
    _, again = action.apply(after, names(after), Context(takes=takes))
    assert all(edit.refused for edit in again), again
    return after, edits


def done(edits: Sequence[Edit]) -> list[Edit]:
    return [edit for edit in edits if not edit.refused]


def reasons(edits: Sequence[Edit]) -> list[str]:
    return [edit.text for edit in edits if edit.refused]


def functions(graph: Graph) -> list[str]:
    return [op.function for op in graph.ops()]


def weight(graph: Graph, name: str) -> Weight:
    return next(one for one in graph.weights() if one.name == name)


def ranges(graph: Graph, name: str, axis: int) -> Array:
    """The largest number of each row (0) or column (1)."""
    return np.asarray(np.abs(graph.matrix(weight(graph, name))).max(1 - axis))


CONVS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(6, 4, 3, padding=1),
    "no_bias": lambda: nn.Conv2d(6, 4, 3, bias=False),
    "grouped": lambda: nn.Conv2d(6, 4, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(6, 4, 3, stride=2),
    "transposed_grouped": lambda: nn.ConvTranspose2d(6, 4, 3, groups=2, bias=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CONVS)
def test_a_batch_norm_goes_into_the_convolution_before_it(case: str) -> None:
    graph, edits = apply(fx(nn.Sequential(CONVS[case](), nn.BatchNorm2d(4), nn.ReLU()), IMAGE), FoldNorm())
    assert functions(graph)[1:] == ["relu"] and done(edits) == []  # it is folded as the module is opened


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_goes_into_the_linear_layer_before_it(bias: bool) -> None:
    graph, edits = apply(fx(nn.Sequential(nn.Linear(WIDTH, 4, bias), nn.BatchNorm1d(4)), ROWS), FoldNorm())
    assert "batch_norm" not in functions(graph) and len(done(edits)) <= 1  # none, where opening the module folds it


STATISTICS = {
    "gain": models.random(WIDTH, seed=1),
    "bias": models.random(WIDTH, seed=2),
    "mean": models.random(WIDTH, seed=3),
    "var": np.abs(models.random(WIDTH, seed=4)) + np.float32(0.1),
}
NORMED = "BatchNormalization(h, gain, bias, mean, var)"


def test_a_batch_norm_goes_through_a_reshape_into_a_product_without_bias(tmp_path: Path) -> None:
    body = f"""g (float[2,3,{WIDTH}] x) => (float[6,{WIDTH}] y) {{
        p = MatMul(x, w) h = Reshape(p, s) y = {NORMED} }}"""
    weights = {"w": models.random(WIDTH, WIDTH), "s": np.array([6, WIDTH]), **STATISTICS}
    graph, edits = apply(text(body, weights, tmp_path), FoldNorm())
    assert functions(graph) == ["linear", "add", "reshape"] and len(done(edits)) == 1


def test_a_batch_norm_over_rows_stays_reject(tmp_path: Path) -> None:
    body = f"g (float[2,{WIDTH},{WIDTH}] x) => (float[2,{WIDTH},{WIDTH}] y) {{ h = MatMul(x, w) y = {NORMED} }}"
    _, edits = apply(text(body, {"w": models.random(WIDTH, WIDTH), **STATISTICS}, tmp_path), FoldNorm())
    assert not done(edits) and "one by one" in reasons(edits)[0]


@pytest.mark.slow
@pytest.mark.parametrize("reader", [nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(6, 4, 1, bias=False)])
def test_a_batch_norm_goes_into_the_convolution_behind_it(reader: nn.Module) -> None:
    graph, edits = apply(fx(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(6), reader), IMAGE), FoldNorm())
    assert functions(graph) == ["relu", "conv"] and len(done(edits)) == 1


@pytest.mark.slow
def test_a_batch_norm_goes_into_all_linear_layers_behind_it() -> None:
    graph, edits = apply(fx(nn.Sequential(nn.ReLU(), Forked(nn.BatchNorm1d(WIDTH))), ROWS), FoldNorm())
    assert "batch_norm" not in functions(graph) and [edit.layers for edit in edits] == [("1.a", "1.b")]


REJECTED = {
    "padded": (nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1)), IMAGE, "`1` pads it"),
    "relu": (nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)), IMAGE, "`relu` reads it"),
    "residual": (Forked(nn.BatchNorm1d(WIDTH), residual=True), ROWS, "`add` reads it"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REJECTED)
def test_a_batch_norm_between_others_stays_reject(case: str) -> None:
    module, shape, reason = REJECTED[case]
    _, edits = apply(fx(nn.Sequential(nn.Tanh(), module), shape), FoldNorm())
    assert not done(edits)
    assert reason.replace("`1`", "`1.1`") in reasons(edits)[0]


def test_a_shared_convolution_takes_no_batch_norm_reject(tmp_path: Path) -> None:
    body = f"""g (float[2,{WIDTH},5] x) => (float[2,{WIDTH},5] y) {{
        h = Conv(x, w) n = {NORMED} r = Relu(n) y = Conv(r, w) }}"""
    _, edits = apply(text(body, {"w": models.random(WIDTH, WIDTH, 1), **STATISTICS}, tmp_path), FoldNorm())
    assert not done(edits) and "is read elsewhere, too" in reasons(edits)[0]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["fx", "onnx"])
def test_a_gain_goes_into_all_linear_layers_behind_it(adapter: str, tmp_path: Path) -> None:
    graph, edits = apply(both(Forked(nn.LayerNorm(WIDTH)), ROWS, adapter, tmp_path), FoldNorm())
    (norm,) = (op for op in graph.ops() if op.kind is Kind.NORM)
    gain = graph.constant(norm.inputs[1])
    assert gain is not None and np.all(gain == 1) and set(edits[0].layers) == {"a", "b"}


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_the_gain_of_a_norm_of_an_images_channels_goes_into_the_convolution_behind_it(norm: str) -> None:
    made = nn.GroupNorm(2, 6) if norm == "group" else nn.InstanceNorm2d(6, affine=True)
    with torch.no_grad():
        assert made.weight is not None
        made.weight.copy_(torch.rand(6) + 0.5)
    graph, edits = apply(fx(nn.Sequential(made, nn.Conv2d(6, 4, 3, padding=1)), IMAGE), FoldNorm())
    (op,) = (op for op in graph.ops() if op.kind is Kind.NORM)
    gain = graph.constant(op.inputs[1])
    assert gain is not None and np.all(gain == 1) and set(done(edits)[0].layers) == {"1"}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["fx", "onnx"])
def test_a_gain_that_is_computed_goes_and_its_product_with_it(adapter: str, tmp_path: Path) -> None:
    before = both(Forked(RmsNorm()), ROWS, adapter, tmp_path)
    graph, edits = apply(before, FoldNorm())
    assert len(done(edits)) == 1 and functions(graph).count("mul") == functions(before).count("mul") - 1


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["fx", "onnx"])
def test_a_gain_of_a_residual_stays_reject(adapter: str, tmp_path: Path) -> None:
    _, edits = apply(both(Forked(nn.LayerNorm(WIDTH), residual=True), ROWS, adapter, tmp_path), FoldNorm())
    assert not done(edits) and "does not pass scales on" in reasons(edits)[0]


def _gained(gain: Array, between: str, folder: Path) -> Graph:
    body = f"""g (float[N,{WIDTH}] x) => (float[N,{WIDTH}] y) {{
        t = Tanh(x) n = LayerNormalization(t, gain, bias) r = {between}(n) y = MatMul(r, w) }}"""
    weights = {"gain": gain, "bias": models.random(WIDTH, seed=2), "w": models.random(WIDTH, WIDTH)}
    return text(body, weights, folder)


GAIN = np.linspace(0.5, 2, WIDTH, dtype=np.float32)


def test_a_zero_gain_stays_beside_ones(tmp_path: Path) -> None:
    graph, edits = apply(_gained(np.where(np.arange(WIDTH) == 2, 0, GAIN), "Identity", tmp_path), FoldNorm())
    gain = graph.constant("gain")
    assert gain is not None and gain.tolist() == [1, 1, 0, 1, 1, 1, 1, 1] and "1 channels" in edits[0].text


@pytest.mark.parametrize(("between", "sign"), [("Relu", 1), ("Neg", -1), ("Identity", -1)])
def test_a_gain_passes_what_its_sign_may(between: str, sign: int, tmp_path: Path) -> None:
    _, edits = apply(_gained(sign * GAIN, between, tmp_path), FoldNorm())
    assert len(done(edits)) == len(edits) == 1


@pytest.mark.parametrize(("ids", "shape"), [([[2], [0], [2]], "3"), ([[2, 0], [1, 3]], "2")])
def test_a_gain_passes_where_rows_are_picked_by_one_number_each(
    ids: list[list[int]], shape: str, tmp_path: Path
) -> None:
    wide = f"float[{shape},{WIDTH}] y" if len(ids[0]) == 1 else f"float[{shape}] y"
    behind = "y = MatMul(r, w)" if len(ids[0]) == 1 else "z = MatMul(n, w) s = ReduceSum<keepdims = 0>(z) y = Add(r, s)"
    body = f"""g (float[4,{WIDTH}] x) => ({wide}) {{
        t = Tanh(x) n = LayerNormalization(t, gain, bias) r = GatherND(n, ids) {behind} }}"""
    weights = {"gain": GAIN, "bias": models.random(WIDTH, seed=2), "w": models.random(WIDTH, WIDTH)}
    _, edits = apply(text(body, {**weights, "ids": np.array(ids)}, tmp_path), FoldNorm())
    assert [edit.refused for edit in edits] == [len(ids[0]) > 1]


def test_a_negative_gain_passes_no_relu_reject(tmp_path: Path) -> None:
    _, edits = apply(_gained(-GAIN, "Relu", tmp_path), FoldNorm())
    assert reasons(edits) == ["a gain is negative, and only positive scales pass"] and len(edits) == 1


def test_a_gain_passes_no_sigmoid_reject(tmp_path: Path) -> None:
    _, edits = apply(_gained(GAIN, "Sigmoid", tmp_path), FoldNorm())
    assert not done(edits)


def test_a_gain_that_would_not_leave_another_alone_stays_reject(tmp_path: Path) -> None:
    body = f"""g (float[N,{WIDTH}] x) => (float[N,{WIDTH}] y) {{ t = Tanh(x)
        a = LayerNormalization(x, g) b = LayerNormalization(t, k) s = Add(a, b) y = MatMul(s, w) }}"""
    weights = {"g": GAIN, "k": GAIN[::-1].copy(), "w": models.random(WIDTH, WIDTH)}
    _, edits = apply(text(body, weights, tmp_path), FoldNorm())
    assert reasons(edits) == ["`k` is another gain of the same channels", "`g` is another gain of the same channels"]


def _uneven(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            rows = torch.logspace(-1, 1, layer.weight.shape[0])[torch.randperm(layer.weight.shape[0])]
            layer.weight.data *= rows.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return nn.Sequential(*layers)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["fx", "onnx"])
def test_what_writes_a_channel_and_what_reads_it_become_even(adapter: str, tmp_path: Path) -> None:
    layers = [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3)]
    graph, edits = apply(both(_uneven(*layers), ROWS, adapter, tmp_path), Equalize())
    assert len(done(edits)) == 2 and len(reasons(edits)) == 1
    for writer, reader in (("0", "2"), ("2", "4")):
        ratio = ranges(graph, writer, 0) / ranges(graph, reader, 1)
        assert ratio.max() / ratio.min() < 1 + EVEN


def test_a_channel_without_numbers_keeps_its_scale() -> None:
    first = nn.Linear(WIDTH, WIDTH)
    module = _uneven(first, nn.ReLU(), nn.Linear(WIDTH, 3))
    first.weight.data[3] = 0
    before = fx(module, ROWS)
    graph, _ = apply(before, Equalize())
    assert np.array_equal(graph.matrix(weight(graph, "2"))[:, 3], before.matrix(weight(before, "2"))[:, 3])


@pytest.mark.slow
@pytest.mark.parametrize("between", [nn.GELU(), nn.ReLU6(), nn.SiLU()])
def test_an_activation_that_passes_no_scale_reject(between: nn.Module) -> None:
    graph = fx(_uneven(nn.Linear(WIDTH, WIDTH), between, nn.Linear(WIDTH, 3)), ROWS)
    _, edits = apply(graph, Equalize())
    assert not done(edits) and len(edits) == 2


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["fx", "onnx"])
def test_values_and_outputs_of_attention_become_even_and_queries_stay(adapter: str, tmp_path: Path) -> None:
    before = both(Attention(), (2, 3, WIDTH), adapter, tmp_path)
    graph, edits = apply(before, Equalize())
    assert [set(edit.layers) for edit in done(edits)] == [{"v", "o"}]
    assert np.array_equal(graph.matrix(weight(graph, "q")), before.matrix(weight(before, "q")))


@pytest.mark.slow
def test_a_bias_is_absorbed_where_nothing_is_between() -> None:
    module = _uneven(nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1))
    graph, edits = apply(fx(module, IMAGE), Equalize(absorb=True))
    bias = graph.constant(weight(graph, "0").layers[0].bias or "")
    assert (
        bias is not None
        and not bias.any()
        and [edit.subject for edit in edits if "bias" in edit.subject] == ["bias of 0"]
    )


@pytest.mark.parametrize("behind", [nn.Conv2d(5, 4, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(5, 4, 1))])
def test_a_bias_is_not_absorbed_through_padding_or_relu_reject(behind: nn.Module) -> None:
    _, edits = apply(fx(nn.Sequential(nn.Conv2d(6, 5, 1), behind), IMAGE), Equalize(absorb=True))
    assert not any("bias" in edit.subject for edit in edits)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["fx", "onnx"])
def test_queries_and_keys_get_equal_ranges(adapter: str, tmp_path: Path) -> None:
    module = Attention()
    module.q.weight.data *= torch.logspace(-1, 1, WIDTH).reshape(-1, 1)
    graph, edits = apply(both(module, (2, 3, WIDTH), adapter, tmp_path), QueryKey())
    assert [set(edit.layers) for edit in edits] == [{"q", "k"}]

    def whole(name: str) -> Array:
        bias = graph.constant(weight(graph, name).layers[0].bias or "")
        assert bias is not None
        return np.asarray(np.maximum(ranges(graph, name, 0), np.abs(bias)))

    assert np.abs(np.log(whole("q") / whole("k"))).max() < EVEN


def test_sites_that_are_not_taken_stay() -> None:
    layers = [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3)]
    before = fx(_uneven(*layers), ROWS)
    first = Equalize().sites(before, names(before))[0].subject
    graph, edits = apply(before, Equalize(), lambda subject: subject != first)
    assert len(done(edits)) == 1
    assert np.array_equal(graph.matrix(weight(graph, "0")), before.matrix(weight(before, "0")))


PARTS = ("linear", "shared", "relu", "gelu", "norm", "gain", "batch_norm", "residual", "fork")


def _drawn(parts: Sequence[str]) -> tuple[str, dict[str, Array]]:
    """A graph of parts one behind the other, on rows of one width."""
    lines, weights, value, early = [], dict[str, Array](), "x", "x"

    def new(name: str, at: int, *shape: int) -> str:
        weights[f"{name}{at}"] = models.random(*shape, seed=at) if name != "v" else STATISTICS["var"]
        return f"{name}{at}"

    for at, part in enumerate(parts):
        out, shape = f"h{at}", (WIDTH, WIDTH)
        if part == "linear":
            lines.append(f"p{at} = MatMul({value}, {new('w', at, *shape)}) {out} = Add(p{at}, {new('b', at, WIDTH)})")
        elif part == "shared":
            weights["shared"] = models.random(*shape, seed=99)
            lines.append(f"{out} = MatMul({value}, shared)")
        elif part == "norm":
            lines.append(f"{out} = LayerNormalization({value}, {new('g', at, WIDTH)}, {new('b', at, WIDTH)})")
        elif part == "gain":
            lines.append(f"{out} = Mul({value}, {new('g', at, WIDTH)})")
        elif part == "batch_norm":
            given_ = ", ".join(new(name, at, WIDTH) for name in "gbmv")
            lines.append(f"{out} = BatchNormalization({value}, {given_})")
        elif part == "fork":
            lines.append(
                f"p{at} = MatMul({value}, {new('w', at, *shape)}) q{at} = MatMul({value}, {new('u', at, *shape)})"
            )
            join = "Add" if "fork" in parts[:at] else "Mul"  # the numbers of many products would overflow
            lines.append(f"{out} = {join}(p{at}, q{at})")
        else:
            lines.append(
                f"{out} = "
                + {"relu": "Relu({0})", "gelu": "Tanh({0})", "residual": "Add({0}, {1})"}[part].format(value, early)
            )
            early = out if part == "residual" else early
        value = out
    body = " ".join(lines)
    return f"g (float[4,{WIDTH}] x) => (float[4,{WIDTH}] y) {{ {body} y = MatMul({value}, last) }}", {
        **weights,
        "last": models.random(WIDTH, WIDTH, seed=98),
    }


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=7))
def test_any_graph_keeps_its_function(parts: Sequence[str], tmp_path: Path) -> None:
    graph = text(*_drawn(["linear", *parts]), tmp_path)
    for action in (FoldNorm(), Equalize(absorb=True), QueryKey()):
        graph, _ = apply(graph, action)


@pytest.mark.parametrize("made", ["Mul(tall, wide)", "Expand(one, size)"])
def test_what_is_spread_out_of_smaller_constants_is_no_gain_reject(made: str, tmp_path: Path) -> None:
    """A table of a spectrum is made of two ramps, a vector of one number: as constants they would only be larger."""
    body = f"""spread (float[4,16,16] x) => (float[4,16,16] y) {{
        ramp = {made}
        waves = Cos(ramp)
        seen = Mul(x, waves)
        y = MatMul(seen, w)
    }}"""
    weights = {"tall": models.random(16, 1), "wide": models.random(16), "w": models.random(16, 16)}
    weights |= {"one": models.random(1), "size": np.array([16])}
    graph = text(body, weights, tmp_path)
    after, _ = apply(graph, FoldNorm())
    assert [op.inputs for op in after.ops()] == [op.inputs for op in graph.ops()]
