"""Sparsity beside formats: which candidates follow."""

from collections.abc import Sequence
from itertools import product

from qcc.compiler.plan.formats import learns, thinned
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Assignment, FormatSpec

MOST_CANDIDATES = 1000


def combined(asked: Assignment, kept: Sequence[FormatSpec], diagnostics: Diagnostics) -> list[FormatSpec]:
    """Each format under each sparsity, those that store the same once; none where there are too many, which is told."""
    sparsities = specs_of(asked)
    count = len(sparsities) * len(kept)
    if count > MOST_CANDIDATES:
        message = f"{count:,} formats and sparsities, more than {MOST_CANDIDATES:,}"
        if _fresh(diagnostics, "Q391", asked):
            diagnostics.error("Q391", message, asked.span, help="list fewer of one of them")
        return []
    return list({one.text: one for one in (thinned(*pair) for pair in product(sparsities, kept))}.values())


def warn_blind(asked: Assignment, diagnostics: Diagnostics) -> None:
    """Tell that data is to say what is left out, and that none is given."""
    spec = next((one for one in specs_of(asked) if learns(one)), None)
    if spec is None:
        return
    message = f"`{spec.text}` goes by calibration data, and none is given"
    help = "give some with `--data FILE.npz`, or write `by = magnitude`"
    if _fresh(diagnostics, "Q390", asked):
        diagnostics.warning("Q390", message, asked.span, help=help)


def specs_of(asked: Assignment) -> tuple[FormatSpec, ...]:
    """The candidates that a property of formats was given."""
    assert isinstance(asked.value, tuple)  # a property without methods
    return asked.value


def _fresh(diagnostics: Diagnostics, code: str, asked: Assignment) -> bool:
    """It was not yet told of another weight."""
    return all((one.code, one.span) != (code, asked.span) for one in diagnostics.found)
