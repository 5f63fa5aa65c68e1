"""The data that there was of layers, gathered for the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from qcc.compiler.calibrate.coverage import Coverage, Told, few_rows
from qcc.compiler.console.phases import Phases
from qcc.compiler.report.result import LayerRow
from qcc.dsl.diagnostics.report import Diagnostics


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
