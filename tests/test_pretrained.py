"""Folders of transformers: built from safetensors, exported, compiled; nothing else in them is run."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import ModelError
from qcc.ir.open_file import save_pretrained

POLICY = "qpolicy 1\nrule linear { weights = int8 channel }\nverify { cosine >= 0.99 }"


def _saved(folder: Path, **how: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=100, **sizes)).eval()
    model.save_pretrained(folder, **how)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_is_compiled_by_its_path(shards: bool, tmp_path: Path) -> None:
    import torch

    model = _saved(tmp_path / "net", **({"max_shard_size": "20KB"} if shards else {}))
    assert (tmp_path / "net" / "model.safetensors.index.json").is_file() == shards
    result = qcc.compile(tmp_path / "net", POLICY)
    assert (result.source, result.output) == (tmp_path / "net", tmp_path / "net.qcc.pt2")
    names = {row.name for row in result.layers if row.format.startswith("int8")}
    assert "bert.encoder.layer.0.intermediate.dense" in names
    ids = torch.arange(21).reshape(3, 7)  # of other sizes than it was traced with
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = torch.export.load(result.output).module()(**given)
    np.testing.assert_allclose(found["logits"].detach(), model(**given).logits.detach(), atol=0.05)  # 8 bits


@pytest.mark.slow
def test_weights_in_a_pickle_are_not_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    _saved(tmp_path / "net")
    (tmp_path / "net/model.safetensors").unlink()
    torch.save({}, tmp_path / "net/pytorch_model.bin")
    with pytest.raises(QccError) as caught:
        qcc.compile(tmp_path / "net", POLICY)
    assert caught.value.diagnostics[0].code == "Q443"
    assert not list(tmp_path.glob("net.*"))


@pytest.mark.slow
def test_weights_that_are_missing_are_not_drawn(tmp_path: Path) -> None:
    model = _saved(tmp_path)
    said = (tmp_path / "config.json").read_text()
    model.bert.save_pretrained(tmp_path)  # without the classifier that the configuration goes on to name
    (tmp_path / "config.json").write_text(said)
    with pytest.raises(ModelError, match="does not hold all weights of `BertForSequenceClassification`: `classifier"):
        save_pretrained(tmp_path, tmp_path / "x.pt2")


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("text", ["", "[]", '{"architectures": ["Nothing"]}', '{"architectures": 3}'])
def test_a_configuration_of_nothing_is_told(tmp_path: Path, text: str) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="transformers cannot read"):
        save_pretrained(tmp_path, tmp_path / "x.pt2")


def test_without_transformers_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(QccError) as caught:
        qcc.compile(tmp_path, POLICY, output=tmp_path.parent / "x.onnx")
    assert caught.value.diagnostics[0].code == "Q442"
