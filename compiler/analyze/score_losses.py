"""What a score of the user's own loses where one layer alone is stored in a format."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qcc.compiler.judge.judge import Judge
from qcc.compiler.measure.sensitivity import Losses, encoded_as
from qcc.compiler.plan.plan import OpenChoice
from qcc.compiler.verify.outputs import MakeRunner
from qcc.ir.encoding.blocks import row_by_row
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Feeds
from qcc.passes.contract.contract import Context


def score_losses(
    graph: Graph,
    options: Sequence[OpenChoice],
    judge_of: Callable[[MakeRunner], Judge],
    context: Context,
) -> Mapping[str, Losses]:
    """By score: what is lost of it, by option and candidate, each run whole on the samples that judge.

    A score that gains loses less than nothing.

    Args:
        graph: the model.
        options: weights with the formats that are tried.
        judge_of: makes what scores models, given what makes the original's runner.
        context: told of each weight.

    Raises:
        ModelError: the model is not scored, or a weight cannot be encoded.
    """
    run = _Run(graph)
    judge = judge_of(lambda: run.but({}))
    weights = {weight.name: weight for weight in graph.weights()}
    lost: dict[str, list[np.ndarray]] = {}
    count = 0
    for option in options:
        weight = weights[option.subject]
        context.progress(option.subject)
        matrix = row_by_row(graph.matrix(weight))
        rows: dict[str, list[float]] = {}
        for candidate in option.candidates:
            one = encoded_as(weight, matrix, candidate, context)
            changed = {} if one is None else {weight.constant: graph.as_constant(weight, one.decode())}
            impossible = one is None and candidate.action is not None
            for check in judge.checks(run.but(changed)):
                rows.setdefault(str(check.bound.argument), []).append(np.inf if impossible else check.drop.estimate)
                count = check.drop.samples
        for name, row in rows.items():
            lost.setdefault(name, []).append(np.array(row))
    measured = tuple((True,) * len(option.candidates) for option in options)
    return {name: Losses(tuple(found), measured, count, metric=name) for name, found in lost.items()}


class _Run:
    """The graph with some of its weights as they are not."""

    def __init__(self, graph: Graph) -> None:
        held = {weight.constant: graph.constant(weight.constant) for weight in graph.weights()}
        self._constants = {name: array for name, array in held.items() if array is not None}
        fed, made = ([value.name for value in values] for values in (graph.inputs, graph.outputs))
        self._runner = graph.runner(tuple(fed), tuple(made), tuple(self._constants))

    def but(self, changed: Mapping[str, Array]) -> Runner:
        """What runs it."""

        def run(feeds: Feeds) -> dict[str, np.ndarray]:
            return self._runner({**feeds, **self._constants, **changed})

        return run
