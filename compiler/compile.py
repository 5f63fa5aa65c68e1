"""The main job: a model and a policy in, a verified artifact out."""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from qcc.compiler import build, lock, samples, verify
from qcc.compiler.bind import bind
from qcc.compiler.catalog import Export, schema
from qcc.compiler.open_model import open_model
from qcc.compiler.plan import Plan
from qcc.compiler.report_html import render_html
from qcc.compiler.result import Allocation, Result, RewriteRow
from qcc.compiler.rewrite import Cleaned, rewrite_graph, rewrite_steps
from qcc.compiler.samples import Data, Samples
from qcc.compiler.sensitivity import Losses, measure, within
from qcc.compiler.settle import Settled, settle
from qcc.compiler.staging import check_output, output_path, staging
from qcc.compiler.statistics import grams
from qcc.dsl.diagnostics import Diagnostic, Diagnostics, QccError
from qcc.dsl.load import load_policy
from qcc.dsl.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.onnx_graph import OnnxGraph
from qcc.ir.onnx_run import OnnxRunner, reference
from qcc.ir.onnx_save import Written, whole_size
from qcc.passes.contract import Context
from qcc.passes.encode import Encode

DEFAULT_POLICY = "balanced"
BUDGET_ROUNDS = 5

Progress = Callable[[str, int, int, str], None]
"""Called with a phase, how much of it is done, of how much, and on what."""


def _silent(phase: str, done: int, total: int, detail: str) -> None:
    """Show nothing."""


def compile(
    model: str | Path,
    policy: str | Path | Policy = DEFAULT_POLICY,
    *,
    output: str | Path | None = None,
    data: Data | None = None,
    definitions: Mapping[str, str] | None = None,
    plan: Plan | None = None,
    progress: Progress = _silent,
) -> Result:
    """Compile a model.

    Args:
        model: an ``.onnx`` file.
        policy: a ``.qpolicy`` file, a preset's name, or a loaded policy.
        output: the file to write; by default ``<model>.qcc.onnx`` beside the model.
        data: calibration data, instead of what the policy names: an ``.npz`` file, a CalibrationDataReader, or feeds.
        definitions: values of the policy's parameters, as ``-D`` gives them.
        plan: a decided plan, as a lock file holds it, to run instead of the policy's rules.
        progress: told of long work.

    Returns:
        What was done. If the policy's verification fails, nothing is written and ``passed`` is false.

    Raises:
        QccError: the policy, the model or the data is at fault.
    """
    try:
        return _Compilation.prepare(Path(model), policy, output, data, definitions or {}, progress).run(plan)
    except ModelError as error:
        raise QccError([Diagnostic(error.code, error.message, help=error.help)]) from error


def decide_plan(
    model: str | Path,
    policy: str | Path | Policy = DEFAULT_POLICY,
    *,
    data: Data | None = None,
    definitions: Mapping[str, str] | None = None,
    plan: Plan | None = None,
    progress: Progress = _silent,
) -> tuple[Plan, tuple[Diagnostic, ...]]:
    """The plan that `compile` would run, with all that is open decided, and the warnings; nothing is verified or kept.

    Raises:
        QccError: the policy, the model or the data is at fault.
    """
    with tempfile.TemporaryDirectory(prefix="qcc-") as folder:
        output = Path(folder) / output_path(Path(model), None).name
        try:
            compilation = _Compilation.prepare(Path(model), policy, output, data, definitions or {}, progress)
            return compilation.decide(plan), compilation.diagnostics.warnings
        except ModelError as error:
            raise QccError([Diagnostic(error.code, error.message, help=error.help)]) from error


@dataclass(frozen=True)
class _Opened:
    """A model ready to compile: cleaned, bound to a plan, with what the cleaning did, and then the rewriting."""

    graph: OnnxGraph
    plan: Plan
    input_bytes: int
    edits: tuple[str, ...]
    rewrites: tuple[RewriteRow, ...] = ()


