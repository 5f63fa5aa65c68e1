"""A model as policies see it: loaded and cleaned, so that its layers have the names that selectors match."""

import os
from dataclasses import dataclass
from pathlib import Path

from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.save import whole_size
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import Context


@dataclass(frozen=True)
class OpenModel:
    """A cleaned graph, the size of the files it came from, and what the cleaning did."""

    path: Path
    graph: OnnxGraph
    size_bytes: int
    edits: tuple[str, ...]


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
        ModelError: see `onnx_load.load`.
    """
    loaded = OnnxGraph.load(path)
    size = whole_size(path, loaded.data_files())
    cleaned, edits = Clean().apply(loaded, (), Context())
    return OpenModel(path, cleaned, size, tuple(edit.text for edit in edits))
