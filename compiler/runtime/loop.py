"""What drives the loop of a model that was written: its table, and sessions of the graphs that it names."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from qcc.compiler.sampler.drive import Driver
from qcc.compiler.sampler.table import beside, from_text
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.graph.ops import Feeds, Value

HELP = "compile the model under a policy with a `sampler`, and keep the files together; or give a function as `loop`"


class Opened(Protocol):
    """A model ready to run."""

    path: Path
    inputs: tuple[Value, ...]

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """The outputs by name."""


def driver_of(session: Opened, other: Callable[[Path], Opened]) -> Driver:
    """The loop of a model, by the table beside it.

    Args:
        session: of the model.
        other: opens another graph of it.

    Raises:
        QccError: there is no table, or a graph that it names is missing.
    """
    path = beside(session.path)
    try:
        table = from_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise QccError([Diagnostic("Q577", f"there is no loop `{path}`", help=HELP)]) from error
    except (OSError, ValueError) as error:
        raise QccError([Diagnostic("Q577", f"`{path}` is no loop: {error}", help=HELP)]) from error
    graphs = {}
    for row in table.rows:
        name = table.graphs.get(row.graph, session.path.name)
        if row.graph not in graphs:
            graphs[row.graph] = session if name == session.path.name else other(session.path.with_name(name))
    known = {name: (one.run, _names(one.inputs)) for name, one in graphs.items()}
    return Driver(table, session.inputs, known)


def _names(values: Sequence[Value]) -> list[str]:
    return [one.name for one in values]
