"""The library of kernels that goes beside a model: for which processors, and made from the model itself."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from qcc.codegen.cpu.library.build import build, tvm_version
from qcc.codegen.cpu.library.spec import served
from qcc.codegen.library.c_compiler import BuildError
from qcc.codegen.target.target import NATIVE, TargetError, architecture, cpu_flags, here, named
from qcc.compiler.plan.catalog import Export
from qcc.compiler.plan.plan import Kernels
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.policy.policy import Policy
from qcc.ir.kernel.op import BF16, LinearOp

Stage = Literal["tir", "asm"]


def kernels_of(policy: Policy) -> Kernels | None:
    """The kernels that a policy asks for; None if it leaves all to ONNX Runtime.

    Raises:
        QccError: nothing is known of this machine's processor, or the targets are of several architectures.
    """
    export = policy.export if isinstance(policy.export, Export) else Export()
    if policy.target.name != "cpu" or export.kernels == "none":
        return None
    try:
        targets = [named(name) for name in policy.target.arguments or (NATIVE,)]
        architecture(targets)
    except TargetError as error:
        raise _refused("Q501", str(error), policy.target.span) from error
    return Kernels(tuple(dict.fromkeys(target.name for target in targets)), export.activations)


def warn_of_no_ops(diagnostics: Diagnostics, timed: bool) -> None:
    """Tell that kernels are asked for, and none are called; where layers were ``timed``, none may have gained."""
    help = "`qcc explain MODEL -p POLICY` says why of each layer"
    why = "no layer gains by a kernel on this processor" if timed else "no layer takes a kernel"
    diagnostics.warning("Q503", f"{why}: no library is written", help=help)


def serve_convolutions(kernels: Kernels) -> bool:
    """One of the processors has a kernel for convolutions of one point."""
    op = LinearOp(BF16, pointwise=True)
    return any(served([op], named(name), kernels.activations) for name in kernels.targets)


def build_library(ops: Collection[LinearOp], kernels: Kernels, out: Path, fresh: bool = False) -> None:
    """Make the library, or take it from the cache unless it is to be ``fresh``.

    Raises:
        QccError: it cannot be built here.
    """
    with _refusals():
        build(ops, tuple(map(named, kernels.targets)), out, kernels.activations, fresh)


def promised(ops: Collection[LinearOp], kernels: Kernels) -> set[LinearOp]:
    """Those ops that a library of these kernels serves on this machine."""
    flags = cpu_flags()
    for target in map(named, kernels.targets):
        if target.architecture == here() and set(target.features) <= flags:
            return set(served(ops, target, kernels.activations))
    return set()


def listing(ops: Collection[LinearOp], kernels: Kernels, stage: Stage) -> str:
    """What the library would be made of, as text: its TIR, or its assembly.

    Raises:
        QccError: a target is unknown, or TVM is missing.
    """
    with _refusals():
        tvm_version()
        from qcc.codegen.cpu.library import show  # loads TVM

        write = {"tir": show.tir, "asm": show.assembly}[stage]
        return write(ops, tuple(map(named, kernels.targets)), kernels.activations)


@contextmanager
def _refusals() -> Iterator[None]:
    """Tell what is wrong with a target, or with the machine, as diagnostics."""
    try:
        yield
    except TargetError as error:
        raise _refused("Q501", str(error), None) from error
    except BuildError as error:
        raise _refused("Q502", f"the kernels cannot be built: {error}", None) from error


def _refused(code: str, message: str, span: Span | None) -> QccError:
    help = "`target onnxruntime` or `export { kernels = none }` does without kernels"
    return QccError([Diagnostic(code, message, span, help=help)])
