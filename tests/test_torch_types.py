"""Modules in half precision, under autocast and in torch.compile; their state as safetensors; names of both kinds."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import qcc

POLICY = "qpolicy 1\nrule linear { weights = int4 group 32 }\nverify { cosine >= 0.9 }"


class Net(nn.Module):
    """A block with a path as exporters to ONNX spell with slashes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"up": nn.Linear(64, 256), "down": nn.Linear(256, 64)})

    def forward(self, x: Tensor) -> Tensor:
        """Rows of the same shape."""
        result: Tensor = x + self.encoder["down"](torch.relu(self.encoder["up"](x)))
        return result


class UnderAutocast(nn.Module):
    """The same, in bfloat16 between."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor) -> Tensor:
        """Rows of float32."""
        with torch.autocast("cpu", torch.bfloat16):
            result: Tensor = self.net(x)
        return result.float()


def _module(kind: type[nn.Module] = Net) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays(dtype: torch.dtype) -> None:
    x = torch.randn(3, 64, dtype=dtype)
    result = qcc.compile(_module().to(dtype), POLICY, example_inputs=(x,))
    assert result.passed and {layer.format for layer in result.layers} == {"int4 group 32 sym scale fp16"}
    assert result.model(x).dtype is dtype


@pytest.mark.slow
def test_autocast_casts_what_is_decoded() -> None:
    x = torch.randn(3, 64)
    result = qcc.compile(_module(UnderAutocast), POLICY, example_inputs=(x,))
    assert result.passed and all(layer.format.startswith("int4") for layer in result.layers)
    assert result.model(x).dtype is torch.float32


@pytest.mark.slow
def test_torch_compile_takes_it_and_safetensors_hold_it(tmp_path: Path) -> None:
    files = pytest.importorskip("safetensors.torch")
    x = torch.randn(3, 64)
    result = qcc.compile(_module(), POLICY, example_inputs=(x,))
    with torch.no_grad():
        wanted = result.model(x)
        compiled = torch.compile(result.model, backend="aot_eager")
        found: Tensor = compiled(x)  # type: ignore[no-untyped-call]  # of what has no type
        assert torch.equal(found, wanted)
        state = {name: tensor.contiguous() for name, tensor in result.model.state_dict().items()}
        files.save_file(state, tmp_path / "net.safetensors")
        for tensor in result.model.state_dict().values():
            tensor.zero_()
        result.model.load_state_dict(files.load_file(tmp_path / "net.safetensors"))
        assert torch.equal(result.model(x), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder.down", "encoder/down"])
def test_a_policy_may_name_either_way(name: str) -> None:
    policy = f'qpolicy 1\nrule linear {{ keep }}\nrule linear[name ~ "*{name}*"] {{ weights = int8 channel }}'
    result = qcc.compile(_module(), policy, example_inputs=(torch.randn(3, 64),))
    assert {layer.name: layer.format for layer in result.layers if layer.format.startswith("int")} == {
        "encoder.down": "int8 channel sym scale fp16"
    }