@dataclass
class _Compilation:
    """One run, with what it has found so far."""

    model: Path
    output: Path
    policy: Policy
    data: Data | None
    progress: Progress
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        model: Path,
        policy: str | Path | Policy,
        output: str | Path | None,
        data: Data | None,
        definitions: Mapping[str, str],
        progress: Progress,
    ) -> "_Compilation":
        loaded = policy if isinstance(policy, Policy) else load_policy(policy, schema(), definitions)
        target = output_path(model, output)
        check_output(model, target)
        return cls(model, target, loaded, data, progress)

    def run(self, plan: Plan | None) -> Result:
        opened = self._open(plan)
        with self._phase("reference"):
            data = self._samples(opened.graph)
            held = within(opened.graph, data, verify.SAMPLES, verify.OUTPUT_BYTES)
            wanted = verify.run(reference(self.model), held.batches)
        opened = self._rewrite(opened, data)
        with staging(self.output) as folder:
            staged = folder / self.output.name
            settled = self._build(opened, data, staged)
            with self._phase("verify"):
                outputs = verify.compare(wanted, verify.run(OnnxRunner(staged), held.batches))
                checks = verify.judge(self.policy.verify, outputs)
                verification = verify.Verification(outputs, checks, held.count, held.origin)
            self._compare_with_budget(opened.plan, verification)
            result = self._result(opened, settled, verification)
            if verification.passed:
                self._publish(result, staged, settled.written, data)
        return result

    def _compare_with_budget(self, plan: Plan, verification: verify.Verification) -> None:
        """A budget on the error binds the prediction; say so where the file turns out worse."""
        worst = min((check.sqnr for check in verification.outputs), default=math.inf)
        measured = 10 ** (-worst / 10)
        for limit in plan.allocate.limits if plan.allocate else ():
            if limit.metric == "output_error" and measured > limit.bound:
                message = f"the file's output error is {measured:.3g}, above the budget {limit.source}"
                help = "errors of many layers add up only about: tighten the budget, or bound `sqnr` in `verify`"
                self.diagnostics.warning("Q432", message, help=help)

    def decide(self, plan: Plan | None) -> Plan:
        """The decided plan of `run`, which is not verified; the file that it takes to decide is left to the caller."""
        opened = self._open(plan)
        data = self._samples(opened.graph)
        return self._build(self._rewrite(opened, data), data, self.output).plan

    def _open(self, plan: Plan | None) -> _Opened:
        with self._phase("load"):
            opened = open_model(self.model)
        if plan is not None:
            _check_plan(plan, opened.graph, self.model)
        bound = plan or bind(self.policy, opened.graph, opened.size_bytes, self.diagnostics)
        self.diagnostics.raise_if_errors()
        return _Opened(opened.graph, bound, opened.size_bytes, opened.edits)

    def _samples(self, graph: OnnxGraph) -> Samples:
        calibrate = self.policy.calibrate
        seed = calibrate.seed if calibrate else 0
        limit = calibrate.samples if calibrate else None
        if self.data is not None:
            return samples.load(self.data, graph, limit, seed)
        if calibrate is not None and calibrate.path is not None:
            return samples.load(calibrate.path, graph, limit, seed)
        return samples.generate(graph, limit, seed)

    def _rewrite(self, opened: _Opened, data: Samples) -> _Opened:
        """Run the passes that keep the function, and see that they do."""
        if not rewrite_steps(opened.plan):
            return opened
        cleaned = Cleaned(lambda: reference(self.model), opened.edits)
        tick = partial(self.progress, "rewrite")
        with self._phase("rewrite"):
            done = rewrite_graph(opened.graph, opened.plan, data, cleaned, tick)
        return replace(opened, graph=done.graph, rewrites=done.rows)

    def _grams(self, plan: Plan, graph: OnnxGraph, data: Samples) -> dict[str, np.ndarray]:
        wanted = _weights_with_gram(plan)
        if not wanted:
            return {}
        with self._phase("statistics"):
            return grams(graph, wanted, data, partial(self.progress, "statistics"))

    def _build(self, opened: _Opened, data: Samples, staged: Path) -> Settled:
        """Decide what is open and write the file."""
        plan, graph = opened.plan, opened.graph
        context = Context(grams=self._grams(plan, graph, data))

        def write(decided: Plan) -> tuple[build.Built[OnnxGraph], Written]:
            with self._phase("encode"):
                built = build.run_plan(graph, decided, self._encoding_context(context, decided))
            metadata = lock.provenance(self.model, self.policy, decided)
            return built, build.write(built, staged, self._export(), metadata)

        settled = settle(plan, graph, write, lambda: self._losses(plan, graph, data, context))
        for edit in settled.built.edits:
            if edit.refused:
                self.diagnostics.warning("Q411", f"`{edit.subject}` stays as it is: {edit.text}")
        rewritten = any(row.treated for row in opened.rewrites if row.action != "clean")
        if settled.written.size_bytes >= opened.input_bytes and not rewritten:
            settled = replace(settled, written=self._copy_input(staged, graph))
        return settled

    def _losses(self, plan: Plan, graph: OnnxGraph, data: Samples, context: Context) -> Losses:
        if plan.allocate is None or not plan.allocate.options:
            return Losses((), (), 0)
        total, done = len(plan.allocate.options), 0

        def tick(name: str) -> None:
            nonlocal done
            done += 1
            self.progress("measure", done, total, name)

        with self._phase("measure"):
            return measure(graph, plan.allocate.options, data, Context(tick, context.grams))

    def _encoding_context(self, context: Context, plan: Plan) -> Context:
        total = sum(len(step.weights) for step in plan.steps if isinstance(step.action, Encode))
        done = 0

        def tick(name: str) -> None:
            nonlocal done
            done += 1
            self.progress("encode", done, total, name)

        return Context(tick, context.grams)

    def _export(self) -> Export:
        return self.policy.export if isinstance(self.policy.export, Export) else Export()

    def _copy_input(self, staged: Path, graph: OnnxGraph) -> Written:
        """Nothing was gained: the artifact is the input, byte for byte."""
        self.diagnostics.warning("Q430", f"`{self.model}` gets no smaller: the output is a copy of it")
        staged.with_name(staged.name + "_data").unlink(missing_ok=True)
        shutil.copyfile(self.model, staged)
        for location in graph.data_files():
            shutil.copyfile(self.model.parent / location, staged.parent / location)
        return Written(staged, None, whole_size(staged, graph.data_files()))

    def _result(self, opened: _Opened, settled: Settled, verification: verify.Verification) -> Result:
        return Result(
            model=self.model,
            output=self.output,
            lock=self.output.with_suffix(".lock"),
            report=self.output.with_suffix(".html"),
            written=verification.passed,
            input_bytes=opened.input_bytes,
            output_bytes=settled.written.size_bytes,
            layers=build.rows(opened.graph, settled.plan, settled.built, _loss_of(opened.plan, settled)),
            plan=settled.plan,
            edits=opened.edits,
            allocation=_allocation(opened.plan, settled),
            verification=verification,
            warnings=self.diagnostics.warnings,
            seconds=dict(self.seconds),
            rewrites=opened.rewrites,
        )

    def _publish(self, result: Result, staged: Path, written: Written, data: Samples) -> None:
        """Write what goes beside the model, then give everything its final name."""
        text = lock.lock_text(result, self.policy, data, staged, written)
        (staged.parent / result.lock.name).write_text(text, encoding="utf-8")
        (staged.parent / result.report.name).write_text(render_html(result), encoding="utf-8")
        for file in sorted(staged.parent.iterdir(), key=lambda path: path == staged):
            file.replace(self.output.parent / file.name)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.progress(name, 0, 0, "")
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _check_plan(plan: Plan, graph: OnnxGraph, model: Path) -> None:
    named = [name for step in plan.steps for name in step.weights] + [kept.weight for kept in plan.kept]
    missing = sorted(set(named) - {weight.name for weight in graph.weights()})
    if missing:
        help = "a plan fits the model that it was made for"
        raise ModelError("Q431", f"the plan is for another model: `{model}` has no weight `{missing[0]}`", help=help)


