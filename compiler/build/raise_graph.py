"""Raising a graph's opset before anything is encoded, and seeing that it computes what it did.

Both graphs run without the runtime's optimisations, so that every op runs as it is written and equal ops give equal
numbers. What the graph as it was refuses to run on is left out.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Samples, generate
from qcc.compiler.plan.plan import Plan
from qcc.compiler.verify.translation import Difference, compare, tolerance
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Value
from qcc.ir.model.model import Model, Raised
from qcc.passes.contract.contract import G
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.encode import Encode
from qcc.passes.half.half import Half

DRAWS = 2
SIZES = (1, 2, 7)  # of free axes: one element hides what broadcasts, an odd number shows what is rounded
OUTPUT_BYTES = 1 << 26  # of the outputs that are held
PATIENCE_S = 5.0  # of all cores, after which each size has been drawn once and that is enough
LISTED = 6

RunOutputs = dict[str, np.ndarray]


def needed_opset(graph: Graph, plan: Plan) -> int:
    """The lowest opset that can express all that a decided plan encodes."""
    weights = {weight.name: weight for weight in graph.weights()}
    needed = [
        step.action.form.opset(step.action.encoding, weights[name].shape)
        for step in plan.steps
        if isinstance(step.action, Encode)
        for name in step.weights
    ]
    needed += [step.action.opset for step in plan.steps if isinstance(step.action, Half | SubjectPass)]
    return max(needed, default=0)


def raise_graph(model: Model[G], graph: G, opset: int, data: Samples) -> G:
    """The graph at an opset, found to compute the same; the graph itself where it needs no raising.

    Args:
        model: that it is of.
        graph: left as it is.
        opset: to be reached at least.
        data: to compare on, beside drawn inputs.

    Raises:
        ModelError: an op has no equivalent there, or what the graph computes has changed.
    """
    raised = model.raised(graph, opset)
    if raised.changed:
        _compare(graph, raised, data)
    return raised.graph


def _compare(graph: G, raised: Raised[G], data: Samples) -> None:
    feeds, wanted = _run(_runner(graph), [*data.first(1).batches, *_drawn(graph)])
    if not feeds:
        return  # it runs on nothing that is at hand, which is for others to say
    changed, where = raised.changed, raised.done
    ops = ", ".join(changed[:LISTED]) + (f" and {len(changed) - LISTED} more" if len(changed) > LISTED else "")
    help = f"{raised.help}; ops that differ between the two: {ops}"
    try:
        got = _outputs(raised.graph, feeds)
    except ModelError as error:
        raise ModelError("Q412", f"{where} makes a model that does not run: {error.message}", help) from error
    wrong = _wrong(wanted, got, tolerance(graph))
    if not wrong:
        return
    twice = _outputs(graph, [*feeds, *feeds])
    drawn = _wrong(twice[: len(feeds)], twice[len(feeds) :], 0)  # these are random
    told = next((name for name in wrong if name not in drawn), None)
    if told is not None:
        raise ModelError("Q412", f"{where} changes what it computes: output `{told}` {_by(wrong[told])}", help)


def _drawn(graph: Graph) -> Iterator[Batch]:
    """Inputs at each size of the free axes, from two draws."""
    for seed in range(DRAWS):
        for size in SIZES:
            inputs = tuple(_sized(value, size) for value in graph.inputs)
            try:
                yield from generate(graph, 1, seed, inputs).batches
            except ModelError:
                return  # text, say, cannot be drawn


def _sized(value: Value, size: int) -> Value:
    if value.shape is None:
        return value
    return replace(value, shape=tuple(one if isinstance(one, int) else size for one in value.shape))


def _outputs(graph: Graph, feeds: Sequence[Batch]) -> list[RunOutputs]:
    """What a graph makes of feeds; its session is gone when this returns, so that never two hold the weights."""
    runner = _runner(graph)
    return [dict(runner(feed)) for feed in feeds]


def _run(runner: Runner, feeds: Sequence[Batch]) -> tuple[list[Batch], list[RunOutputs]]:
    """The feeds that a graph runs on, as far as its outputs can be held and it is not slow, with those."""
    ran, found = list[Batch](), list[RunOutputs]()
    held, start = 0, time.process_time()
    for feed in feeds:
        if held > OUTPUT_BYTES or (len(ran) > len(SIZES) and time.process_time() - start > PATIENCE_S):
            break
        try:
            outputs = dict(runner(feed))
        except ModelError:
            continue
        ran.append(feed)
        found.append(outputs)
        held += sum(array.nbytes for array in outputs.values())
    return ran, found


def _wrong(wanted: Sequence[RunOutputs], got: Sequence[RunOutputs], bound: float) -> dict[str, Difference]:
    """The outputs that differ, by name."""
    names = wanted[0]
    found = {name: compare([{name: w[name]} for w in wanted], [{name: g[name]} for g in got]) for name in names}
    return {name: one for name, one in found.items() if one.error > bound or one.excess}


def _by(difference: Difference) -> str:
    if not np.isfinite(difference.error):
        return "has another shape, or is not finite in other places"
    if difference.error:
        return f"is off by {difference.error:.2g} of its largest value"
    return f"has {difference.changed:.2g} of its numbers changed"


def _runner(graph: Graph) -> Runner:
    inputs, outputs = (tuple(value.name for value in values) for values in (graph.inputs, graph.outputs))
    return graph.runner(inputs, outputs, optimise=False)
