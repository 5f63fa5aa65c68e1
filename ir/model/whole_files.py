"""Files that get their names when they are whole, and data files that are named by what is in them.

A model and its data cannot change in one stroke. So the data's name carries the hash of its content: data of another
content never takes the place of what a model refers to, and renaming the model is the one stroke that counts.
"""

import hashlib
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

DIGITS = 16  # of the hash, in a name
_NAMED = re.compile(rf".+\.([0-9a-f]{{{DIGITS}}})\.[^.]+_data", re.DOTALL)


def place(source: Path, target: Path) -> None:
    """Give a whole file its name; what had it before is gone. Nothing of ours is renamed elsewhere."""
    os.replace(source, target)  # noqa: PTH105  (tests end the process here)


def remove(path: Path) -> None:
    """Take a file away whose time is over, if it is there. Nothing that was published is removed elsewhere."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return


def sha256(path: Path) -> str:
    """A file's digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_name(model: Path, digest: str) -> str:
    """What a model's data file of that digest is called: ``net.<hash>.onnx_data`` for ``net.onnx``."""
    return f"{model.stem}.{digest[:DIGITS]}{model.suffix or '.onnx'}_data"


def own_data(model: Path) -> tuple[str, ...]:
    """The data files beside a model that bear its name and a hash, and that it refers to; none where there is none."""
    start, end = f"{model.stem}.", f"{model.suffix or '.onnx'}_data"
    names = [name for name in _listed(model.parent) if name.startswith(start) and name.endswith(end)]
    return tuple(name for name in names if is_ours(name) and _mentions(model, name))


def is_ours(name: str) -> bool:
    """A file of this name may be data that we wrote; that its content has the hash tells."""
    return _NAMED.fullmatch(name) is not None


def retire(folder: Path, names: Iterable[str]) -> None:
    """Remove data files that we wrote and that no model in their folder refers to any more.

    Where it cannot be told, or not be done, they stay.
    """
    for name in dict.fromkeys(names):
        found, path = _NAMED.fullmatch(name), folder / name
        if found is None or path.is_symlink() or not path.is_file():
            continue
        models = [
            folder / other for other in _listed(folder) if other.endswith(Path(name).suffix.removesuffix("_data"))
        ]
        try:
            if not any(_mentions(model, name) for model in models) and sha256(path).startswith(found[1]):
                remove(path)
        except OSError:
            continue


@contextmanager
def unfinished(target: Path, word: str = "") -> Iterator[Path]:
    """A path beside the target for a file in the making; it is gone afterwards, unless it was given its name."""
    path = target.with_name(f".qcc-{os.getpid()}{word}.tmp")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []


def _mentions(model: Path, name: str) -> bool:
    """A name occurs in a file; so it does where the file cannot be read, which is the careful answer."""
    try:
        if not model.is_file() or model.stat().st_size == 0:
            return False
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return mapped.find(os.fsencode(name)) >= 0
    except FileNotFoundError:
        return False
    except OSError:
        return True
