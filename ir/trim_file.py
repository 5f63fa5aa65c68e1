"""Leaving levels out of a model's file, whatever framework it is of."""

from pathlib import Path

from qcc.ir.onnx.file.trim import Trimmer


def open_trimmer(path: Path, output: Path) -> Trimmer:
    """What makes the model in a file smaller, which becomes another.

    Raises:
        ModelError: it cannot be read, or has no levels.
    """
    return Trimmer(path, output)
