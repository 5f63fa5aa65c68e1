"""How far calibration data covers what layers read: rows of data beside numbers of inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity
from qcc.passes.contract.moments import Moments


@dataclass(frozen=True)
class Coverage:
    """Of one layer: ``rows`` of data, each of so many ``inputs``; ``held_rows`` of them judge what the others chose.

    ``hidden_rows`` do not count, since a mask hides them. Of the rows ``repeated_rows`` are of samples that were there
    before, and cover nothing more.
    """

    layer: str
    inputs: int
    rows: int
    held_rows: int
    hidden_rows: int
    repeated_rows: int = 0

    @property
    def distinct_rows(self) -> int:
        """Those that are not of repeated samples."""
        return self.rows - self.repeated_rows

    @property
    def ratio(self) -> float:
        """Rows an input, of distinct samples."""
        return self.distinct_rows / max(self.inputs, 1)


FEW = 2  # rows an input: with fewer, what data says of a layer is more chance than anything


Told = Callable[[Sequence[Coverage]], None]
"""Called with what the statistics cover, before the long work that uses them."""


def coverage_of(moments: Mapping[str, Moments]) -> tuple[Coverage, ...]:
    """Of all layers that have statistics."""
    return tuple(
        Coverage(name, len(one.gram), one.rows, one.held_rows, one.hidden_rows, one.repeated_rows)
        for name, one in moments.items()
    )


def few_rows(coverage: Sequence[Coverage]) -> Diagnostic | None:
    """What to warn of where there is little data for a layer."""
    few = [one for one in coverage if one.ratio < FEW]
    if not few:
        return None
    worst = min(few, key=lambda one: one.ratio)
    more = f", and few for {len(few) - 1:,} more of {len(coverage):,} layers" if len(few) > 1 else ""
    message = f"{worst.distinct_rows:,} rows of data for {worst.inputs:,} inputs of `{worst.layer}`{more}"
    hidden = ", which do not count where a mask hides them" if worst.hidden_rows else ""
    other = "more samples" if not worst.repeated_rows else "samples that are not repeated"
    help = f"give {other}; rows are positions of samples{hidden}, and ten an input are enough"
    note = "the fewer they are, the less `gptq` follows them: it comes close to rounding to nearest"
    return Diagnostic("Q436", message, help=help, note=note, severity=Severity.WARNING)
