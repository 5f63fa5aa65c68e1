"""A model as policies see it: loaded and cleaned, so that its layers have the names that selectors match."""

from dataclasses import dataclass
from pathlib import Path

from qcc.ir.onnx_graph import OnnxGraph
from qcc.ir.onnx_save import whole_size
from qcc.passes.clean import Clean
from qcc.passes.contract import Context


@dataclass(frozen=True)
class OpenModel:
    """A cleaned graph, the size of the files it came from, and what the cleaning did."""

    path: Path
    graph: OnnxGraph
    size_bytes: int
    edits: tuple[str, ...]


def open_model(path: Path) -> OpenModel:
    """Load and clean a model.

    Raises:
        ModelError: see `onnx_load.load`.
    """
    loaded = OnnxGraph.load(path)
    size = whole_size(path, loaded.data_files())
    cleaned, edits = Clean().apply(loaded, (), Context())
    return OpenModel(path, cleaned, size, tuple(edit.text for edit in edits))
