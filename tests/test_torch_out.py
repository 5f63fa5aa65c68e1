"""PyTorch in, PyTorch out: a program that holds what is stored of weights, and computes with what that decodes to."""

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import qcc
from qcc.__main__ import main
from qcc.compiler.report.result import Result
from qcc.ir.fx.model import FxModel
from qcc.ir.fx.quiet import LOGGERS, quiet
from tests.onnx_models import random

POLICY = """qpolicy 1
calibrate generated { samples = 4 }
rule linear { weights = int4 group 32 asym }
rule conv { weights = bands(int5 channel, int1 channel, share = 50%) }
verify { cosine >= 0.8 }
"""
FREE = 1 << 14  # bytes of a tensor that no weight has


class Net(nn.Module):
    """A convolution, a head that is tied to a table, and a half of a kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3)
        self.features = nn.Linear(32, 256)
        self.tied = nn.Linear(256, 256)
        self.twice = nn.Linear(256, 256)
        self.twice.weight = self.tied.weight
        self.narrow = nn.Parameter(torch.randn(256, 64, dtype=torch.bfloat16) / 16)

    def forward(self, image: Tensor) -> Tensor:
        """Rows of 64 numbers."""
        x = torch.relu(self.features(torch.relu(self.conv(image)).mean((2, 3))))
        x = self.twice(torch.relu(self.tied(x))).to(torch.bfloat16)
        result: Tensor = (x @ self.narrow).float()
        return result


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    """Of a free number of samples."""
    torch.manual_seed(0)
    return torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: Dim("batch")},))


@pytest.fixture(scope="module")
def result(program: ExportedProgram) -> Result:
    """What becomes of it in memory."""
    return qcc.compile(program, POLICY)


def _largest(held: dict[str, Tensor]) -> int:
    return max(tensor.numel() * tensor.element_size() for tensor in held.values() if tensor.is_floating_point())


@pytest.mark.slow
def test_a_compact_module_holds_no_floats_of_a_weights_size(result: Result, program: ExportedProgram) -> None:
    assert result.passed and isinstance(result.model, torch.fx.GraphModule)
    assert not result.written and not result.output.exists()  # nobody named an output
    assert _largest(dict(program.state_dict)) > FREE > _largest(result.model.state_dict())
    assert {row.form for row in result.layers if row.form} and len(result.layers) == 4
    held = sum(tensor.numel() * tensor.element_size() for tensor in result.model.state_dict().values())
    encoded = sum(row.bits * row.params / 8 for row in result.layers)
    biases = sum(tensor.numel() * 4 for name, tensor in program.state_dict.items() if name.endswith("bias"))
    assert held <= 1.05 * (encoded + biases)


@pytest.mark.slow
def test_its_state_goes_round(result: Result, program: ExportedProgram) -> None:
    image = torch.from_numpy(random(3, 3, 8, 8))
    with torch.no_grad():
        wanted = result.model(image)
        state = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
        for tensor in result.model.state_dict().values():
            tensor.zero_()
        result.model.load_state_dict(state)
        np.testing.assert_array_equal(result.model(image), wanted)
        original = program.module()(image)
    assert nn.functional.cosine_similarity(wanted.flatten(), original.flatten(), dim=0) > 0.8


@pytest.mark.slow
def test_a_file_is_compiled_to_a_file(program: ExportedProgram, tmp_path: Path) -> None:
    source, policy, out = (tmp_path / name for name in ("net.pt2", "net.qpolicy", "out.pt2"))
    torch.export.save(program, source)
    policy.write_text(POLICY, encoding="utf-8")
    assert main(["compile", str(source), "-p", str(policy), "-o", str(out), "-q"]) == 0
    assert {"out.pt2", "out.lock", "out.html"} <= {path.name for path in tmp_path.iterdir()}
    assert out.stat().st_size < 0.5 * source.stat().st_size
    first = out.read_bytes()
    assert main(["compile", str(source), "--plan", str(tmp_path / "out.lock"), "-o", str(out), "-q"]) == 0
    assert out.read_bytes() == first
    loaded = torch.export.load(out).module()
    for count in (1, 5):
        assert loaded(torch.zeros(count, 3, 8, 8)).shape == (count, 64)
    assert len(FxModel.load(out).graph.weights()) == 0  # all of it is encoded


@pytest.mark.slow
def test_a_module_is_exported_with_its_inputs() -> None:
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    result = qcc.compile(
        module, "qpolicy 1\nrule linear { weights = int8 channel }", example_inputs=(torch.zeros(2, 64),)
    )
    x = torch.from_numpy(random(2, 64))
    with torch.no_grad():
        wanted = module(x)
        del module
        assert (result.model(x) - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_a_module_without_inputs_is_refused() -> None:
    with pytest.raises(qcc.QccError) as caught:
        qcc.compile(nn.Linear(2, 2), "balanced")
    assert caught.value.diagnostics[0].code == "Q644"


def test_what_is_no_program_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.pt2"
    assert main(["compile", str(path)]) == 1 and "Q400" in capsys.readouterr().err
    path.write_bytes(b"PK\x03\x04 no archive")
    assert main(["compile", str(path)]) == 1 and capsys.readouterr().err.startswith("error[Q643]")
    assert main(["trim", str(path)]) == 1 and "Q370" in capsys.readouterr().err


def test_torch_tells_developers_of_itself_elsewhere() -> None:
    with quiet():
        assert not any(one.isEnabledFor(logging.WARNING) for one in LOGGERS)
        warnings.warn("to be ignored", FutureWarning, stacklevel=1)
    assert all(one.isEnabledFor(logging.WARNING) for one in LOGGERS)


@pytest.mark.slow
def test_a_program_is_not_written_as_another_kind(program: ExportedProgram, tmp_path: Path) -> None:
    always, trimmed = (POLICY + f"export {{ {words} }}" for words in ("external_data = always", "trim = 1 MiB"))
    for output, policy in (("out.bin", POLICY), ("out.pt2", always), ("out.pt2", trimmed)):
        with pytest.raises(qcc.QccError) as caught:
            qcc.compile(program, policy, output=tmp_path / output)
        assert caught.value.diagnostics[0].code == "Q640"
    assert list(tmp_path.iterdir()) == []
