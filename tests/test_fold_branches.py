"""Side branches that are products become a part of the layers beside them, on both frontends; others stay."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from qcc.compiler.compile import compile
from qcc.ir.graph.graph import Graph
from tests.fold_graphs import FRONT_ENDS, folded, of_onnx, run

IN, OUT, RANK = 24, 32, 4
FEED = np.random.default_rng(1).standard_normal((3, 5, IN)).astype(np.float32)


class Adapted(nn.Module):
    """A layer with something of rank four beside it, between functions that no product goes through."""

    def __init__(self, beside: Callable[["Adapted", Tensor], Tensor], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.base, self.down, self.up = nn.Linear(IN, OUT), nn.Linear(IN, RANK, False), nn.Linear(RANK, OUT, False)
        self.gain, self.shift, self.narrow = (nn.Parameter(torch.randn(size)) for size in (OUT, OUT, RANK))
        self.square = nn.Parameter(torch.randn(IN))
        self.lower, self.upper = nn.Parameter(torch.randn(RANK, IN)), nn.Parameter(torch.randn(OUT, RANK))
        self.small, self.large = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(6, 8))
        self.places = nn.Parameter(torch.randn(5, OUT))
        self.order = torch.randperm(OUT)
        self.beside = beside

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.tanh(self.beside(self, torch.tanh(x)))
        return result


def _lokr(m: Adapted, x: Tensor) -> Tensor:
    """A Kronecker product beside the base, applied factor by factor."""
    parts = x.reshape(3, 5, 4, 6).transpose(2, 3) @ m.small
    result: Tensor = m.base(x) + (parts.transpose(2, 3) @ m.large).reshape(3, 5, OUT)
    return result


FOLDS: dict[str, Callable[[Adapted, Tensor], Tensor]] = {
    "lora": lambda m, x: m.base(x) + 0.5 * m.up(m.down(x)),
    "block-lora": lambda m, x: (
        m.base(x) + torch.cat([m.up(m.down(x))[..., : OUT // 2], 2 * m.up(m.down(x))[..., OUT // 2 :]], -1)
    ),
    "loldu": lambda m, x: m.base(x) + ((x @ m.lower.T * m.narrow) @ m.upper.T)[..., m.order],
    "vera": lambda m, x: m.base(x) + m.up(m.down(x) * m.narrow) * m.gain,
    "lokr": _lokr,
    "dora": lambda m, x: (m.base(x) + m.up(m.down(x)) * 2 - m.shift) * m.gain + m.shift,
    "parallel adapter": lambda m, x: (m.base(x) + (m.up(m.down(x)) + m.shift)) / 4,
    "ia3": lambda m, x: m.base(x * m.square),
    "ssf": lambda m, x: m.base(x) * m.gain + m.shift,
    "bitfit": lambda m, x: m.base(x) + m.shift,
    "two adapters": lambda m, x: m.base(x) - m.up(m.down(x)) + (x @ m.lower.T) @ m.upper.T,
}
STAYS: dict[str, Callable[[Adapted, Tensor], Tensor]] = {
    "activation inside": lambda m, x: m.base(x) + m.up(torch.relu(m.down(x))),
    "gate that depends on data": lambda m, x: m.base(x) * m.down(x)[..., :1],
    "factors alone": lambda m, x: m.up(m.down(x)),
    "vector of a place": lambda m, x: m.base(x) + 0.5 * m.up(m.down(x)) + m.places,
    "middle read elsewhere": lambda m, x: m.up(h := m.down(x)) * torch.exp(h[..., :1]),
}


@pytest.fixture(params=FRONT_ENDS)
def graph_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[nn.Module], Graph]:
    return lambda module: FRONT_ENDS[request.param](module, FEED, tmp_path)


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("kind", FOLDS)
def test_what_is_a_product_becomes_one(kind: str, graph_of: Callable[[nn.Module], Graph]) -> None:
    graph = graph_of(Adapted(FOLDS[kind]))
    plain = graph_of(Adapted(lambda m, x: m.base(x)))
    after, edits = folded(graph)
    np.testing.assert_allclose(run(after, FEED), run(graph, FEED), atol=1e-5)  # outputs within one
    assert any(not edit.refused for edit in edits), edits
    assert len(after.ops()) == len(folded(plain)[0].ops())
    (weight,) = after.weights()
    assert weight.shape == (OUT, IN)
    assert weight.layers[0].name == plain.weights()[0].layers[0].name


LEFT = {"activation inside": 3, "gate that depends on data": 2, "factors alone": 2, "middle read elsewhere": 2}
"""Weights that are as they were; of a vector that is of a place, the sum stays, and what is beside it folds."""


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("kind", LEFT)
def test_what_is_none_stays(kind: str, graph_of: Callable[[nn.Module], Graph]) -> None:
    graph = graph_of(Adapted(STAYS[kind]))
    after, edits = folded(graph)
    np.testing.assert_allclose(run(after, FEED), run(graph, FEED), atol=1e-5)  # outputs within one
    assert len(after.weights()) == LEFT[kind] and len(edits) <= 1


@pytest.mark.slow
def test_a_vector_that_is_of_a_place_stays_a_sum(graph_of: Callable[[nn.Module], Graph]) -> None:
    graph = graph_of(Adapted(STAYS["vector of a place"]))
    after, edits = folded(graph)
    np.testing.assert_allclose(run(after, FEED), run(graph, FEED), atol=1e-5)  # outputs within one
    assert len(after.weights()) == 1 and any(not edit.refused for edit in edits)
    constants = (after.constant(name) for op in after.ops() if op.function == "add" for name in op.inputs)
    assert [one.shape for one in constants if one is not None and one.ndim > 1] == [(5, OUT)]


@pytest.mark.slow
def test_a_large_vector_costs_the_weights_no_digits(graph_of: Callable[[nn.Module], Graph]) -> None:
    def beside(m: Adapted, x: Tensor) -> Tensor:
        large = 3000 * m.shift
        result: Tensor = (m.base(x) + m.up(m.down(x)) + large - large) * m.gain + large
        return result

    module = Adapted(beside)
    (weight,) = (found := folded(graph_of(module))[0]).weights()
    gain, base, up, down = (
        one.detach().double() for one in (module.gain, module.base.weight, module.up.weight, module.down.weight)
    )
    wanted = (gain[:, None] * (base + up @ down)).numpy()
    np.testing.assert_allclose(found.matrix(weight), wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
def test_a_preset_encodes_the_folded_layer_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("plain", "lora"):
        (tmp_path / name).mkdir()
    plain, lora = (tmp_path / name / "net.onnx" for name in ("plain", "lora"))
    of_onnx(Adapted(lambda m, x: m.base(x)), FEED, plain.parent)
    of_onnx(Adapted(FOLDS["lora"]), FEED, lora.parent)
    found = [compile(path, "balanced", output=path.with_suffix(".qcc.onnx")) for path in (plain, lora)]
    assert found[0].passed and found[1].passed
    ops = [[node.op_type for node in onnx.load(path.with_suffix(".qcc.onnx")).graph.node] for path in (plain, lora)]
    assert ops[0] == ops[1]


@pytest.mark.slow
def test_factors_that_would_take_more_bytes_as_one_are_refused_with_the_reason(tmp_path: Path) -> None:
    graph = of_onnx(Adapted(STAYS["factors alone"]), FEED, tmp_path)
    _, edits = folded(graph)
    size = 4 * (IN * OUT - RANK * (IN + OUT))
    assert [(edit.refused, edit.text) for edit in edits] == [
        (True, f"as one product it would take {size:,} bytes more")
    ]


class Twice(nn.Module):
    """Two adapted layers, of which the second reads some of what the first makes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Adapted(FOLDS["lora"]), Adapted(FOLDS["two adapters"], 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x)[..., :IN])
        return result


@pytest.mark.slow
def test_layers_in_a_row_fold_each(graph_of: Callable[[nn.Module], Graph]) -> None:
    graph = graph_of(Twice())
    after, edits = folded(graph)
    np.testing.assert_allclose(run(after, FEED), run(graph, FEED), atol=1e-5)  # outputs within one
    assert [edit.refused for edit in edits] == [False, False]
    assert sorted(weight.shape for weight in after.weights()) == [(OUT, IN), (OUT, IN)]
