"""Gradients of any framework's graph, computed in torch, and the losses that they foretell."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import qcc
from qcc.ir import open_file
from qcc.ir.errors import ModelError
from qcc.ir.fx.graph import FxGraph
from qcc.ir.fx.piece.piece import TorchPiece
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.adapter import OnnxGraph
from tests import models_torch as models
from tests.torch_export import to_onnx


class Everything(nn.Module):
    """Ops that the other models lack."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, dilation=2)
        self.norm, self.turned = nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 6, 3, 2, 1, 1, groups=2)
        self.other, self.head = nn.InstanceNorm2d(6, affine=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[batch, 5]``."""
        x = nn.functional.max_pool2d(nn.functional.hardswish(self.norm(self.stem(x))), 3, 2, 1)
        x = nn.functional.avg_pool2d(nn.functional.leaky_relu(self.other(self.turned(x))), 2)
        one, two = torch.split(x, [2, 4], 1)
        x = torch.cat([one.clamp(-1, 2), nn.functional.pad(two, (1, 1))[..., 1:-1] ** 2], 1)
        result: Tensor = torch.log_softmax(self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)), 1)
        return result


CASES = {
    "cnn": (models.NormalisedCnn, torch.randn(3, 3, 16, 16)),
    "transformer": (models.SmallTransformer, torch.arange(16).reshape(2, 8)),
    "everything": (Everything, torch.randn(2, 3, 24, 24)),
}


def _graphs(name: str, folder: Path) -> tuple[tuple[Graph, Graph], Tensor]:
    make, example = CASES[name]
    torch.manual_seed(0)
    module = make().eval()
    to_onnx(module, (example,), folder / "model.onnx")
    graphs = FxGraph.export(module, (example,)), OnnxGraph.load(folder / "model.onnx")
    for graph in graphs:
        graph.simplify()
    return graphs, example


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_what_small_steps_tell_in_both_frameworks(name: str, tmp_path: Path) -> None:
    graphs, example = _graphs(name, tmp_path)
    pulled = []
    for graph in graphs:
        piece = TorchPiece(graph, [graph.outputs[0].name], [one.constant for one in graph.weights()])
        feeds = {graph.inputs[0].name: example.numpy()}
        piece.check(feeds)
        known = piece.known(feeds)
        signs = np.random.default_rng(0).choice((-1.0, 1.0), known[piece.outputs[0]].shape).astype(np.float32)
        gradients = piece.pulled(known, {piece.outputs[0]: signs})
        assert set(gradients) == {one.constant for one in graph.weights()}
        for constant, gradient in gradients.items():
            held = graph.constant(constant)
            assert held is not None
            step = (
                np.random.default_rng(1).standard_normal(held.shape).astype(np.float32) * np.float32(1e-2) * held.std()
            )
            ends = [piece.run(known, {constant: torch.from_numpy(held + sign * step)}) for sign in (1, -1)]
            moved = float(((ends[0][piece.outputs[0]] - ends[1][piece.outputs[0]]) * torch.from_numpy(signs)).sum()) / 2
            scale = float(np.linalg.norm(gradient) * np.linalg.norm(step))
            assert abs(moved - float(np.vdot(gradient, step))) <= 0.05 * scale, constant  # of second order, and float32
        pulled.append([gradients[one.constant].size for one in graph.weights()])
    assert pulled[0] == pulled[1]


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_what_is_foreseen_is_what_runs_measure(name: str, tmp_path: Path) -> None:
    make, example = CASES[name]
    torch.manual_seed(0)
    program = torch.export.export(make().eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "model.pt2")
    to_onnx(make().eval(), (example,), tmp_path / "other.onnx")
    found = {}
    for by in ("runs", "gradients"):
        told = qcc.analyze(tmp_path / "model.pt2", formats="int4 group 16", by=by)
        found[by] = {one.name: one.loss(told.formats[0], "output_error") for one in told.layers}
    assert found["runs"].keys() == found["gradients"].keys()
    for layer, measured in found["runs"].items():
        foreseen = found["gradients"][layer]
        if measured is None or foreseen is None:  # not stored so: it would be no smaller
            assert measured == foreseen
            continue
        assert measured / 2.5 <= foreseen <= measured * 2.5, (layer, found)  # 64 draws, first order


CHOICE = """qpolicy 1
rule any { weights = int{2,4,8} channel; rounding = gptq }
budget { bits <= 5 }
minimize %s
verify { cosine >= 0.5 }
"""


@pytest.mark.slow
def test_a_policy_decides_by_what_is_foreseen_in_both_frameworks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Everything().eval(), torch.randn(2, 3, 24, 24)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "model.pt2")
    to_onnx(module, (x,), tmp_path / "model.onnx")
    feeds = [{"x": np.random.default_rng(at).standard_normal((2, 3, 24, 24)).astype(np.float32)} for at in range(4)]
    found = {}
    for name in ("model.pt2", "model.onnx"):
        for metric in ("fisher", "output_error"):
            result = qcc.compile(tmp_path / name, CHOICE % metric, data=feeds, output=tmp_path / f"out.{name}")
            assert result.passed
            found[name, metric] = {layer.name: layer.format for layer in result.layers}
    assert found["model.pt2", "fisher"] == found["model.onnx", "fisher"]
    assert len(set(found["model.onnx", "fisher"].values())) > 1
    same = [name for name, format in found["model.onnx", "fisher"].items()
            if format == found["model.onnx", "output_error"][name]]  # fmt: skip
    assert len(same) >= len(found["model.onnx", "fisher"]) - 2  # to first order


LSTM = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 4, 64] x) => (float[n, 4, 48] y) {
  wide = MatMul (x, before)  turned = Transpose <perm = [1, 0, 2]> (wide)
  states, last, cell = LSTM <hidden_size = 32> (turned, w, r)
  axis = Constant <value_ints = [1]> ()  flat = Squeeze (states, axis)
  back = Transpose <perm = [1, 0, 2]> (flat)  y = MatMul (back, behind) }"""


def _lstm(path: Path, text: str = LSTM) -> Path:
    model, draw = onnx.parser.parse_model(text), np.random.default_rng(0)
    shapes = {"before": (64, 64), "w": (1, 128, 64), "r": (1, 128, 32), "behind": (32, 48)}
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name))
    onnx.save(model, path)
    return path


