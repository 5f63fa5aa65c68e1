"""The main job: a model and a policy in, a verified artifact out."""

from collections.abc import Mapping
from pathlib import Path

from qcc.codegen.target.scratch import scratch
from qcc.compiler.calibrate.samples import Data
from qcc.compiler.compilation import Compilation
from qcc.compiler.console.phases import Progress, silent
from qcc.compiler.files.in_memory import file_of
from qcc.compiler.files.open_model import model_path
from qcc.compiler.files.staging import output_path
from qcc.compiler.files.system_errors import told
from qcc.compiler.observe.executor import executor_of
from qcc.compiler.plan.plan import Plan, PlanFile
from qcc.compiler.repeat import loaded_policy
from qcc.compiler.report.publish_result import with_object
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.policy.policy import Policy
from qcc.ir.kernel.op import LinearOp
from qcc.ir.open_file import is_object


def compile(
    model: object,
    policy: str | Path | Policy | None = None,
    *,
    example_inputs: object = None,
    output: str | Path | None = None,
    data: Data | None = None,
    definitions: Mapping[str, str] | None = None,
    plan: Plan | PlanFile | None = None,
    dims: Mapping[str, int] | None = None,
    keep_failed: bool = False,
    jobs: int = 1,
    progress: Progress = silent,
) -> Result:
    """Compile a model.

    Args:
        model: an ``.onnx`` or ``.pt2`` file, or a PyTorch module or exported program.
        policy: a ``.qpolicy`` file, a preset's name, the text of a policy, or a loaded policy; by default what the plan
            keeps of its own, or ``balanced`` without a plan.
        example_inputs: what a module is called with, to be exported: a tuple, or a mapping of named ones.
        output: the file to write; by default ``<model>.qcc.onnx`` beside the model, or none for a model in memory.
        data: calibration data, instead of what the policy names: an ``.npz`` file, a CalibrationDataReader, or feeds.
        definitions: values of the policy's parameters, as ``-D`` gives them.
        plan: a decided plan, or one that was read from a file, to run instead of the policy's rules.
        dims: sizes of the inputs' free axes by name, for data that is generated.
        keep_failed: write a model whose verification fails, too, under a name that tells it (``net.failed.qcc.onnx``).
        jobs: processes that run the model on data, each with its own copy of what it holds; one does it here.
        progress: told of long work.

    Returns:
        What was done. If the verification fails, ``passed`` is false and the output is not written. Of a model in
        memory, ``model`` is what was made of it; without an ``output`` nothing is written.

    Raises:
        QccError: the policy, the model or the data is at fault.
    """
    with told(), file_of(model, example_inputs, output) as (path, target), executor_of(jobs) as executor:
        given = path, loaded_policy(policy, plan, definitions), target, data, dims, progress
        result = Compilation.prepare(*given, keep_failed, executor).run(plan)
        return with_object(result, output is not None) if is_object(model) else result


def decide_plan(
    model: str | Path,
    policy: str | Path | Policy | None = None,
    *,
    data: Data | None = None,
    definitions: Mapping[str, str] | None = None,
    plan: Plan | PlanFile | None = None,
    dims: Mapping[str, int] | None = None,
    progress: Progress = silent,
) -> tuple[Plan, frozenset[LinearOp], tuple[Diagnostic, ...]]:
    """The plan that `compile` would run, with all that is open decided, the kernel ops that its model would call, and
    the warnings; nothing is verified.

    Raises:
        QccError: the policy, the model or the data is at fault.
    """
    with scratch() as folder, told():
        path = model_path(model)
        written = folder / output_path(path, None).name
        loaded = loaded_policy(policy, plan, definitions)
        compilation = Compilation.prepare(path, loaded, written, data, dims, progress)
        settled = compilation.decide(plan)
        return settled.plan, settled.built.ops, compilation.diagnostics.warnings
