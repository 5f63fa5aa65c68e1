"""Running a plan's rewriting steps: each is run, checked to have kept the function, and told in a row of the report."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic

from qcc.compiler.coverage import Told, coverage_of
from qcc.compiler.plan import Plan, Step, action_text
from qcc.compiler.result import RewriteRow
from qcc.compiler.samples import Samples
from qcc.compiler.statistics import Tick, moments
from qcc.compiler.validate import Difference, Trial, compare, first_guilty
from qcc.dsl.diagnostics import Diagnostic, QccError
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph import Graph, Runner
from qcc.passes.clean import Clean
from qcc.passes.contract import Context, Edit, G, Rewrite, Site
from qcc.passes.moments import grams_of

LISTED_LAYERS = 8
WRONG = "Q490"


@dataclass(frozen=True)
class Rewritten(Generic[G]):
    """A graph after a plan's rewriting steps, with what was done."""

    graph: G
    rows: tuple[RewriteRow, ...]


@dataclass(frozen=True)
class Cleaned:
    """The model as it came, to hold the cleaning to: how to run it, and what the cleaning did."""

    original: Callable[[], Runner]
    edits: Sequence[str]


def rewrite_steps(plan: Plan) -> list[tuple[Rewrite, Step]]:
    """A plan's rewriting steps in order."""
    return [(step.action, step) for step in plan.steps if isinstance(step.action, Rewrite)]


def rewrite_graph(
    graph: G,
    plan: Plan,
    data: Samples,
    cleaned: Cleaned | None = None,
    tick: Tick = lambda *_: None,
    told: Told = lambda _: None,
) -> Rewritten[G]:
    """Run the rewriting steps of a plan, decided or not, on a cleaned graph.

    Args:
        graph: left as it is; if the plan rewrites nothing it is returned.
        plan: whose weights keep their names and shapes.
        data: for Gram matrices, and to validate on beside random data.
        cleaned: what the graph was cleaned from, to be validated as well.
        tick: told of each step and site.
        told: what the data covers, before a step that needs it.

    Raises:
        QccError: a pass changed the function, which is a bug; the message names the site.
        ModelError: a weight is no good, or the model does not run.
    """
    steps = rewrite_steps(plan)
    if not steps:
        return Rewritten(graph, ())
    trial = Trial(graph, data)
    rows = [] if cleaned is None else [_validate_cleaning(cleaned, trial)]
    current = graph
    for done, (action, step) in enumerate(steps):
        gather = partial(_gathered, current, step, data, told)
        current, row = _run(current, action, step, trial, _at(tick, done, len(steps)), gather)
        rows.append(row)
    if current is not graph:
        current, found = _clean(current, trial)
        rows += found
    return Rewritten(current, tuple(rows))


def prospects(graph: Graph, plan: Plan) -> Iterator[tuple[Step, tuple[Site, ...]]]:
    """Where each rewriting step of a plan would act on a cleaned graph, without data and without validation.

    A step sees what the steps before it did, those apart that need data.
    """
    steps = rewrite_steps(plan)
    for action, step in steps:
        yield step, tuple(action.sites(graph, step.weights))
        if not action.uses_gram and step is not steps[-1][1]:
            graph = _apply(graph, action, step, _context(step))[0]


def _run(
    graph: G,
    action: Rewrite,
    step: Step,
    trial: Trial,
    progress: Callable[[str], None],
    gather: Callable[[Context], Context],
) -> tuple[G, RewriteRow]:
    start = time.perf_counter()
    progress(action_text(action))
    context = gather(_context(step, progress)) if action.uses_gram else _context(step, progress)
    after, edits = _apply(graph, action, step, context)
    row = RewriteRow(action_text(action), tuple(edits), bound=trial.bound)
    if row.treated:
        _check_weights(graph, after, action)
        outputs, difference = trial.run(after)
        if not trial.holds(difference):
            raise _wrong_site(graph, action, step, context, row, trial)
        trial.outputs, graph = outputs, after
        row = replace(row, error=difference.error, changed=difference.changed)
    return graph, replace(row, seconds=time.perf_counter() - start)


def _gathered(graph: Graph, step: Step, data: Samples, told: Told, context: Context) -> Context:
    """With statistics of the step's weights."""
    found = moments(graph, step.weights, data, lambda _done, _total, what: context.progress(what))
    told(coverage_of(found))
    return replace(context, grams=grams_of(found), moments=found)


def _apply(graph: G, action: Rewrite, step: Step, context: Context) -> tuple[G, list[Edit]]:
    try:
        return action.apply(graph, step.weights, context)
    except Refused as refused:
        if refused.broken:
            raise ModelError("Q410", refused.reason) from refused
        return graph, [Edit("graph", refused.reason, refused=True, layers=step.weights)]


