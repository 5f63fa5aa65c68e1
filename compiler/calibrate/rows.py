"""How many rows of activations a layer is given: the number that decides which kernel is fastest."""

from collections import Counter
from collections.abc import Mapping
from math import prod

from qcc.compiler.calibrate.samples import Samples
from qcc.ir.forms.kernel import kernel_layers
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Value, Weight

UNKNOWN = 32  # a short sequence


def rows_of(graph: Graph, samples: Samples) -> dict[str, int]:
    """The rows that the linear layers of each weight multiply for one sample, by weight name; of convolutions that are
    products (`kernel_layers`), the positions.

    The sizes of the first sample stand for the symbols in the shapes of the graph. A layer whose shape is not known has
    as many rows as most of the others of its kind.
    """
    sample = next(samples.parts(1))
    symbols: dict[str | int | None, int] = {}
    for value in graph.inputs:
        if value.name in sample:
            symbols.update(zip(value.shape or (), getattr(sample[value.name], "shape", ()), strict=False))
    weights = graph.weights()
    linear = [weight for weight in weights if "linear" in weight.kinds]
    convs = [weight for weight in weights if weight.kinds == {"conv"} and kernel_layers(weight)]
    return _filled({one.name: _rows(graph, one, symbols) for one in linear}) | _filled(
        {one.name: _rows(graph, one, symbols) for one in convs}
    )


def _filled(found: Mapping[str, int | None]) -> dict[str, int]:
    common = Counter(rows for rows in found.values() if rows is not None).most_common(1)
    usual = common[0][0] if common else UNKNOWN
    return {name: usual if rows is None else rows for name, rows in found.items()}


def _rows(graph: Graph, weight: Weight, symbols: dict[str | int | None, int]) -> int | None:
    axes = {"linear": -1, "conv": 1}  # along which the inputs lie
    layers = [one for one in weight.layers if one.kind in axes and one.input]
    read = [_size(graph.value(one.input), axes[one.kind], symbols) for one in layers]
    known = [rows for rows in read if rows is not None]
    return max(known, default=None)


def _size(value: Value, axis: int, symbols: dict[str | int | None, int]) -> int | None:
    """How many vectors along an axis a value holds."""
    shape = list(value.shape or (None,))
    del shape[min(axis, len(shape) - 1)]
    sizes = [size if isinstance(size, int) else symbols.get(size) for size in shape]
    known = [size for size in sizes if size is not None and size >= 0]
    return prod(known) if len(known) == len(sizes) else None
