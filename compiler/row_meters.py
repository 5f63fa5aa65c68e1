"""The meters of all rows that a policy asks for: by the clock, and counted from the graph."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.measure.choose_form import FormChooser, latency_of
from qcc.compiler.measure.time_model import time_input
from qcc.compiler.plan.costs import LATENCY, Meter, asked_rows, by_clock
from qcc.compiler.sequence.one_step import SEED, behind, model_of_steps, step_feeds, step_samples
from qcc.compiler.work.floors import floor_meter
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
        QccError: latency cannot be measured here, or foretold by what was not measured.
        ModelError: the table is no good.
    """
    arithmetic = chooser.kernels.activations if chooser.kernels else None
    counted = meters_of(policy, opened.graph, graph, data, arithmetic, energy)
    if LATENCY in asked_rows(policy) and not by_clock(policy):
        step = step_samples(policy, opened.graph, data)
        return (floor_meter(policy, opened.graph, graph, step, arithmetic), *counted)
    latency = latency_of(policy, chooser, opened.path, data, (opened.graph, graph), opened.model.timed)
    if latency is not None and (length := behind(policy)) is not None:
        told = _of_steps(latency, opened, graph, data, chooser, length)
        latency = replace(latency, note=partial(_also, told, latency.note))
    return (*((latency,) if latency else ()), *counted)


def _of_steps(latency: Meter, opened: OpenModel, graph: Graph, data: Samples, chooser: FormChooser, length: int) -> str:
    """Which step latency is of, what of it are the caches, and what both move, as the model came."""
    model, feeds = model_of_steps(graph, data)
    traffic, short = step_traffic(graph, model, feeds), load([step_feeds(model, feeds, 1)], graph, None, SEED)
    alone = 1e3 * time_input(opened.path, short, chooser.target.providers, chooser.threads)
    caches = max(latency.whole - alone, 0.0)
    moved, of = (count / 1e6 for count in (traffic.row * length, traffic.bytes_behind(length)))
    share = caches / max(latency.whole, alone)
    told = f"a token behind {length:,}, of which caches in floats take {share:.0%} of the time"
    return f"{told}, {1e3 * caches / length:.3g} us a row, and {moved:,.1f} of the {of:,.1f} MB that are moved"


def _also(first: str, other: Callable[[Mapping[str, Encode]], str], actions: Mapping[str, Encode]) -> str:
    second = other(actions)
    return f"{first}; {second}" if second else first
