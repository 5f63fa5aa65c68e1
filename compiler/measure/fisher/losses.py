"""What candidates cost at the outputs: foreseen where the metric says so and gradients reach; else measured."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.measure.fisher.foresee import foresee
from qcc.compiler.measure.sensitivity import Losses, measure
from qcc.compiler.measure.tally import NOISE
from qcc.compiler.metrics.metric import Additive
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.plan.plan import OpenChoice
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context


def losses_of(
    graph: Graph,
    options: Sequence[OpenChoice],
    samples: Samples,
    context: Context,
    metric: Additive = NOISE,
    executor: Executor = HERE,
) -> Losses:
    """What each candidate of each option loses; the arguments are those of `measure`.

    Of a metric that is foreseen, options that gradients do not reach in all their candidates are measured.

    Raises:
        ModelError: a weight cannot be encoded, or there are no gradients, ``Q645`` and ``Q646``.
    """
    if not metric.foreseen or not options:
        return measure(graph, options, samples, context, metric, executor)
    told = replace(foresee(graph, options, samples, context), metric=metric.name)
    left = [at for at, one in enumerate(told.loss) if np.isinf(one).any()]
    if not left:
        return told
    measured = measure(graph, [options[at] for at in left], samples, context, metric, executor)
    return told.but(dict(zip(left, zip(measured.loss, measured.measured, strict=True), strict=True)))
