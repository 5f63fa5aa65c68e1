"""Running a plan's rewriting steps: each is run, checked to have kept the function, and told in a row of the report."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic

from qcc.compiler.build.cleaning import Cleaned, clean_up, told, validate_cleaning
from qcc.compiler.build.promises import broken_promise
from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.calibrate.coverage import Told, coverage_of
from qcc.compiler.calibrate.find_masks import find_masks
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.masks import Hiding
from qcc.compiler.calibrate.parts import Parted
from qcc.compiler.calibrate.samples import Samples, generate
from qcc.compiler.observe.asked import float_tokens
from qcc.compiler.observe.observer import Tick
from qcc.compiler.observe.statistics import layer_statistics
from qcc.compiler.plan.plan import Plan, Step
from qcc.compiler.plan.text import action_text
from qcc.compiler.verify.translation import Difference, Outputs, Trial, first_guilty
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.passes.contract.contract import Context, Edit, G, Invariant, Pass, Rewrite, Site, SitePass, Watch
from qcc.passes.contract.moments import Moments, grams_of

SAMPLE = 3  # rows of an input
LEFT_OUT = 6  # sites of a pass; with more it is left out as a whole


@dataclass(frozen=True)
class Rewritten(Generic[G]):
    """A graph after a plan's rewriting steps, with what was done."""

    graph: G
    rows: tuple[RewriteRow, ...]


def rewrite_steps(plan: Plan) -> list[tuple[Rewrite, Step]]:
    """A plan's rewriting steps in order."""
    return [(step.action, step) for step in plan.steps if isinstance(step.action, Rewrite)]


def rewrite_graph(
    graph: G,
    plan: Plan,
    data: Samples,
    cleaned: Cleaned | None = None,
    tick: Tick = lambda *_: None,
    covers: Told = lambda _: None,
) -> Rewritten[G]:
    """Run the rewriting steps of a plan, decided or not, on a cleaned graph.

    A site at which a pass does not keep the function is left out, and told among those refused.

    Args:
        graph: left as it is; if the plan rewrites nothing it is returned.
        plan: whose weights keep their names and shapes.
        data: for Gram matrices, and to validate on beside random data.
        cleaned: what the graph was cleaned from, to be validated as well.
        tick: told of each step and site.
        covers: told what the data covers, before a step that needs it.

    Raises:
        ModelError: a weight is no good, or the model does not run or is another once cleaned.
    """
    steps = rewrite_steps(plan)
    if not steps:
        return Rewritten(graph, ())
    trial = Trial(graph, data)
    rows = [] if cleaned is None else [validate_cleaning(cleaned, trial)]
    current = graph
    for done, (action, step) in enumerate(steps):
        gather = partial(_gathered, current, _by_tokens(step, plan), data, covers)
        current, row = _run(current, action, step, trial, _at(tick, done, len(steps)), gather)
        rows.append(row)
    if current is not graph:
        current, found = clean_up(current, trial)
        rows += found
    return Rewritten(current, tuple(rows))


def prospects(graph: Graph, plan: Plan) -> Iterator[tuple[Step, tuple[Site, ...]]]:
    """Where each step of a plan that a rule asks for would act on a cleaned graph, without data and without validation.

    A step sees what the steps before it did, those apart that need data or change the structure.
    """
    steps = [(step.action, step) for step in plan.steps if isinstance(step.action, SitePass)]
    for action, step in steps:
        yield step, tuple(action.sites(graph, step.weights))
        if isinstance(action, Rewrite) and not _wants_data(action) and step is not steps[-1][1]:
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
    context = gather(_context(step, progress)) if _wants_data(action) else _context(step, progress)
    attempt = _Attempt(graph, action, step, context, trial, _decoding(graph, action, step, context))
    after, row = attempt.best()
    return after, replace(row, seconds=time.perf_counter() - start)


