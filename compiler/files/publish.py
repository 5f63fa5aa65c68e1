"""Giving finished files their names, so that whoever is stopped in between leaves the old model or the new one, whole.

The model is renamed last, and everything before it does no harm to the old one: data has a name of its own, a library
serves whatever ops it knows by names that say all they mean, and the lock says by a hash which model it is of.
"""

import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.codegen.target.scratch import owned_folder
from qcc.compiler.files.staging import target_of
from qcc.ir.errors import ModelError
from qcc.ir.model.whole_files import is_ours, own_data, place, remove, retire, sha256

PREFIX = ".qcc-"
RECORD = "published.json"
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Staged:
    """A finished file, and the name that it is to get."""

    made: Path
    target: Path


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A folder beside the output in which everything is made before any of it gets its name.

    What runs that died left of this kind is removed.

    Raises:
        ModelError: it cannot be made.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(owned_folder(target_of(output).parent, PREFIX, _salvage))
        except OSError as error:
            raise ModelError("Q404", f"cannot write `{output}`: {error.strerror or error}") from error
        yield folder


def publish(files: Sequence[Staged], folder: Path, stale: Sequence[Path] = ()) -> None:
    """Give files their names in order, the model last; then remove what the old model alone had.

    Links are followed, and files that are replaced keep their mode.

    Args:
        files: all on one file system with their folder, or copied to where they go first.
        folder: the staging folder.
        stale: files of an earlier run that are not replaced.

    Raises:
        ModelError: the system refuses; then all is as it was.
    """
    model = files[-1].target
    try:
        with ExitStack() as stack:
            ready = [_bring(file, folder, stack) for file in files]
            with held_back(), _alone(model.parent):
                before = own_data(model)
                ours = [file.target.name for file in files if is_ours(file.target.name)]
                record = {"folder": str(model.parent.absolute()), "data": [*before, *ours]}
                (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
                _rename(ready, folder)
                for path in stale:
                    remove(path)
                retire(model.parent, before)  # what the new model refers to stays
    except OSError as error:
        raise ModelError("Q404", f"cannot write `{model}`: {error.strerror or error}") from error


def same_file(target: Path, digest: str | None) -> bool:
    """A data file is in place already."""
    return target.is_file() and not target.is_symlink() and sha256(target) == digest


def _bring(file: Staged, folder: Path, stack: ExitStack) -> Staged:
    """The file, on the file system and with the mode that its target has."""
    target, made = target_of(file.target), file.made
    if target.parent != folder.parent:
        there = stack.enter_context(owned_folder(target.parent, PREFIX, _salvage))
        made = there / "file"
        shutil.copyfile(file.made, made)
    if target.exists():
        kept = target.stat()
        with suppress(PermissionError):
            os.chown(made, kept.st_uid, kept.st_gid)
        made.chmod(stat.S_IMODE(kept.st_mode))
    return Staged(made, target)


def _rename(ready: Sequence[Staged], folder: Path) -> None:
    """All or, where the system refuses one, none."""
    done: list[tuple[Path, Path | None]] = []
    try:
        for number, file in enumerate(ready):
            kept = folder / f"replaced-{number}"
            existed = file.target.exists()
            if existed:
                with suppress(OSError):  # without links there is no way back
                    os.link(file.target, kept)
            place(file.made, file.target)
            if not existed or kept.exists():
                done.append((file.target, kept if existed else None))
    except OSError:
        for target, before in reversed(done):
            if before is None:
                remove(target)
            else:
                place(before, target)
        raise


def _salvage(folder: Path) -> None:
    """Data files that a dead run had put in place, or was about to remove, go unless a model refers to them."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        place_of, names = Path(record["folder"]), [str(name) for name in record["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if any(Path(name).name != name for name in names):
        return
    with _alone(place_of):
        retire(place_of, names)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other run renames in this folder; without that, where the file system knows no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _locked(handle) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks here: do without
    return True
