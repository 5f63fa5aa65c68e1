"""The cache: this user's alone, whole or made anew, safe among processes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qcc.codegen.target import cache

KEY, SUFFIX = "k" * 8, ".so"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "made").write_bytes(b"a library")
    cache.keep(KEY, SUFFIX, tmp_path / "made")
    return tmp_path / "cache" / "qcc"


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def fetched(tmp_path: Path) -> bytes | None:
    return (tmp_path / "out").read_bytes() if cache.fetch(KEY, SUFFIX, tmp_path / "out") else None


def test_what_is_kept_is_found(folder: Path, tmp_path: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert fetched(tmp_path) == b"a library"
    assert cache.fetch("other", SUFFIX, tmp_path / "other") is False
    cache.forget(KEY, SUFFIX)
    assert fetched(tmp_path) is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "planted", "link", "folder", "pipe"])
def test_what_is_damaged_is_made_anew(folder: Path, tmp_path: Path, damage: str) -> None:
    path = entry(folder)
    content = path.read_bytes()
    if damage in ("truncated", "empty"):
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    elif damage == "flipped":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "planted":
        path.with_name(f"{KEY}.{'0' * 64}{SUFFIX}").write_bytes(b"another library")
        path.unlink()
    else:
        path.unlink()
        if damage == "link":
            (tmp_path / "elsewhere").write_bytes(content)
            path.symlink_to(tmp_path / "elsewhere")
        elif damage == "folder":
            path.mkdir()
        else:
            os.mkfifo(path)
    assert fetched(tmp_path) is None
    cache.keep(KEY, SUFFIX, tmp_path / "made")
    assert fetched(tmp_path) == (None if damage == "folder" else content)


def test_what_others_could_write_is_not_read(folder: Path, tmp_path: Path) -> None:
    entry(folder).chmod(0o666)
    assert fetched(tmp_path) is None


def test_an_open_folder_is_closed(folder: Path, tmp_path: Path) -> None:
    folder.chmod(0o777)
    assert fetched(tmp_path) == b"a library"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_anothers_is_done_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert fetched(tmp_path) is None
    cache.keep("another", SUFFIX, tmp_path / "made")
    assert len(list(folder.iterdir())) == 1


def test_a_link_for_a_folder_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "qcc").symlink_to("elsewhere")
    cache.write_json("x.json", 1)
    assert cache.read_json("x.json") is None
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_for_a_folder_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    cache.write_json("x.json", 1)
    assert cache.read_json("x.json") is None


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"\xff", b"1", b"null", b"[" * 100_000, b'{"a": "1"}', b'{"a": NaN}', b'{"a": -1}',
        b'{"a": 0}', b'{"a": Infinity}', b'{"a": true}', b'{"a": null}', b'{"a": [1]}', b'{"a": 1' + b"0" * 400 + b"}",
        b'{"a": 1' + b"0" * 5000 + b"}",
    ],
)  # fmt: skip
def test_bad_numbers_are_dropped(folder: Path, text: bytes) -> None:
    (folder / "t.json").write_bytes(text)
    assert cache.read_numbers("t.json") == {}
    assert cache.add_numbers("t.json", {"b": 2.0}) == {"b": 2.0}
    assert json.loads((folder / "t.json").read_bytes()) == {"b": 2.0}


def test_good_numbers_among_bad_ones_stay(folder: Path) -> None:
    (folder / "t.json").write_text(json.dumps({"a": 1.5, "b": math.nan, "c": 3}), encoding="utf-8")
    assert cache.read_numbers("t.json") == {"a": 1.5, "c": 3.0}


@pytest.mark.slow
def test_processes_at_once_lose_nothing(folder: Path) -> None:
    code = "import sys; from qcc.codegen.target import cache\nfor at in range(20): "
    code += "cache.add_numbers('t.json', {sys.argv[1] + str(at): 1.0})"
    running = [subprocess.Popen([sys.executable, "-c", code, word]) for word in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(cache.read_numbers("t.json")) == 60
