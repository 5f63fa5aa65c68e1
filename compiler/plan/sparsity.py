"""Sparsity beside formats: which candidates follow, and what does not go together."""

from collections.abc import Sequence

from qcc.compiler.plan.formats import learns, thinned
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Assignment, FormatSpec

MOST_CANDIDATES = 1000


def combined(asked: Assignment, kept: Sequence[FormatSpec], diagnostics: Diagnostics) -> list[FormatSpec]:
    """Each format under each sparsity, those that store the same once; none if any is wrong, which is reported."""
    sparsities = _specs(asked)
    count = len(sparsities) * len(kept)
    if count > MOST_CANDIDATES:
        message = f"{count:,} formats and sparsities, more than {MOST_CANDIDATES:,}"
        _error(diagnostics, "Q392", message, asked, "list fewer of one of them")
        return []
    found: dict[str, FormatSpec] = {}
    for sparsity in sparsities:
        for format in kept:
            try:
                spec = thinned(sparsity, format)
            except ValueError as error:
                message = f"`{sparsity.text}` does not go with `{format.text}`: {error}"
                _error(diagnostics, "Q391", message, asked, "give one of them a rule of its own")
                return []
            found[spec.text] = spec
    return list(found.values())


def warn_blind(asked: Assignment, diagnostics: Diagnostics) -> None:
    """Tell that data is to say what is left out, and that none is given."""
    spec = next((one for one in _specs(asked) if learns(one)), None)
    if spec is None:
        return
    message = f"`{spec.text}` goes by calibration data, and none is given"
    help = "give some with `--data FILE.npz`, or write `by = magnitude`"
    if _fresh(diagnostics, "Q390", asked):
        diagnostics.warning("Q390", message, asked.span, help=help)


def _specs(asked: Assignment) -> tuple[FormatSpec, ...]:
    assert isinstance(asked.value, tuple)  # a property without methods
    return asked.value


def _fresh(diagnostics: Diagnostics, code: str, asked: Assignment) -> bool:
    """It was not yet told of another weight."""
    return all((one.code, one.span) != (code, asked.span) for one in diagnostics.found)


def _error(diagnostics: Diagnostics, code: str, message: str, asked: Assignment, help: str) -> None:
    if _fresh(diagnostics, code, asked):
        diagnostics.error(code, message, asked.span, help=help)
