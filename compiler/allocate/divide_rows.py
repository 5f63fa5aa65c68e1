"""Dividing a budget of rows among caches: what each loses with how many is measured, an integer program chooses.

Texts are run in two halves. What the first leaves behind is kept whole, or of one cache as many rows as it may have,
and what the second half foretells then is compared. Losses of caches add up nearly, as those of weights do.

Source: ScaleKV, Li et al. 2025 (arXiv:2505.19602): budgets by layer, there in two classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from qcc.compiler.allocate.choice.solve import BudgetRow, Problem, solve
from qcc.compiler.build.raise_graph import raise_graph
from qcc.compiler.build.rewrite import sample_of
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.console.phases import Phases
from qcc.compiler.metrics.find import additive
from qcc.compiler.metrics.metric import Additive
from qcc.compiler.metrics.top_kl import TopKl
from qcc.compiler.observe.observer import Tick
from qcc.compiler.plan.costs import ROWS, Meter, subject_costs
from qcc.compiler.plan.plan import Candidate, Limit, OpenChoice, Plan, Step
from qcc.compiler.sequence.states import TokenModel, token_model
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.ir.attention.find import cache_sets
from qcc.ir.encoding.cached.kept import KeptRows
from qcc.ir.encoding.cached.stored import StoredCache, coded
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Feeds
from qcc.ir.model.model import Model
from qcc.passes.cache.cache import Cache
from qcc.passes.contract.contract import Context, Edit, G

TEXTS = 2
SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the average, that a cache may have
EVEN = "write `share = even`"
ALL = 1 << 30  # rows, more than any text has


def divided(
    plan: Plan, model: Model[G], graph: G, data: Samples, told: tuple[Diagnostics, Phases], meters: Sequence[Meter] = ()
) -> Plan:
    """A plan in which every cache of bounded length has a bound of its own, or several to choose from.

    Where a bound counts caches and a loss is minimised, rows are chosen with all that is open, formats and weights; a
    limit holds the budget of each rule. Else they are divided by a program of their own, which would choose the same.

    Args:
        plan: as bound.
        model: that the graph is of.
        graph: whose caches they are.
        data: texts.
        told: where nothing was measured, and of each cache.
        meters: of the rows that the policy asks for.

    Raises:
        ModelError: the texts are too short to tell, or the model is none of tokens.
    """
    ruled = [*_ruled(plan)]
    if not ruled:
        return plan
    divider = _Divider(plan, model, graph, data, *told, meters)
    for one in ruled:
        divider.divide(one)
    return divider.plan


@dataclass(frozen=True)
class _Ruled:
    """Caches of one rule whose rows are to be divided: their names, who asked, and the formats that they may have."""

    rows: tuple[tuple[str, str], ...]
    actions: tuple[Cache, ...]
    step: Step | None = None

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.rows]


def _ruled(plan: Plan) -> Iterator[_Ruled]:
    for step in plan.steps:
        if isinstance(step.action, Cache) and step.action.divides:
            yield _Ruled(tuple(zip(step.weights, step.sources, strict=True)), (step.action,), step)
    found: dict[tuple[Cache, ...], list[tuple[str, str]]] = {}
    for option in plan.allocate.options if plan.allocate else ():
        actions = tuple(one.action for one in option.candidates if isinstance(one.action, Cache) and one.action.divides)
        if actions:
            found.setdefault(actions, []).append((option.subject, option.candidates[0].source))
    for actions, rows in found.items():
        yield _Ruled(tuple(rows), actions)


@dataclass
class _Divider:
    """Divides rule by rule."""

    plan: Plan
    model: Model[Any]
    graph: Graph
    data: Samples
    diagnostics: Diagnostics
    phases: Phases
    meters: Sequence[Meter]

    def divide(self, one: _Ruled) -> None:
        """The rows of the caches of a rule."""
        counts = self._counts(one)
        steps, options = dict[Cache, list[tuple[str, str]]](), dict[str, OpenChoice]()
        row = f"{ROWS}.{sum(limit.metric.startswith(ROWS) for limit in self._limits)}"
        for (name, source), mine in zip(one.rows, counts, strict=True):
            ways = [replace(action, budget=count, share="even") for action in one.actions for count in mine]
            if len(ways) == 1:
                steps.setdefault(ways[0], []).append((name, source))
                continue
            costs = [
                subject_costs(name, way, self.meters) | ({row: float(way.budget)} if mine[1:] else {}) for way in ways
            ]
            options[name] = OpenChoice(name, tuple(Candidate(*each) for each in zip(ways, repeat(source), costs)))
        made = [
            Step(action, *map(tuple, zip(*rows, strict=True))) for action, rows in sorted(steps.items(), key=_rows_of)
        ]
        self._put(one, made, options)
        if any(mine[1:] for mine in counts):
            average = one.actions[0].budget
            self._limit(Limit(row, float(average * len(one.rows)), f"budget = {average}"))

    @property
    def _limits(self) -> tuple[Limit, ...]:
        return self.plan.allocate.limits if self.plan.allocate else ()

    def _counts(self, one: _Ruled) -> list[list[int]]:
        """How many rows each cache may have."""
        action, together = one.actions[0], self._together
        if self.data.generated:
            message = "without texts nothing tells which caches need most rows: all have the same"
            self.diagnostics.warning("Q772", message, help='name some: `calibrate "text.npz"`')
        if self.data.generated or (len(one.rows) == 1 and not together):
            return [[action.budget]] * len(one.rows)
        raised = raise_graph(self.model, self.graph, action.opset, self.data)
        measured = RowLosses.of(raised, self.graph, action, one.names, self.data)
        if together:
            return [measured.candidates()] * len(one.rows)
        return [[count] for count in measured.chosen(partial(self.phases.tell, "choose"))]

    @property
    def _together(self) -> bool:
        """A bound counts caches beside the budget of their rule, and losses decide."""
        minimised = self.plan.allocate.objective if self.plan.allocate else ""
        seen = {meter.name for meter in self.meters if meter.subjects}
        return any(limit.metric in seen for limit in self._limits) and minimised in additive()

    def _put(self, one: _Ruled, made: Sequence[Step], options: Mapping[str, OpenChoice]) -> None:
        """In the place of what was bound."""
        steps = [new for step in self.plan.steps for new in (made if step is one.step else (step,))]
        allocate = self.plan.allocate
        if allocate is not None:
            left = [options.get(old.subject, old) for old in allocate.options]
            known = {old.subject for old in allocate.options}
            left += [new for name, new in options.items() if name not in known]
            opened = [name for name in options if name not in known]
            fixed = dict(allocate.fixed)
            for meter in self.meters:
                fixed[meter.name] = max(
                    fixed[meter.name] - sum(meter.subject(name, one.actions[0]) for name in opened), 0.0
                )
            allocate = replace(allocate, options=tuple(left), fixed=fixed)
        self.plan = replace(self.plan, steps=tuple(steps), allocate=allocate)

    def _limit(self, limit: Limit) -> None:
        assert self.plan.allocate is not None
        self.plan = replace(self.plan, allocate=replace(self.plan.allocate, limits=(*self._limits, limit)))


def _rows_of(pair: tuple[Cache, object]) -> int:
    return pair[0].budget


def shortened(plan: Plan, edits: Sequence[Edit], graph: Graph) -> frozenset[str]:
    """The outputs of a graph that hold fewer rows under a plan, so that nothing compares them row by row."""
    refused = {edit.subject for edit in edits if edit.refused}
    sets = cache_sets(graph) if any(isinstance(step.action, Cache) for step in plan.steps) else {}
    names = [
        name for step in plan.steps if isinstance(step.action, Cache) and step.action.budget for name in step.weights
    ]
    return frozenset(present for name in names if name in sets and name not in refused for _, present in sets[name])


@dataclass(frozen=True)
class RowLosses:
    """Runs a model with one cache shortened.

    Args:
        model: what it takes and gives.
        runner: of the graph in which no row goes, and places and scores are told.
        action: that shortens caches.
        caches: keys and values of each.
        feeds: of all tokens of some texts.
        metric: in which the logits of the second half are compared.
    """

    model: TokenModel
    runner: Runner
    action: Cache
    caches: Sequence[tuple[StoredCache, StoredCache]]
    feeds: Feeds
    metric: Additive = field(default_factory=TopKl)

    @classmethod
    def of(cls, raised: Graph, graph: Graph, action: Cache, names: Sequence[str], data: Samples) -> "RowLosses":
        """What runs a graph, ``raised`` to the opset that it takes.

        Raises:
            ModelError: it is none of tokens, or cannot be shortened.
        """
        whole = replace(action, keys=None, values=None, budget=ALL, share="even")
        open_graph, edits = whole.apply(raised, names, Context(sample=sample_of(raised, data)))
        refused = {edit.subject: edit.text for edit in edits if edit.refused}
        sets, kept = cache_sets(graph), whole.kept
        pairs = [sets[name] for name in names if name in sets and name not in refused]
        caches = [tuple(StoredCache(*one, None, kept, at == 0) for at, one in enumerate(pair)) for pair in pairs]
        feeds = next(data.first(TEXTS).parts(TEXTS))
        names_of = [value.name for value in graph.inputs], [value.name for value in graph.outputs]
        model = token_model(graph, graph.runner(*names_of), next(data.first(1).parts(1)))
        if refused or model is None:
            why = next((f"`{name}`: {text}" for name, text in refused.items()), "it is none of tokens")
            raise ModelError(
                "Q771", f"what caches lose with fewer rows cannot be told: {why}", help="write `share = even`"
            )
        half = model.count(feeds) // 2
        if half <= action.budget:
            message = f"half of {model.count(feeds)} tokens of a text do not exceed a budget of {action.budget} rows"
            raise ModelError(
                "Q771", message, help="calibrate with texts of four times as many tokens, or write `share = even`"
            )
        runner = open_graph.runner(
            [value.name for value in open_graph.inputs], [value.name for value in open_graph.outputs]
        )
        return cls(model, runner, action, [(one[0], one[1]) for one in caches], feeds)

    def chosen(self, tick: Tick) -> list[int]:
        """How many rows each cache may have, the average within the budget."""
        rows = self.candidates()
        losses = self.losses(rows, tick)
        weight = tuple(np.asarray(rows, np.float64) for _ in losses)
        bound = float(self.action.budget * len(losses))
        found = solve(Problem(tuple(losses), (BudgetRow("rows", weight, bound),)))
        return [rows[at] for at in found.choice]

    def candidates(self) -> list[int]:
        """How many rows a cache may have."""
        least, half = self.action.window + self.action.sinks, self.model.count(self.feeds) // 2
        counts = {min(max(round(share * self.action.budget), least), half) for share in SHARES}
        return sorted(counts)

    def losses(self, rows: Sequence[int], tick: Tick) -> list[np.ndarray]:
        """What each cache loses with so many rows, in nats a token or as the metric has it; never less with fewer."""
        half, count = self.model.count(self.feeds) // 2, self.model.count(self.feeds)
        begun = coded(
            [one for pair in self.caches for one in pair], {name: self.feeds[name] for name in self.model.caches}
        )
        past = int(next(iter(self.feeds[name] for name in self.model.caches)).shape[2])
        made = self.runner({**self.model.cut(self.feeds, 0, half, past), **begun})
        held = {name: made[given] for name, given in self._back().items()}
        later = self.model.cut(self.feeds, half, count, past)
        wanted = self.runner({**later, **held})[self.model.logits]
        found = []
        for at, pair in enumerate(self.caches):
            tick(at, len(self.caches), pair[0].past)
            losses = [self._loss(later, {**held, **self._cut(pair, held, count)}, wanted) for count in rows]
            found.append(np.maximum.accumulate(np.array(losses)[::-1])[::-1])
        return found

    def _back(self) -> dict[str, str]:
        """The output that each input is fed back from."""
        found = dict(self.model.caches)
        for one in (one for pair in self.caches for one in pair):
            fed, given = one.part_names(one.past), one.part_names(one.present)
            found |= {name: given[part] for part, name in fed.items()}
        return found

    def _cut(self, pair: tuple[StoredCache, StoredCache], held: Mapping[str, Array], count: int) -> dict[str, Array]:
        """A cache with so many rows."""
        names = pair[0].part_names(pair[0].past)
        kept = KeptRows(count, self.action.window, self.action.sinks)
        stay = kept.chosen(held[names["places"]], held[names["scores"]])
        rows = {one.past: np.take_along_axis(held[one.past], stay[..., None], 2) for one in pair}
        return rows | {names[one]: np.take_along_axis(held[names[one]], stay, -1) for one in ("places", "scores")}

    def _loss(self, later: Feeds, held: Mapping[str, Array], wanted: Array) -> float:
        if all(held[name].shape[2] == self.model.count(self.feeds) // 2 for name in self.model.caches):
            return 0.0  # no row is gone
        made = self.runner({**later, **held})[self.model.logits]
        noise, signal = self.metric.powers(*(one.astype(np.float64) for one in (wanted, made)))
        return max(float(noise.sum() / signal.sum()), 0.0)