@dataclass
class _Attempt(Generic[G]):
    """Runs a pass, and again without the sites at which it does not keep the function."""

    graph: G
    action: Rewrite
    step: Step
    context: Context
    trial: Trial
    left_out: dict[str, Edit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = self.trial.outputs

    def best(self) -> tuple[G, RewriteRow]:
        """The graph after the pass, as far as it keeps the function, and what was done."""
        for _ in range(LEFT_OUT + 1):
            after, edits = self._apply(lambda _: True)
            treated = [edit for edit in edits if not edit.refused]
            taken = frozenset(edit.subject for edit in treated)
            outputs, found = self._tried(after, taken) if treated else ([], Difference())
            if not treated or self.trial.holds(found):
                break
            self._leave_out(treated)
        else:
            why = "left out: with the sites before it, it does not keep the function"
            rest = [Edit(edit.subject, why, refused=True, layers=edit.layers) for edit in treated]
            self.left_out |= {edit.subject: edit for edit in rest}
            self.trial.outputs = self._before
            return self.graph, self._row([edit for edit in edits if edit.refused], Difference())
        self.trial.outputs = outputs if treated else self._before
        return after, self._row(edits, found)

    def _row(self, edits: Sequence[Edit], found: Difference) -> RewriteRow:
        all_edits = (*edits, *self.left_out.values())
        bound = found.bound if found.error else self.trial.bound
        left = tuple(self.left_out)
        return RewriteRow(action_text(self.action), all_edits, found.error, found.changed, bound, left_out=left)

    def _apply(self, takes: Callable[[str], bool]) -> tuple[G, list[Edit]]:
        def also(subject: str) -> bool:
            return subject not in self.left_out and takes(subject)

        return _apply(self.graph, self.action, self.step, replace(self.context, takes=also))

    def _tried(self, after: G, taken: Collection[str]) -> tuple[Outputs, Difference]:
        """The outputs after the pass at some sites, and how far they are from what they should be."""
        fault = broken_promise(self.graph, after, self.action.keeps)
        if not fault and Invariant.FUNCTION not in self.action.keeps:
            context = replace(self.context, takes=taken.__contains__)
            self.trial.outputs = self._before
            self.trial.outputs, found = self.trial.run(self.action.meant(self.graph, self.step.weights, context))
            fault = found.fault
        return ([], Difference(error=math.inf, fault=fault)) if fault else self.trial.run(after)

    def _difference(self, taken: Collection[str]) -> Difference:
        return self._tried(self._apply(taken.__contains__)[0], taken)[1]

    def _leave_out(self, treated: Sequence[Edit]) -> None:
        """Find the site by which the function changes, in about as many runs as their number has binary digits."""
        subjects = list(dict.fromkeys(edit.subject for edit in treated))
        guilty = first_guilty(subjects, lambda taken: not self.trial.holds(self._difference(taken)))
        found = self._difference(subjects[: subjects.index(guilty) + 1])
        layers = next(edit.layers for edit in treated if edit.subject == guilty)
        self.left_out[guilty] = Edit(guilty, f"left out: with it {told(found)}", refused=True, layers=layers)


def _decoding(graph: Graph, action: Rewrite, step: Step, context: Context) -> dict[str, Edit]:
    """The sites at which a weight that comes compressed, and may stay so, would become floats."""
    given = {weight.name: weight.given.text for weight in graph.weights() if weight.given is not None}
    stay = {name: text for name, text in given.items() if name not in context.encodings}
    found: dict[str, Edit] = {}
    for site in action.sites(graph, step.weights) if stay else ():
        name = next((layer for layer in site.layers if layer in stay), None)
        if name is not None and not site.refused:
            why = f"left out: `{name}`, which comes in {stay[name]}, would become floats"
            found[site.subject] = Edit(site.subject, why, refused=True, layers=site.layers)
    return found


@dataclass(frozen=True)
class _ByTokens:
    """A step's action, and its weights by how many first tokens do not count in statistics of what they read."""

    action: Pass
    weights: Mapping[int, Sequence[str]]


def _by_tokens(step: Step, plan: Plan) -> _ByTokens:
    kept = float_tokens(plan) if step.action.for_values else {}
    found: dict[int, list[str]] = {}
    for name in step.weights:
        found.setdefault(kept.get(name, 0), []).append(name)
    return _ByTokens(step.action, found)


def _wants_data(action: Pass) -> bool:
    """It goes by more than the graph."""
    return action.uses_gram or action.uses_sample or action.uses_largest or action.watches


def _gathered(graph: Graph, asked: _ByTokens, data: Samples, covers: Told, context: Context) -> Context:
    """With statistics of a step's weights, or an input."""
    if asked.action.uses_sample:
        context = replace(context, sample=sample_of(graph, data))
    if asked.action.watches and not data.generated:
        context = replace(context, watch=watching(data))
    found: dict[str, Moments] = {}
    largest: dict[str, Array] = {}
    for leaves, names in sorted(asked.weights.items()) if asked.action.uses_largest else ():
        tick = _named(context.progress)
        largest |= layer_statistics(graph, data, tick, largest=names, leaves=leaves).largest
    context = replace(context, largest=largest)
    if not asked.action.uses_gram:
        return context
    for leaves, names in sorted(asked.weights.items()):
        tick = _named(context.progress)
        found |= layer_statistics(graph, data, tick, moments=names, leaves=leaves).moments
    covers(coverage_of(found))
    return replace(context, grams=grams_of(found), moments=found)


def _named(progress: Callable[[str], None]) -> Tick:
    return lambda *at: progress(at[-1])


def sample_of(graph: Graph, data: Samples) -> Batch:
    """An input whose axes are of different sizes where they may be: generated, or of the data if that does not run."""
    try:
        found = generate(graph, SAMPLE, 0, recipe=data.recipe).batches[0]
        graph.runner(tuple(found), [value.name for value in graph.outputs])(found)
    except ModelError:
        return next(data.first(SAMPLE).parts(SAMPLE))
    return found


def watching(data: Samples) -> Watch:
    """See `contract.Watch`. What a mask hides at the end of a sample is cut off, where nothing looks at it."""
    parted, found = Parted.of(data), list[Hiding]()

    def watch(graph: Graph, names: Sequence[str], held: bool) -> Iterator[dict[str, Array]]:
        runner = graph.runner([value.name for value in graph.inputs], names)
        if not found:
            found.append(find_masks(graph.inputs, runner, data))
        ones = (one for one, other in zip(parted.ones, parted.held, strict=True) if other == held)
        return (runner(found[0].cropped(one)) for one in ones)

    return watch


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
