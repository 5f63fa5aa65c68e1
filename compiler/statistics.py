"""Calibration statistics: streamed, so that memory does not grow with the number of samples."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import numpy as np

from qcc.compiler.samples import Samples
from qcc.ir.graph import Graph, Kind, Weight
from qcc.passes.magnitudes import Magnitudes

SAMPLES_AT_ONCE = 1  # every linear layer's input is held for so many

Tick = Callable[[int, int, str], None]


def grams(graph: Graph, names: Sequence[str], samples: Samples, tick: Tick) -> dict[str, np.ndarray]:
    """The Gram matrices ``X'X / rows`` ``[in, in]`` of the inputs of linear layers, by weight name.

    Weights that read the same value share one matrix. Weights without a linear layer get none.
    """
    wanted = set(names)
    readers = {w.name: _input(w) for w in graph.weights() if w.name in wanted and _input(w) is not None}
    values = sorted({value for value in readers.values() if value is not None})
    sums: dict[str, np.ndarray] = {}
    rows: dict[str, int] = {}
    for name, array in _stream(graph, values, samples, tick):
        flat = array.reshape(-1, array.shape[-1]).astype(np.float32, copy=False)
        if name in sums:
            sums[name] += flat.T @ flat
        else:
            sums[name] = flat.T @ flat
        rows[name] = rows.get(name, 0) + len(flat)
    for name, total in sums.items():
        total /= max(rows[name], 1)
    return {weight: sums[value] for weight, value in readers.items() if value is not None}


def magnitudes(graph: Graph, names: Sequence[str], samples: Samples, tick: Tick) -> dict[str, Magnitudes]:
    """How large the numbers are that the linear layers of weights read, by weight name."""
    wanted = set(names)
    readers = {w.name: {layer.input for layer in w.layers} for w in graph.weights() if w.name in wanted}
    found: dict[str, Magnitudes] = {}
    for name, array in _stream(graph, sorted(set().union(*readers.values())), samples, tick):
        one = Magnitudes.of(array)
        found[name] = found[name] + one if name in found else one
    return {
        weight: reduce(Magnitudes.__add__, (found[value] for value in sorted(values)))
        for weight, values in readers.items()
    }


def _stream(graph: Graph, values: Sequence[str], samples: Samples, tick: Tick) -> Iterator[tuple[str, np.ndarray]]:
    """What these values are on all samples, a few at once."""
    if not values:
        return
    runner = graph.runner(tuple(value.name for value in graph.inputs), values)
    batches = list(samples.parts(SAMPLES_AT_ONCE))
    for done, batch in enumerate(batches, 1):
        yield from runner(batch).items()
        tick(done, len(batches), samples.origin)


def _input(weight: Weight) -> str | None:
    return next((layer.input for layer in weight.layers if layer.kind is Kind.LINEAR and layer.form_free), None)
