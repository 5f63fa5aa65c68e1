"""What a compilation did, for people: a table of layers, then a line for each thing worth knowing. And as JSON."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from qcc.compiler.adapters.merge import texts
from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.console.fit_table import GAP
from qcc.compiler.console.percent import percent
from qcc.compiler.console.terminal import Style, paint, write_line, write_table, write_text, write_topics
from qcc.compiler.judge.told import score_lines
from qcc.compiler.metrics.find import additive, to_measure
from qcc.compiler.metrics.metric import Judged
from qcc.compiler.report.data import data_lines, plural
from qcc.compiler.report.failures import losses, measured
from qcc.compiler.report.layer_rows import sparse_lines
from qcc.compiler.report.layer_tables import footnotes, format_table, layer_table
from qcc.compiler.report.result import Allocation, LayerRow, Result, average_bits
from qcc.compiler.report.text import MISLEADS
from qcc.compiler.report.times import latency_lines
from qcc.compiler.scores.check import DROP
from qcc.compiler.verify.outputs import BoundCheck, OutputCheck
from qcc.dsl.diagnostics.excerpt import escape
from qcc.ir.forms.find import forms

LISTED_LAYERS = 40
SHOWN_SECONDS = 0.05
QUOTED = re.compile("`[^`]*`")


def write_report(result: Result, verbose: bool = False) -> None:
    """Print the report; repeated layers are one row, and what is more than fits a screen is summed up by format.

    With ``verbose`` each layer has its row.
    """
    write_line(paint(f"{escape(str(result.source))} -> {escape(str(result.output))}", "bold"))
    write_line()
    listed = layer_table(result.layers, alone=verbose)
    write_table(listed if verbose or len(listed.rows) <= LISTED_LAYERS else format_table(result.layers))
    for line in footnotes(result.layers):
        write_text(line, "dim")
    if not verbose and len(listed.rows) < len(result.layers):
        write_text("a row of several layers has their bytes together and what the worst of them lost", "dim")
    write_line()
    write_topics(_topics(result))


def _topics(result: Result) -> dict[str, list[tuple[str, Style | None]]]:
    """Each line with its colour, under the word that starts it."""
    kernels = [result.kernels] if result.kernels else []
    data = [result.data] if result.data else []
    packed = [result.packed] if result.packed else []
    loop = list(result.loop.files) if result.loop else []
    cache = [result.cache] if result.cache else []
    beside = [*data, *kernels, *packed, *loop, *cache]
    files = [result.output, *beside, result.lock, result.report] if result.written else []
    wrote = ", ".join(map(str, files)) if files else "nothing: the verification failed"
    wrote += "; kept although the verification failed" if files and not result.passed else ""
    whole = sum(result.seconds.values())
    phases = ", ".join(f"{name} {taken:.1f}" for name, taken in result.seconds.items() if taken >= SHOWN_SECONDS)
    verification = result.verification
    bounds = [_bound_line(check, verification.generated) for check in verification.bounds]
    notes: list[tuple[str, Style | None]] = [(note, "yellow") for note in verification.notes]
    lost: list[tuple[str, Style | None]] = [(line, "red") for line in losses(verification)]
    verify = [*(bounds or [("the policy sets no bound", None)]), *lost, *notes]
    topics: dict[str, list[tuple[str, Style | None]]] = {
        "size": [(_size_line(result), "bold")],
        "transport": [(_packed_line(result), None)] if result.packed else [],
        "latency": [] if result.times is None else latency_lines(result.times),
        "costs": [(one.line, None) for one in result.costs],
        "outputs": [(line, None) for line in _output_lines(result)],
        "loop": [(line, None) for line in (result.loop.lines if result.loop else ())],
        "score": [(line, None) for line in score_lines(verification)],
        "verify": verify,
        "allocate": [(line, None) for line in _allocation_lines(result.allocation)],
        "note": [(line, None) for line in result.notes],
        "sparse": [(line, None) for line in sparse_lines(result.layers)],
        "data": [(line, None) for line in data_lines(result.layers)],
        "layers": [(line, None) for line in _reasons(result.layers)],
        "reached": [(line, None) for line in (result.reach.lines if result.reach else [])],
        "adapters": [(f"{name}  {text}", None) for name, text in texts(result.adapters).items()],
        "cleaned": [("; ".join(result.edits), None)] if result.edits else [],
        "rewrote": [(line, None) for line in _rewrite_lines(result.rewrites)],
        "wrote": [(wrote, None if result.passed else "red")],
        "time": [(f"{whole:.1f} s" + (f": {phases}" if phases else ""), None)],
    }
    return {topic: lines for topic, lines in topics.items() if lines}


def _size_line(result: Result) -> str:
    before, after = result.input_bytes, result.output_bytes
    bits = average_bits(result.layers)
    shared = "" if bits is None else f"; {bits:.2f} bits a weight on average"
    return f"{before:,} -> {after:,} bytes, {percent(after / before)}, {before / max(after, 1):.2f}x smaller{shared}"


def _packed_line(result: Result) -> str:
    share = percent(result.packed_bytes / max(result.output_bytes, 1))
    return f"{result.packed_bytes:,} bytes, {share} of the model's; `qcc expand` makes it again, bit for bit"


def _output_lines(result: Result) -> list[str]:
    verification = result.verification
    rows = [(one.output, _output_text(one)) for one in verification.outputs]
    rows += [(f"{one.output}, with kernels", _output_text(one)) for one in verification.kernel_outputs]
    width = max((len(name) for name, _ in rows), default=0)
    data = "generated data" if verification.generated else verification.origin
    lines = [f"{name:<{width}}{GAP}{text}" for name, text in rows]
    run = f"; not the file was run, but {verification.stand_in}" if verification.stand_in else ""
    lines.append(f"on {plural(verification.samples, 'sample')} of {data}{run}")
    lines += [] if verification.driven is None else [verification.driven.line]
    return [*lines, MISLEADS] if verification.generated else lines


def _output_text(one: OutputCheck) -> str:
    notes = "".join(f"; {note}" for note in (*one.notes, one.unverified and f"it {one.unverified}") if note)
    if one.changed is not None:
        return ("equal" if one.changed == 0 else f"{percent(one.changed)} of the values changed") + notes
    sqnr = "exact" if one.sqnr == math.inf else f"{one.sqnr:.1f} dB"
    more = "".join(f", {metric.title} {metric.text(one.found.values[metric.name])}" for metric in _asked(one))
    return f"cosine {one.cosine:.6f}, SQNR {sqnr}, relative error {percent(one.relative_error)}{more}{notes}"


def _asked(one: OutputCheck) -> list[Judged]:
    """What was measured because a bound names it."""
    return [metric for metric in to_measure(one.found.values) if not metric.told]


def _bound_line(check: BoundCheck, generated: bool) -> tuple[str, Style | None]:
    verdict = "holds" if check.passed else "FAILS"
    where = " on generated data" if generated and check.bound.metric != DROP else ""
    excuse = f"; {check.excuse}" if check.excuse else ""
    text = f"{check.bound.text}: {verdict}{where}, {measured(check)}{excuse}"
    return text, "red" if not check.passed else "yellow" if check.excuse else "green"


def _options(allocation: Allocation) -> str:
    layers = allocation.options - allocation.caches
    found = [plural(layers, "layer")] if layers or not allocation.caches else []
    return " and ".join([*found, *([plural(allocation.caches, "cache")] if allocation.caches else [])])


def _uniform(allocation: Allocation) -> bool:
    return allocation.rivals is not None and allocation.rivals[1] < allocation.rivals[0]


def _allocation_lines(allocation: Allocation | None) -> list[str]:
    if allocation is None:
        return []
    under = f" under {', '.join(allocation.limits)}" if allocation.limits else ""
    proof = "proven optimal" if allocation.gap <= 0 else f"within {percent(allocation.gap)} of the optimum"
    predicted = allocation.predicted_error
    metric = additive()[allocation.metric]
    text, title = (percent, "error") if "%" in metric.units else (metric.text, metric.title)
    error = "" if predicted is None else f"; predicted {title} at the outputs {text(predicted)}"
    least = allocation.least_error
    bound = [] if least is None else [f"no choice within the size loses less than {text(least)}, by BAQ's closed form"]
    slope, row = allocation.equal_slope, allocation.limits[0].split()[0] if allocation.limits else ""
    price = f"one price of {'a byte' if row == 'size' else row} for all"
    bound += [] if slope is None else [f"{price} would lose {text(slope)}, as LPViT chooses"]
    if _uniform(allocation):
        proof = "one format for all, which loses less than the optimum's mix when all weights are run together"
    held = f" on {plural(allocation.held_out, 'sample')} held out" if allocation.held_out else ""
    counts = f"{plural(allocation.candidates, 'candidate')} for {_options(allocation)}"
    rounds = [f"the smallest that holds of {allocation.rounds} files that were judged"] if allocation.rounds else []
    if rounds:
        proof = f"the least error for the size, {proof}"
    for name, (both, one) in allocation.balance.items():
        share = f", {percent(both / one)} of what `minimize {allocation.metric}` would lose" if one else ""
        bound.append(f"{name} {additive()[name].text(both, '%')}{share}")
    return [
        f"minimize {allocation.objective}{under}: {proof}{error}",
        *rounds,
        *bound,
        f"{counts}, {allocation.measured:,} of them measured" + held,
    ]


def _reasons(layers: Sequence[LayerRow]) -> list[str]:
    """Why layers are kept, and why they are stored as they are: a line a reason."""
    groups: dict[tuple[str, str], int] = {}
    for row in layers:
        key = (forms()[row.form].says if row.form else "kept as before", row.reason)
        groups[key] = groups.get(key, 0) + 1
    ordered = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    return [f"{plural(count, 'layer')} {what}" + (f": {reason}" if reason else "") for (what, reason), count in ordered]


def _rewrite_lines(rows: Sequence[RewriteRow]) -> list[str]:
    """What each pass that keeps the function did, and how well it kept it: a line a pass."""
    return [f"{row.action}: {_rewrite_text(row)}" for row in rows]


def _rewrite_text(row: RewriteRow) -> str:
    counts = [plural(len(row.treated), "edit" if row.action == "clean" else "site")] if row.treated else []
    if row.refused:
        counts.append(f"{len(row.refused):,} refused: {_common_reason(row)}")
    if not row.treated and row.action != "clean":
        return "; ".join(counts) or "nothing to do"
    changed = f", {percent(row.changed)} of whole numbers changed" if row.changed else ""
    counts.append(f"relative error {row.error:.2g}, {row.bound:.2g} allowed{changed}")
    return "; ".join(counts)


def _common_reason(row: RewriteRow) -> str:
    """The reason given most often, names apart, by its first case."""
    kinds = [QUOTED.sub("``", edit.text) for edit in row.refused]
    often, count = Counter(kinds).most_common(1)[0]
    alike = [edit.text for edit, kind in zip(row.refused, kinds, strict=True) if kind == often]
    others = len(set(kinds)) - 1
    text = alike[0] + (" and the like" if len(set(alike)) > 1 else "")
    return text + (f" ({count:,}), and {plural(others, 'other reason')}" if others else "")
