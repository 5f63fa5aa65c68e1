"""Batch norms behind layers are folded as the exporter to ONNX folds them, and biases added as the file adds them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

import qcc
from qcc.ir.fx.graph import FxGraph
from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import run
from tests.torch_export import to_onnx

FENCE = 1e-4  # of a step, to the middle between two: float32 sums of a hundred steps in another order

CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "no bias": (nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), (2, 3, 9, 9)),
    "a bias": (nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)), (2, 4, 9)),
    "groups": (nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)), (2, 8, 9, 9)),
    "no gain": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-3, affine=False)), (2, 3, 9, 9)),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(8, 6, 2, 2, groups=2), nn.BatchNorm2d(6)), (2, 8, 5, 5)),
    "linear": (nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)), (3, 5)),
}
STAYS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "first": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)), (2, 3, 9, 9)),
    "rows": (nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(4)), (3, 4, 5)),
    "behind relu": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)), (2, 3, 9, 9)),
}


class InPlace(nn.Module):
    """A norm in a program that writes in place: torch takes that out and says the norm otherwise, or it is no write."""

    def __init__(self, write: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.write = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), write

    def forward(self, x: Tensor) -> Tensor:
        """A slice of it is set to zero, or flat numbers are dropped in place."""
        y: Tensor = self.norm(self.conv(x))
        if self.write:
            y[:, 0] = 0
            return y
        return nn.functional.dropout(y.flatten(1), training=self.training, inplace=True)


class Twice(nn.Module):
    """A layer whose result is read beside its norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        """Both."""
        y = self.conv(x)
        result: Tensor = self.norm(y) + y
        return result


def _settled(module: nn.Module) -> nn.Module:
    """Statistics and gains that are none of the start's."""
    torch.manual_seed(3)
    for name, tensor in module.state_dict().items():
        if tensor.dim() == 1:
            tensor.copy_(torch.rand_like(tensor) + (0.5 if name.endswith("var") else 0))
    return module.eval()


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_the_exporters(name: str, tmp_path: Path) -> None:
    module, shape = CASES[name]
    args = (torch.randn(shape),)
    fx = FxGraph.export(_settled(module), args)
    told = fx.simplify()
    assert told[0] == "batch norms folded into the layers before them: 1"
    to_onnx(module, args, tmp_path / "model.onnx")
    onnx = OnnxGraph.load(tmp_path / "model.onnx")
    (one,), (other,) = fx.weights(), onnx.weights()
    assert np.array_equal(fx.matrix(one), onnx.matrix(other))
    biases = [graph.constant(weight.layers[0].bias or "") for graph, weight in ((fx, one), (onnx, other))]
    assert biases[0] is not None
    assert biases[1] is not None
    assert np.array_equal(biases[0], biases[1])
    run = fx.runner([value.name for value in fx.inputs], [value.name for value in fx.outputs])
    (found,) = run({fx.inputs[0].name: args[0].numpy()}).values()
    np.testing.assert_allclose(found, module(*args).detach().numpy(), atol=1e-5)  # float32, numbers of about 1


@pytest.mark.parametrize("name", [*STAYS, "read twice"])
def test_other_norms_stay(name: str) -> None:
    module, shape = STAYS.get(name, (Twice(), (2, 3, 9, 9)))
    fx = FxGraph.export(_settled(module), (torch.randn(shape),))
    assert not any(line.startswith("batch norms") for line in fx.simplify())
    assert [op.function for op in fx.ops()].count("batch_norm") == 1


@pytest.mark.parametrize("write", [False, True])
def test_norms_are_folded_beside_ops_that_write_in_place(write: bool) -> None:
    module, x = _settled(InPlace(write)), torch.randn(2, 3, 9, 9)
    fx = FxGraph.export(module, (x,))
    assert fx.simplify()[0] == "batch norms folded into the layers before them: 1"
    (found,) = fx.runner(["x"], [fx.outputs[0].name])({"x": x.numpy()}).values()
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-5)  # float32, numbers of about 1


class _FromTheFile(Interpreter):
    """Runs a compact module with each convolution reading what it reads in the file, rounded.

    ``rounded`` are the whole numbers of what is rounded, and ``before`` those before they were.
    """

    def __init__(self, module: GraphModule, given: list[np.ndarray]) -> None:
        super().__init__(module)
        self._given = iter(given)
        self.rounded: list[np.ndarray] = []
        self.before: list[np.ndarray] = []

    def run_node(self, n: Node) -> Any:
        """With what is given instead of what comes."""
        found = super().run_node(n)
        if n.target is torch.ops.aten.round.default:
            self.before.append(self.env[n.all_input_nodes[0]].numpy())
        if n.target is torch.ops.aten.clamp.default:
            self.rounded.append(found.numpy())
        if n.target is torch.ops.aten.mul.Tensor and n.all_input_nodes[0].target is torch.ops.aten.clamp.default:
            return torch.from_numpy(next(self._given))
        return found


@pytest.mark.slow
def test_static_convolutions_compute_what_the_file_says(tmp_path: Path) -> None:
    """Layer by layer: a sum on the fence in the first one is 6 % of the last one's results, each a step off or none."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
    program = torch.export.export(nn.Sequential(*layers).eval(), (torch.randn(2, 3, 20, 20),))
    feeds = [{"input": torch.randn(2, 3, 20, 20).numpy()} for _ in range(4)]
    policy = "qpolicy 1\nrule conv { weights = int8 channel; activations = static }\nverify { cosine >= 0.9 }"
    result = qcc.compile(program, policy, data=feeds)
    assert isinstance(result.model, GraphModule)
    assert {layer.form for layer in result.layers} == {"bytes"}
    result.to_onnx(tmp_path / "net.qcc.onnx")
    rounded = [f"{name}.rounded.codes" for name in ("input", "relu", "relu_1", "conv2d_2")]
    values = ["input.rounded", "relu", "relu_1", "conv2d_2"]
    said = run(_with_outputs(tmp_path / "net.qcc.onnx", [*rounded, *values[:3]]), feeds[0])
    found = _FromTheFile(result.model, [said[name] for name in values])
    found.run(torch.from_numpy(feeds[0]["input"]))
    assert len(found.rounded) == len(rounded)
    for name, before, after in zip(rounded, found.before, found.rounded, strict=True):
        other = after - after.min() != said[name].astype(np.float32) - float(said[name].min())
        fence = np.abs(np.abs(before - np.floor(before)) - 0.5)
        assert fence[other].max(initial=0) < FENCE, name


def _with_outputs(path: Path, names: list[str]) -> Path:
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    onnx.save(model, path.with_name("shown.onnx"))
    return path.with_name("shown.onnx")


@pytest.mark.parametrize("shifts", [(-2, -3), (1, 0), (9, 4)])
def test_a_roll_is_slices_as_in_the_export(shifts: tuple[int, int]) -> None:
    class Rolled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.roll(torch.roll(x * 2, shifts, (1, 2)) + 1, -shifts[0], 1)

    x = torch.randn(2, 6, 7, 3)
    fx = FxGraph.export(Rolled(), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    names = [value.name for value in fx.outputs]
    fx.simplify()
    assert "roll" not in [op.function for op in fx.ops()] and [value.name for value in fx.outputs] == names
    (found,) = fx.runner([value.name for value in fx.inputs], names)({fx.inputs[0].name: x.numpy()}).values()
    np.testing.assert_array_equal(found, Rolled()(x).numpy())
