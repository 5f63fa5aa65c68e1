"""Where what was built or measured once is kept: for this user alone, and never trusted further than it can be checked.

The folder is the user's and closed to others. No link in it is followed, no file of another user's or open to others is
read, and the name of a library holds the hash of its content. What is damaged is removed and made anew; a cache that
cannot be used is done without.
"""

import fcntl
import hashlib
import json
import math
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs

OPEN_TO_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """The folder of kernel libraries and measured ceilings; it need not exist yet."""
    return platformdirs.user_cache_path("qcc", appauthor=False)


def fetch(key: str, suffix: str, out: Path) -> bool:
    """Write what is kept under a key to a file; false where nothing is that is whole and ours.

    Raises:
        OSError: the file cannot be written.
    """
    for path in _entries(key, suffix):
        content = _read(path)
        if content is not None and path.name == _name(key, content, suffix):
            out.write_bytes(content)
            return True
        with suppress(OSError):
            path.unlink()
    return False


def keep(key: str, suffix: str, made: Path) -> None:
    """Keep a file's content under a key, if that can be done."""
    with suppress(OSError):
        content = made.read_bytes()
        _write(_name(key, content, suffix), content)


def forget(key: str, suffix: str) -> None:
    """Remove what is kept under a key."""
    for path in _entries(key, suffix):
        with suppress(OSError):
            path.unlink()


def read_json(name: str) -> object:
    """What a file of that name holds; None where there is none that can be read."""
    folder = _folder(make=False)
    content = None if folder is None else _read(folder / name)
    try:
        return None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None  # damaged: as good as none


def write_json(name: str, content: object) -> None:
    """Keep a value under a name, if that can be done."""
    with suppress(OSError):
        _write(name, (json.dumps(content, indent=0, sort_keys=True) + "\n").encode())


def names(prefix: str) -> list[str]:
    """The files that are called so at the beginning."""
    folder = _folder(make=False)
    try:
        return [] if folder is None else sorted(path.name for path in folder.glob(f"{prefix}*"))
    except OSError:
        return []


def opened(name: str) -> BinaryIO:
    """A file of that name, open to be read.

    Raises:
        OSError: there is none that is this user's alone.
    """
    folder = _folder(make=False)
    if folder is None:
        raise FileNotFoundError(name)
    return os.fdopen(_open(folder / name), "rb")


def write_whole(name: str, write: Callable[[BinaryIO], object]) -> None:
    """Keep what is written under a name, at one stroke.

    Raises:
        OSError: it cannot be written.
    """
    folder = _folder()
    if folder is not None:
        _place(folder, name, write)


def remove(name: str) -> None:
    """Remove a file, if that can be done."""
    folder = _folder(make=False)
    if folder is not None:
        with suppress(OSError):
            (folder / name).unlink()


def remove_old(prefix: str, age_s: float) -> None:
    """Remove the files that are called so at the beginning and that nobody has written for long."""
    folder = _folder(make=False)
    for name in names(prefix) if folder else ():
        with suppress(OSError):
            if folder and time.time() - (folder / name).lstat().st_mtime > age_s:
                (folder / name).unlink()


def read_numbers(name: str) -> dict[str, float]:
    """The positive numbers by name that a file holds; whatever else is in it is dropped, to be measured again."""
    found = read_json(name)
    entries = found.items() if isinstance(found, dict) else ()
    return {key: float(value) for key, value in entries if is_measured(value)}


def add_numbers(name: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """Put numbers to those that a file holds, also where other processes do at the same time; gives all of them."""
    with _alone():
        merged = read_numbers(name) | dict(numbers)
        write_json(name, merged)
    return merged


def is_measured(value: object) -> bool:
    """A value can be a time or a rate."""
    try:
        return type(value) in (int, float) and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]
    except OverflowError:
        return False


def _folder(make: bool = True) -> Path | None:
    """The folder, made and closed to others; None where it is not ours alone, or is not there and not to be made."""
    folder = cache_folder()
    if not make and not folder.exists():
        return None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return None
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError:
        return None
    return folder


def _entries(key: str, suffix: str) -> list[Path]:
    folder = _folder(make=False)
    try:
        return [] if folder is None else sorted(folder.glob(f"{key}.*{suffix}"))
    except OSError:
        return []


def _name(key: str, content: bytes, suffix: str) -> str:
    return f"{key}.{hashlib.sha256(content).hexdigest()}{suffix}"


def _read(path: Path) -> bytes | None:
    """A file's content, if it is a regular one of this user's that nobody else can write to."""
    try:
        with os.fdopen(_open(path), "rb") as file:
            return file.read()
    except OSError:
        return None


def _open(path: Path) -> int:
    """A regular file of this user's that nobody else can write to.

    Raises:
        OSError: it is not, or is not there.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & OPEN_TO_OTHERS:
        return handle
    os.close(handle)
    raise PermissionError(path)


def _write(name: str, content: bytes) -> None:
    folder = _folder()
    if folder is not None:
        _place(folder, name, lambda file: file.write(content))


def _place(folder: Path, name: str, write: Callable[[BinaryIO], object]) -> None:
    handle, unfinished = tempfile.mkstemp(prefix=".", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(unfinished).replace(folder / name)
    finally:
        Path(unfinished).unlink(missing_ok=True)


@contextmanager
def _alone() -> Iterator[None]:
    """While no other process changes what files hold."""
    folder = _folder()
    try:
        handle = None if folder is None else os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        handle = None
    try:
        if handle is not None:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)
