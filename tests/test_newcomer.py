"""What someone new gives by mistake: files of other kinds, objects for paths, names that are not there."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import onnx
import pytest

import qcc
from qcc.compiler.commands.cli import COMMANDS
from qcc.compiler.commands.cli import run as main
from qcc.dsl.load import preset_names, preset_summary

EXAMPLE = Path("examples/fashion/fashion-cnn.onnx")


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


OTHERS = {
    "model.pt": (zipped("model/data.pkl", "model/version"), "torch.onnx.export"),
    "program.zip": (zipped("model/archive_format", "model/models/model.json"), "torch.onnx.export"),
    "model.bin": (pickle.dumps({"weight": 1}), "torch.onnx.export"),
    "model.safetensors": (struct.pack("<Q", 20) + b'{"w":{"dtype":"F32"}}', "torch.onnx.export"),
    "archive.zip": (zipped("models/model.onnx"), "unpack"),
    "data.npz": (zipped("x.npy"), "--data"),
    "model.gguf": (b"GGUF" + bytes(60), "original"),
    "model.tflite": (b"\x1c\0\0\0TFL3" + bytes(60), "tf2onnx"),
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(60), "export"),
    "my.qpolicy": (b"qpolicy 1\nrule any { keep }\n", "-p POLICY"),
    "pointer.onnx": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "page.onnx": (b"<!DOCTYPE html><html>", "download"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_kind_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, hint = OTHERS[name]
    path = tmp_path / name
    path.write_bytes(data)
    assert main(["compile", str(path)]) == 1
    told = capsys.readouterr().err
    assert "error[Q461]" in told and hint in told
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for given in (str(tmp_path / "pipe"), "/dev/null"):
        for words in (["compile", given], ["inspect", given], ["compile", str(EXAMPLE), "--data", given]):
            assert main(words) == 1
            assert "no regular file" in capsys.readouterr().err


def test_a_model_in_memory_is_told_to_be_written_first(tmp_path: Path) -> None:
    proto = onnx.load(EXAMPLE)
    for given, hint in ((proto, "onnx.save"), (proto.SerializeToString(), "write_bytes"), (None, "path of an .onnx")):
        with pytest.raises(qcc.QccError, match="Q462") as caught:
            qcc.compile(given, output=tmp_path / "out.onnx")
        assert hint in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["rule any { weights = int8 channel }", "qpolicy 1\nrule any { weights = int8 channel }"]
)
def test_a_policy_may_be_given_as_text(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = qcc.compile(EXAMPLE, text, output=tmp_path / "out.onnx")
    assert result.passed and result.output_bytes < result.input_bytes
    assert main(["check", text]) == 0
    assert main(["check", "rule any { weights = int9 }"]) == 1
    assert "<policy>:1:22" in capsys.readouterr().err


def test_a_policy_that_is_not_there_lists_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("nosuch", "balancd", "x" * 5000):
        assert main(["compile", str(EXAMPLE), "-p", name]) == 1
        told = capsys.readouterr().err
        assert "Q223" in told and all(one in told and preset_summary(one) in told for one in preset_names())
    assert main(["compile", str(EXAMPLE), "-p", "balancd"]) == 1
    assert "did you mean `balanced`?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".qpolicy", "a/" * 2000 + "b.qpolicy", "nul\0.qpolicy"])
def test_names_that_no_file_can_have_are_diagnostics(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "my.qpolicy"
    policy.write_text(f'qpolicy 1\nuse "{name}"\n')
    for words in (
        ["check", str(policy)],
        ["check", name],
        ["compile", name],
        ["compile", str(EXAMPLE), "-p", name],
        ["compile", str(EXAMPLE), "-o", str(tmp_path / name)],
        ["compile", str(EXAMPLE), "--data", name],
        ["compile", str(EXAMPLE), "--plan", name],
        ["inspect", name],
        ["bench", name],
        ["fmt", name],
    ):
        assert main(words) == 1, words
        assert "error[Q" in capsys.readouterr().err
    if "\0" in name:  # told before what it names
        return
    policy.write_text(f'qpolicy 1\ncalibrate "{name}.npz"\nrule any {{ weights = int8 }}\n')
    assert main(["check", str(policy)]) == 0
    assert "warning[Q420]" in capsys.readouterr().err
    assert main(["compile", str(EXAMPLE), "-p", str(policy), "-o", str(tmp_path / "o.onnx")]) == 1
    assert "error[Q4" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["my.qpolicy"]


def test_check_sees_data_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "my.qpolicy"
    policy.write_text('qpolicy 1\ncalibrate "data.npz"\nrule any { weights = int8 channel }\n')
    assert main(["check", str(policy)]) == 0  # it may be made later, or be given with --data
    assert f"no such calibration file: `{tmp_path / 'data.npz'}`" in capsys.readouterr().err
    (tmp_path / "data.npz").write_bytes(b"")
    assert main(["check", str(policy)]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("formats", "budget", "seen"),
    [
        ("int8 channel", "size <= 5%", True),
        ("int8 channel", "size <= 30%", False),
        ("int{2,8} channel", "size <= 8%", False),
        ("int4 group 32", "bits <= 2", True),
        ("int4 group 32", "bits <= 5", False),
        ("fp16", "bits <= 8", True),
        ("bf16 | int4 channel", "size <= 14%, bits <= 3", True),
        ("int8 channel", "size <= 5 kB", False),
    ],
)
def test_check_sees_a_budget_that_is_out_of_reach(
    formats: str, budget: str, seen: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"qpolicy 1\nrule any {{ weights = {formats} }}\nbudget {{ {budget} }}\n"
    assert main(["check", text]) == int(seen)
    assert ("Q233" in capsys.readouterr().err) == seen


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"examples:\n  qcc {command}" in capsys.readouterr().out


def test_what_follows_two_dashes_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.qpolicy").write_text("qpolicy 1\nrule any { weights = int8 channel }\n", encoding="utf-8")
    assert main(["check", "--", "-x.qpolicy"]) == 0
    assert main(["check", "-x.qpolicy"]) == 2


def test_a_statement_that_nobody_knows_is_one_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "p.qpolicy"
    policy.write_text(
        "qpolicy 1\nbudgt { size <= 10%; latency <= 50% }\nrule liner { weights = int8 }\n", encoding="utf-8"
    )
    assert main(["check", str(policy)]) == 1
    told = capsys.readouterr().err
    assert told.count("error[") == 1 and "did you mean `budget`?" in told
