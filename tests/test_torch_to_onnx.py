"""A PyTorch model comes out as ONNX: the artifact that compiling its export gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import qcc
from qcc.__main__ import main
from qcc.compiler.plan.text import to_text
from qcc.ir.fx.file import to_onnx
from tests.onnx_models import random, run

POLICY = """qpolicy 1
calibrate generated { samples = 4 }
rule linear { weights = int4 group 32 asym }
rule conv { weights = int8 channel }
verify { cosine >= 0.8 }
"""
BOTH = 1e-5  # of outputs of about one: float32 sums in another order


class Net(nn.Module):
    """A convolution and two products."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3)
        self.features = nn.Linear(32, 256)
        self.head = nn.Linear(256, 64)

    def forward(self, image: Tensor) -> Tensor:
        """Rows of 64 numbers."""
        result: Tensor = self.head(torch.relu(self.features(torch.relu(self.conv(image)).mean((2, 3)))))
        return result


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    """Of a free number of samples."""
    torch.manual_seed(0)
    return torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: Dim("batch")},))


@pytest.mark.slow
def test_a_result_is_written_as_onnx_too(program: ExportedProgram, tmp_path: Path) -> None:
    result = qcc.compile(program, POLICY)
    out = tmp_path / "net.onnx"
    made = result.to_onnx(out)
    assert made.passed and {path.name for path in tmp_path.iterdir()} == {"net.onnx", "net.lock", "net.html"}
    assert to_text(made.plan) == to_text(result.plan)
    assert [(row.name, row.format, row.bits, row.error) for row in made.layers] == [
        (row.name, row.format, row.bits, row.error) for row in result.layers
    ]
    image = random(3, 3, 8, 8)
    (found,) = run(out, {"image": image}).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, result.model(torch.from_numpy(image)), atol=BOTH)
    with pytest.raises(qcc.QccError, match="Q383"):
        made.to_onnx(tmp_path / "again.onnx")
    with pytest.raises(qcc.QccError, match="Q383"):
        result.to_onnx(tmp_path / "net.pt2")


@pytest.mark.slow
def test_a_file_is_compiled_to_onnx(program: ExportedProgram, tmp_path: Path) -> None:
    source, policy, out = (tmp_path / name for name in ("net.pt2", "net.qpolicy", "out.onnx"))
    torch.export.save(program, source)
    policy.write_text(POLICY, encoding="utf-8")
    assert main(["compile", str(source), "-p", str(policy), "-o", str(out), "-q"]) == 0
    exported = tmp_path / "exported.onnx"
    to_onnx.write_onnx(program, exported)
    assert main(["compile", str(exported), "-p", str(policy), "-o", str(tmp_path / "other.onnx"), "-q"]) == 0
    ours, other = (qcc.Session(tmp_path / name) for name in ("out.onnx", "other.onnx"))
    feeds = {"image": random(2, 3, 8, 8)}
    for left, right in zip(ours.run(feeds).values(), other.run(feeds).values(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert abs(out.stat().st_size - (tmp_path / "other.onnx").stat().st_size) < 64  # they tell other names of origin
    assert main(["compile", str(source), "--plan", str(tmp_path / "out.lock"), "-o", str(out), "-q"]) == 0


def test_without_its_writer_onnx_is_refused(
    program: ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "WRITER", "no_such_package")
    with pytest.raises(qcc.QccError, match="Q380"):
        qcc.compile(program, POLICY, output=tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@torch.library.custom_op("qcc_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """An op of its author's own."""
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Own(nn.Module):
    """An op that no exporter knows."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice what comes."""
        result: Tensor = twice(x)
        return result


@pytest.mark.slow
def test_what_has_no_onnx_is_refused(tmp_path: Path) -> None:
    with pytest.raises(qcc.QccError) as caught:
        qcc.compile(Own(), "balanced", example_inputs=(torch.zeros(2),), output=tmp_path / "net.onnx")
    (one,) = caught.value.diagnostics
    assert one.code == "Q381" and "twice" in one.message


def test_inputs_are_for_modules(program: ExportedProgram, tmp_path: Path) -> None:
    for model in (program, tmp_path / "net.pt2", tmp_path / "net.onnx"):
        with pytest.raises(qcc.QccError, match="Q382"):
            qcc.compile(model, "balanced", example_inputs=(torch.zeros(2),))