def test_layers_that_gradients_do_not_reach_are_measured(tmp_path: Path) -> None:
    path = _lstm(tmp_path / "lstm.onnx")
    graph = OnnxGraph.load(path)
    assert TorchPiece(graph, ["y"], ["before", "w", "behind"]).reach == ("behind",)
    by = {one: qcc.analyze(path, formats="int4 channel", by=one) for one in ("runs", "gradients")}
    losses = {
        one: {layer.name: layer.tried[0].loss["output_error"] for layer in told.layers} for one, told in by.items()
    }
    assert losses["runs"].keys() == losses["gradients"].keys()
    same = [name for name, loss in losses["runs"].items() if loss == losses["gradients"][name]]
    assert len(same) == len(losses["runs"]) - 1


def test_where_no_gradient_comes_out_it_is_said(tmp_path: Path) -> None:
    graph = OnnxGraph.load(_lstm(tmp_path / "lstm.onnx"))
    with pytest.raises(ModelError) as caught:
        TorchPiece(graph, ["y"], ["before"])
    assert caught.value.code == "Q646"


def test_without_torch_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = OnnxGraph.load(_lstm(tmp_path / "lstm.onnx"))
    monkeypatch.setattr(open_file, "find_spec", lambda _: None)
    with pytest.raises(ModelError) as caught:
        open_file.gradients(graph, ["y"], ["behind"])
    assert caught.value.code == "Q645"
    policy = "qpolicy 1\nrule any { weights = int{4,8} channel }\nminimize fisher\nbudget { size <= 60% }"
    with pytest.raises(qcc.QccError, match="Q645"):
        qcc.compile(tmp_path / "lstm.onnx", policy, output=tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["lstm.onnx"]


def test_feeds_that_are_placed_run_as_what_the_graph_itself_makes_of_them(tmp_path: Path) -> None:
    """In every size; and which of two values counts is told by what torch computed, not by the float model."""
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[n, t, 8] x) => (float[n, m] y) {
        a = MatMul (x, w) z = Constant <value = float {0}> () b = IsNaN (a) c = Where (b, z, a)
        s = Shape <start = 0, end = 1> (x)
        o = Constant <value = int64[1] {-1}> () k = Concat <axis = 0> (s, o) y = Reshape (c, k) }"""
    model = onnx.parser.parse_model(text)
    held = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(held, "w"))
    onnx.save(model, tmp_path / "nan.onnx")
    graph = OnnxGraph.load(tmp_path / "nan.onnx")
    graph.simplify()
    piece = TorchPiece(graph, ["y"], ["w"])
    changed = torch.from_numpy(held.copy())
    changed[2, 3] = torch.nan
    for shape in ((2, 3, 8), (4, 2, 8), (2, 3, 8)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        known, placed = piece.known({"x": x}), piece.placed({"x": x})
        np.testing.assert_allclose(piece.run(placed, {})["y"].numpy(), known["y"], atol=1e-6)
        assert not piece.run(placed, {"w": changed})["y"].isnan().any()
