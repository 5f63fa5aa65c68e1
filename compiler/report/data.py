"""What a report says of calibration data: how much there was of each layer, and what it decided."""

from collections import Counter
from collections.abc import Sequence

from qcc.compiler.report.result import LayerRow


def data_lines(layers: Sequence[LayerRow]) -> list[str]:
    """How far data covers the layers whose inputs were looked at, and what it decided about their rounding."""
    known = [(row.data, row.name) for row in layers if row.data is not None]
    if not known:
        return []
    worst, name = min(known, key=lambda pair: pair[0].ratio)
    layer = plural(len(known), "layer")
    lines = [f"{worst.distinct_rows:,} rows for {worst.inputs:,} inputs of `{name}`, the least covered of {layer}"]
    if worst.held_rows:
        lines.append(f"{worst.held_rows:,} of the rows held out to judge what the others chose")
    hidden = max(data.hidden_rows for data, _ in known)
    if hidden:
        lines.append(f"{hidden:,} more rows are of positions that a mask hides, and count nothing")
    repeated = max(data.repeated_rows for data, _ in known)
    if repeated:
        lines.append(f"{repeated:,} more rows are of samples that were there before, and cover nothing more")
    decided = Counter(row.chosen for row in layers if row.chosen)
    if decided:
        lines.append("; ".join(f"{plural(count, 'layer')} {what}" for what, count in decided.most_common()))
    return lines


def coverage_json(layers: Sequence[LayerRow]) -> dict[str, object] | None:
    """The least and the whole of it, for the lock file; None where nothing was looked at."""
    known = [row.data for row in layers if row.data is not None]
    if not known:
        return None
    decided = Counter(row.chosen for row in layers if row.chosen)
    return {
        "layers": len(known),
        "least_rows_an_input": round(min(one.ratio for one in known), 3),
        "rows": max(one.rows for one in known),
        "held_out_rows": max(one.held_rows for one in known),
        "hidden_rows": max(one.hidden_rows for one in known),
        "repeated_rows": max(one.repeated_rows for one in known),
        "chosen": dict(sorted(decided.items())),
    }


def plural(count: int, word: str) -> str:
    """A count with its noun."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")
