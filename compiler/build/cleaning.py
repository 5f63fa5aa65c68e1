"""Seeing that what removes dead and duplicate ops leaves the function as it is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qcc.compiler.build.promises import broken_promise
from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.verify.translation import Difference, Trial
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Runner
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import EVERYTHING, Context, Edit, G

WRONG = "Q490"


@dataclass(frozen=True)
class Cleaned:
    """The model as it came, to hold the cleaning to: how to run it, and what the cleaning did."""

    original: Callable[[], Runner]
    edits: Sequence[str]


def validate_cleaning(cleaned: Cleaned, trial: Trial) -> RewriteRow:
    """Run the model as it came on the inputs of a trial of the cleaned one.

    Raises:
        ModelError: it is another.
    """
    start = time.perf_counter()
    runner = cleaned.original()
    difference = trial.difference([flattened(runner(batch)) for batch in trial.feeds])
    if not trial.holds(difference):
        help = "please report the model to the authors of qcc; nothing was written"
        raise ModelError(WRONG, f"without its dead and duplicate ops the model is another: {told(difference)}", help)
    return _row(tuple(Edit("graph", text) for text in cleaned.edits), difference, start)


def clean_up(graph: G, trial: Trial) -> tuple[G, list[RewriteRow]]:
    """Remove what passes left over; a graph that would lose a weight or the function stays as it is."""
    start = time.perf_counter()
    after, edits = Clean().apply(graph, (), Context())
    if not edits or broken_promise(graph, after, EVERYTHING):
        return graph, []
    _, difference = trial.run(after)
    if not trial.holds(difference):
        return graph, []
    return after, [_row(tuple(edits), difference, start)]


def told(difference: Difference) -> str:
    """A difference that is too large, in words."""
    if difference.fault:
        return f"the model does not run: {difference.fault}"
    if difference.error > difference.bound:
        return f"an output is off by {difference.error:.2g} of its largest value, {difference.bound:.2g} is allowed"
    return f"{difference.changed:.2g} of an output's whole numbers are others"


def _row(edits: tuple[Edit, ...], difference: Difference, start: float) -> RewriteRow:
    taken = time.perf_counter() - start
    return RewriteRow("clean", edits, difference.error, difference.changed, difference.bound, taken)
