"""Data files that are named by their content, and when they go."""

import hashlib
from pathlib import Path

import pytest

from qcc.ir.model.whole_files import data_name, is_ours, own_data, retire

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def data(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / data_name(folder / "net.onnx", DIGEST)
    path.write_bytes(content)
    return path


def model(path: Path, text: str = "") -> Path:
    path.write_bytes(b"\x08\x0a" + text.encode())
    return path


def test_names() -> None:
    assert data_name(Path("a/net.qcc.onnx"), DIGEST) == f"net.qcc.{DIGEST[:16]}.onnx_data"
    assert data_name(Path("net"), DIGEST) == f"net.{DIGEST[:16]}.onnx_data"
    assert is_ours(f"net.{DIGEST[:16]}.onnx_data")
    assert not any(map(is_ours, ["net.onnx_data", f"net.{DIGEST[:15]}.onnx_data", "weights.bin"]))


def test_a_model_knows_its_own_data(tmp_path: Path) -> None:
    path = data(tmp_path)
    assert own_data(tmp_path / "net.onnx") == ()
    model(tmp_path / "net.onnx", path.name)
    assert own_data(tmp_path / "net.onnx") == (path.name,)
    assert own_data(model(tmp_path / "other.onnx", path.name)) == ()


def test_data_that_no_model_refers_to_goes(tmp_path: Path) -> None:
    path = data(tmp_path)
    model(tmp_path / "net.onnx", "another")
    retire(tmp_path, [path.name, "missing.0123456789abcdef.onnx_data"])
    assert not path.exists()


@pytest.mark.parametrize("case", ["shared", "other content", "other name", "link"])
def test_other_data_stays(tmp_path: Path, case: str) -> None:
    path = data(tmp_path, b"something else" if case == "other content" else CONTENT)
    if case == "shared":
        model(tmp_path / "copy.onnx", path.name)
    if case == "other name":
        path = path.rename(tmp_path / "net.onnx_data")
    if case == "link":
        path.symlink_to(path.rename(tmp_path / "weights.bin"))
    retire(tmp_path, [path.name])
    assert path.exists()
