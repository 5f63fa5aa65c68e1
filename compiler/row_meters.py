"""The meters of all rows that a policy asks for: by the clock, and counted from the graph."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.measure.choose_form import FormChooser, latency_of
from qcc.compiler.plan.costs import Meter
from qcc.compiler.sequence.one_step import behind, model_of_steps
from qcc.compiler.work.meters import meters_of
from qcc.compiler.work.step_traffic import step_traffic
from qcc.dsl.policy.policy import Policy
from qcc.ir.graph.graph import Graph
from qcc.passes.encode import Encode


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
    if latency is not None and (length := behind(policy)) is not None:
        latency = replace(latency, note=partial(_of_steps, latency, graph, data, length))
    counted = meters_of(policy, opened.graph, graph, data, arithmetic, energy)
    return (*((latency,) if latency else ()), *counted)


def _of_steps(latency: Meter, graph: Graph, data: Samples, length: int, actions: Mapping[str, Encode]) -> str:
    """Which step latency is of, and how much of what it moves the caches are, as the model came."""
    traffic = step_traffic(graph, *model_of_steps(graph, data))
    moved, of = traffic.row * length / 1e6, traffic.bytes_behind(length) / 1e6
    told = f"a token behind {length:,}, for which {of:,.1f} MB are moved, {moved:,.1f} of them for caches in floats, "
    told += f"{traffic.share(length):.0%}"
    other = latency.note(actions)
    return f"{told}; {other}" if other else told
