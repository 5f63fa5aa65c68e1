"""How far calibration data covers what layers read: rows of data beside numbers of inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from qcc.compiler.phases import Phases
from qcc.compiler.result import Coverage, LayerRow
from qcc.dsl.diagnostics import Diagnostic, Diagnostics, Severity
from qcc.passes.moments import Moments

FEW = 2  # rows an input: with fewer, what data says of a layer is more chance than anything


Told = Callable[[Sequence[Coverage]], None]
"""Called with what the statistics cover, before the long work that uses them."""


def coverage_of(moments: Mapping[str, Moments]) -> tuple[Coverage, ...]:
    """Of all layers that have statistics."""
    return tuple(
        Coverage(name, len(one.gram), one.rows, one.held_rows, one.hidden_rows) for name, one in moments.items()
    )


@dataclass
class Covered:
    """The data that there is of layers, by name, as far as something asked for it."""

    found: dict[str, Coverage] = field(default_factory=dict)

    def by(self, diagnostics: Diagnostics, phases: Phases) -> Told:
        """Note what data there is, and tell at once where there is little: the long work is still to come."""

        def told(coverage: Sequence[Coverage]) -> None:
            warning = few_rows([one for one in coverage if one.layer not in self.found])
            self.found.update({one.layer: one for one in coverage})
            if warning is not None:
                diagnostics.found.append(warning)
                phases.warn(warning.message)

        return told

    def told(self, rows: Sequence[LayerRow]) -> tuple[LayerRow, ...]:
        """The rows of a report, each with the data that there is of its layer."""
        return tuple(replace(row, data=self.found.get(row.name)) for row in rows)


def few_rows(coverage: Sequence[Coverage]) -> Diagnostic | None:
    """What to warn of where there is little data for a layer."""
    few = [one for one in coverage if one.ratio < FEW]
    if not few:
        return None
    worst = min(few, key=lambda one: one.ratio)
    more = f", and few for {len(few) - 1:,} more of {len(coverage):,} layers" if len(few) > 1 else ""
    message = f"{worst.rows:,} rows of data for {worst.inputs:,} inputs of `{worst.layer}`{more}"
    hidden = ", which do not count where a mask hides them" if worst.hidden_rows else ""
    help = f"give more samples; rows are positions of samples{hidden}, and ten an input are enough"
    note = "samples held out judge layer by layer what is learned from so few; `rounding = nearest` may still do better"
    return Diagnostic("Q436", message, help=help, note=note, severity=Severity.WARNING)
