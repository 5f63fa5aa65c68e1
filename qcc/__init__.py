"""qcc: a compression compiler for neural networks.

`compile` makes a model smaller as a policy says; `analyze` tells which of its layers are sensitive; `load_policy` reads
a policy; `Session` runs what was written; `trainable` lets scales of a module be trained. Input that is at fault
raises `QccError`, a budget that cannot be met `BudgetError`.

Nothing is imported before it is asked for, so that `import qcc` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcc.compiler.allocate.decide import BudgetError
    from qcc.compiler.analyze.analyze import analyze
    from qcc.compiler.compile import compile, trainable
    from qcc.compiler.plan.policy import load_policy
    from qcc.compiler.runtime.session import Session
    from qcc.dsl.diagnostics.report import QccError

    __version__: str

__all__ = ["BudgetError", "QccError", "Session", "__version__", "analyze", "compile", "load_policy", "trainable"]

_HOMES = {
    "BudgetError": "qcc.compiler.allocate.decide",
    "QccError": "qcc.dsl.diagnostics.report",
    "Session": "qcc.compiler.runtime.session",
    "analyze": "qcc.compiler.analyze.analyze",
    "compile": "qcc.compiler.compile",
    "load_policy": "qcc.compiler.plan.policy",
    "trainable": "qcc.compiler.compile",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        found: object = importlib.import_module("importlib.metadata").version("qcc")
    elif name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module `qcc` has no attribute `{name}`")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
