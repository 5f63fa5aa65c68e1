"""How many rows of activations a layer is given: the number that decides which kernel is fastest."""

from collections import Counter
from math import prod

from qcc.compiler.samples import Samples
from qcc.ir.graph import Graph, Value, Weight

UNKNOWN = 32  # a short sequence


def rows_of(graph: Graph, samples: Samples) -> dict[str, int]:
    """The rows that the linear layers of each weight multiply for one sample, by weight name.

    The sizes of the first sample stand for the symbols in the shapes of the graph. A layer whose shape is not known has
    as many rows as most of the others.
    """
    sample = next(samples.parts(1))
    symbols: dict[str | int | None, int] = {}
    for value in graph.inputs:
        if value.name in sample:
            symbols.update(zip(value.shape or (), sample[value.name].shape, strict=False))
    found = {weight.name: _rows(graph, weight, symbols) for weight in graph.weights() if "linear" in weight.kinds}
    common = Counter(rows for rows in found.values() if rows is not None).most_common(1)
    usual = common[0][0] if common else UNKNOWN
    return {name: usual if rows is None else rows for name, rows in found.items()}


def _rows(graph: Graph, weight: Weight, symbols: dict[str | int | None, int]) -> int | None:
    read = [_size(graph.value(layer.input), symbols) for layer in weight.layers if layer.kind == "linear"]
    known = [rows for rows in read if rows is not None]
    return max(known, default=None)


def _size(value: Value, symbols: dict[str | int | None, int]) -> int | None:
    sizes = [size if isinstance(size, int) else symbols.get(size) for size in (value.shape or (None,))[:-1]]
    known = [size for size in sizes if size is not None and size >= 0]
    return prod(known) if len(known) == len(sizes) else None
