"""Running a decided plan: from a cleaned graph to a file, and what the file holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from qcc.compiler.plan.catalog import Export
from qcc.compiler.plan.plan import Kernels, Plan
from qcc.ir.errors import ModelError, Refused
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.model.model import Model, Written
from qcc.ir.trim_file import open_trimmer
from qcc.passes.contract.contract import Context, Edit, G, Phase

MAPPED_BYTES = 256 << 20
"""Kernels have codes in an order of their own; from a data file, which is mapped, those of the file can be let go."""


@dataclass(frozen=True)
class Built(Generic[G]):
    """A graph after a plan's passes, with what they did."""

    graph: G
    edits: tuple[Edit, ...]
    ops: frozenset[KernelOp] = frozenset()
    """The kernel ops that the graph calls."""
    chains: tuple[KernelOp, ...] = ()
    """Those of convolutions of bytes and of attentions over blocks, one each."""


def run_plan(graph: G, plan: Plan, context: Context) -> Built[G]:
    """Apply the steps of a decided plan to a graph that is clean and rewritten.

    Raises:
        ModelError: a pass refuses a weight.
    """
    current = graph
    edits: list[Edit] = []
    for step in plan.steps:
        if step.action.phase not in (Phase.TUNE, Phase.ENCODE, Phase.HALF):
            continue  # has been done, and validated
        try:
            current, done = step.action.apply(current, step.weights, context)
        except Refused as refused:
            code = "Q541" if step.action.phase is Phase.HALF else "Q410"
            raise ModelError(code, refused.reason) from refused
        if step.action.phase is not Phase.TUNE:  # what is told of it is told as a whole
            edits += done
    calls: list[KernelOp] = [op for edit in edits for op in edit.ops]
    if plan.kernels is not None and plan.kernels.of.joins:
        for made, gone in current.join_products():
            calls.append(made)
            for op in gone:
                if op in calls:  # else of a file that had kernels before
                    calls.remove(op)
    current, chains = _chained(current, plan.kernels)
    return Built(current, tuple(edits), frozenset((*chains, *calls)), chains)


def _chained(graph: G, kernels: Kernels | None) -> tuple[G, tuple[KernelOp, ...]]:
    """Let kernels take what several ops compute, where there are such on one of the plan's processors."""
    if kernels is None:
        return graph, ()
    target, names, how, after = kernels.of, kernels.names, kernels.activations, graph.copy()
    found = after.chain(lambda op: target.serves(op, names, how))
    return (after, found) if found else (graph, ())


def write(
    model: Model[G],
    built: Built[G],
    path: Path,
    export: Export,
    notes: dict[str, str],
    most_bytes: int | None = None,
) -> Written:
    """Write the graph to a file.

    Args:
        model: that it was.
        built: the graph.
        path: of the file.
        export: how.
        notes: what the file says of its origin; left out, as are names that no author gave, where the file is larger
            than ``most_bytes`` with it.
        most_bytes: if there is a limit.

    Raises:
        ModelError: the place cannot be written to.
    """
    mapped = export.external_data == "auto" and bool(built.ops) and model.size_bytes >= MAPPED_BYTES
    written = model.write(built.graph, path, "always" if mapped else export.external_data, notes)
    if export.trim is not None:
        trimmer = open_trimmer(path, path)
        return trimmer.write(trimmer.fitting(export.trim), path)
    if most_bytes is not None and written.size_bytes > most_bytes:
        return model.write(built.graph, path, export.external_data, bare=True)
    return written