def _context(step: Step, progress: Callable[[str], None] | None = None) -> Context:
    pairs = zip(step.weights, step.encodings, strict=True)
    context = Context(encodings={name: encoding for name, encoding in pairs if encoding is not None})
    return context if progress is None else replace(context, progress=progress)


def _at(tick: Tick, done: int, total: int) -> Callable[[str], None]:
    return lambda what: tick(done, total, what)


def _validate_cleaning(cleaned: Cleaned, trial: Trial) -> RewriteRow:
    start = time.perf_counter()
    runner = cleaned.original()
    difference = compare([runner(batch) for batch in trial.feeds], trial.outputs)
    edits = tuple(Edit("graph", text) for text in cleaned.edits)
    return _cleaning_row(edits, difference, trial, start)


def _clean(graph: G, trial: Trial) -> tuple[G, list[RewriteRow]]:
    """Remove what the rewriting left over; a graph that would lose a weight to an equal one stays as it is."""
    start = time.perf_counter()
    after, edits = Clean().apply(graph, (), Context())
    if not edits or _lost(graph, after):
        return graph, []
    _, difference = trial.run(after)
    return after, [_cleaning_row(tuple(edits), difference, trial, start)]


def _cleaning_row(edits: tuple[Edit, ...], difference: Difference, trial: Trial, start: float) -> RewriteRow:
    if not trial.holds(difference):
        raise QccError([_wrong("`clean`", difference, trial, "")])
    taken = time.perf_counter() - start
    return RewriteRow("clean", edits, difference.error, difference.changed, trial.bound, taken)


def _lost(before: Graph, after: Graph) -> list[str]:
    """The weights that are no more what they were, apart from their numbers."""
    left = {weight.name: (weight.shape, weight.dtype) for weight in after.weights()}
    return [weight.name for weight in before.weights() if left.get(weight.name) != (weight.shape, weight.dtype)]


def _check_weights(before: Graph, after: Graph, action: Rewrite) -> None:
    lost = _lost(before, after)
    if lost:
        message = f"`{action_text(action)}` took the weight `{lost[0]}` away, or changed its shape or type"
        raise QccError([Diagnostic(WRONG, message, help=_advice(action.property))])
    readers = {weight.name: len(weight.layers) for weight in after.weights()}
    for weight in before.weights():
        if readers[weight.name] < len(weight.layers):
            message = f"`{action_text(action)}` took a layer from the weight `{weight.name}`"
            raise QccError([Diagnostic(WRONG, message, help=_advice(action.property))])


def _wrong_site(graph: Graph, action: Rewrite, step: Step, context: Context, row: RewriteRow, trial: Trial) -> QccError:
    """Find the site by which a pass changed the function, in about as many runs as their number has binary digits."""

    def difference(taken: Collection[str]) -> Difference:
        part, _ = _apply(graph, action, step, replace(context, takes=taken.__contains__))
        return trial.run(part)[1]

    subjects = list(dict.fromkeys(edit.subject for edit in row.treated))
    guilty = first_guilty(subjects, lambda taken: not trial.holds(difference(taken)))
    before = subjects[: subjects.index(guilty) + 1]
    alone, together = difference({guilty}), difference(before)
    layers = next(edit.layers for edit in row.treated if edit.subject == guilty)
    note = f"it is about {_listed(layers)}" if layers else None
    if trial.holds(alone):
        note = "; ".join(filter(None, (note, "alone the site does no harm, after those before it does")))
    where = f"`{row.action}`, at its site `{guilty}`,"
    return QccError([_wrong(where, together if trial.holds(alone) else alone, trial, action.property, note)])


def _wrong(where: str, difference: Difference, trial: Trial, owner: str, note: str | None = None) -> Diagnostic:
    if difference.fault:
        what = f"made a model that does not run: {difference.fault}"
    elif difference.error > trial.bound:
        what = f"changed the function: an output is off by {difference.error:.2g} of its largest value"
        what += f", {trial.bound:.2g} is allowed"
    else:
        what = f"changed the function: {difference.changed:.2g} of an output's whole numbers are others"
    return Diagnostic(WRONG, f"{where} {what}", help=_advice(owner), note=note)


def _advice(owner: str) -> str:
    around = f"; `{owner} = off` for these layers goes around it" if owner else ""
    return f"this is a bug in qcc and nothing was written: please report it to its authors{around}"


def _listed(layers: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in layers[:LISTED_LAYERS])
    return shown + (f" and {len(layers) - LISTED_LAYERS} more" if len(layers) > LISTED_LAYERS else "")
