"""The library of kernels that goes beside a model: for which processors, and made from the model itself."""

from pathlib import Path

from qcc.codegen.library import BuildError, build
from qcc.codegen.spec import served, variants
from qcc.codegen.target import NATIVE, TargetError, named
from qcc.compiler.catalog import Export
from qcc.compiler.plan import Kernels
from qcc.dsl.diagnostics import Diagnostic, QccError, Span
from qcc.dsl.policy import Policy
from qcc.ir.kernel_op import LinearOp


def kernels_of(policy: Policy) -> Kernels | None:
    """The kernels that a policy asks for; None if it leaves all to ONNX Runtime.

    Raises:
        QccError: nothing is known of this machine's processor.
    """
    export = policy.export if isinstance(policy.export, Export) else Export()
    if policy.target.name != "cpu" or export.kernels == "none":
        return None
    try:
        names = [named(name).name for name in policy.target.arguments or (NATIVE,)]
    except TargetError as error:
        raise _refused("Q501", str(error), policy.target.span) from error
    return Kernels(tuple(dict.fromkeys(names)), export.activations)


def serve_convolutions(kernels: Kernels) -> bool:
    """One of the processors has a kernel for convolutions of one point."""
    op = LinearOp(8, pointwise=True)
    return any(served([op], variants(named(name), kernels.activations)) for name in kernels.targets)


def build_library(ops: set[LinearOp], kernels: Kernels, out: Path) -> None:
    """Make the library, or take it from the cache.

    Raises:
        QccError: it cannot be built here.
    """
    try:
        build(ops, tuple(map(named, kernels.targets)), out, kernels.activations)
    except TargetError as error:
        raise _refused("Q501", str(error), None) from error
    except BuildError as error:
        raise _refused("Q502", f"the kernels cannot be built: {error}", None) from error


def _refused(code: str, message: str, span: Span | None) -> QccError:
    help = "`target onnxruntime` or `export { kernels = none }` does without kernels"
    return QccError([Diagnostic(code, message, span, help=help)])
