"""Running a plan's steps that change a graph's structure: each is run, and checked to have done what it says."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from qcc.compiler.build.cleaning import Cleaned, clean_up, told, validate_cleaning
from qcc.compiler.build.promises import broken_promise
from qcc.compiler.build.rewrite import Rewritten, sample_of, watching
from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.observer import Tick
from qcc.compiler.observe.statistics import layer_statistics
from qcc.compiler.plan.plan import Plan, Step
from qcc.compiler.plan.text import action_text
from qcc.compiler.verify.translation import Trial
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Edit, G, Invariant, Restructure
from qcc.passes.contract.moments import grams_of


def structure_steps(plan: Plan) -> tuple[Step, ...]:
    """The steps of a plan after which its other steps know the weights."""
    return tuple(step for step in plan.steps if isinstance(step.action, Restructure))


def restructure(
    graph: G, steps: Sequence[Step], data: Samples, cleaned: Cleaned | None = None, tick: Tick = lambda *_: None
) -> Rewritten[G]:
    """Run steps that change the structure of a cleaned graph.

    After each step the graph must compute what the one before computes without what was left out; where it does not,
    the step is left out.

    Args:
        graph: left as it is; returned where there are no steps.
        steps: in order.
        data: to validate on beside random data.
        cleaned: what the graph was cleaned from, to be validated as well.
        tick: told of each step.

    Raises:
        ModelError: the model does not run, or is another once cleaned.
    """
    waiting = [step for step in steps if _concerns(step, graph)]
    if not waiting:
        return Rewritten(graph, ())
    rows = [] if cleaned is None else [validate_cleaning(cleaned, Trial(graph, data))]
    for done, step in enumerate(waiting):
        tick(done, len(waiting), action_text(step.action))
        graph, found = _run(graph, step, data, partial(_at, tick, done, len(waiting), action_text(step.action)))
        rows += found
    return Rewritten(graph, tuple(rows))


def _concerns(step: Step, graph: Graph) -> bool:
    """A step has something to do or to say; one that keeps the function has nothing to say of a graph without sites."""
    assert isinstance(step.action, Restructure)
    return Invariant.FUNCTION not in step.action.keeps or bool(step.action.sites(graph, step.weights))


def _at(tick: Tick, done: int, count: int, text: str, *where: object) -> None:
    tick(done, count, f"{text} {where[-1]}")


def _run(graph: G, step: Step, data: Samples, tick: Callable[..., None]) -> tuple[G, list[RewriteRow]]:
    start, action = time.perf_counter(), step.action
    assert isinstance(action, Restructure)
    text = action_text(action)
    context = Context(tick, watch=None if data.generated else watching(data))
    context = replace(context, sample=sample_of(graph, data)) if action.uses_sample else context
    if action.uses_gram and not data.generated:
        moments = layer_statistics(graph, data, tick, moments=step.weights).moments
        context = replace(context, grams=grams_of(moments), moments=moments)
    try:
        after, edits = action.apply(graph, step.weights, context)
    except Refused as refused:
        if refused.broken:
            raise ModelError("Q410", refused.reason) from refused
        return graph, [RewriteRow(text, (Edit("graph", refused.reason, refused=True, layers=step.weights),))]
    treated = frozenset(edit.subject for edit in edits if not edit.refused)
    if not treated:
        return graph, [RewriteRow(text, tuple(edits))]
    trial = Trial(action.meant(graph, step.weights, replace(context, takes=treated.__contains__)), data)
    fault = broken_promise(graph, after, action.keeps)
    outputs, found = trial.run(after)
    seconds = time.perf_counter() - start
    if fault or not trial.holds(found):
        why = f"left out: with it {fault or told(found)}"
        refused_edits = tuple(replace(edit, text=why, refused=True) if not edit.refused else edit for edit in edits)
        return graph, [RewriteRow(text, refused_edits, seconds=seconds, left_out=tuple(sorted(treated)))]
    trial.outputs = outputs
    row = RewriteRow(text, tuple(edits), found.error, found.changed, found.bound, seconds)
    after, rows = clean_up(after, trial)
    return after, [row, *rows]
