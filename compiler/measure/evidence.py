"""What the data says of a model while it is compiled: statistics for the passes, losses for the allocator."""

from collections.abc import Hashable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qcc.compiler.calibrate.coverage import Told, coverage_of
from qcc.compiler.calibrate.parts import held_out
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.console.phases import Phases
from qcc.compiler.measure.fisher.losses import losses_of
from qcc.compiler.measure.levels import LevelMeter, has_levels
from qcc.compiler.measure.march.imitate import imitated, tunables_of
from qcc.compiler.measure.march.in_order import Chosen, asks_for_order, choose_in_order
from qcc.compiler.measure.march.tune_in_order import tune_in_order
from qcc.compiler.measure.march.windows import learn_in_windows
from qcc.compiler.measure.probe import Probe
from qcc.compiler.measure.segments import Chain, cut
from qcc.compiler.measure.sensitivity import MEASURED_SAMPLES, OUTPUT_BYTES, Losses, unmeasured, within
from qcc.compiler.measure.tally import NOISE
from qcc.compiler.metrics.find import additive
from qcc.compiler.metrics.metric import Additive
from qcc.compiler.observe.asked import encodings_of, rounded_values, rounding_of, weights_with_gram
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.observe.kept_weights import KeptParts, KeptWeights
from qcc.compiler.observe.lookups import FoundLookups, find_lookups
from qcc.compiler.observe.statistics import layer_statistics
from qcc.compiler.plan.plan import Allocate, Plan, weight_options
from qcc.compiler.plan.text import to_text
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Reconstruct
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Edit, Rounding
from qcc.passes.contract.magnitudes import Magnitudes, beyond
from qcc.passes.contract.moments import Moments, grams_of, seen_of
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.encode import Encode

KnownWeights = Mapping[str, tuple[Encoded, str]]


