"""Calibration statistics: streamed, so that memory does not grow with the number of samples."""

from collections.abc import Callable, Sequence

import numpy as np

from qcc.compiler.samples import Samples
from qcc.ir.graph import Graph, Kind, Weight

Tick = Callable[[int, int, str], None]


def grams(graph: Graph, names: Sequence[str], samples: Samples, tick: Tick) -> dict[str, np.ndarray]:
    """The Gram matrices ``X'X / rows`` ``[in, in]`` of the inputs of linear layers, by weight name.

    Weights that read the same value share one matrix. Weights without a linear layer get none.
    """
    wanted = set(names)
    readers = {w.name: _input(w) for w in graph.weights() if w.name in wanted and _input(w) is not None}
    values = sorted({value for value in readers.values() if value is not None})
    if not values:
        return {}
    runner = graph.runner(tuple(value.name for value in graph.inputs), values)
    sums: dict[str, np.ndarray] = {}
    rows: dict[str, int] = {}
    for done, batch in enumerate(samples.batches, 1):
        for name, array in runner(batch).items():
            flat = array.reshape(-1, array.shape[-1]).astype(np.float32, copy=False)
            sums[name] = sums.get(name, np.float32(0)) + flat.T @ flat
            rows[name] = rows.get(name, 0) + len(flat)
        tick(done, len(samples.batches), f"{samples.origin}")
    means = {name: total / max(rows[name], 1) for name, total in sums.items()}
    return {weight: means[value] for weight, value in readers.items() if value is not None}


def _input(weight: Weight) -> str | None:
    return next((layer.input for layer in weight.layers if layer.kind is Kind.LINEAR and layer.form_free), None)
