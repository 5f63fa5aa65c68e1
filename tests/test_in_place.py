"""Ops that write in place become ops that make something new, where nobody could tell."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from qcc.ir.fx.in_place import make_anew
from qcc.ir.fx.program import export_module, pure, twin

Step = Callable[[Tensor, Tensor], Tensor]


class Net(nn.Module):
    """A convolution and a norm, and a step behind them that takes the input as well."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.conv, self.norm, self.step = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), step

    def forward(self, image: Tensor) -> Tensor:
        return self.step(self.norm(self.conv(image)), image)


def _read_before(made: Tensor, image: Tensor) -> Tensor:
    before = made[:, :1]
    return made.relu_() + before


def _row_of_it(made: Tensor, image: Tensor) -> Tensor:
    made[:, 0].mul_(2.0)
    return made + 1.0


def _given_back(made: Tensor, image: Tensor) -> Tensor:
    kept = nn.functional.dropout(made, training=False)
    kept.relu_()
    return made + kept


def _cast_to_what_it_is(made: Tensor, image: Tensor) -> Tensor:
    kept = made.contiguous().to(torch.float32)
    return made + kept.relu_()


def _the_input(made: Tensor, image: Tensor) -> Tensor:
    return made + image.clone().view(-1).mul_(2.0).view_as(image)


REPLACED: dict[str, Step] = {
    "activation": lambda made, image: made.relu_(),
    "bounded": lambda made, image: nn.functional.relu6(made, inplace=True),
    "residual": lambda made, image: made.add_(image, alpha=2).relu_(),
    "bent otherwise": lambda made, image: nn.functional.mish(made, inplace=True),
    "pooled": lambda made, image: nn.functional.max_pool2d(made, 2).relu_(),
    "read after": lambda made, image: made.mul_(2.0) * made,
}
LEFT: dict[str, Step] = {
    "read before": _read_before,
    "a row of it": _row_of_it,
    "maybe what was given": _given_back,
    "cast to what it is": _cast_to_what_it_is,
    "a view": _the_input,
}


@pytest.mark.sampled
@pytest.mark.parametrize(
    "name", [*REPLACED, "read before", "a row of it", "cast to what it is", "a view"]
)  # torch itself gets the other wrong
def test_the_function_stays(name: str) -> None:
    torch.manual_seed(0)
    module, image = Net({**REPLACED, **LEFT}[name]).eval(), torch.randn(2, 3, 4, 4)
    program = export_module(module, (image,))
    wanted = program.module()(image)
    found = pure(program)
    assert not [
        node for node in found.graph.nodes if getattr(getattr(node.target, "_schema", None), "is_mutable", False)
    ]
    assert torch.equal(found.module()(image), wanted)


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_fresh_is_made_anew_without_tracing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = export_module(Net(REPLACED[name]), (torch.randn(2, 3, 4, 4),))
    monkeypatch.setattr(type(program), "run_decompositions", None)
    targets = [str(node.target) for node in pure(program).graph.nodes]
    assert not [one for one in targets if one.split(".")[1:2] and one.split(".")[1].endswith("_")]


@pytest.mark.parametrize("name", LEFT)
def test_what_others_may_hold_is_left(name: str) -> None:
    graph, _ = twin(export_module(Net(LEFT[name]), (torch.randn(2, 3, 4, 4),)).graph)
    before = [str(node.target) for node in graph.nodes]
    make_anew(graph)
    assert [str(node.target) for node in graph.nodes] == before