@dataclass(frozen=True)
class Evidence:
    """Of one graph under one plan.

    ``moments`` holds the second moments of inputs that the plan's ways of rounding want, by weight name; ``magnitudes``
    those of the values that it rounds, by name.
    """

    graph: Graph
    plan: Plan
    data: Samples
    phases: Phases
    moments: Mapping[str, Moments]
    magnitudes: Mapping[str, Magnitudes]
    advice: MutableMapping[Hashable, tuple[Rounding, str]] = field(default_factory=dict)
    executor: Executor = HERE
    """Where the model is run."""
    stacked: dict[str, Encoded] = field(default_factory=dict)
    """The weights that were last stored as sums."""
    keeps: bool = False
    """What weights are stored as is kept: a bound may fail, or much the same be written again."""
    stored: MutableMapping[str, Encoded] = field(default_factory=dict)
    """All weights that were last stored, where they are kept."""
    lookups: FoundLookups = field(default_factory=FoundLookups)
    """How the rows of tables are looked up."""
    windows: Reconstruct | None = None
    """How weights learn in windows of blocks behind rounding, if they do."""
    learns: str = ""
    """A hash of the model, the data and the policy, by which what windows give is kept on disk."""
    meter: LevelMeter = field(init=False)
    tuning: dict[Plan, str] = field(default_factory=dict)
    """What is told of corrections, by plan."""
    _ordered: dict[Plan, Chosen] = field(default_factory=dict)
    _learned: dict[Plan, tuple[Chosen, str]] = field(default_factory=dict)
    _kept_windows: list[KeptParts] = field(default_factory=list)
    _asked: dict[str, tuple[Encoding, Rounding]] = field(default_factory=dict)
    """How weights were last stored, where each was by itself."""

    def __post_init__(self) -> None:
        judges = held_out(self.data) if self.moments else None
        object.__setattr__(self, "meter", LevelMeter(self.graph, judges or self.data, self.phases.counter("levels")))

    def notes(self, edits: Iterable[Edit]) -> dict[str, str]:
        """What the file says of weights that its bytes do not: what levels of sums are worth, which rows are left."""
        stored = {edit.subject: edit.stored for edit in edits if edit.stored is not None}
        told = {one.name: stored[one.name].note(one.shape) for one in self.graph.weights() if one.name in stored}
        rows = "; ".join(f"{name}: {note}" for name, note in told.items() if note)
        found = {"qcc.rows": rows} if rows else {}
        if not self.stacked:
            return found
        with self.phases.phase("levels"):
            return self.meter.note(self.stacked) | found

    @classmethod
    def of(
        cls,
        graph: Graph,
        plan: Plan,
        data: Samples,
        phases: Phases,
        told: Told,
        executor: Executor = HERE,
        folder: Path = Path(),
        keeps: bool = False,
        run: str = "",
        large: bool = False,
        windows: Reconstruct | None = None,
    ) -> "Evidence":
        """Gather the statistics, and tell what they cover; files of interactions lie in the folder.

        What weights of a ``large`` model become is kept on disk by the ``run``'s hash, and so is what they learn in
        ``windows``.

        Raises:
            ModelError: there is nothing that weights could learn of, or they are not chosen yet.
        """
        if windows is not None:
            check_windows(plan, data)
        keeps = keeps or plan.allocate is not None
        wanted = weights_with_gram(plan, not data.generated)
        rounded = rounded_values(graph, plan)
        lookups = find_lookups(graph, encodings_of(plan), data, folder)
        kept = {"keeps": keeps, "windows": windows, "learns": run} | (_kept(run) if large else {})
        if not wanted and not rounded:
            return cls(graph, plan, data, phases, {}, {}, executor=executor, lookups=lookups, **kept)
        with phases.phase("statistics"):
            tick = partial(phases.tell, "statistics")
            found = layer_statistics(graph, data, tick, moments=wanted, rounded=rounded, executor=executor)
            told(coverage_of(found.moments))
            given = graph, plan, data, phases, found.moments, found.magnitudes
            return cls(*given, executor=executor, lookups=lookups, **kept)

    def forget(self) -> None:
        """The run is whole: nobody goes on with what was kept on disk."""
        for one in (self.stored, *self._kept_windows):
            if isinstance(one, KeptWeights | KeptParts):
                one.remove()

    def warn_of_edits(self, edits: Iterable[Edit], diagnostics: Diagnostics) -> None:
        """Tell of weights that stay as they are, and of tables whose rows were merged."""
        stored: dict[str, Encoding] = {}
        edits = tuple(edits)
        warn_of_others(edits, diagnostics)
        for edit in edits:
            if edit.refused and not edit.what:
                diagnostics.warning(edit.code, f"`{edit.subject}` stays as it is: {edit.text}")
            elif edit.stored is not None:
                stored[edit.subject] = edit.stored
        self.lookups.warn_of_merged(stored, diagnostics)
        self._warn_of_promises(diagnostics)

    def _warn_of_promises(self, diagnostics: Diagnostics) -> None:
        """Tell what a file relies on whose first tokens are promised to be always the same."""
        promised = {how.encoding(form).float_tokens for _, form, how in rounding_of(self.plan) if how.knows_first()}
        if not promised:
            return
        asked = [beyond(*one) for one in rounded_values(self.graph, self.plan).beyond_first if one[1] in promised]
        known = [name for name in asked if self.magnitudes[name].leading is not None]
        if not known:
            message = (
                "no layer reads the same first tokens in all calibration samples: they are multiplied as they come"
            )
            diagnostics.warning("Q671", message, help="without `first = same` the file is the same")
            return
        message = f"what {len(known)} of {len(asked)} values are at the first tokens is stored: "
        message += "the file is right only for inputs that begin as the calibration data does"
        diagnostics.warning("Q670", message)

    def losses(self) -> Losses:
        """What each way to store each open weight costs at the outputs; not measured where it decides nothing.

        Where statistics chose the codes, samples judge that these have not seen.
        """
        allocate = self.plan.allocate
        options = weight_options(self.plan)
        metric = lost_metric(allocate) if allocate is not None and options else None
        if metric is None:
            return unmeasured(options)
        with self.phases.phase("measure"):
            tick = self.phases.counter("measure", len(options))
            judges = held_out(self.data) if self.moments else None
            grams = grams_of(self.moments) if judges is None else seen_of(self.moments)
            lookups = self.lookups.by_weight
            context = Context(
                tick, grams, self.moments, magnitudes=self.magnitudes, advice=self.advice, lookups=lookups
            )
            how = context, metric, self.executor
            if judges is None:
                return self._counted(losses_of(self.graph, options, self.data, *how), context, self.data)
            found = self._counted(losses_of(self.graph, options, judges, *how), context, judges)
            return replace(found, held_out=True)

    def _counted(self, found: Losses, context: Context, data: Samples) -> Losses:
        """With the losses in metrics that count some of the options alone."""
        assert self.plan.allocate is not None
        options, others = self.plan.allocate.options, dict[str, tuple[np.ndarray, ...]]()
        for one in self.plan.allocate.counted:
            lost = dict(zip((option.subject for option in options), found.loss, strict=True))
            if one.metric != found.metric:
                mine = [option for option in options if option.subject in one.subjects]
                losses = losses_of(self.graph, mine, data, context, additive()[one.metric], self.executor).loss
                lost |= dict(zip((option.subject for option in mine), losses, strict=True))
            others[one.metric] = tuple(
                lost[name] if name in one.subjects else np.where(np.isinf(lost[name]), np.inf, 0.0)
                for name in (option.subject for option in options)
            )
        return replace(found, others=others)

    def together(self) -> float:
        """What all weights that were last stored lose together, on the last of the samples that judge.

        Where there are enough of them, these are others than those that told the losses one by one.
        """
        allocate = self.plan.allocate
        metric = lost_metric(allocate) if allocate is not None else None
        assert metric is not None
        judges = (held_out(self.data) if self.moments else None) or self.data
        samples = within(self.graph, judges.last(MEASURED_SAMPLES), MEASURED_SAMPLES, OUTPUT_BYTES)
        weights = {weight.name: weight for weight in self.graph.weights() if weight.name in self.stored}
        with self.phases.phase("compare"):
            probe = Probe(self.graph, Chain(self.graph, cut(self.graph)), samples, metric)
            decoded = {
                one.constant: self.graph.as_constant(one, self.stored[name].decode()) for name, one in weights.items()
            }
            return probe.tally(decoded, sure=0).loss if decoded else 0.0

    def context(self, decided: Plan) -> Context:
        """What the passes of a decided plan need; what stays as the last plan had it is not encoded again."""
        asked = {name: (one.encoding, one.rounding) for one, names in _encodes(decided) for name in names}
        ordered = asks_for_order(decided)
        if isinstance(self.stored, KeptWeights):
            self.stored.begin({} if ordered else asked)
        chosen = self._in_order(decided) if ordered else self._as_before(asked)
        chosen = self._in_windows(decided, chosen)
        for known in (self.stacked, self.stored, self._asked):
            known.clear()
        self._asked.update({} if ordered else asked)

        def stored(name: str, encoded: Encoded) -> None:
            if self.keeps:
                self.stored[name] = encoded
            if has_levels(encoded.encoding):
                self.stacked[name] = encoded

        return Context(
            self.phases.counter("encode", len(asked)),
            grams_of(self.moments),
            self.moments,
            magnitudes=self.magnitudes,
            became=stored,
            advice=self.advice,
            lookups=self.lookups.by_weight,
            chosen=chosen,
        )

    def tuned(self, graph: Graph, decided: Plan, context: Context) -> Context:
        """With the corrections that the plan's steps ask for, if they do, and with what weights are stored as.

        Args:
            graph: before anything is stored.
            decided: the plan.
            context: of its passes.
        """
        found = tunables_of(graph, decided)
        if not found:
            return context
        if self.data.generated:
            self.tuning[decided] = f"none of {len(found)}: no data is given"
            return context
        stored: dict[str, Encoded] = {}
        with self.phases.phase("tune"):
            copy = imitated(graph, decided, replace(context, became=stored.__setitem__))
            tick = self.phases.counter("tune", len(found))
            fits, self.tuning[decided] = tune_in_order(graph, copy, found, self.data, tick)
        why = {name: context.chosen[name][1] if name in context.chosen else "" for name in stored}
        asked = {name: (one.encoding, one.rounding) for one, names in _encodes(decided) for name in names}
        why = {name: text or self.advice.get((name, *asked[name]), (None, ""))[1] for name, text in why.items()}
        return replace(context, tuned=fits, chosen={name: (one, why[name]) for name, one in stored.items()})

    def told_of_tuning(self, decided: Plan) -> tuple[str, ...]:
        """A line, where a plan tunes something."""
        learned = (self._learned[decided][1],) if decided in self._learned else ()
        return (*learned, *((f"tuned {self.tuning[decided]}",) if decided in self.tuning else ()))

    def _in_windows(
        self, decided: Plan, chosen: Mapping[str, tuple[Encoded, str]]
    ) -> Mapping[str, tuple[Encoded, str]]:
        """What weights become that learn in windows; the last answer is remembered."""
        if self.windows is None or not _encodes(decided):
            return chosen
        if decided not in self._learned:
            self._learned.clear()
            with self.phases.phase("learn"):
                tick = self.phases.counter("learn")
                context = Context(
                    tick,
                    grams_of(self.moments),
                    self.moments,
                    advice=self.advice,
                    lookups=self.lookups.by_weight,
                    chosen=chosen,
                )
                self._kept_windows.append(KeptParts(f"{self.learns}\n{to_text(decided)}"))
                how = self.windows, self._kept_windows[-1]
                self._learned[decided] = learn_in_windows(self.graph, decided, self.data, context, *how)
        return self._learned[decided][0]

    def _as_before(self, asked: Mapping[str, tuple[Encoding, Rounding]]) -> Mapping[str, tuple[Encoded, str]]:
        """What weights became under the last plan that are stored in the same way again."""
        if isinstance(self.stored, KeptWeights):
            return self.stored.chosen
        same = [name for name, how in asked.items() if name in self.stored and self._asked.get(name) == how]
        return {name: (self.stored[name], self.advice[name, *asked[name]][1]) for name in same}

    def _in_order(self, decided: Plan) -> Chosen:
        """What weights become that are rounded in order; the last answer is remembered."""
        if not self.moments:
            return {}
        if decided not in self._ordered:
            self._ordered.clear()
            tick = self.phases.counter("encode", sum(len(step.weights) for step in decided.steps))
            context = Context(tick, grams_of(self.moments), self.moments, advice=self.advice)
            context = replace(context, lookups=self.lookups.by_weight)
            self._ordered[decided] = choose_in_order(self.graph, decided, self.data, context)
        return self._ordered[decided]


