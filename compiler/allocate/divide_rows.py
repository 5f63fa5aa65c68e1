"""Dividing a budget of rows among caches: what each loses with how many is measured, an integer program chooses.

Texts are run in two halves. What the first leaves behind is kept whole, or of one cache as many rows as it may have,
and what the second half foretells then is compared. Losses of caches add up nearly, as those of weights do.

Source: ScaleKV, Li et al. 2025 (arXiv:2505.19602): budgets by layer, there in two classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from qcc.compiler.allocate.choice.solve import BudgetRow, Problem, solve
from qcc.compiler.build.raise_graph import raise_graph
from qcc.compiler.build.rewrite import sample_of
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.console.phases import Phases
from qcc.compiler.metrics.top_kl import TopKl
from qcc.compiler.observe.observer import Tick
from qcc.compiler.plan.plan import Plan, Step
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


def divided(plan: Plan, model: Model[G], graph: G, data: Samples, diagnostics: Diagnostics, phases: Phases) -> Plan:
    """A plan in which every cache of bounded length has a bound of its own.

    Args:
        plan: as bound.
        model: that the graph is of.
        graph: whose caches they are.
        data: texts.
        diagnostics: told where nothing was measured.
        phases: are told of each cache.

    Raises:
        ModelError: the texts are too short to tell, or the model is none of tokens.
    """
    steps = list[Step]()
    for step in plan.steps:
        action = step.action
        if not isinstance(action, Cache) or not action.divides:
            steps.append(step)
        elif data.generated or len(step.weights) == 1:
            if data.generated:
                message = "without texts nothing tells which caches need most rows: all have the same"
                diagnostics.warning("Q772", message, help='name some: `calibrate "text.npz"`')
            steps.append(replace(step, action=replace(action, share="even")))
        else:
            raised = raise_graph(model, graph, action.opset, data)
            measured = RowLosses.of(raised, graph, action, step.weights, data)
            steps += _own_steps(step, action, measured.chosen(partial(phases.tell, "choose")))
    return replace(plan, steps=tuple(steps))


def _own_steps(step: Step, action: Cache, rows: Sequence[int]) -> list[Step]:
    found: dict[int, list[tuple[str, str]]] = {}
    for pair, count in zip(zip(step.weights, step.sources, strict=True), rows, strict=True):
        found.setdefault(count, []).append(pair)
    return [
        Step(replace(action, budget=count, share="even"), *map(tuple, zip(*pairs, strict=True)))
        for count, pairs in sorted(found.items())
    ]


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
    """

    model: TokenModel
    runner: Runner
    action: Cache
    caches: Sequence[tuple[StoredCache, StoredCache]]
    feeds: Feeds

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
        rows = self._candidates()
        losses = self.losses(rows, tick)
        weight = tuple(np.asarray(rows, np.float64) for _ in losses)
        bound = float(self.action.budget * len(losses))
        found = solve(Problem(tuple(losses), (BudgetRow("rows", weight, bound),)))
        return [rows[at] for at in found.choice]

    def _candidates(self) -> list[int]:
        least, half = self.action.window + self.action.sinks, self.model.count(self.feeds) // 2
        counts = {min(max(round(share * self.action.budget), least), half) for share in SHARES}
        return sorted(counts)

    def losses(self, rows: Sequence[int], tick: Tick) -> list[np.ndarray]:
        """What each cache loses with so many rows, in nats a token; never less with fewer."""
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
        noise, signal = TopKl().powers(wanted, self.runner({**later, **held})[self.model.logits])
        return max(float(noise.sum() / signal.sum()), 0.0)
