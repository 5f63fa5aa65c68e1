"""Leaving levels out of a model's file, whatever framework it is of."""

from pathlib import Path

from qcc.ir.errors import ModelError
from qcc.ir.model.options import PROGRAM
from qcc.ir.onnx.file.trim import Trimmer


def open_trimmer(path: Path, output: Path) -> Trimmer:
    """What makes the model in a file smaller, which becomes another.

    Raises:
        ModelError: it cannot be read, or has no levels.
    """
    if path.suffix == PROGRAM:
        help = "compile the ONNX model of the module with `weights = stack(8)`"
        raise ModelError("Q370", f"`{path.name}` has no levels that could be left out: only ONNX files have", help)
    return Trimmer(path, output)
