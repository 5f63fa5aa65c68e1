"""A prefix in a file: the cache that it comes to makes a model without it the model that was trained with it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import qcc
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.report import QccError
from tests.adapter_files import write_safetensors
from tests.torch_export import to_onnx

LAYERS, HEADS, SHARED, WIDTH, TOKENS = 2, 4, 2, 8, 3
ROWS = 0.5 * np.random.default_rng(8).standard_normal((TOKENS, LAYERS * 2 * SHARED * WIDTH)).astype(np.float32)
POLICY = 'adapter "prefix.safetensors"\nrule any { weights = int8 channel }\n'


class Layer(nn.Module):
    """Attention of few heads of keys, behind rows of earlier runs."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.o = (nn.Linear(HEADS * WIDTH, HEADS * WIDTH) for _ in range(2))
        self.k, self.v = (nn.Linear(HEADS * WIDTH, SHARED * WIDTH) for _ in range(2))

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            one(x).unflatten(-1, (heads, WIDTH)).transpose(1, 2)
            for one, heads in ((self.q, HEADS), (self.k, SHARED), (self.v, SHARED))
        )
        k, v = torch.cat([key, k], 2), torch.cat([value, v], 2)
        k_all, v_all = (one.repeat_interleave(HEADS // SHARED, 1) for one in (k, v))
        y = nn.functional.scaled_dot_product_attention(q, k_all, v_all)
        return x + self.o(y.transpose(1, 2).flatten(2)), k, v


class Decoder(nn.Module):
    """Two layers with their caches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])

    def forward(self, x: Tensor, caches: list[Tensor]) -> tuple[Tensor, ...]:
        presents = list[Tensor]()
        for at, layer in enumerate(self.layers):
            x, *made = layer(x, *caches[2 * at : 2 * at + 2])
            presents += made
        return x, *presents


NAMES = [f"past_key_values.{at}.{part}" for at in range(LAYERS) for part in ("key", "value")]
X = np.random.default_rng(9).standard_normal((1, 5, HEADS * WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(4)
    return Decoder().eval()


@pytest.fixture(scope="module")
def model(decoder: Decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder with caches."""
    path = tmp_path_factory.mktemp("prefix") / "decoder.onnx"
    past = [torch.randn(2, SHARED, 4, WIDTH) for _ in NAMES]
    batch, rows, earlier = torch.export.Dim("batch"), torch.export.Dim("rows"), torch.export.Dim("earlier")
    shapes = {"x": {0: batch, 1: rows}, "caches": [{0: batch, 2: earlier} for _ in NAMES]}
    outputs = ["y", *(f"present.{name}" for name in NAMES)]
    named = {"input_names": ["x", *NAMES], "output_names": outputs, "dynamic_shapes": shapes}
    to_onnx(decoder, (torch.randn(2, 5, HEADS * WIDTH), past), path, external_data=False, **named)
    return path


def _compiled(model: Path, folder: Path, rows: Mapping[str, np.ndarray], policy: str = POLICY) -> Result:
    write_safetensors(folder / "prefix.safetensors", rows)
    (folder / "p.qpolicy").write_text(policy, encoding="utf-8")
    return qcc.compile(model, folder / "p.qpolicy", output=folder / "out.onnx")


def _with_rows(decoder: Decoder, rows: np.ndarray) -> np.ndarray:
    """What peft computes: rows are split by layer, keys and values, heads and channels."""
    split = torch.from_numpy(rows).view(1, len(rows), LAYERS * 2, SHARED, WIDTH).permute(2, 0, 3, 1, 4)
    with torch.no_grad():
        found: np.ndarray = decoder(torch.from_numpy(X), list(split))[0].numpy()
    return found


def test_the_cache_is_the_prefix(decoder: Decoder, model: Path, tmp_path: Path) -> None:
    policy = POLICY.replace("int8 channel", "keep").replace("weights = keep", "keep")
    result = _compiled(model, tmp_path, {"prompt_embeddings": ROWS}, policy)
    assert result.cache == tmp_path / "out.cache.npz"
    session = ort.InferenceSession(tmp_path / "out.onnx")
    y, *presents = session.run(None, {"x": X, **np.load(result.cache)})
    np.testing.assert_allclose(y, _with_rows(decoder, ROWS), atol=1e-5)
    assert presents[0].shape == (1, SHARED, TOKENS + 5, WIDTH)
    before = ort.InferenceSession(model)
    assert [one.name for one in session.get_inputs()] == [one.name for one in before.get_inputs()]


@pytest.mark.slow
def test_a_report_tells_it_and_a_later_run_without_it_removes_it(model: Path, tmp_path: Path) -> None:
    result = _compiled(model, tmp_path, {"prompt_embeddings": ROWS})
    cache = tmp_path / "out.cache.npz"
    assert "a prefix of 3 rows, in 4 caches" in result.report.read_text(encoding="utf-8")
    assert cache.exists() and '"cache": "' in result.lock.read_text(encoding="utf-8")
    (tmp_path / "p.qpolicy").write_text("rule any { weights = int8 channel }", encoding="utf-8")
    assert qcc.compile(model, tmp_path / "p.qpolicy", output=tmp_path / "out.onnx").cache is None
    assert not cache.exists()
    np.savez(cache, mine=ROWS)
    qcc.compile(model, tmp_path / "p.qpolicy", output=tmp_path / "out.onnx")
    assert cache.exists(), "a file of the user's own is no file of ours"


def _half_of_it(rows: np.ndarray) -> np.ndarray:
    return rows[:, : rows.shape[1] // 2]


@pytest.mark.parametrize(
    ("tensors", "options", "code", "words"),
    [
        ({"prompt_embeddings": _half_of_it(ROWS)}, "", "Q332", "they take rows of 64"),
        ({"prompt_embeddings": ROWS * np.float32(np.nan)}, "", "Q332", "not finite"),
        ({"prompt_embeddings": ROWS}, " { scale = 0.5 }", "Q333", "no scale"),
        ({"prompt_embeddings": ROWS, "layers.0.q.diff": ROWS[:, :32]}, "", "Q333", "layers.0.q.diff"),
    ],
)
def test_what_does_not_fit_is_refused(
    tensors: Mapping[str, np.ndarray], options: str, code: str, words: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(QccError) as caught:
        _compiled(model, tmp_path, tensors, POLICY.replace('"\n', f'"{options}\n', 1))
    (fault,) = caught.value.diagnostics
    assert fault.code == code and words in fault.message, fault
    assert not (tmp_path / "out.onnx").exists() and not (tmp_path / "out.cache.npz").exists()


def test_a_model_without_caches_is_told(tmp_path: Path) -> None:
    to_onnx(nn.Linear(8, 8).eval(), (torch.randn(2, 8),), tmp_path / "plain.onnx", external_data=False)
    with pytest.raises(QccError) as caught:
        _compiled(tmp_path / "plain.onnx", tmp_path, {"prompt_embeddings": ROWS})
    (fault,) = caught.value.diagnostics
    assert fault.code == "Q333" and "no cache" in fault.message
