"""Writing what goes beside a model, and giving everything its final name."""

from pathlib import Path

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.files.check_outputs import OutputFiles, check_outputs
from qcc.compiler.files.inputs import Inputs
from qcc.compiler.files.publish import Staged, publish, same_file
from qcc.compiler.report.lock import lock_text
from qcc.compiler.report.page.html import render_html
from qcc.compiler.report.result import Result
from qcc.dsl.policy.policy import Policy
from qcc.ir.onnx.file.save import Written


def publish_result(
    result: Result, policy: Policy, data: Samples, inputs: Inputs, staged: Path, written: Written
) -> None:
    """Publish a model with its data, library, lock and report, all made where the model was staged.

    Raises:
        ModelError: an input changed meanwhile, or the system refuses.
    """
    final, made = OutputFiles.of(result.output), OutputFiles.of(staged)
    made.lock.write_text(lock_text(result, policy, data, inputs, staged, written), encoding="utf-8")
    made.report.write_text(render_html(result), encoding="utf-8")
    inputs.check()
    files = [Staged(made.lock, final.lock), Staged(made.report, final.report), Staged(staged, final.model)]
    if result.kernels:
        files.insert(0, Staged(made.kernels, final.kernels))
    if written.data is not None and result.data is not None and not same_file(result.data, written.data_sha256):
        check_outputs([result.data], (file.path for file in inputs.data))
        files.insert(0, Staged(written.data, result.data))
    publish(files, staged.parent, [] if result.kernels else [final.kernels])  # of an earlier run