def _kept(run: str) -> dict[str, Any]:
    """What evidence is made with beside the rest, where weights are kept on disk."""
    advice: dict[Hashable, tuple[Rounding, str]] = {}
    return {"advice": advice, "stored": KeptWeights(run, lambda name, how: advice[name, *how][1]), "keeps": True}


def _encodes(decided: Plan) -> list[tuple[Encode, tuple[str, ...]]]:
    return [(one.action, one.weights) for one in decided.steps if isinstance(one.action, Encode)]


def lost_metric(allocate: Allocate) -> Additive | None:
    """The metric whose losses decide; None where none does.

    Where several count some of the layers each, it is the noise at the outputs, which all have a share in.

    Raises:
        ModelError: several would.
    """
    if allocate.counted:
        return NOISE
    named = (allocate.objective, *(limit.metric for limit in allocate.limits))
    found = list(dict.fromkeys(name for name in named if name in additive()))
    if len(found) > 1:
        help = "bound and minimise one of them; `verify` can hold the model to others"
        raise ModelError("Q641", f"losses are measured in one metric, not in `{found[0]}` and `{found[1]}`", help)
    return additive()[found[0]] if found else None


def check_windows(plan: Plan, data: Samples) -> None:
    """Say no to learning in windows without data, or before it is decided what weights become.

    Raises:
        ModelError: it is so.
    """
    if data.generated:
        raise ModelError(
            "Q673", "`reconstruct` learns from data, and none is given", 'name some: `calibrate "data.npz"`'
        )
    if plan.allocate is not None and plan.allocate.options:
        help = "give each layer one format; `--plan` takes what was decided before"
        name = plan.allocate.options[0].subject
        raise ModelError("Q674", f"`reconstruct` learns formats that are decided, and `{name}` has several", help)


def warn_of_generated_steps(plan: Plan, data: Samples, diagnostics: Diagnostics) -> None:
    """Say so where the steps of activations come from generated data."""
    if data.generated and rounding_of(plan):
        message = "the steps of static activations come from generated data, which the model will hardly see"
        diagnostics.warning("Q434", message, help='name data: `calibrate "data.npz"`')
    learned = {one.learned for step in plan.steps if isinstance(one := step.action, SubjectPass) and one.learns}
    for what in sorted(learned) if data.generated else ():
        message = f"the steps of {what} come from generated data, which the model will hardly see"
        diagnostics.warning("Q692", message, help='name data: `calibrate "data.npz"`')


def warn_of_others(edits: Sequence[Edit], diagnostics: Diagnostics) -> None:
    """Tell of what is no layer and stays as it is, once for each reason."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for one in (edit for edit in edits if edit.refused and edit.what):
        found.setdefault((one.code, one.what, one.text), []).append(one.subject)
    for (code, what, text), names in found.items():
        more = f" and {len(names) - 1} more, each a {what}, stay as they are" if names[1:] else " stays as it is"
        diagnostics.warning(code, f"`{names[0]}`{more}: {text}")
