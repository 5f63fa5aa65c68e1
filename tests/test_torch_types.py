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


def test_scales_are_trained_and_taken_back() -> None:
    x = torch.randn(64, 64)
    module = _module()
    policy = POLICY.replace("int4 group 32", "int2 group 32").replace("0.9", "0.1")
    compact = qcc.compile(module, policy, example_inputs=(x,)).model
    before = {name: tensor.clone() for name, tensor in compact.state_dict().items()}
    tuned = qcc.trainable(compact)
    scales = [name for name, one in tuned.named_parameters() if one.requires_grad]
    assert scales == [f"encoder.{name}.weight.scale.values" for name in ("up", "down")]
    assert torch.equal(tuned(x), compact(x))
    wanted = module(x).detach()
    optimizer = torch.optim.Adam([one for one in tuned.parameters() if one.requires_grad], lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.mse_loss(tuned(x), wanted).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in compact.state_dict().items())
    first = nn.functional.mse_loss(compact(x), wanted)
    compact.load_state_dict(tuned.state_dict())
    assert nn.functional.mse_loss(compact(x), wanted) < 0.9 * first
    changed = [name for name, tensor in compact.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == scales and {compact.state_dict()[name].dtype for name in scales} == {torch.float16}


def test_what_has_no_scales_is_not_trained() -> None:
    with pytest.raises(qcc.QccError, match="Q610"):
        qcc.trainable(_module())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_a_module_on_another_device_is_compiled_in_memory() -> None:
    x = torch.randn(3, 64)
    result = qcc.compile(_module().cuda(), POLICY, example_inputs=(x.cuda(),))
    same = qcc.compile(_module(), POLICY, example_inputs=(x,))
    assert {tensor.device.type for tensor in result.model.state_dict().values()} == {"cpu"}
    assert torch.equal(result.model(x), same.model(x))
    torch.testing.assert_close(result.model.cuda()(x.cuda()).cpu(), same.model(x), atol=1e-5, rtol=0)  # sums of 256
