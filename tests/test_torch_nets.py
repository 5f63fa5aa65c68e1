"""Small nets as people write them: module, compact module and its ONNX model compute the same, by one plan."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import qcc
from qcc.compiler.plan.text import to_text
from qcc.ir.axes.axes import Action, Axes
from qcc.ir.encoding.value import STATIC_INT8, EncodedValue
from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.ops import Kind
from tests.onnx_models import run

POLICY = "qpolicy 1\nrule any { weights = int8 group 16 }\nverify { cosine >= 0.9 }"
NEAR = 1e-5  # of the largest: float32 sums in another order


class Bag(nn.Module):
    """Sums of rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(50, 32, mode="sum"), nn.Linear(32, 8)

    def forward(self, words: Tensor, starts: Tensor) -> Tensor:
        result: Tensor = self.head(self.table(words, starts))
        return result


class Cell(nn.Module):
    """A recurrent cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(16, 24), nn.Linear(24, 8)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(2):
            h, c = self.cell(x, (h, c))
        return self.head(h), c


class Equations(nn.Module):
    """Heads by einsum, weights with three axes and a name of one letter."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.out = nn.Parameter(torch.randn(16, 4, 8) / 4), nn.Parameter(torch.randn(4, 8, 16) / 6)

    def forward(self, x: Tensor) -> Tensor:
        heads = torch.einsum("bsd,dhk->bhsk", x, self.w)
        seen = torch.einsum("bhsk,bhtk->bhst", heads, heads).softmax(-1)
        return torch.einsum("bhsk,hkd->bsd", seen @ heads, self.out)


class Scaled(nn.Module):
    """Products that are scaled inside of their op."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(6, 32, 16) / 6), nn.Parameter(torch.randn(6, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.b, x, self.w, beta=0.5, alpha=2.0)


class Halves(nn.Module):
    """Parts of one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(64, 32) / 6)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = self.w.chunk(2)
        return functional.linear(x, up) * functional.linear(x, gate)


class Letters(nn.Module):
    """Parameters that are called as exporters call what has no name."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.t = nn.Parameter(torch.randn(32, 16) / 6), nn.Parameter(torch.randn(32, 16))

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return x @ self.w + self.t[ids]


def _blocks() -> nn.Module:
    """Two blocks that begin with equal weights, as copies do."""
    block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(block, 2, enable_nested_tensor=False)


class Across(nn.Module):
    """Attention over other rows: one parameter for queries, another part of it for keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = self.attention(x, y, y, need_weights=False)[0]
        return result


class Branches(nn.Module):
    """Layers in branches, one of which is read behind them, too; a branch holds branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.o = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        def inner(y: Tensor) -> Tensor:
            branches = (lambda z: functional.relu(self.b(z)), lambda z: self.c(z) + 1)
            found: Tensor = torch.cond(y.mean() > 1, *branches, (y,))
            return found

        result: Tensor = self.o(torch.cond(x.sum() > 0, inner, lambda y: self.o(self.a(y)), (x,)))
        return result


@pytest.mark.slow
def test_weights_in_branches_are_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Branches().eval(), torch.randn(4, 32)
    result = qcc.compile(module, POLICY, example_inputs=(x,))
    assert result.passed and {layer.name for layer in result.layers if layer.form} == {"a", "b", "c", "o"}
    assert not any(path.endswith(".weight") for path in result.model.state_dict())
    made = result.to_onnx(tmp_path / "net.onnx")
    assert to_text(made.plan) == to_text(result.plan)
    for shift in (-1, 0.5, 2):  # each of the three branches
        with torch.no_grad():
            found, wanted = (one(x + shift).numpy() for one in (result.model, module))
        assert 1 - (found * wanted).sum() / np.linalg.norm(found) / np.linalg.norm(wanted) < 1e-3  # int8
        (other,) = run(made.output, {_inputs(made.output)[0]: (x + shift).numpy()}).values()
        assert np.abs(found - other).max() < NEAR * np.abs(other).max()


class Turning(nn.Module):
    """Rotary positions as GPT-J has them: pairs are stacked, and each number of a table is repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        def turned(y: Tensor) -> Tensor:
            y = y.view(*y.shape[:2], 4, 8).transpose(1, 2)
            other = torch.stack((-y[..., 1::2], y[..., ::2]), -1).flatten(-2)
            return y * turns.cos().repeat_interleave(2, -1) + other * turns.sin().repeat_interleave(2, -1)

        value = self.v(x).view(*x.shape[:2], 4, 8).transpose(1, 2)
        return functional.scaled_dot_product_attention(turned(self.q(x)), turned(self.k(x)), value)


