"""Every node's time beside its floor, and what holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qcc.codegen.target.ceiling import CeilingError, Ceilings
from qcc.codegen.target.errors import TargetError
from qcc.codegen.target.find import targets
from qcc.codegen.target.machine import machine
from qcc.compiler.bench.bench import setting_text
from qcc.compiler.bench.feeds import Wanted, feeds
from qcc.compiler.console.phases import Progress
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.files.open_model import open_model
from qcc.compiler.runtime.profile import launch_s, profiled
from qcc.compiler.runtime.roofline import NodeTime, Surroundings, timed_nodes
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError

MEASURE = "`qcc targets --measure` tells what is missing"


@dataclass(frozen=True)
class LayerTimes:
    """A model's nodes at one setting."""

    model: Path
    library: Path | None
    threads: int
    batch: int
    layers: tuple[NodeTime, ...]

    @property
    def seconds(self) -> float:
        """Of all nodes; what the runtime does between them is not in it."""
        return sum(one.node.seconds for one in self.layers)

    @property
    def floor_s(self) -> float:
        """Of all nodes."""
        return sum(one.floor_s for one in self.layers)


@dataclass(frozen=True)
class Layers:
    """All models at all settings, and the ceilings that floors are made of."""

    tables: tuple[LayerTimes, ...]
    ceilings: Ceilings
    launch_s: float


def layers(models: Sequence[Path], threads: Sequence[int], wanted: Wanted, rounds: int, progress: Progress) -> Layers:
    """Time the nodes of models, each with the kernel library that lies beside it.

    Raises:
        QccError: a file is missing, a model does not load or run, or this machine's ceilings cannot be measured.
        ModelError: a file is no model, or data does not fit.
        UsageError: sizes do not fit a model.
    """
    missing = [Diagnostic("Q400", f"no such file: `{model}`") for model in models if not model.is_file()]
    if missing:
        raise QccError(missing)
    ceilings, tables, launch = _ceilings(progress), [], launch_s(1)
    for model in models:
        batches = feeds(open_model(model).graph, wanted)
        for count in threads:
            for batch, given in batches.items():
                progress(f"timing the nodes of {model.name}, {setting_text(batch, count)}", 0, 0, "")
                beside = kernels_beside(model)
                library = beside if beside.is_file() else None
                nodes = profiled(model, library, count, given, rounds)
                timed = timed_nodes(nodes, Surroundings(machine(), ceilings, count, launch, 0.0))
                tables.append(LayerTimes(model, library, count, batch, timed))
    return Layers(tuple(tables), ceilings, launch)


def _ceilings(progress: Progress) -> Ceilings:
    """This machine's, measured where they are not known."""
    target = next(one for one in targets().values() if one.has_ceilings)
    try:
        return target.ceilings() or target.measure_ceilings(
            lambda done, total, name: progress("measuring ceilings", done, total, name)
        )
    except (CeilingError, TargetError) as error:
        raise QccError([Diagnostic("Q460", str(error), help=MEASURE)]) from error
