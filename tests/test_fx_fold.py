"""Constants made of constants are computed, as in ONNX models; casts to another tensor's type are casts."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qcc.ir.fx.graph import FxGraph
from qcc.ir.graph.graph import Graph


class Scaled(nn.Module):
    """A weight by its direction and length, and a gain that is told as what it differs from one by."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(60, 80))
        self.length = nn.Parameter(torch.rand(60, 1) + 0.5)
        self.gain = nn.Parameter(torch.randn(80) / 4)

    def forward(self, x: Tensor) -> Tensor:
        """Rows of sixty numbers."""
        normed = (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)) * (1 + self.gain.float())
        weight = self.direction * (self.length / self.direction.norm(dim=1, keepdim=True))
        return nn.functional.linear(normed.type_as(x), weight)


class Spread(nn.Module):
    """A row that is spread out, one that is read as it is, too, and one that is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.row, self.other, self.third = (nn.Parameter(torch.randn(1, 40)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Rows of the same shape."""
        drawn = torch.rand_like(self.third)
        return (x - self.other) * self.row.repeat(40, 1) + self.other * (self.other + 1) + drawn


def _run(graph: Graph, x: np.ndarray) -> np.ndarray:
    inputs, outputs = ([value.name for value in values] for values in (graph.inputs, graph.outputs))
    (found,) = graph.runner(inputs, outputs)({inputs[0]: x}).values()
    return found


def test_what_is_computed_of_constants_is_a_weight_of_the_same_name() -> None:
    torch.manual_seed(0)
    module, x = Scaled(), torch.randn(3, 80)
    graph = FxGraph.export(module, (x,))
    assert graph.weights() == ()
    graph.simplify()
    (weight,) = graph.weights()
    assert (weight.name, weight.constant, weight.shape) == ("direction", "direction", (60, 80))
    assert [op.function for op in graph.ops()] == ["pow", "mean", "add", "rsqrt", "mul", "mul", "linear"]
    np.testing.assert_allclose(
        _run(graph, x.numpy()), module(x).detach().numpy(), atol=1e-5
    )  # float32, numbers of about 10
    again = graph.copy()
    again.simplify()
    assert again.digest() == graph.digest()


def test_what_would_be_larger_or_drawn_stays_reject() -> None:
    graph = FxGraph.export(Spread(), (torch.randn(40, 40),))
    graph.simplify()
    assert {"row", "other"} <= {name for op in graph.ops() for name in op.inputs}
    assert {"repeat", "rand_like"} <= {op.function for op in graph.ops()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_cast_to_anothers_type_is_left_out_where_it_is_none(dtype: torch.dtype) -> None:
    class Cast(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x * 2).type_as(y) + y

    graph = FxGraph.export(Cast(), (torch.randn(3), torch.randn(3, dtype=dtype)))
    graph.simplify()
    kinds = [op.function for op in graph.ops()]
    assert kinds == (["mul", "add"] if dtype is torch.float32 else ["mul", "cast", "add"])