class Named(nn.Module):
    """A shape that is another's, and a product by its other name."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(32, 48), nn.BatchNorm1d(48), nn.Linear(48, 32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        result: Tensor = self.down(torch.multiply(self.norm(y.flatten(0, 1)).reshape_as(y), 2.0))
        return result


def test_ops_of_two_names_are_one() -> None:
    free = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("rows")},)
    graph = FxGraph.export(Named(), (torch.randn(2, 5, 32),), dynamic_shapes=free)
    x = torch.randn(3, 4, 32)
    (wanted,) = graph.runner(["x"], [graph.outputs[0].name])({"x": x.numpy()}).values()
    graph.simplify()
    functions = {op.function for op in graph.ops() if op.kind is not Kind.CONSTANT}
    assert functions == {"linear", "reshape", "batch_norm", "mul"}
    (found,) = graph.runner(["x"], [graph.outputs[0].name])({"x": x.numpy()}).values()
    assert np.array_equal(found, wanted)


def test_axes_are_seen_through_pairs_that_are_turned() -> None:
    graph = FxGraph.export(Turning(), (torch.randn(2, 5, 32), torch.randn(5, 4)))
    graph.simplify()
    names = {op.function for op in graph.ops()}
    assert not names & {"stack", "repeat_interleave"}
    groups = Axes.of(graph).groups(Action.SCALE)
    assert any(not group.fixed and {"q", "k"} <= {*group.readers, *group.writers} for group in groups)


class Crossed(nn.Module):
    """A product with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.cross, self.head = nn.Bilinear(16, 32, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = self.head(self.cross(x, y))
        return result


Maker = Callable[[], tuple[nn.Module, tuple[Tensor, ...], int]]
NETS: dict[str, Maker] = {
    "bag": lambda: (Bag(), (torch.randint(0, 50, (12,)), torch.tensor([0, 4, 7])), 2),
    "cell": lambda: (Cell(), (torch.randn(3, 16), torch.randn(3, 24), torch.randn(3, 24)), 3),
    "equations": lambda: (Equations(), (torch.randn(2, 5, 16),), 2),
    "scaled": lambda: (Scaled(), (torch.randn(6, 8, 32),), 1),
    "halves": lambda: (nn.Sequential(Halves()), (torch.randn(4, 32),), 2),
    "letters": lambda: (Letters(), (torch.randn(3, 32), torch.tensor([0, 3, 1])), 2),
    "blocks": lambda: (_blocks(), (torch.randn(2, 5, 32),), 4),
    "crossed": lambda: (Crossed(), (torch.randn(4, 5, 16), torch.randn(4, 5, 32)), 2),
    "across": lambda: (Across(), (torch.randn(2, 5, 32), torch.randn(2, 7, 32)), 3),
}


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] * (one != "letters")) for one in NETS])
def test_module_and_export_are_one(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, given, count = NETS[name]()
    result = qcc.compile(module.eval(), POLICY, example_inputs=given)
    assert result.passed and len(result.layers) == count and all(layer.form for layer in result.layers)
    large = [path for path, one in result.model.state_dict().items() if one.is_floating_point() and one.dim() > 1]
    assert {path.rpartition(".")[2] for path in large} <= {"values", "b"}
    made = result.to_onnx(tmp_path / "net.onnx")
    assert not made.warnings and to_text(made.plan) == to_text(result.plan)
    feeds = dict(zip(_inputs(made.output), (one.numpy() for one in given), strict=True))
    with torch.no_grad():
        found = result.model(*given)
    outputs = run(made.output, feeds).values()
    for one, other in zip(found if isinstance(found, tuple) else (found,), outputs, strict=True):
        assert np.abs(one.numpy() - other).max() < NEAR * np.abs(other).max()


@pytest.mark.slow
def test_an_export_with_other_weights_is_decided_by_the_policy(tmp_path: Path) -> None:
    """Both directions of a recurrent layer are one weight there."""
    torch.manual_seed(0)
    tokens = torch.randn(3, 5, 16)
    module = nn.LSTM(16, 24, batch_first=True, bidirectional=True).eval()
    made = qcc.compile(module, POLICY, example_inputs=(tokens,)).to_onnx(tmp_path / "net.onnx")
    assert [one.code for one in made.warnings] == ["Q760"] and made.passed and made.output.is_file()
    assert len(made.layers) == 2 and all(layer.form for layer in made.layers)


@pytest.mark.slow
def test_static_convolutions_add_up_as_in_the_file(tmp_path: Path) -> None:
    """The bias of the last, whose result is rounded; gates that are rounded; what all read rounded, once."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.LeakyReLU(), nn.Conv2d(8, 4, 3)).eval()
    image = torch.randn(2, 3, 12, 12)
    policy = "qpolicy 1\nrule any { weights = int8 channel; activations = static }\nverify { cosine >= 0.9 }"
    result = qcc.compile(module, policy, example_inputs=(image,))
    made = result.to_onnx(tmp_path / "net.onnx")
    assert to_text(made.plan) == to_text(result.plan)
    with torch.no_grad():
        found = result.model(image).numpy()
    (other,) = run(made.output, {_inputs(made.output)[0]: image.numpy()}).values()
    assert np.abs(found - other).max() < NEAR * np.abs(other).max()
    bias = result.model.state_dict()["4.bias"]
    assert not torch.equal(bias, module.state_dict()["4.bias"])
    rounds = [node for node in result.model.graph.nodes if "round" in str(node.target)]
    assert len(rounds) == sum(node.op_type == "QuantizeLinear" for node in onnx.load(made.output).graph.node)


def test_equal_weights_are_one_until_they_are_encoded() -> None:
    torch.manual_seed(0)
    graph = FxGraph.export(_blocks().eval(), (torch.randn(2, 5, 32),))
    assert len(graph.weights()) == 8
    graph.simplify()
    assert [len(one.layers) for one in graph.weights()] == [2] * 4


def test_arithmetic_on_sizes_is_no_op_that_is_asked_for_axes() -> None:
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0] * 2, x.shape[1] // 2)

    batch = torch.export.Dim("batch")
    program = torch.export.export(Pairs(), (torch.randn(3, 8),), dynamic_shapes=({0: batch},))
    assert {"shape", "reshape"} <= {op.function for op in FxGraph(program).ops()}


def test_a_copy_reads_its_own_rounded_values() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(x)
            return y * y

    graph, x = FxGraph.export(Both(), (torch.randn(4, 8),)), np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
    step = EncodedValue(STATIC_INT8, np.float32(0.03))
    name = graph.encode_value("relu", step)
    copied = graph.copy()
    assert copied.encode_value("relu", step) == name
    (output,) = copied.outputs
    made = copied.runner(["x"], [output.name])({"x": x})[output.name]
    np.testing.assert_allclose(made, step.rounded(np.maximum(x, 0)) ** 2, atol=1e-6)  # float32


def _inputs(path: Path) -> list[str]:
    return [one.name for one in onnx.load(path).graph.input]
