"""A library that is loaded is asked which ops it serves: what it promised is counted, and not believed."""

from collections.abc import Collection
from pathlib import Path

from qcc.compiler.plan.plan import Kernels
from qcc.compiler.runtime.build_kernels import build_library, promised
from qcc.compiler.runtime.serves import serves
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.kernel.loadable import loadable
from qcc.ir.kernel.op import LinearOp


def build_counted(ops: Collection[LinearOp], kernels: Kernels, out: Path) -> None:
    """Make the library of these ops, or take it from the cache; one that does not serve what it should is made anew.

    Raises:
        QccError: it cannot be built here, or not even a fresh one serves it.
    """
    build_library(ops, kernels, out)
    if not _missing(ops, kernels, out):
        return
    build_library(ops, kernels, out, fresh=True)
    if missing := _missing(ops, kernels, out):
        message = f"the kernel library serves no `{missing[0]}`, which it was built for"
        help = "`export { kernels = none }` does without kernels; please report it to the authors of qcc"
        raise QccError([Diagnostic("Q451", message, help=help)])


def _missing(ops: Collection[LinearOp], kernels: Kernels, library: Path) -> list[str]:
    """Ops that the library should serve on this machine, and does not."""
    wanted = promised(ops, kernels)
    if not wanted:
        return []
    try:
        taken = serves(loadable(library), wanted)
    except QccError:  # the system does not even load it
        taken = set()
    return sorted(op.name for op in wanted - taken)
