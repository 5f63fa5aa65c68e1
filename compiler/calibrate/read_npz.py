"""Reading arrays from an `.npz` file that may be anything: its headers are believed only as far as the file goes."""

import math
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from qcc.dsl.diagnostics.spelling import nearest
from qcc.ir.errors import ModelError

SUFFIX = ".npy"
MEMORY = Path("/proc/meminfo")


class UnreadableError(Exception):
    """Why a file gives no arrays."""


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these names of a file of calibration data.

    Raises:
        ModelError: the file is missing, is no such archive, is damaged, lacks one, or takes more memory than is free.
    """
    if not os.path.exists(path):  # noqa: PTH110 (also of a name that no file can have)
        raise ModelError("Q420", f"no such calibration file: `{path}`")
    try:
        return read_arrays(path, names)
    except UnreadableError as error:
        raise ModelError("Q420", f"cannot read calibration data from `{path}`: {error}") from error


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of these names, or all of them.

    Raises:
        UnreadableError: the file is missing, is no such archive, is damaged, or takes more memory than is free.
        ModelError: it lacks one.
    """
    if not path.is_file():  # reading a pipe or a device may never end
        raise UnreadableError("it is a folder" if path.is_dir() else "it is no regular file")
    try:
        return _read(path, names)
    except (ModelError, UnreadableError):
        raise
    except Exception as error:  # zip, zlib and numpy raise a dozen unrelated classes on bytes that they do not know
        if zipfile.is_zipfile(path):
            raise UnreadableError("it is damaged") from error
        raise UnreadableError(_kind(path)) from error


def names_in(path: Path) -> list[str]:
    """The names of the arrays of a file; none of what is no such archive, which is told where it is read."""
    if not os.path.isfile(path):  # noqa: PTH113 (reading a pipe may never end; also of a name that no file can have)
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(SUFFIX) for name in archive.namelist()]
    except Exception:  # as in `read_arrays`
        return []


def check_names(keys: Iterable[object], wanted: Sequence[str], origin: str) -> None:
    """Every input has its array.

    Raises:
        ModelError: one has none.
    """
    given = [key for key in keys if isinstance(key, str)]
    missing = [name for name in wanted if name not in given]
    if not missing:
        return
    extra = sorted(set(given) - set(wanted))
    near = next((name for name in extra if nearest(name, missing[:1])), None)
    help = f"rename its array `{near}`" if near else f"its arrays are {', '.join(sorted(given)) or 'none'}"
    raise ModelError("Q420", f"{origin} has no array for input `{missing[0]}`", help=help)


def _read(path: Path, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        given = [name.removesuffix(SUFFIX) for name in archive.namelist()]
        wanted = given if names is None else names
        twice = next((name for name, count in Counter(given).items() if count > 1 and name in wanted), None)
        if twice is not None:
            raise UnreadableError(f"it holds the array `{twice}` more than once")
        check_names(given, wanted, f"`{path}`")
        total = sum(_size_bytes(archive, name) for name in wanted)
    free = _free_bytes()
    if free is not None and total > free:
        raise UnreadableError(f"its arrays take {total:,} bytes of memory, {free:,} are free")
    with np.load(path, allow_pickle=False) as file:
        return {name: np.asarray(file[name]) for name in wanted}


def _size_bytes(archive: zipfile.ZipFile, name: str) -> int:
    """What an array takes, by its header, which the rest of its entry must agree with."""
    entry = name + SUFFIX if name + SUFFIX in archive.namelist() else name
    with archive.open(entry) as file:
        shape, dtype = _header(file)
        begins = file.tell()
    if dtype.hasobject:
        raise UnreadableError("it holds pickled objects")
    size, holds = math.prod(shape) * dtype.itemsize, archive.getinfo(entry).file_size - begins
    if min(shape, default=0) < 0 or size != holds:
        shown = "x".join(map(str, shape)) or "one number"
        raise UnreadableError(f"`{name}` says that it is {dtype} {shown}, {size:,} bytes, and holds {holds:,}")
    return size


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _kind(path: Path) -> str:
    """What a file is that is no archive."""
    try:
        with path.open("rb") as file:
            begins = file.read(6)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if begins == b"\x93NUMPY":
        return "it is a single array; save named arrays with numpy.savez"
    return "it is not an .npz file, or it is damaged"


def _free_bytes() -> int | None:
    """Memory that can be had, where the system tells."""
    try:
        lines = dict(line.split(":", 1) for line in MEMORY.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None
