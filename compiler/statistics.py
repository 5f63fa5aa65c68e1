"""Calibration statistics: streamed, so that memory does not grow with the number of samples."""

from collections.abc import Callable, Sequence

import numpy as np

from qcc.compiler.samples import Samples
from qcc.ir.graph import Graph, Kind, Weight

SAMPLES_AT_ONCE = 1  # every linear layer's input is held for so many

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
    batches = list(samples.parts(SAMPLES_AT_ONCE))
    for done, batch in enumerate(batches, 1):
        for name, array in runner(batch).items():
            flat = array.reshape(-1, array.shape[-1]).astype(np.float32, copy=False)
            if name in sums:
                sums[name] += flat.T @ flat
            else:
                sums[name] = flat.T @ flat
            rows[name] = rows.get(name, 0) + len(flat)
        tick(done, len(batches), samples.origin)
    for name, total in sums.items():
        total /= max(rows[name], 1)
    return {weight: sums[value] for weight, value in readers.items() if value is not None}


def _input(weight: Weight) -> str | None:
    return next((layer.input for layer in weight.layers if layer.kind is Kind.LINEAR and layer.form_free), None)