def _weights_with_gram(plan: Plan) -> list[str]:
    wanted = [
        name for s in plan.steps if isinstance(s.action, Encode) and s.action.rounding.uses_gram for name in s.weights
    ]
    for option in plan.allocate.options if plan.allocate else ():
        if any(one.action is not None and one.action.rounding.uses_gram for one in option.candidates):
            wanted.append(option.weight)
    return wanted


def _allocation(plan: Plan, settled: Settled) -> Allocation | None:
    if plan.allocate is None or settled.decision is None or settled.losses is None:
        return None
    return Allocation(
        objective=plan.allocate.objective,
        limits=tuple(limit.source for limit in plan.allocate.limits),
        options=len(plan.allocate.options),
        candidates=sum(len(option.candidates) for option in plan.allocate.options),
        measured=sum(sum(runs) for runs in settled.losses.measured),
        gap=settled.decision.gap,
        predicted_error=settled.decision.predicted_error,
    )


def _loss_of(plan: Plan, settled: Settled) -> Callable[[str], float | None]:
    if plan.allocate is None or settled.decision is None or settled.losses is None:
        return lambda _: None
    chosen = zip(plan.allocate.options, settled.losses.loss, settled.decision.choice, strict=True)
    return {option.weight: float(loss[choice]) for option, loss, choice in chosen}.get
