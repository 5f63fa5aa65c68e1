"""What each node of a written model takes for one sample, beside its floor where this machine's ceilings are known."""

import math
from collections.abc import Sequence
from pathlib import Path

from qcc.codegen.target.find import targets
from qcc.codegen.target.machine import machine
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.runtime.profile import launch_s, profiled
from qcc.compiler.runtime.roofline import NodeTime, Surroundings, timed_nodes
from qcc.dsl.diagnostics.report import QccError

ROUNDS = 3


def time_nodes(model: Path, library: Path | None, feeds: Batch, providers: Sequence[str]) -> tuple[NodeTime, ...]:
    """The nodes on one thread, in the order in which they run; none where the runtime tells nothing of them.

    What no ceilings are known for has NaN for a floor, and is held by nothing.
    """
    try:
        nodes = profiled(model, library, 1, feeds, ROUNDS, providers)
    except QccError:
        return ()  # a picture less, and no reason to fail
    known = next((found for one in targets().values() if (found := one.ceilings()) is not None), None)
    if known is None:
        return tuple(NodeTime(node, math.nan, "") for node in nodes)
    return timed_nodes(nodes, Surroundings(machine(), known, 1, launch_s(1), 0.0))
