"""Convolutions with convolutions beside them become one, on both frontends; what is none at the edges stays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qcc.ir.graph.graph import Graph
from tests.fold_graphs import FRONT_ENDS, folded, run

IN, OUT, RANK = 8, 8, 2
FEED = np.random.default_rng(1).standard_normal((2, IN, 9, 10)).astype(np.float32)


class Conv(nn.Module):
    """A convolution with something beside it, between functions that no product goes through."""

    def __init__(self, beside: Callable[["Conv", Tensor], Tensor], stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Conv2d(IN, OUT, 3, stride, 1, groups=groups)
        self.down, self.up = nn.Conv2d(IN, RANK, 3, stride, 1, bias=False), nn.Conv2d(RANK, OUT, 1, bias=False)
        self.point, self.each = nn.Conv2d(IN, OUT, 1, stride), nn.Conv2d(IN, OUT, 1, groups=IN)
        self.wide, self.gain = nn.Conv2d(IN, OUT, 5, stride, 2), nn.Parameter(torch.randn(1, OUT, 1, 1))
        self.place = nn.Parameter(torch.randn(1, OUT, 9, 10))
        self.norms = nn.ModuleList([nn.BatchNorm2d(OUT) for _ in range(3)])
        for norm in self.norms:
            norm.running_mean, norm.running_var = torch.randn(OUT), torch.rand(OUT) + 0.5
            nn.init.normal_(norm.weight)  # type: ignore[arg-type]
        self.beside = beside

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.tanh(self.beside(self, torch.tanh(x)))
        return found


def _lora(m: Conv, x: Tensor) -> Tensor:
    found: Tensor = m.base(x) + 0.5 * m.up(m.down(x))
    return found


FOLDS: dict[str, tuple[Callable[[Conv, Tensor], Tensor], int, int]] = {
    "lora": (_lora, 1, 1),
    "lora of two strides": (_lora, 2, 1),
    "parallel 1x1": (lambda m, x: m.base(x) + m.point(x), 1, 1),
    "repvgg": (lambda m, x: m.norms[0](m.base(x)) + m.norms[1](m.point(x)) + m.norms[2](x), 1, 1),
    "scales behind": (lambda m, x: m.base(x) * m.gain + m.gain, 1, 1),
    "scales before": (lambda m, x: m.base(x * m.gain), 1, 1),
    "depthwise": (lambda m, x: m.base(x) + m.each(x) + x, 1, IN),
    "the wider takes all": (lambda m, x: m.base(x) + m.wide(x), 1, 1),
}
STAYS: dict[str, tuple[Callable[[Conv, Tensor], Tensor], int, int]] = {
    "activation inside": (lambda m, x: m.base(x) + m.up(torch.relu(m.down(x))), 1, 1),
    "added before the pads": (lambda m, x: m.base(x + m.gain) + 1, 1, 1),
    "one a place": (lambda m, x: m.base(x) * m.place + x, 1, 1),
    "mixes groups": (lambda m, x: m.base(x) + m.each(x[:, torch.arange(IN - 1, -1, -1)]), 1, IN),
}


@pytest.fixture(params=FRONT_ENDS)
def graph_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[nn.Module], Graph]:
    return lambda module: FRONT_ENDS[request.param](module, FEED, tmp_path)


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("kind", FOLDS)
def test_what_is_a_convolution_becomes_one(kind: str, graph_of: Callable[[nn.Module], Graph]) -> None:
    graph = graph_of(Conv(*FOLDS[kind]))
    after, edits = folded(graph)
    np.testing.assert_allclose(run(after, FEED), run(graph, FEED), atol=1e-5)  # outputs within one
    assert any(not edit.refused for edit in edits), edits
    assert [op.function for op in after.ops()] == ["tanh", "conv", "tanh"]


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("kind", STAYS)
def test_what_is_none_stays(kind: str, graph_of: Callable[[nn.Module], Graph]) -> None:
    graph = graph_of(Conv(*STAYS[kind]))
    after, _ = folded(graph)
    np.testing.assert_allclose(run(after, FEED), run(graph, FEED), atol=1e-5)  # outputs within one
    assert len(after.ops()) > 3


@pytest.mark.slow
def test_a_norm_alone_is_left_to_its_own_pass(graph_of: Callable[[nn.Module], Graph]) -> None:
    _, edits = folded(graph_of(Conv(lambda m, x: m.norms[0](m.base(x)))))
    assert edits == []
