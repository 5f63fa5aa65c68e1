"""Where the output goes, and writing a text at one stroke."""

import os
import shutil
import stat
from pathlib import Path

from qcc.ir.errors import ModelError
from qcc.ir.model.options import PROGRAM
from qcc.ir.model.whole_files import place


def output_path(model: Path, output: str | Path | None) -> Path:
    """Where the compressed model goes."""
    if output is not None:
        return Path(output)
    return model.parent / f"{model.stem}.qcc{PROGRAM if model.suffix == PROGRAM else '.onnx'}"  # a folder has no name


def failed_path(output: Path) -> Path:
    """Where a model goes whose verification failed, if it is kept: ``net.failed.qcc.onnx`` for ``net.qcc.onnx``."""
    return named_beside(output, "failed")


def named_beside(model: Path, word: str) -> Path:
    """A model's name with a word in it."""
    stem, dot, rest = model.stem.rpartition(".qcc")
    name = f"{stem}.{word}{dot}" if dot and not rest else f"{model.stem}.{word}"
    return model.with_name(name + model.suffix)


def target_of(path: Path) -> Path:
    """The file that is written where a path is named: where its links lead.

    Raises:
        ModelError: it is no regular file, or its folder is not there.
    """
    try:
        target = Path(os.path.realpath(path))
    except ValueError as error:
        raise _refused(path, "no file is called so") from error
    if not target.parent.is_dir():
        raise _refused(path, "no such folder")
    try:
        if target.is_symlink():
            raise _refused(path, "it is a link that leads to itself")
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except OSError as error:
        raise _refused(path, (error.strerror or str(error)).lower()) from error
    if stat.S_ISDIR(mode):
        raise _refused(path, "it is a folder")
    if not stat.S_ISREG(mode):
        raise _refused(path, "it is a device, a pipe or a socket, and no file")
    return target


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, or the file that a link leads to, at one stroke: whole or not at all.

    Raises:
        ModelError: it is no regular file, its folder is not there, or the system refuses.
    """
    target = target_of(path)
    unfinished = target.with_name(f".qcc-{os.getpid()}.tmp")
    try:
        with unfinished.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if target.exists():
            shutil.copymode(target, unfinished)
        place(unfinished, target)
    except OSError as error:  # the temporary name is nothing to the user
        raise ModelError("Q409", f"cannot write `{path}`: {(error.strerror or str(error)).lower()}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _refused(path: Path, reason: str) -> ModelError:
    return ModelError("Q404", f"cannot write `{path}`: {reason}")
