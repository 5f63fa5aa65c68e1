"""How large the values of a graph are for one sample."""

import re
from collections.abc import Mapping
from math import prod

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import BITS_OF

TIMES = re.compile(r"(\d+)\s*\*\s*(\S+)")
"""A symbol that is said as a multiple of another, as exporters do."""


class ValueSizes:
    """The sizes of values, the first sample's sizes standing for the symbols in their shapes.

    A size of which nothing is known counts as one.
    """

    def __init__(self, graph: Graph, samples: Samples) -> None:
        self._graph = graph
        sample: Mapping[str, object] = next(samples.parts(1))
        self._symbols: dict[str | int | None, int] = {}
        for value in graph.inputs:
            if value.name in sample:
                self._symbols.update(zip(value.shape or (), np.shape(sample[value.name]), strict=False))  # type: ignore[call-overload]  # arrays, or lists of them

    def shape(self, name: str) -> tuple[int, ...]:
        """A value's, or a constant's."""
        return tuple(map(self._size, self._graph.value(name).shape or ())) if name else ()

    def count(self, name: str) -> int:
        """The numbers that it holds."""
        return prod(self.shape(name)) if name else 0

    def size_bytes(self, name: str, half: bool = False) -> float:
        """What it takes; floats of 32 bits take two bytes a number where the graph computes in ``half`` precision."""
        dtype = self._graph.value(name).dtype if name else "float32"
        bits = BITS_OF.get(dtype) or (8 if dtype == "bool" else int(re.sub(r"\D", "", dtype) or 32))
        return self.count(name) * (2 if half and dtype == "float32" else bits / 8)

    def _size(self, size: int | str | None) -> int:
        if isinstance(size, int):
            return max(size, 0)
        if size in self._symbols:
            return self._symbols[size]
        found = TIMES.fullmatch(size or "")
        return int(found[1]) * self._size(found[2]) if found else 1
