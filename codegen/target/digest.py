"""A hash of the sources by which kernels are made."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import qcc.ir.encoding
import qcc.ir.kernel
import qcc.ir.vocabulary
import qcc.ir.vocabulary.ops

ROOM = Path(__file__).parents[1]
OURS = tuple(ROOM / name for name in ("library", "shim", "target", "tir"))
READ = (qcc.ir.encoding, qcc.ir.kernel, qcc.ir.vocabulary, qcc.ir.vocabulary.ops)
MADE_BY = ("*.py", "*.c", "*.h", "*.ll")


def digest(folder: Path | None = None) -> str:
    """A hash of what all kernels are made by, and of what lies in a target's own folder."""
    found = hashlib.sha256()
    for path in (*_shared(), *(_sources(folder) if folder is not None else ())):
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)} ".encode())
        found.update(content)
    return found.hexdigest()


def _shared() -> Iterator[Path]:
    for folder in (*OURS, *(Path(folder) for package in READ for folder in package.__path__)):
        yield from _sources(folder)


def _sources(folder: Path) -> list[Path]:
    return sorted(path for pattern in MADE_BY for path in folder.rglob(pattern))
