"""The files of a model as they were when it was opened: what the lock says was compiled is what was read."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from qcc.ir.errors import ModelError
from qcc.ir.model.whole_files import sha256

State = tuple[int, ...]


@dataclass(frozen=True)
class InputFile:
    """A file with its digest, and what changes when it is replaced or written to."""

    path: Path
    sha256: str
    state: State
    name: str = ""
    """By which a lock knows it."""

    @classmethod
    def of(cls, path: Path, name: str = "") -> "InputFile":
        """As it is now.

        Raises:
            OSError: it cannot be read.
        """
        state = state_of(path)
        return cls(path, sha256(path), state, name or path.name)

    def check(self) -> None:
        """See that it is still what it was.

        Raises:
            ModelError: it is not.
        """
        try:
            same = state_of(self.path) == self.state or sha256(self.path) == self.sha256
        except OSError:
            same = False
        if not same:
            raise _changed(self.path)


@dataclass(frozen=True)
class Inputs:
    """A model's own file, the data files that it refers to, and files of interactions that formats go by."""

    model: InputFile
    data: tuple[InputFile, ...]
    interactions: tuple[InputFile, ...] = ()
    folder: Path = field(default_factory=Path)
    """In which files lie that formats name."""

    @classmethod
    def of(cls, model: Path, names: Iterable[str], before: State, folder: Path) -> "Inputs":
        """As they are now.

        Args:
            model: the file.
            names: of the data files, as it refers to them.
            before: the file's state before it was read.
            folder: in which files lie that formats name.

        Raises:
            ModelError: the file has changed since.
            OSError: one cannot be read.
        """
        found = cls(InputFile.of(model), tuple(InputFile.of(model.parent / name) for name in names), (), folder)
        if found.model.state != before:
            raise _changed(model)
        return found

    def with_more(self, files: Iterable[tuple[str, Path]]) -> "Inputs":
        """With other files that are read, by the names that a lock has for them.

        Raises:
            OSError: one cannot be read.
        """
        return replace(self, data=(*self.data, *(InputFile.of(path, name) for name, path in files)))

    @property
    def digest(self) -> str:
        """Of all of them."""
        files = (self.model, *self.data, *self.interactions)
        return hashlib.sha256(" ".join(f"{file.name} {file.sha256}" for file in files).encode()).hexdigest()

    def check(self) -> None:
        """See that none has changed.

        Raises:
            ModelError: one has.
        """
        for file in (self.model, *self.data, *self.interactions):
            file.check()


def state_of(path: Path) -> State:
    """What changes when a file is replaced or written to; empty where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # no file has such a name: the loader says so
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _changed(path: Path) -> ModelError:
    message = f"`{path}` changed while it was compiled"
    return ModelError("Q453", message, help="nothing was written; compile again when it is complete")
