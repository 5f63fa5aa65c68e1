"""Where the output goes, and writing a text at one stroke."""

import os
import shutil
from pathlib import Path

from qcc.compiler.check_outputs import target_of
from qcc.ir.whole_files import place


def output_path(model: Path, output: str | Path | None) -> Path:
    """Where the compressed model goes."""
    return Path(output) if output is not None else model.with_name(f"{model.stem}.qcc.onnx")


def write_whole(path: Path, text: str) -> None:
    """Write a file, or the file that a link leads to, at one stroke: whole or not at all.

    Raises:
        ModelError: it is no regular file, or its folder is not there.
        OSError: it cannot be written.
    """
    target = target_of(path)
    unfinished = target.with_name(f".qcc-{os.getpid()}.tmp")
    try:
        with unfinished.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if target.exists():
            shutil.copymode(target, unfinished)
        place(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
