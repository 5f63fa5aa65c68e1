"""What calibration data reaches of what a model can be given: rows of tables, ranges, classes; told beforehand."""

import time
from collections.abc import Iterator

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.samples import Samples
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Kind

MOST = 512  # samples that are looked at
PATIENCE_S = 5.0  # for running the model on them
CLASSES = (3, 20_000)  # of an output, that are told; fewer are no classes, more are words


def reached(graph: Graph, samples: Samples, run: Runner | None = None) -> tuple[str, ...]:
    """What the data reaches, a line each.

    Args:
        graph: the model.
        samples: of the data.
        run: the model, to see which classes it tells of the samples; None leaves that out.
    """
    looked = samples.first(MOST)
    ends = (*_inputs(graph, looked), *(_classes(looked, run) if run is not None else ()))
    count = min(looked.count, samples.count)
    return tuple(f"{line}, on {count:,} samples" for line in ends)


def _inputs(graph: Graph, samples: Samples) -> Iterator[str]:
    tables = {
        layer.input: weight.view.shape[0]
        for weight in graph.weights()
        for layer in weight.layers
        if layer.kind is Kind.EMBEDDING
    }
    for value in graph.inputs:
        arrays = [np.asarray(batch[value.name]) for batch in samples.parts(1) if value.name in batch]
        arrays = [one for one in arrays if one.size and one.dtype.kind in "iufb"]
        if not arrays:
            continue
        low, high = min(one.min() for one in arrays), max(one.max() for one in arrays)
        if value.name in tables:
            seen = len(np.unique(np.concatenate([np.unique(one) for one in arrays])))
            rows = tables[value.name]
            yield f"`{value.name}` looks up {seen:,} of {rows:,} rows of a table, {seen / max(rows, 1):.1%}"
        elif low == high:
            yield f"`{value.name}` is {low:g} everywhere: nothing else is seen"
        else:
            yield f"`{value.name}` reaches from {float(low):.4g} to {float(high):.4g}"


def _classes(samples: Samples, run: Runner) -> Iterator[str]:
    """Of outputs that are numbers of classes, how many of them are the largest of some sample."""
    found: dict[str, set[int]] = {}
    sizes: dict[str, int] = {}
    begun = time.perf_counter()
    for batch in samples.parts(1):
        for name, array in flattened(run(batch)).items():
            if array.dtype.kind == "f" and array.ndim == 2 and CLASSES[0] <= array.shape[1] <= CLASSES[1]:
                found.setdefault(name, set()).update(array.argmax(1).tolist())
                sizes[name] = array.shape[1]
        if time.perf_counter() - begun > PATIENCE_S:
            return  # of a part of the samples alone it would say too little
    for name, classes in found.items():
        yield f"`{name}` is largest in {len(classes):,} of {sizes[name]:,} places"
