"""A model as policies see it: loaded and cleaned, so that its layers have the names that selectors match."""

import os
from dataclasses import dataclass
from pathlib import Path

from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.graph.graph import Graph
from qcc.ir.model.model import AnyModel
from qcc.ir.open_file import open_file
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import Context


@dataclass(frozen=True)
class OpenModel:
    """A model with its graph cleaned, and what the cleaning did.

    Args:
        path: of its file; its name alone where it lies in none.
        model: as it came.
        graph: the cleaned one.
        edits: of the cleaning, in words.
    """

    path: Path
    model: AnyModel
    graph: Graph
    edits: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Of the model as it came."""
        return self.model.size_bytes


def model_path(model: object) -> Path:
    """The path that was given for a model.

    Raises:
        QccError: it is the model itself, or something else.
    """
    if isinstance(model, str | os.PathLike):
        return Path(model)
    kind = f"{type(model).__module__}.{type(model).__name__}".removeprefix("builtins.")
    help = "give the path of an .onnx file"
    if isinstance(model, bytes | bytearray | memoryview):
        help = 'write it to a file first: `Path("model.onnx").write_bytes(model)`'
    elif hasattr(model, "SerializeToString"):
        help = 'write it to a file first: `onnx.save(model, "model.onnx")`'
    elif hasattr(model, "state_dict"):
        help = 'export it to a file first: `torch.onnx.export(module, inputs, "model.onnx")`'
    raise QccError([Diagnostic("Q462", f"a model is given as the path of a file, not as `{kind}`", help=help)])


def open_model(path: Path) -> OpenModel:
    """Load and clean a model.

    Raises:
        ModelError: there is none that can be read.
    """
    return cleaned_model(open_file(path), path)


def cleaned_model(model: AnyModel, path: Path) -> OpenModel:
    """A model with its graph cleaned."""
    cleaned, edits = Clean().apply(model.graph, (), Context())
    return OpenModel(path, model, cleaned, tuple(edit.text for edit in edits))
