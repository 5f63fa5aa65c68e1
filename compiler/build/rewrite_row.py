"""What a pass that promises the same function did."""

from dataclasses import dataclass

from qcc.passes.contract.contract import Edit


@dataclass(frozen=True)
class RewriteRow:
    """A pass that promises the same function, what it did site by site, and how well it kept its word.

    ``error`` is the largest error over the largest value of an output, ``bound`` what is allowed of it, and ``changed``
    the share of whole numbers that came out as others.
    """

    action: str
    edits: tuple[Edit, ...]
    error: float = 0.0
    changed: float = 0.0
    bound: float = 0.0
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()
    """The sites that would not have kept the function, among those refused."""

    @property
    def treated(self) -> tuple[Edit, ...]:
        """What was done."""
        return tuple(edit for edit in self.edits if not edit.refused)

    @property
    def refused(self) -> tuple[Edit, ...]:
        """What was asked and not done, with the reasons."""
        return tuple(edit for edit in self.edits if edit.refused)
