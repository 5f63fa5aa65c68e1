"""Writing the file of a plan: what is open is decided, the graph raised and encoded, its file told where it is from."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from qcc.compiler.allocate.cache_losses import CacheMeasurer, see_kept
from qcc.compiler.allocate.copied import copied, copies
from qcc.compiler.allocate.settle import Settled, settle
from qcc.compiler.build import run as build
from qcc.compiler.build.raise_graph import needed_opset, raise_graph
from qcc.compiler.build.rewrite import sample_of, watching
from qcc.compiler.calibrate.parts import held_out
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.console.phases import Phases
from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.measure.evidence import Evidence
from qcc.compiler.measure.half_ops import half_ops, in_own_numbers
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.measure.timing import race
from qcc.compiler.plan.plan import Plan
from qcc.compiler.plan.policy import export_of
from qcc.compiler.plan.targets import target_of
from qcc.compiler.report import lock
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.forms.find import forms
from qcc.ir.graph import in_pieces
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph
from qcc.ir.model.model import Written
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.half.half import Half


@dataclass(frozen=True)
class PlanWriter:
    """Writes files of a graph that is rewritten, as plans say.

    Args:
        source: the model's file.
        policy: what is asked for.
        file: the model as it was opened.
        graph: to encode.
        data: to compare on where the opset is raised.
        evidence: what the data says of the graph.
        phases: are told of long work.
        changed: the graph computes or holds other things than the file, so that its own size is no measure.
    """

    source: Path
    policy: Policy
    file: OpenModel
    graph: Graph
    data: Samples
    evidence: Evidence
    phases: Phases
    changed: bool
    _raised: dict[int, Graph] = field(default_factory=dict)
    _lost: dict[tuple[int, Half], Mapping[str, str]] = field(default_factory=dict)
    _found: dict[Hashable, object] = field(default_factory=dict)

    def settled(self, plan: Plan, path: Path, diagnostics: Diagnostics) -> Settled:
        """Decide what is open of a plan and write the file; a copy of the model where it gets no smaller.

        Raises:
            BudgetError: the budget is infeasible.
            ModelError: a pass refuses a weight, or the place cannot be written to.
        """
        found = None
        if not copies(plan):
            losses = partial(self._losses, plan)
            found = settle(plan, lambda one: self._write(one, path), losses, self.evidence.together)
        if found is not None:
            see_kept(self.policy, found.plan, found.built.edits)
        self.evidence.warn_of_edits(found.built.edits if found else (), diagnostics)
        if found is None or (found.written.size_bytes >= self.file.size_bytes and not self.changed):
            diagnostics.warning("Q430", f"`{self.source}` gets no smaller: the output is a copy of it")
            return copied(self.file.model, self.graph, found.plan if found else plan, path)
        return found

    def _losses(self, plan: Plan) -> Losses:
        """Of all that is open: of weights, and beside them of caches."""
        judges = (held_out(self.data) if self.evidence.moments else None) or self.data
        measurer = CacheMeasurer(self.file.model, self.graph, self.data, judges, self.phases)
        return measurer.beside(plan, self.evidence.losses())

    def _write(self, decided: Plan, path: Path) -> tuple[build.Built[Graph], Written]:
        """The file of a decided plan, and what the passes did."""
        export = export_of(self.policy)
        raised = self._at_opset(decided, export.opset or 0)
        parts = path.with_suffix(".parts")
        if self.file.size_bytes > in_pieces.LARGE_BYTES:
            raised.spill(parts)
        try:
            return self._encoded(raised, decided, path)
        finally:
            parts.unlink(missing_ok=True)

    def _encoded(self, raised: Graph, decided: Plan, path: Path) -> tuple[build.Built[Graph], Written]:
        export = export_of(self.policy)
        halves = self._halves(raised, decided)
        with self.phases.phase("encode"):
            context = replace(self.evidence.context(decided), halves=halves, found=self._found)
            if any(step.action.uses_sample for step in decided.steps if isinstance(step.action, SubjectPass)):
                watch = watching(self.data)
                context = replace(context, sample=sample_of(raised, self.data), watch=watch, race=race)
                context = replace(context, form=self._form())
            built = build.run_plan(raised, decided, self.evidence.tuned(raised, decided, context))
        notes = lock.provenance(self.source, self.policy, decided) | self.evidence.notes(built.edits)
        most = self.file.size_bytes if self.changed else None
        written = build.write(self.file.model, built, path, export, notes, most)
        self._check(path)
        return replace(built, edits=self.evidence.meter.shortened(built.edits, written.levels)), written

    def _form(self) -> Form | None:
        """The target's own, in which it multiplies integers."""
        named = target_of(self.policy).rounding_forms(self.policy.target.arguments)
        return next((forms()[name] for name in sorted(named)), None)

    def _check(self, path: Path) -> None:
        """See that the target takes the file."""
        wrong = target_of(self.policy).faults(self.policy.target.arguments, path)
        if wrong:
            target = f"{self.policy.target.name}({', '.join(self.policy.target.arguments)})"
            others = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            help = "write `activations = static` for what is to run as integers, and leave other layers float"
            raise ModelError("Q662", f"the file is not as `{target}` takes it: {wrong[0]}{others}", help=help)

    def _halves(self, raised: Graph, decided: Plan) -> Mapping[str, str]:
        """Which ops cannot compute in half, where a plan asks for that; found out once for each graph."""
        step = decided.half
        if step is None:
            return {}
        key = id(raised), step
        if key not in self._lost:
            with self.phases.phase("half"):
                self._lost[key] = half_ops(raised, step, self.data, self.phases.counter("half"))
        return {**self._lost[key], **in_own_numbers(raised, decided)}

    def _at_opset(self, decided: Plan, least: int) -> Graph:
        """The graph at the opset that a plan needs, raised once."""
        opset = max(needed_opset(self.graph, decided), least)
        if opset not in self._raised:
            with self.phases.phase("raise"):
                self._raised[opset] = raise_graph(self.file.model, self.graph, opset, self.data)
        return self._raised[opset]
