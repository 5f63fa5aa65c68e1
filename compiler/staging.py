"""Where the output goes, and where it is made before it goes there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcc.ir.errors import ModelError


def output_path(model: Path, output: str | Path | None) -> Path:
    """Where the compressed model goes."""
    return Path(output) if output is not None else model.with_name(f"{model.stem}.qcc.onnx")


def check_output(model: Path, output: Path) -> None:
    """See that the output can be written.

    Raises:
        ModelError: it is the input, or its place is no good.
    """
    try:
        _check_output(model, output)
    except (OSError, ValueError) as error:  # a name that no file can have
        raise ModelError("Q404", f"cannot write `{output}`: {getattr(error, 'strerror', None) or error}") from error


def _check_output(model: Path, output: Path) -> None:
    if not model.exists():
        return  # what is wrong with the model is told when it is read
    if output.exists() and output.samefile(model):
        raise ModelError("Q404", f"the output `{output}` is the input", help="name another file with -o")
    if not output.parent.is_dir():
        raise ModelError("Q404", f"cannot write `{output}`: no such folder")
    if "\0" in str(output):
        raise ModelError("Q404", f"cannot write `{output}`: no file is called so")
    if output.is_dir():
        raise ModelError("Q404", f"cannot write `{output}`: it is a folder")


def write_whole(path: Path, text: str) -> None:
    """Write a file, or the file that a link leads to, at one stroke: whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    target = path.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if target.exists():
            shutil.copymode(target, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A folder beside the output in which everything is made before any of it gets its name.

    Raises:
        ModelError: it cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=".qcc-", dir=output.parent))
    except OSError as error:
        raise ModelError("Q404", f"cannot write `{output}`: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
