"""Running a decided plan: from a cleaned graph to a file, and what the file holds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from qcc.compiler.bind import Chooser
from qcc.compiler.catalog import Export
from qcc.compiler.plan import Plan, action_text
from qcc.compiler.result import LayerRow
from qcc.ir.errors import ModelError, Refused
from qcc.ir.forms import stored_bytes
from qcc.ir.graph import Graph, Weight
from qcc.ir.onnx_graph import OnnxGraph
from qcc.ir.onnx_save import Written
from qcc.passes.contract import Context, Edit, G, Numerics
from qcc.passes.encode import Encode


@dataclass(frozen=True)
class Built(Generic[G]):
    """A graph after a plan's passes, with what they did."""

    graph: G
    edits: tuple[Edit, ...]


def run_plan(graph: G, plan: Plan, context: Context) -> Built[G]:
    """Apply the steps of a decided plan to a graph that is clean and rewritten.

    Raises:
        ModelError: a pass refuses a weight.
    """
    current = graph
    edits: list[Edit] = []
    for step in plan.steps:
        if step.action.numerics is Numerics.EXACT:
            continue  # has been done, and validated
        try:
            current, done = step.action.apply(current, step.weights, context)
        except Refused as refused:
            raise ModelError("Q410", refused.reason) from refused
        edits += done
    return Built(current, tuple(edits))


def write(built: Built[OnnxGraph], path: Path, export: Export, metadata: dict[str, str]) -> Written:
    """Write the graph to a file.

    Raises:
        ModelError: the place cannot be written to.
    """
    return built.graph.save(path, export.external_data, metadata)


def rows(
    graph: Graph, plan: Plan, built: Built[OnnxGraph], loss: Callable[[str], float | None], chooser: Chooser
) -> tuple[LayerRow, ...]:
    """One row a weight, in the order in which they run; the chooser tells the reasons for the forms."""
    refused = {edit.subject for edit in built.edits if edit.refused}
    actions = {
        name: step.action
        for step in plan.steps
        if isinstance(step.action, Encode)
        for name in step.weights
        if name not in refused
    }
    errors = {edit.subject: edit.error for edit in built.edits}
    kept = {one.weight: one.reason for one in plan.kept}
    kept |= {edit.subject: edit.text for edit in built.edits if edit.refused}
    return tuple(
        _encoded_row(weight, action, errors.get(weight.name, 0.0), loss(weight.name), chooser)
        if (action := actions.get(weight.name)) is not None
        else _kept_row(weight, kept.get(weight.name, ""))
        for weight in graph.weights()
    )


def _kept_row(weight: Weight, reason: str) -> LayerRow:
    bits, size, kinds = float(weight.stored_bits), weight.size_bytes, tuple(sorted(weight.kinds))
    return LayerRow(weight.name, kinds, weight.shape, weight.dtype, "", size, size, bits, 0.0, None, reason)


def _encoded_row(weight: Weight, action: Encode, error: float, loss: float | None, chooser: Chooser) -> LayerRow:
    original = weight.size_bytes
    size = stored_bytes(action.encoding, weight.shape, action.form)
    choice = chooser(weight, action.encoding)
    reason = choice.reason if choice.form is action.form else "as the plan says"
    if action.activations is not None:
        reason = f"integers are multiplied, activations {action_text(action.activations)}"
    bits, text = action.encoding.bits_per_weight(weight.shape), action.encoding.text
    kinds = tuple(sorted(weight.kinds))
    return LayerRow(weight.name, kinds, weight.shape, text, action.form, size, original, bits, error, loss, reason)
