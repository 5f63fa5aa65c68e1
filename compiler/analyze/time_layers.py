"""What the layers of a float model take, each run alone on what it is given for a sample."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Op

RUNS = 7
PATIENCE_S = 0.5  # of a layer


def layer_seconds(graph: Graph, samples: Samples, tick: Callable[[str], None]) -> dict[str, float]:
    """Seconds of all the layers that read a weight, by its name; those that cannot be run alone are left out.

    Times are the runtime's own, with all its threads: the least of a few runs.
    """
    ops = {op.name: op for op in graph.ops()}
    fed = {name for weight in graph.weights() for layer in weight.layers for name in _read(graph, ops[layer.op])}
    inputs = tuple(value.name for value in graph.inputs)
    batch = next(samples.parts(1))
    try:
        made = graph.runner(inputs, sorted(fed - set(inputs)))(batch) if fed - set(inputs) else {}
    except ModelError:
        return {}
    values, found = {**batch, **made}, {}
    for weight in graph.weights():
        tick(weight.name)
        taken = [_op_seconds(graph, ops[layer.op], values) for layer in weight.layers]
        if taken and all(one is not None for one in taken):
            found[weight.name] = sum(one for one in taken if one is not None)
    return found


def model_seconds(graph: Graph, samples: Samples) -> float | None:
    """Seconds of the whole graph for a sample."""
    inputs, outputs = (tuple(value.name for value in side) for side in (graph.inputs, graph.outputs))
    try:
        return _least(graph.runner(inputs, outputs), next(samples.parts(1)))
    except ModelError:
        return None


def _read(graph: Graph, op: Op) -> list[str]:
    """The computed values that an op reads."""
    return [name for name in op.inputs if name and graph.constant(name) is None]


def _op_seconds(graph: Graph, op: Op, values: Mapping[str, Array]) -> float | None:
    read = list(dict.fromkeys(_read(graph, op)))
    if not all(isinstance(values.get(name), np.ndarray) for name in read):
        return None
    try:
        runner = graph.runner(read, [name for name in op.outputs if name])
        return _least(runner, {name: values[name] for name in read})
    except ModelError:
        return None


def _least(runner: Runner, feeds: Mapping[str, Array]) -> float:
    """The least of some runs, the first of which only warms."""
    runner(feeds)
    best, begun = float("inf"), time.perf_counter()
    for _ in range(RUNS):
        start = time.perf_counter()
        runner(feeds)
        now = time.perf_counter()
        best = min(best, now - start)
        if now - begun > PATIENCE_S:
            break
    return best
