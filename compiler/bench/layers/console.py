"""Times and floors of nodes as a table, and as plain data."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qcc.codegen.target.machine import machine
from qcc.compiler.bench.bench import setting_text
from qcc.compiler.bench.console import MS, ms_text, place_text
from qcc.compiler.bench.layers.layers import Layers, LayerTimes
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.numbered_names import collapse
from qcc.compiler.runtime.roofline import NodeTime
from qcc.compiler.runtime.session import runtime_version

LEAST = 0.005
"""Of a model's time; what takes less is one line in the end."""
LIST = re.compile(r"\{(\d+)[,.][^}]*?,[^}]*?(\d+)\}")
EXPLAINED = (
    "floor: the longest of what a node must do, at the best rates that `qcc targets` lists, times the threads",
    "held by: what that is - bytes read and written, arithmetic, packing (rounding what is multiplied), reorder "
    "(values moved, not computed), launch (being called)",
)


def write_layers(result: Layers) -> None:
    """Print a table a model and setting."""
    terminal.write_line(f"{place_text()}; ceilings of {result.ceilings.measured}")
    for one in result.tables:
        library = f" with {one.library.name}" if one.library else ""
        setting = setting_text(one.batch, one.threads)
        terminal.write_line(f"\n{one.model.name}{library}, {setting}: {ms_text(one.seconds)} ms in nodes")
        terminal.write_table(layer_table(one))
    terminal.write_line()
    for line in EXPLAINED:
        terminal.write_text(line)


def as_json(result: Layers) -> dict[str, Any]:
    """The result as plain data."""
    return {
        "machine": {**asdict(machine()), "onnxruntime": runtime_version()},
        "ceilings": asdict(result.ceilings),
        "launch_us": result.launch_s * 1e6,
        "models": [_model_json(one) for one in result.tables],
    }


def _model_json(one: LayerTimes) -> dict[str, Any]:
    return {
        "model": str(one.model),
        "kernels": str(one.library) if one.library else None,
        "threads": one.threads,
        "batch": one.batch,
        "ms": one.seconds * MS,
        "floor_ms": one.floor_s * MS,
        "nodes": [_layer_json(layer) for layer in one.layers],
    }


def _layer_json(layer: NodeTime) -> dict[str, Any]:
    node = layer.node
    return {
        "name": node.name,
        "op": node.op,
        "outputs": [list(one.shape) for one in node.outputs],
        "ms": node.seconds * MS,
        "floor_ms": layer.floor_s * MS,
        "held_by": layer.held,
    }


def layer_table(times: LayerTimes) -> Table:
    """Nodes that repeat in one line, and last what takes next to nothing."""
    columns = (
        Column("node", cut=True), Column("op", spare=1), Column("ms", True), Column("share", True),
        Column("floor ms", True), Column("over floor", True), Column("held by"),
    )  # fmt: skip
    found = collapse(times.layers, lambda one: one.node.name, lambda one: (one.node.op, one.held))
    found.sort(key=lambda pair: -sum(one.node.seconds for one in pair[1]))
    large = [pair for pair in found if sum(one.node.seconds for one in pair[1]) >= LEAST * times.seconds]
    small = [one for pair in found[len(large) :] for one in pair[1]]
    rows = [_row(name, part[0].node.op, part, times.seconds, part[0].held) for name, part in large]
    if small:
        rows.append(_row(f"{len(small)} others", "", small, times.seconds, ""))
    rows.append(_row("all", "", times.layers, times.seconds, ""))
    return Table(columns, tuple(rows))


def _row(name: str, op: str, part: Sequence[NodeTime], whole: float, held: str) -> tuple[str, ...]:
    taken, floor = sum(one.node.seconds for one in part), sum(one.floor_s for one in part)
    over = f"{taken / floor:.1f}x" if floor else "-"
    short = LIST.sub(r"{\1,...,\2}", name.removesuffix(f"/{op}"))
    return short, op, ms_text(taken), f"{taken / whole:.1%}" if whole else "-", ms_text(floor), over, held
