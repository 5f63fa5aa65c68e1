"""A board that runs ONNX Runtime as it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from qcc.codegen.target import capabilities
from qcc.codegen.target.target import Target
from qcc.ir.graph.costs import CapabilityTable

FOLDER = Path(__file__).parent


class Edge(Target[Any]):
    """A small board, on which forms were measured to cost what `capabilities.json` says."""

    name: ClassVar[str] = "edge"

    @property
    def capabilities(self) -> Mapping[str, CapabilityTable]:
        """As they were measured."""
        return capabilities.read(FOLDER / "capabilities.json")
