"""A folder for onnxruntime-genai says of a model what its graph and its tokenizer say, and generates where that is."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.genai.folder import write_folder
from qcc.ir.errors import ModelError
from tests.onnx_models import Case
from tests.test_evicted_rows import two_layers
from tests.test_sequence import CONSTANTS, HEADS, WIDTH, WORDS, feeds_of

HERE = importlib.util.find_spec("onnxruntime_genai") is not None


def model(folder: Path) -> Path:
    """Of two layers, whose input has the name that the runtime knows."""
    folder.mkdir(exist_ok=True)
    return Case(re.sub(r"\bids\b", "input_ids", two_layers()), CONSTANTS, {}, opset=21).save(folder)


def tokenizer(folder: Path, **settings: object) -> Path:
    """Of as many words as the model has, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    words = {f"w{at}": at for at in range(WORDS - 1)}
    data: dict[str, Any] = {"model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"}}
    data["added_tokens"] = [{"id": WORDS - 1, "content": "<end>", "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def coded(folder: Path, keys: str) -> Path:
    """The model with caches in codes."""
    path = model(folder)
    feeds = {name: one for name, one in feeds_of(6, 16).items() if "past" not in name}
    texts = {"input_ids" if name == "ids" else name: one for name, one in feeds.items()}
    np.savez(folder / "text.npz", allow_pickle=False, **texts)
    rule = f'qpolicy 1\ncalibrate "text.npz"\nrule cache {{ keys = {keys}, values = {keys} }}\n'
    (folder / "one.qpolicy").write_text(rule, encoding="utf-8")
    return qcc.compile(path, folder / "one.qpolicy", output=folder / "out.onnx").output


@pytest.mark.parametrize("keys", ["", "int8 channel", "int4 channel"])
def test_a_folder_says_what_the_model_is(tmp_path: Path, keys: str) -> None:
    path = coded(tmp_path / "m", keys) if keys else model(tmp_path / "m")
    settings = tokenizer(tmp_path / "t", eos_token={"content": "<end>"}, model_max_length=64)
    done = write_folder(path, settings, tmp_path / "chat", None)
    assert done.files == ("genai_config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json")
    said = json.loads((tmp_path / "chat" / "genai_config.json").read_text(encoding="utf-8"))["model"]
    assert (said["vocab_size"], said["context_length"], said["eos_token_id"]) == (WORDS, 64, WORDS - 1)
    decoder = said["decoder"]
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (2, HEADS, WIDTH)
    assert decoder["inputs"]["past_key_names"] == "past_key%d"
    assert decoder["outputs"] == {
        "logits": "logits",
        "present_key_names": "key_all%d",
        "present_value_names": "value_all%d",
    }


def test_the_command_tells_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["genai", str(model(tmp_path / "m")), str(tokenizer(tmp_path / "t") / "tokenizer.json"), "-o"]
    assert main([*words, str(tmp_path / "chat"), "--eos", "<end>", "--context", "32"]) == 0
    assert "2 layers, 2 heads of keys, 32 tokens" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "chat"), "--eos", "<end>"]) == 1
    assert "Q777" in capsys.readouterr().err


@pytest.mark.parametrize("code", ["no tokenizer", "no end", "scales", "no model of tokens"])
def test_what_cannot_be_driven_reject(tmp_path: Path, code: str) -> None:
    settings = tokenizer(tmp_path / "t", **({} if code == "no end" else {"eos_token": "<end>"}))
    path = coded(tmp_path / "m", "int4 group 4") if code == "scales" else model(tmp_path / "m")
    if code == "no tokenizer":
        (settings / "tokenizer.json").write_text("{}", encoding="utf-8")
    if code == "no model of tokens":
        path = Case("g (float[B, 8] x) => (float[B, 8] y) { y = Relu (x) }", {}, {}).save(tmp_path)
    with pytest.raises(ModelError) as raised:
        write_folder(path, settings, tmp_path / "chat", None)
    assert raised.value.code == ("Q776" if code in ("scales", "no model of tokens") else "Q775")
    assert not (tmp_path / "chat").exists()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("tokenizer.json", {"model": {"vocab": {"a": 1}}, "added_tokens": [1]}),
        ("tokenizer.json", {"model": {"vocab": {"a": 1}}, "added_tokens": [{"content": "<end>"}]}),
        ("generation_config.json", {"eos_token_id": "x"}),
        ("config.json", {"eos_token_id": [None]}),
    ],
)
def test_files_of_a_tokenizer_that_say_no_tokens_reject(tmp_path: Path, name: str, written: dict[str, Any]) -> None:
    settings = tokenizer(tmp_path / "t", eos_token="<end>")
    (settings / name).write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(ModelError, match="not as exporters write them") as raised:
        write_folder(model(tmp_path / "m"), settings, tmp_path / "chat", None)
    assert raised.value.code == "Q775" and not (tmp_path / "chat").exists()


def test_sizes_that_are_no_numbers_are_passed_over(tmp_path: Path) -> None:
    settings = tokenizer(tmp_path / "t", eos_token="<end>")
    text = json.dumps({"max_position_embeddings": "many", "hidden_size": None})
    (settings / "config.json").write_text(text, encoding="utf-8")
    config = write_folder(model(tmp_path / "m"), settings, tmp_path / "chat", None).config["model"]
    assert config["context_length"] == 2048 and "hidden_size" not in config["decoder"]


@pytest.mark.skipif(not HERE, reason="onnxruntime-genai is not installed")
@pytest.mark.parametrize("keys", ["", "int8 channel"])
def test_the_runtime_generates_the_same(tmp_path: Path, keys: str) -> None:
    import onnxruntime_genai

    path = coded(tmp_path / "m", keys) if keys else model(tmp_path / "m")
    write_folder(path, tokenizer(tmp_path / "t", eos_token="<end>"), tmp_path / "chat", 64)
    generator_model = onnxruntime_genai.Model(str(tmp_path / "chat"))
    settings = onnxruntime_genai.GeneratorParams(generator_model)
    settings.set_search_options(max_length=12, do_sample=False)
    generator = onnxruntime_genai.Generator(generator_model, settings)
    begun = [1, 4, 2, 7]
    generator.append_tokens(begun)
    while not generator.is_done():
        generator.generate_next_token()
    found = [int(one) for one in generator.get_sequence(0)]
    session, tokens = qcc.Session(path), list(begun)
    empty = np.zeros((1, HEADS, 0, WIDTH), np.float32)
    none = {f"past_{kind}{at}": empty for at in (0, 1) for kind in ("key", "value")}
    while len(tokens) < len(found):
        count = len(tokens)
        feeds = {"input_ids": np.array([tokens]), "position_ids": np.arange(count)[None]}
        feeds["attention_mask"] = np.ones((1, count), np.int64)
        (logits, *_) = session.run(session.coded({**feeds, **none})).values()
        tokens.append(int(logits[0, -1].argmax()))
    assert found == tokens
