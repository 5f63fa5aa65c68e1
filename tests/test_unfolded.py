"""What hangs beside layers and does not fold is listed with the reason, and what folds or is no branch is not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qcc.__main__ import main
from qcc.ir.regions.unfolded import unfolded_branches
from tests.fold_graphs import FRONT_ENDS, folded
from tests.torch_export import to_onnx

WIDTH, NARROW = 32, 4
FEED = np.random.default_rng(3).standard_normal((2, 6, WIDTH)).astype(np.float32)


class Net(nn.Module):
    """A layer with something behind or beside it."""

    def __init__(self, then: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.down, self.up = nn.Linear(WIDTH, NARROW), nn.Linear(NARROW, WIDTH)
        self.wide, self.back = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.full((), 0.3))
        self.rows = nn.Parameter(torch.randn(1, 3, WIDTH))
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.then(self, self.first(x)))
        return found


def _serial(net: Net, x: Tensor) -> Tensor:
    found: Tensor = x + net.scale * net.up(torch.relu(net.down(x)))
    return found


def _parallel(net: Net, x: Tensor) -> Tensor:
    """With an activation in pieces, and a norm in front."""
    inner = net.down(nn.functional.layer_norm(x, (WIDTH,)))
    found: Tensor = net.wide(x)[..., :WIDTH] + net.up(inner * 0.5 * (1 + torch.erf(inner / 2**0.5)))
    return found


def _learnt_skip(net: Net, x: Tensor) -> Tensor:
    """ScaleLong's: a small net says how much of a skip counts."""
    return torch.tanh(x) + x * torch.sigmoid(net.up(torch.relu(net.down(x.mean(1, keepdim=True)))))


def _highway(net: Net, x: Tensor) -> Tensor:
    open_ = torch.sigmoid(net.wide(x))[..., :WIDTH]
    return open_ * torch.tanh(x) + (1 - open_) * x


def _prompt(net: Net, x: Tensor) -> Tensor:
    return torch.tanh(torch.cat([net.rows.expand(x.shape[0], -1, -1), x], 1))


def _prefix(net: Net, x: Tensor) -> Tensor:
    rows = net.rows.expand(x.shape[0], -1, -1)
    keys, values = (
        torch.cat([rows, net.wide(x)[..., :WIDTH]], 1),
        torch.cat([2 * net.rows.expand(x.shape[0], -1, -1), x], 1),
    )
    return torch.softmax(x @ keys.transpose(1, 2), -1) @ values


STAYING: dict[str, tuple[Callable[[Net, Tensor], Tensor], list[str], str]] = {
    "serial": (_serial, ["adapter"], "`relu` lies between its products of 4 channels"),
    "parallel": (_parallel, ["adapter"], "lies between its products of 4 channels"),
    "learnt skip": (_learnt_skip, ["gate"], "`sigmoid` of `up` multiplies"),
    "highway": (_highway, ["gate"], "`sigmoid` of `wide` multiplies"),
    "prompt": (_prompt, ["prompt"], "a prompt"),
    "prefix": (_prefix, ["prefix", "prefix"], "feed them as a cache"),
}
NONE: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "lora": lambda net, x: net.wide(x)[..., :WIDTH] + net.up(net.down(x)),
    "feed forward": lambda net, x: x + net.back(torch.relu(net.wide(x))),
    "swiglu": lambda net, x: x + nn.functional.silu(net.wide(x))[..., :WIDTH] * net.first(x),
    "constant skip": lambda net, x: torch.tanh(x) + net.scale * x,
    "constant gate": lambda net, x: torch.tanh(x) + torch.tanh(net.scale) * x,
}


@pytest.mark.sampled
@pytest.mark.parametrize("front", FRONT_ENDS)
@pytest.mark.parametrize("case", STAYING)
def test_what_does_not_fold_is_listed_with_the_reason(case: str, front: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    then, kinds, reason = STAYING[case]
    graph = FRONT_ENDS[front](Net(then), FEED, tmp_path)
    graph.simplify()
    found = unfolded_branches(graph)
    assert [one.what for one in found] == kinds
    assert all(reason in one.reason for one in found)
    _, edits = folded(graph)
    refused = [edit for edit in edits if edit.refused and "it is no product" in edit.text]
    assert len(refused) == sum(bool(one.weights) for one in found)


@pytest.mark.sampled
@pytest.mark.parametrize("front", FRONT_ENDS)
@pytest.mark.parametrize("case", NONE)
def test_what_folds_or_is_a_layer_of_its_own_is_not_listed(case: str, front: str, tmp_path: Path) -> None:
    graph = FRONT_ENDS[front](Net(NONE[case]), FEED, tmp_path)
    graph.simplify()
    assert unfolded_branches(graph) == []


def test_inspect_lists_what_stays_and_a_report_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    to_onnx(Net(_serial).eval(), (torch.from_numpy(FEED),), path, external_data=False)
    assert main(["inspect", str(path)]) == 0
    assert "  adapter down: `relu` lies between its products of 4 channels" in capsys.readouterr().out
    assert main(["inspect", str(path), "--format", "json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["unfolded"]
    assert one["what"] == "adapter" and len(one["weights"]) == 2
    policy = tmp_path / "a.qpolicy"
    policy.write_text("qpolicy 1\nrule any { fold_branches = on }\n")
    assert main(["compile", str(path), "-p", str(policy)]) == 0
    assert "1 refused: it is no product: `relu` lies between" in capsys.readouterr().out
