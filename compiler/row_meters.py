"""The meters of all rows that a policy asks for: by the clock, and counted from the graph."""

from pathlib import Path

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.measure.choose_form import FormChooser, latency_of
from qcc.compiler.plan.costs import Meter
from qcc.compiler.work.meters import meters_of
from qcc.dsl.policy.policy import Policy
from qcc.ir.graph.graph import Graph


def row_meters(
    policy: Policy, chooser: FormChooser, opened: OpenModel, graph: Graph, data: Samples, energy: Path | None
) -> tuple[Meter, ...]:
    """Of a policy.

    Args:
        policy: bounds or minimises something.
        chooser: of forms, with the timings that there are.
        opened: the model as it came.
        graph: of which weights are chosen.
        data: whose first sample is run, or counted.
        energy: a user's table of energies.

    Raises:
        QccError: latency cannot be measured here.
        ModelError: the table is no good.
    """
    latency = latency_of(policy, chooser, opened.path, data, (opened.graph, graph), opened.model.timed)
    arithmetic = chooser.kernels.activations if chooser.kernels else None
    counted = meters_of(policy, opened.graph, graph, data, arithmetic, energy)
    return (*((latency,) if latency else ()), *counted)
