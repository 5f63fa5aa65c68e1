"""Opening a model's file, whatever framework it is of."""

from pathlib import Path

from qcc.ir.model.model import AnyModel
from qcc.ir.onnx.model import OnnxModel


def open_file(path: Path) -> AnyModel:
    """The model in a file.

    Raises:
        ModelError: there is none that can be read.
    """
    return OnnxModel(path)
