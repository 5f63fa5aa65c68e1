"""What is told names what the user gave, and never a folder of what is in the making."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qcc
from qcc.codegen.target.scratch import owned_folder, scratch, without_folders
from qcc.compiler.files.spoken import called
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import ModelError

FEED = (torch.zeros(2, 8),)


class Net(nn.Module):
    """A layer and an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.first(x))


def test_folders_that_are_made_are_left_out(tmp_path: Path) -> None:
    with scratch() as folder, owned_folder(tmp_path, ".qcc-") as beside:
        assert without_folders(f"`{folder}/a.onnx` and {folder / 'b.onnx'}") == "`a.onnx` and b.onnx"
        assert without_folders(f"`{beside}/a.onnx`: no") == f"`{tmp_path}/a.onnx`: no"
    other = f"`{tempfile.gettempdir()}/qcc-my-own-net/a.onnx` and `.qcc-cache-of-mine/b.onnx`"
    assert without_folders(other) == other


POLICIES = {
    "selector": 'qpolicy 1\nrule linear[name ~ "nowhere*"] { weights = int8 channel }\n',
    "budget": "qpolicy 1\nrule any { weights = int8 channel }\nbudget { size <= 10 B }\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", POLICIES)
@pytest.mark.parametrize("output", ["out.pt2", "out.onnx"])
def test_programs_that_are_compiled_are_told_by_their_names(case: str, output: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net().eval(), FEED), path)
    for model, name in ((path, str(path)), (Net().eval(), "Net")):
        inputs = FEED if isinstance(model, Net) else None
        with pytest.raises(QccError) as caught:
            qcc.compile(model, POLICIES[case], output=tmp_path / output, example_inputs=inputs)
        _check(str(caught.value), name)


def test_data_that_does_not_fit_is_told_without_what_was_made(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net().eval(), FEED), path)
    with pytest.raises(QccError) as caught:
        qcc.compile(path, "balanced", output=tmp_path / "out.onnx", data=[{"other": np.zeros((2, 8))}])
    _check(str(caught.value), str(path))


def test_a_file_that_was_made_is_called_by_what_it_was_made_of() -> None:
    made, found = Path("/made/net.onnx"), Diagnostic("Q400", "`/made/net.onnx` is bad", help="see `/made/net.onnx`")
    with pytest.raises(ModelError, match=r"`net\.pt2` is bad"), called(made, "net.pt2"):
        raise ModelError("Q400", found.message, found.help)
    with pytest.raises(QccError) as caught, called(made, "net.pt2"):
        raise QccError([found])
    (one,) = caught.value.diagnostics
    assert (one.message, one.help) == ("`net.pt2` is bad", "see `net.pt2`")


def _check(told: str, name: str) -> None:
    assert "qcc-" not in told and f"{tempfile.gettempdir()}/net" not in told, told
    assert name in told or ".onnx" not in told, told
