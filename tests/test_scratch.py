"""Folders in the making: swept where their owner died, and never where it lives or is another host's."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qcc.codegen.target import scratch
from qcc.codegen.target.scratch import OWNER, owned_folder, sweep

PREFIX = ".qcc-"
HOLD = """
import os, signal, sys
from pathlib import Path
from qcc.codegen.target.scratch import owned_folder
with owned_folder(Path(sys.argv[1]), ".qcc-") as folder:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("half a model")
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), owned_folder(tmp_path, PREFIX) as folder:
        (folder / "file").write_text("")
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


def test_the_dead_are_swept_and_the_living_are_not(tmp_path: Path) -> None:
    process, theirs = holder(tmp_path)
    salvaged: list[Path] = []
    sweep(tmp_path, PREFIX, salvaged.append)
    assert (theirs / "inner" / "file").exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert theirs.exists()
    with owned_folder(tmp_path, PREFIX, salvaged.append) as ours:
        assert list(tmp_path.iterdir()) == [ours]
    assert salvaged == [theirs]


@pytest.mark.parametrize("name", ["0-0-abcdefgh", "abcdefgh", "x"])
def test_what_may_be_another_hosts_stays(tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"{PREFIX}{name}"
    folder.mkdir()
    (folder / OWNER).touch()
    sweep(tmp_path, PREFIX)
    assert folder.exists()


def test_a_link_and_a_folder_without_an_owner_stay(tmp_path: Path) -> None:
    host, boot = scratch._here()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / OWNER).touch()
    (tmp_path / f"{PREFIX}{host}-{boot}-aaaaaaaa").symlink_to(tmp_path / "elsewhere")
    full, empty = (tmp_path / f"{PREFIX}{host}-{boot}-{word}" for word in ("full", "empty"))
    full.mkdir()
    (full / "file").touch()
    empty.mkdir()
    sweep(tmp_path, PREFIX)
    assert (tmp_path / "elsewhere" / OWNER).exists() and full.exists() and not empty.exists()
