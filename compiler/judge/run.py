"""A model as the user's function gets it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Value


@dataclass(frozen=True)
class NodeArg:
    """An input or output, by its name, as `onnxruntime.InferenceSession` tells of it."""

    name: str
    type: str
    shape: Sequence[int | str | None]


class ModelRun:
    """A model that runs: called with arrays by the names of its inputs, it gives arrays by the names of its outputs.

    It answers to the methods of an `onnxruntime.InferenceSession` as well, so that a function that is written for one
    takes it.
    """

    def __init__(self, runner: Runner, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        self._runner, self._inputs, self._outputs = runner, inputs, outputs

    def __call__(self, feeds: Mapping[str, object]) -> dict[str, np.ndarray]:
        """Run once."""
        given: dict[str, Any] = {}  # a list is a sequence of arrays
        for name, feed in feeds.items():
            given[name] = feed if isinstance(feed, list) else np.asarray(feed)
        return self._runner(given)

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, object]) -> list[np.ndarray]:
        """Run once, as a session does: the outputs that are named, or all of them."""
        made = self(feeds)
        return [made[name] for name in outputs or [one.name for one in self._outputs]]

    def get_inputs(self) -> list[NodeArg]:
        """The inputs."""
        return [_told(one) for one in self._inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs."""
        return [_told(one) for one in self._outputs]


def _told(value: Value) -> NodeArg:
    dtype = {"float32": "float", "float64": "double"}.get(value.dtype or "", value.dtype or "")
    return NodeArg(value.name, f"tensor({dtype})", list(value.shape or ()))
