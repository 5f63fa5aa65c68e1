"""A library that is loaded is asked which ops it serves: what it promised is counted, and not believed."""

from collections.abc import Collection
from pathlib import Path

from qcc.codegen.target.target import Library
from qcc.compiler.plan.plan import Kernels
from qcc.compiler.runtime.build_kernels import build_library, runs_here
from qcc.compiler.runtime.serves import serves
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.loadable import loadable


def build_counted(ops: Collection[KernelOp], kernels: Kernels, out: Path) -> None:
    """Make the library of these ops, or take it from the cache; one that does not serve what it should is made anew.

    Raises:
        QccError: it cannot be built here, or not even a fresh one serves it.
    """
    if not _missing(build_library(ops, kernels, out), kernels):
        return
    if missing := _missing(build_library(ops, kernels, out, fresh=True), kernels):
        message = f"the kernel library serves no `{missing[0]}`, which it was built for"
        help = "`export { kernels = none }` does without kernels; please report it to the authors of qcc"
        raise QccError([Diagnostic("Q451", message, help=help)])


def _missing(library: Library, kernels: Kernels) -> list[str]:
    """Ops that the library should serve on this machine, and does not."""
    if not library.here or not runs_here(kernels.of, kernels):
        return []
    try:
        taken = serves(loadable(library.path), library.here, kernels.of.providers)
    except QccError:  # the system does not even load it
        taken = set()
    return sorted(op.name for op in library.here - taken)
