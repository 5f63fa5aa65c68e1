"""What became of each weight, a row each."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.build.run import Built
from qcc.compiler.measure.choose_form import FormChooser
from qcc.compiler.plan.activations import rounded_reason
from qcc.compiler.plan.plan import Plan
from qcc.compiler.report.result import LayerRow
from qcc.ir.forms.choose import Chooser
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.ir.model.model import Model
from qcc.passes.contract.contract import Edit
from qcc.passes.encode import Encode


def rows(
    graph: Graph, plan: Plan, built: Built[Graph], loss: Callable[[str], float | None], chooser: Chooser
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
    done = {edit.subject: edit for edit in built.edits}
    kept = {one.weight: one.reason for one in plan.kept}
    kept |= {edit.subject: edit.text for edit in built.edits if edit.refused}
    left = {weight.name: weight for weight in built.graph.weights()}
    return tuple(
        _encoded_row(weight, action, done.get(weight.name, Edit(weight.name, "")), loss(weight.name), chooser)
        if (action := actions.get(weight.name)) is not None
        else _kept_row(weight, left.get(weight.name, weight), kept.get(weight.name, ""))
        for weight in graph.weights()
    )


def built_lines(built: Built[Graph], model: Model[Graph]) -> list[str]:
    """What is told of a built graph beside its layers, and what it asks of a runtime that the model did not."""
    newer = model.newer(built.graph)
    return [*([newer] if newer else []), *chain_lines(built), *other_lines(built.edits)]


def chain_lines(built: Built[Graph]) -> list[str]:
    """How many ops that are no layers, such as convolutions of bytes, kernels do."""
    counts = Counter(op.counted for op in built.chains)
    return [f"{count} {what}{'s' * (count > 1)} {told}" for (what, told), count in counts.items()]


def other_lines(edits: Iterable[Edit]) -> tuple[str, ...]:
    """A line for each way in which what is no layer was written; of caches with what a row of them takes."""
    found = [edit for edit in edits if edit.what and not edit.refused]
    lines = []
    for (what, text), count in Counter((edit.what, edit.text) for edit in found).items():
        sizes = [edit.row_bytes for edit in found if edit.text == text and edit.row_bytes is not None]
        told = f"{count} {what}{'' if count == 1 else 'es' if what[-1] in 'sx' else 's'}"
        if not sizes:
            lines.append(f"{told}: {text}")
            continue
        before, after = (sum(one[at] for one in sizes) for at in (0, 1))
        change = f": {before:,.0f} -> {after:,.0f} bytes a token, {after / before:.3g}x" if before != after else ""
        lines.append(f"{told}, {text}{change}")
    bounded = [edit.most_rows for edit in found if edit.most_rows]
    if len(set(bounded)) > 1:
        lines.append(f"{len(bounded)} caches hold at most {sum(bounded) / len(bounded):,.1f} rows on average")
    return tuple(lines)


def unencoded(rows: Iterable[LayerRow]) -> set[str]:
    """The names of weights that stay as they are."""
    return {row.name for row in rows if not row.form}


def _kept_row(weight: Weight, now: Weight, reason: str) -> LayerRow:
    """The row of a weight that is not encoded; what the whole graph computes in may be narrower now."""
    bits, kinds = float(now.stored_bits), tuple(sorted(weight.kinds))
    text = now.given.text if now.given else now.dtype
    sizes = now.size_bytes, weight.size_bytes
    return LayerRow(weight.name, kinds, weight.shape, text, "", *sizes, bits, 0.0, None, reason)


def _encoded_row(weight: Weight, action: Encode, edit: Edit, loss: float | None, chooser: Chooser) -> LayerRow:
    original = weight.size_bytes
    stored = edit.stored or action.encoding
    size = action.form.stored_bytes(stored, weight.shape)
    choice = chooser(weight, action.encoding)
    reason = choice.reason if choice.form == action.form else "as the plan says"
    if action.activations is not None:
        reason = rounded_reason(action)
    note = stored.note(weight.shape)
    reason = f"{reason}; {note}" if note else reason
    bits, asked = action.form.stored_as(stored).bits_per_weight(weight.shape), action.encoding
    text = (stored if len(stored.summands) < len(asked.summands) else asked).text
    kinds = tuple(sorted(weight.kinds))
    sizes = size, original, bits, edit.error
    row = LayerRow(weight.name, kinds, weight.shape, text, action.form.name, *sizes, loss, reason, edit.chosen)
    row = replace(row, spread=edit.spread)
    if edit.holes is None:
        return row
    timed = isinstance(chooser, FormChooser) and action.activations is None
    gain = chooser.gain_over_dense(weight, stored, action.form) if timed and isinstance(chooser, FormChooser) else None
    return replace(row, holes=edit.holes, gain=gain)


def with_gathered(rows: Iterable[LayerRow], rewrites: Iterable[RewriteRow]) -> tuple[LayerRow, ...]:
    """Rows that know what gathering channels made blocks keep."""
    edits = [edit for row in rewrites for edit in row.treated]
    found = {name: edit.gathered for edit in edits if edit.gathered for name in edit.layers}
    return tuple(replace(row, gathered=found.get(row.name)) if row.holes else row for row in rows)


def sparse_lines(rows: Iterable[LayerRow]) -> list[str]:
    """What is left of the layers of which some is left out, and what that gains."""
    sparse = [(row, row.holes) for row in rows if row.holes is not None]
    if not sparse:
        return []
    params = sum(row.params for row, _ in sparse)
    kept = sum(row.params * holes.density for row, holes in sparse) / params
    least, holes = min(sparse, key=lambda one: one[1].saliency)
    count = f"{len(sparse):,} layer{'' if len(sparse) == 1 else 's'}"
    told = f"{count} keep {kept:.1%} of their weights; least of what matters, {holes.saliency:.1%}, `{least.name}`"
    gains = [row.gain for row, _ in sparse if row.gain is not None]
    if not gains:
        return [told]
    dense = math.prod(gains) ** (1 / len(gains))
    return [
        told,
        f"our best dense kernels take {dense:.2f}x their time; in proportion to what stays it were {1 / kept:.2f}x",
    ]
