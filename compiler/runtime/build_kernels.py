"""The library of kernels that goes beside a model: for which processors, and made from the model itself."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from qcc.codegen.target.errors import BuildError, TargetError
from qcc.codegen.target.find import spelled_default
from qcc.codegen.target.target import AnyTarget, Library
from qcc.compiler.plan.catalog import NO_KERNELS
from qcc.compiler.plan.plan import Kernels
from qcc.compiler.plan.policy import export_of
from qcc.compiler.plan.targets import target_of
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.policy.policy import Policy
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.onnx.file.runtime import onnxruntime


def kernels_of(policy: Policy) -> Kernels | None:
    """The kernels that a policy asks for; None if it leaves all to ONNX Runtime.

    Raises:
        QccError: nothing is known of this machine's processor, or the targets are of several architectures.
    """
    export = export_of(policy)
    target = target_of(policy)
    if not target.templates or export.kernels == NO_KERNELS:
        return None
    if export.kernels not in (None, target.maker):
        help = f"write `kernels = {target.maker}`, or leave it out"
        raise _refused("Q501", f"`{export.kernels}` makes no kernels for `{target.name}`", policy.target.span, help)
    try:
        return Kernels(target.name, target.chosen(policy.target.arguments), export.activations)
    except TargetError as error:
        raise _refused("Q501", str(error), policy.target.span) from error


def runs_here(target: AnyTarget, kernels: Kernels | None = None) -> bool:
    """What is made can be timed: the runtime has the target's providers, and this machine is one of the kernels'."""
    has = target.timed and set(target.providers) <= set(onnxruntime.get_available_providers())
    return has and (kernels is None or target.runs_here(kernels.names))


def warn_of_no_ops(diagnostics: Diagnostics, timed: bool) -> None:
    """Tell that kernels are asked for, and none are called; where layers were ``timed``, none may have gained."""
    help = "`qcc explain MODEL -p POLICY` says why of each layer"
    why = "no layer gains by a kernel on this processor" if timed else "no layer takes a kernel"
    diagnostics.warning("Q503", f"{why}: no library is written", help=help)


def build_library(ops: Collection[KernelOp], kernels: Kernels, out: Path, fresh: bool = False) -> Library:
    """Make the library, or take it from the cache unless it is to be ``fresh``.

    Raises:
        QccError: it cannot be built here.
    """
    with _refusals():
        return kernels.of.build(ops, kernels.names, out, kernels.activations, fresh)


def listing(ops: Collection[KernelOp], kernels: Kernels, stage: str) -> str:
    """What the library would be made of, as text, in one of its target's stages.

    Raises:
        QccError: the target has no such stage, or what makes kernels is missing.
    """
    with _refusals():
        return kernels.of.show(stage, ops, kernels.names, kernels.activations)


@contextmanager
def _refusals() -> Iterator[None]:
    """Tell what is wrong with a target, or with the machine, as diagnostics."""
    try:
        yield
    except TargetError as error:
        raise _refused("Q501", str(error), None) from error
    except BuildError as error:
        raise _refused("Q502", f"the kernels cannot be built: {error}", None) from error


def _refused(code: str, message: str, span: Span | None, help: str = "") -> QccError:
    without = f"`{spelled_default()}` or `export {{ kernels = none }}` does without kernels"
    return QccError([Diagnostic(code, message, span, help=help or without)])
