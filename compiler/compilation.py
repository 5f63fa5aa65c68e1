"""One compilation, stage by stage: opened, bound, rewritten, encoded, verified, timed, published."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from qcc.compiler.adapters.adapted import adapter_sources
from qcc.compiler.allocate.copied import copies
from qcc.compiler.allocate.divide_rows import divided, shortened
from qcc.compiler.allocate.fall_back import FallBack, Made
from qcc.compiler.allocate.settle import Settled, allocation_of, loss_of, predicted_seconds
from qcc.compiler.allocate.tighten import foreseen, see_budget, tightened
from qcc.compiler.allocate.write_plan import PlanWriter
from qcc.compiler.build.cleaning import Cleaned
from qcc.compiler.build.open_adapted import open_adapted
from qcc.compiler.build.rewrite import rewrite_graph, rewrite_steps
from qcc.compiler.calibrate.samples import Data, Samples
from qcc.compiler.calibrate.sources.source import DataSource
from qcc.compiler.console.phases import Phases, Progress
from qcc.compiler.files.check_outputs import check_lock, check_model, check_outputs, input_files, output_files
from qcc.compiler.files.inputs import Inputs, state_of
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.files.publish import staging
from qcc.compiler.files.staging import output_path
from qcc.compiler.first_phases import run_first_phases, tell_rewritten
from qcc.compiler.judge.blame import blamed
from qcc.compiler.judge.judge import Judge
from qcc.compiler.judge.prepare import Given, drop_bounds, judge_of
from qcc.compiler.measure.choose_form import FormChooser, chooser_of, yields
from qcc.compiler.measure.compete import faster_plan, warn_if_slower, warn_of_no_library
from qcc.compiler.measure.evidence import Evidence, warn_of_generated_steps
from qcc.compiler.measure.most_lost import most_lost
from qcc.compiler.measure.time_model import ModelTimes, time_models
from qcc.compiler.model_in_work import ModelInWork
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.plan.bind import Earlier, bind, opened_by_data
from qcc.compiler.plan.costs import Meter, by_clock, latency_threads
from qcc.compiler.plan.plan import Plan, PlanFile
from qcc.compiler.plan.policy import export_of
from qcc.compiler.plan.targets import runtime_chooser, target_of
from qcc.compiler.repeat import check_plan, folder_of, tell_differences
from qcc.compiler.report import layer_rows
from qcc.compiler.report.budget import compare_with_budget
from qcc.compiler.report.covered import Covered
from qcc.compiler.report.lock import Lock
from qcc.compiler.report.publish_result import packed, publish_failed, publish_result
from qcc.compiler.report.reach import reach
from qcc.compiler.report.result import Result
from qcc.compiler.row_meters import row_meters
from qcc.compiler.runtime.build_kernels import runs_here, warn_of_no_ops
from qcc.compiler.runtime.count_served import build_counted
from qcc.compiler.runtime.half_served import half_lines, on_device, stand_in, widened_ops
from qcc.compiler.scores.check import DROP
from qcc.compiler.sequence.one_step import step_samples
from qcc.compiler.steps.loop_data import loop_and_data
from qcc.compiler.steps.sampling import Sampling, apart
from qcc.compiler.verify.outputs import Verification
from qcc.compiler.verify.verifier import Verifier
from qcc.compiler.work.taken import taken
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Policy
from qcc.ir.forms.choose import Chooser
from qcc.ir.graph.graph import Graph
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.passes.encode import Encode

OF_A_FILE = "Q321", "Q324", "Q362", "Q363", "Q411", "Q430"  # warnings about what was written, until it is anew


@dataclass
class Compilation:
    """One run, with what it has found so far.

    Args:
        model: the file.
        output: the file to write.
        policy: what is asked for.
        data: calibration data, instead of what the policy names.
        phases: are told of long work.
        dims: extents of free axes of generated data.
        keep_failed: a file that fails its bounds is kept, under another name.
        read: the files that are read, beside the model's.
        executor: where independent work is done.
        evaluate: what scores a model, where bounds name a score.
        energy: a file of energies in place of the table that ships.
    """

    model: Path
    output: Path
    policy: Policy
    data: Data | None
    phases: Phases
    dims: Mapping[str, int] = field(default_factory=dict)
    keep_failed: bool = False
    read: tuple[Path, ...] = ()
    executor: Executor = HERE
    evaluate: Given | None = None
    energy: Path | None = None
    told: tuple[str, ...] = ()  # of what was decided before
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    chooser: Chooser = field(init=False)
    meters: tuple[Meter, ...] = ()  # of rows that the policy asks for
    runs_here: bool = False  # the kernels can be run on this machine
    covered: Covered = field(default_factory=Covered)
    evidence: Evidence | None = None  # what the data says of the rewritten model
    judge: Judge | None = None  # what scores written models, where bounds name a score
    sampling: Sampling | None = None  # the loop that the model is run in, where the policy names one

    def __post_init__(self) -> None:
        self.policy = apart(self.policy)
        self.chooser, self._target = runtime_chooser(self.policy), target_of(self.policy)

    @classmethod
    def prepare(
        cls,
        model: Path,
        policy: Policy,
        output: str | Path | None,
        data: Data | None,
        dims: Mapping[str, int] | None,
        progress: Progress,
        keep_failed: bool = False,
        executor: Executor = HERE,
        evaluate: Given | None = None,
        energy: Path | None = None,
    ) -> Self:
        """A run that may begin: what it reads is no file that it writes.

        Raises:
            ModelError: a place cannot be written to, or is read as well.
        """
        target = output_path(model, output)
        calibrate = policy.calibrate.path if policy.calibrate else None
        adapters = (path for one in adapter_sources(policy) for _, path in one.files)
        given = data.path if isinstance(data, DataSource) else data
        loop = policy.sampler.path if policy.sampler else None
        read = input_files(
            [*(source.path for source in policy.sources), calibrate, given, evaluate, energy, loop, *adapters]
        )
        check_model(model, target, keep_failed, read)
        told = Phases(progress), dims or {}, keep_failed, tuple(read), executor, evaluate, energy
        return cls(model, target, policy, data, *told)

    def run(self, plan: Plan | PlanFile | None) -> Result:
        """All of it, under a plan if one is given.

        Raises:
            QccError: the policy, the model, the data or the plan is at fault.
        """
        opened = self.open(plan)
        verifier = self._verifier(opened)
        before, opened = opened.graph, self.rewritten(opened)
        with staging(self.output) as folder:
            staged = folder / self.output.name
            back = self._fall_back(opened, plan)
            settled, library, verification = self._held(opened, staged, verifier, before, back)
            times = self._time(opened, settled, staged, library) if verification.passed else None
            better = None if plan or times is None else self._faster(opened, settled, (staged, library), times)
            if better is not None:
                other = replace(opened, plan=better)
                made, library, verification = self._held(other, staged, verifier, before, back)
                settled = replace(made, decision=settled.decision, losses=settled.losses)
                times = self._time(other, settled, staged, library)
            back.tell(verification, self.diagnostics)
            see_budget((settled, library, verification), self.policy.budget)
            forms_timed = isinstance(self.chooser, FormChooser) and self.chooser.kernels is not None
            warn_if_slower(times, forms_timed, self.diagnostics)
            verification = self._located(opened, (settled, library, verification), verifier)
            compare_with_budget(opened.plan, verification, times, self.diagnostics)
            result = replace(self._result(opened, settled, verification), times=times)
            result = replace(result, kernels=kernels_beside(self.output) if library else None)
            if verification.passed and export_of(self.policy).entropy:
                with self.phases.phase("pack"):
                    result = packed(result, staged, settled.written)
            looked_up = self.evidence.lookups.files if self.evidence else ()
            used = self.policy, opened.data, replace(opened.inputs, interactions=looked_up), staged
            if verification.passed:
                publish_result(result, *used, settled.written)
            elif self.keep_failed:
                result = publish_failed(result, *used, opened.file.model.copy)
            if self.evidence is not None:
                self.evidence.forget()
        return result

    def _fall_back(self, opened: ModelInWork, plan: Plan | PlanFile | None) -> FallBack:
        """What weights may become where bounds fail; a given plan is carried out as it is."""
        policy = self.policy if plan is None else replace(self.policy, rules=())
        given = not opened.data.generated
        return FallBack.of(policy, opened.graph.weights(), self.chooser, given, opened.plan.most_bytes)

    def _held(self, opened: ModelInWork, staged: Path, verifier: Verifier, before: Graph, back: FallBack) -> Made:
        """The model made, and made again where its bounds fail and rules say what to fall back to."""
        made = self._made(opened, staged, verifier, before)
        if copies(made[0].plan):
            return made

        def make(plan: Plan) -> Made:
            self.diagnostics.forget(OF_A_FILE)
            return self._made(replace(opened, plan=plan), staged, verifier, before)

        made = tightened(opened.plan, made, make)
        locate = partial(self._located, opened, verifier=verifier)
        return back.until_held(made, locate, make)

    def _made(self, opened: ModelInWork, staged: Path, verifier: Verifier, before: Graph) -> Made:
        """The model and its library, written and verified."""
        settled = self._build(opened, staged)
        library = self._library(settled.plan, settled.built.ops, staged) if opened.file.model.timed else None
        weights = [n for one in settled.plan.steps if isinstance(one.action, Encode) for n in one.weights]
        changed = weights, shortened(settled.plan, settled.built.edits, before)
        with self.phases.phase("verify"):
            runner = partial(opened.file.model.runner, staged, providers=self._target.providers)
            kernels = partial(runner, library) if library and self.runs_here else None
            half, other = settled.plan.half, ""
            if half is not None and not on_device(self._target.providers):
                runner, other = partial(opened.file.model.emulation, staged), stand_in(half)
            verification = replace(verifier.verify(runner, kernels, before, *changed), stand_in=other)
        if self.sampling is not None:
            with self.phases.phase("sample"):
                opens = partial(opened.file.model.runner, library=library if kernels else None)
                verification = self.sampling.added(verification, staged, opens)
        if self.judge is not None:
            with self.phases.phase("judge"):
                verification = self.judge.added(verification, runner, kernels)
        return settled, library, verification

    def _verifier(self, opened: ModelInWork) -> Verifier:
        """What holds written models to the original, on data that is given or generated."""
        bounds = [bound for bound in self.policy.verify if bound.metric != DROP]
        with self.phases.phase("reference"):
            found = Verifier(opened.file.model.reference, opened.data, bounds, self.diagnostics, self.executor)
            found.see_finite(opened.graph)
        return found

    def _located(self, opened: ModelInWork, made: Made, verifier: Verifier) -> Verification:
        """The verification; where it failed, with the weights that lose most."""
        settled, _, verification = made
        if verification.passed or verification.losers or opened.large:
            return verification
        names = {name for step in settled.plan.steps if isinstance(step.action, Encode) for name in step.weights}
        stored = self.evidence.stored.items() if self.evidence is not None else ()
        encoded = {name: one for name, one in stored if name in names}
        data, tick = verifier.reference.samples, self.phases.counter("locate")
        lost = not all(check.passed for check in verification.scores)
        with self.phases.phase("locate"):
            found = blamed(self.judge, opened.graph, encoded, tick) if self.judge is not None and lost else ()
            return replace(verification, losers=found or most_lost(opened.graph, encoded, data, tick))

    def _faster(
        self, opened: ModelInWork, settled: Settled, made: tuple[Path, Path | None], times: ModelTimes
    ) -> Plan | None:
        """The plan that takes the place of a slow one, where the target is the machine at hand."""
        files = self.model, *made
        if not yields(self.chooser, self.policy):
            return None

        def write(plan: Plan, path: Path) -> Path:
            return self._build(replace(opened, plan=plan), path).written.path

        weights = {weight.name: weight for weight in opened.graph.weights()}
        with self.phases.phase("time"):
            better = faster_plan(settled.plan, weights, times, files, write, opened.timed, self._target.providers)
        if better is not None and made[1] is not None:
            warn_of_no_library(times, self.diagnostics)
        return better

    def _time(self, opened: ModelInWork, settled: Settled, staged: Path, library: Path | None) -> ModelTimes | None:
        """Time the written model against the input; what was predicted, where speed is what the policy is after."""
        if opened.large or copies(settled.plan) or not opened.file.model.timed or not runs_here(self._target):
            return None
        if settled.plan.half is not None and widened_ops(settled.written, self._target.providers) is None:
            return None  # the runtime has no such ops here
        predicted = predicted_seconds(opened.plan, settled) if by_clock(self.policy) else None
        with self.phases.phase("time"):
            files, threads = (self.model, staged, library if self.runs_here else None), latency_threads(self.policy)
            return time_models(files, opened.timed, predicted, self._target.providers, opened.small, threads)

    def _library(self, plan: Plan, ops: Collection[KernelOp], staged: Path) -> Path | None:
        """Make the kernels that the written model calls, beside it."""
        if plan.kernels is None:
            return None
        if not ops:
            warn_of_no_ops(self.diagnostics, isinstance(self.chooser, FormChooser) and self.chooser.timings is not None)
            return None
        with self.phases.phase("kernels"):
            build_counted(ops, plan.kernels, kernels_beside(staged))
        self.runs_here = runs_here(plan.kernels.of, plan.kernels)
        return kernels_beside(staged)

    def decide(self, plan: Plan | PlanFile | None) -> Settled:
        """What `run` decides, which is not verified; the file that it takes to decide is left to the caller."""
        opened = self.open(plan)
        if self.judge is None or opened.plan.decided:
            return self._build(self.rewritten(opened), self.output)
        verifier = self._verifier(opened)
        before, opened = opened.graph, self.rewritten(opened)
        made = self._held(opened, self.output, verifier, before, self._fall_back(opened, plan))
        see_budget(made, self.policy.budget)
        return made[0]

    def open(self, plan: Plan | PlanFile | None) -> ModelInWork:
        """The model, cleaned, cut where that is asked for, and bound to a plan."""
        with self.phases.phase("load"):
            before, export = state_of(self.model), export_of(self.policy)
            opened = open_adapted(self.model, self.policy)
            opened.model.check_place(self.output, export.external_data, export.trim is not None)
            inputs = Inputs.of(self.model, opened.model.data_files, before, folder_of(plan, self.policy))
            inputs = inputs.with_more(file for one in adapter_sources(self.policy) for file in one.files)
            check_outputs(output_files(self.output, self.keep_failed), (file.path for file in inputs.data))
        self.sampling, data = loop_and_data(self.policy, self.data, opened, self.dims, self.phases)
        found = data, opened.graph, opened.model.reference, self.diagnostics
        self.judge, data = judge_of(self.policy, self.evaluate, self.data, *found)
        if isinstance(plan, Lock):
            tell_differences(plan, inputs, data, self.diagnostics)
        if isinstance(plan, PlanFile):
            check_lock(self.output, self.keep_failed, plan.path)
            plan = plan.plan
        told = self.phases, self.diagnostics
        done, earlier = run_first_phases(opened, plan or self.policy, data, *told, bool(self.policy.verify))
        graph = done.graph
        if plan is not None:
            check_plan(plan, graph, self.model)
        bound = plan or foreseen(self._bind(graph, data, opened, earlier), drop_bounds(self.policy))
        self.diagnostics.raise_if_errors()
        warn_of_generated_steps(bound, data, self.diagnostics)
        return ModelInWork(graph, bound, data, step_samples(self.policy, graph, data), inputs, opened, done.rows)

    def _bind(self, graph: Graph, data: Samples, opened: OpenModel, earlier: Earlier) -> Plan:
        with self.phases.phase("choose"):
            self.chooser = chooser = chooser_of(self.policy, graph, data, self.phases.counter("choose"))
            self.meters = row_meters(self.policy, chooser, opened, graph, data, self.energy)
            told = self.diagnostics, chooser, chooser.kernels, self.meters, not data.generated, earlier
            plan = bind(self.policy, graph, opened.size_bytes, *told)
            return divided(plan, opened.model, graph, data, (self.diagnostics, self.phases), self.meters)

    def rewritten(self, opened: ModelInWork) -> ModelInWork:
        """Run the passes that keep the function, and see that they do."""
        if not rewrite_steps(opened.plan):
            return opened
        cleaned = None if opened.rewrites else Cleaned(opened.file.model.reference, opened.file.edits)
        tick = partial(self.phases.tell, "rewrite")
        with self.phases.phase("rewrite"):
            told = self.covered.by(self.diagnostics, self.phases)
            done = rewrite_graph(opened.graph, opened.plan, opened.data, cleaned, tick, told)
        tell_rewritten(done.rows, opened.plan, bool(self.policy.verify), self.diagnostics)
        return replace(opened, graph=done.graph, rewrites=(*opened.rewrites, *done.rows))

    def _build(self, opened: ModelInWork, staged: Path) -> Settled:
        """Decide what is open and write the file."""
        if self.evidence is None:  # what is made again, under a plan that was open, asks for nothing else
            covered = self.covered.by(self.diagnostics, self.phases)
            given = opened.graph, opened.plan, opened.data, self.phases, covered, self.executor, opened.inputs.folder
            keeps, windows = bool(self.policy.verify) or self.judge is not None, self.policy.reconstruct
            how = opened.run(self.policy), opened.large, windows
            self.evidence = Evidence.of(*given, keeps, *how)
        treated = any(row.treated for row in opened.rewrites if row.action != "clean")
        told = self.evidence, self.phases, bool(self.policy.adapters) or opened.plan.changes or treated
        writer = PlanWriter(self.model, self.policy, opened.file, opened.graph, opened.data, *told)
        return writer.settled(opened.plan, staged, self.diagnostics)

    def _notes(self, opened: ModelInWork, settled: Settled) -> tuple[str, ...]:
        """What is worth knowing: of data that was not given, of constants tuned, of a graph in half precision."""
        data = *self.told, *(opened_by_data(self.policy, opened.graph.weights()) if opened.data.generated else ())
        half, files = settled.plan.half, (settled.written, self._target.providers)
        tuned = self.evidence.told_of_tuning(settled.plan) if self.evidence is not None else ()
        done = *data, *tuned, *layer_rows.built_lines(settled.built, opened.file.model)
        return (*done, *half_lines(half, settled.built.edits, *files, self.diagnostics)) if half else done

    def _result(self, opened: ModelInWork, settled: Settled, verification: Verification) -> Result:
        same, data, source = copies(settled.plan), settled.written.data, opened.file
        notes = self._notes(opened, settled)
        rows = layer_rows.rows(opened.graph, settled.plan, settled.built, loss_of(opened.plan, settled), self.chooser)
        rows = self.covered.told(layer_rows.with_gathered(rows, opened.rewrites))
        return Result(
            source=self.model,
            output=self.output,
            lock=self.output.with_suffix(".lock"),
            report=self.output.with_suffix(".html"),
            written=verification.passed,
            input_bytes=source.size_bytes,
            output_bytes=settled.written.size_bytes,
            layers=rows,
            plan=settled.plan,
            ops=tuple(sorted(op.name for op in settled.built.ops)),
            edits=() if same else source.edits,
            allocation=allocation_of(opened.plan, settled, opened.graph),
            verification=verification,
            warnings=self.diagnostics.warnings,
            seconds=dict(self.phases.seconds),
            rewrites=() if same else opened.rewrites,
            notes=notes,
            loop=self.sampling.told(self.output) if self.sampling else None,
            costs=taken(self.meters, settled.plan, opened.graph.weights()),
            data=self.output.with_name(data.name) if data else None,
            adapters=getattr(source.model, "merged", ()),
            reach=reach(source.graph, source.size_bytes, source.model.note_bytes, layer_rows.unencoded(rows)),
        )
