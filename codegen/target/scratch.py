"""Folders for what is in the making: their owner's while it lives, and swept by the next run where it died.

The owner holds a lock on a file in the folder, which the system takes from a process that ends, however it ends. The
folder's name tells the host and its boot, so that nobody judges by locks what another machine may be using.
"""

import errno
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qcc.codegen.target.interruption import held_back

OWNER = ".owner"
BOOT = Path("/proc/sys/kernel/random/boot_id")
ATTEMPTS = 8

Salvage = Callable[[Path], None]


@contextmanager
def owned_folder(parent: Path, prefix: str, salvage: Salvage = lambda _: None) -> Iterator[Path]:
    """A folder of this process, gone at the end; what dead processes left of this kind is removed first.

    Args:
        parent: the folder in which it is made.
        prefix: that its name begins with.
        salvage: called with each folder of a dead process before it is removed.

    Raises:
        OSError: it cannot be made.
    """
    sweep(parent, prefix, salvage)
    made: tuple[Path, int] | None = None
    try:
        with held_back():
            made = _make(parent, prefix)
        yield made[0]
    finally:
        if made is not None:
            with held_back():
                _clear(made[0])
                os.close(made[1])


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this process among the system's temporary files.

    Raises:
        OSError: it cannot be made.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # a full disk, say: the module found none that it can write to
        raise OSError(errno.ENOSPC, "no folder for temporary files can be written to") from error
    with owned_folder(parent, "qcc-") as folder:
        yield folder


def without_folders(text: str) -> str:
    """A message without the folders that are made here, which are gone when it is read."""
    try:
        return _made(tempfile.gettempdir()).sub("", text)
    except FileNotFoundError:  # none can be written to, so none was made
        return text


@functools.cache
def _made(temporary: str) -> re.Pattern[str]:
    name = f"qcc-{'-'.join(_here())}-[^/`'\"\\s]+/"
    return re.compile(f"{re.escape(temporary.rstrip('/'))}/{name}|(?<![^/`'\"\\s])\\.{name}")


def sweep(parent: Path, prefix: str, salvage: Salvage = lambda _: None) -> None:
    """Remove the folders of dead processes of this host and user. What cannot be removed stays."""
    host, boot = _here()
    try:
        found = [path for path in parent.iterdir() if path.name.startswith(prefix)]
    except OSError:
        return
    for path in found:
        words = path.name.removeprefix(prefix).split("-")
        if len(words) == 3 and (words[0] == host or words[1] == boot):
            with suppress(OSError):
                _sweep_one(path, salvage)


def _sweep_one(path: Path, salvage: Salvage) -> None:
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        return
    try:
        handle = os.open(path / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        path.rmdir()  # its owner died, or was swept, at the first or the last moment; one that has files stays
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where the owner lives
        salvage(path)
        _clear(path)
    finally:
        os.close(handle)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    host, boot = _here()
    for _ in range(ATTEMPTS):
        path = Path(tempfile.mkdtemp(prefix=f"{prefix}{host}-{boot}-", dir=parent))
        try:
            handle = os.open(path / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # swept before it had an owner
        with suppress(OSError):  # a file system without locks: nobody can take it for dead, either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return path, handle
        os.close(handle)
    raise OSError(None, "other processes remove its temporary folders", str(parent))


def _clear(folder: Path) -> None:
    """Remove a folder, the owner's file last: whoever is stopped in the middle leaves what the next sweep knows."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.name != OWNER]
    except OSError:
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()
    with suppress(OSError):
        (folder / OWNER).unlink()
        folder.rmdir()


@functools.cache
def _here() -> tuple[str, str]:
    """This host and its boot, as names of folders tell them."""
    try:
        boot = BOOT.read_text(encoding="utf-8")
    except OSError:
        boot = "unknown" + platform.node()
    return tuple(hashlib.sha256(text.encode()).hexdigest()[:8] for text in (platform.node(), boot))  # type: ignore[return-value]
