"""The main job: a model and a policy in, a verified artifact out."""

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qcc.codegen.target.scratch import scratch
from qcc.compiler.calibrate.samples import Data
from qcc.compiler.compilation import Compilation
from qcc.compiler.console.phases import Progress, silent
from qcc.compiler.depth.choose import with_depth
from qcc.compiler.files.source_file import source_file
from qcc.compiler.files.spoken import by_name, in_words
from qcc.compiler.files.staging import output_path
from qcc.compiler.files.system_errors import told
from qcc.compiler.judge.prepare import Given
from qcc.compiler.observe.cluster import executor_of
from qcc.compiler.plan.plan import Plan, PlanFile
from qcc.compiler.repeat import loaded_policy
from qcc.compiler.report.publish_result import with_object
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.policy.policy import Policy
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.open_file import is_object, is_program, trainable_object

HELP = "`qcc inspect` shows the weights of either"


def compile(
    model: object,
    policy: str | Path | Policy | None = None,
    *,
    example_inputs: object = None,
    output: str | Path | None = None,
    data: Data | None = None,
    evaluate: Given | None = None,
    definitions: Mapping[str, str] | None = None,
    plan: Plan | PlanFile | None = None,
    dims: Mapping[str, int] | None = None,
    keep_failed: bool = False,
    jobs: int | str = 1,
    energy: Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Compile a model.

    Args:
        model: an ``.onnx`` or ``.pt2`` file, a folder of transformers, or a PyTorch module or exported program.
        policy: a ``.qpolicy`` file, a preset's name, the text of a policy, or a loaded policy; by default what the plan
            keeps of its own, or ``balanced`` without a plan.
        example_inputs: what a module is called with, to be exported: a tuple, or a mapping of named ones.
        output: the file to write; by default ``<model>.qcc.onnx`` beside the model, or none for a model in memory. A
            PyTorch model whose output is an ``.onnx`` file is exported first, and compiled as ONNX.
        data: calibration data, instead of what the policy names: an ``.npz`` file, a folder of images, a script, a
            `DataSource`, a CalibrationDataReader, or feeds.
        evaluate: what the policy's ``drop(...)`` is measured by: a function that takes a model that runs and returns a
            score, or one for each sample; a script that defines it as ``evaluate``; or an ``.npz`` file of samples with
            an array ``labels``. By default the ``labels`` in the calibration data.
        definitions: values of the policy's parameters, as ``-D`` gives them.
        plan: a decided plan, or one that was read from a file, to run instead of the policy's rules.
        dims: sizes of the inputs' free axes by name, for data that is generated.
        keep_failed: write a model whose verification fails, too, under a name that tells it (``net.failed.qcc.onnx``).
        jobs: processes that run the model on data, each with its own copy of what it holds; one does it here. Or
            the address of a cluster, ``local:N`` or ``tcp://HOST:PORT``, with the extra ``cluster``.
        energy: a JSON file of energies in place of those that ship, for policies that ask for ``energy``.
        progress: told of long work.

    Returns:
        What was done. If the verification fails, ``passed`` is false and the output is not written. Of a model in
        memory, ``model`` is what was made of it; without an ``output`` nothing is written.

    Raises:
        QccError: the policy, the model or the data is at fault.
    """
    with told(), ExitStack() as passing, executor_of(jobs) as executor, ExitStack() as held:
        path, target = held.enter_context(source_file(model, example_inputs, output))
        if is_object(model) and target is None:
            target = passing.enter_context(scratch()) / output_path(path, None).name
        loaded = loaded_policy(policy, plan, definitions)
        given = path, loaded, target, data, dims, progress
        run = Compilation.prepare(*given, keep_failed, executor, evaluate, energy)
        result = (run if plan else with_depth(run)).run(plan)
        name = type(model).__name__ if is_object(model) else str(model)
        warnings = tuple(map(in_words, by_name(result.warnings, path, name)))
        result = replace(result, warnings=warnings)
        if not is_object(model):
            result = replace(result, source=Path(name))  # not what was made of it
        if not is_program(path):
            return result
        result = with_object(result, output is not None) if is_object(model) else result
        again = _AsOnnx(path, loaded, result.plan, data, evaluate, dims or {}, jobs)
        weakref.finalize(again, held.pop_all().close)
        return replace(result, as_onnx=again)


def trainable(module: object) -> Any:  # noqa: ANN401 - of a framework that need not be installed
    """A copy of a compact PyTorch module whose scales are float32 parameters; its state is the module's, by name.

    Args:
        module: the ``model`` of a result, or what ``torch.export.load`` gives of a file.

    Raises:
        QccError: it stores no scales as floats.
    """
    with told():
        return trainable_object(module)


@dataclass(frozen=True, eq=False)
class _AsOnnx:
    """Compiles a model again, as ONNX; what was made for it lives as long."""

    model: Path
    policy: Policy
    plan: Plan
    data: Data | None
    evaluate: Given | None
    dims: Mapping[str, int]
    jobs: int | str

    def __call__(self, output: Path, keep_failed: bool) -> Result:
        """Under the plan that there is; by the policy again where the export has other weights."""
        try:
            return self._compiled(output, keep_failed, self.plan)
        except QccError as error:
            if {one.code for one in error.diagnostics} != {"Q431"}:
                raise
        result = self._compiled(output, keep_failed, None)
        message = "the export has other weights than the module: the policy decided again, not the module's plan"
        told = Diagnostic("Q760", message, severity=Severity.WARNING, help=HELP)
        return replace(result, warnings=(*result.warnings, told))

    def _compiled(self, output: Path, keep_failed: bool, plan: Plan | None) -> Result:
        return compile(
            self.model,
            self.policy,
            output=output,
            data=self.data,
            evaluate=self.evaluate,
            plan=plan,
            dims=self.dims,
            keep_failed=keep_failed,
            jobs=self.jobs,
        )


def decide_plan(
    model: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    output: str | Path | None = None,
    data: Data | None = None,
    evaluate: Given | None = None,
    definitions: Mapping[str, str] | None = None,
    plan: Plan | PlanFile | None = None,
    dims: Mapping[str, int] | None = None,
    energy: Path | None = None,
    progress: Progress = silent,
) -> tuple[Plan, frozenset[KernelOp], tuple[Diagnostic, ...]]:
    """The plan that `compile` would run, with all that is open decided, the kernel ops that its model would call, and
    the warnings; nothing is verified, nor written.

    Raises:
        QccError: the policy, the model or the data is at fault.
    """
    with told(), scratch() as folder, source_file(model, None, output) as (path, target):
        written = folder / output_path(path, target).name
        loaded = loaded_policy(policy, plan, definitions)
        run = Compilation.prepare(path, loaded, written, data, dims, progress, evaluate=evaluate, energy=energy)
        compilation = run if plan else with_depth(run)
        settled = compilation.decide(plan)
        warnings = map(in_words, by_name(compilation.diagnostics.warnings, path, str(model)))
        return settled.plan, settled.built.ops, tuple(warnings)
