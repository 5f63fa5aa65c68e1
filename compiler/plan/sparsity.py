"""Sparsity beside formats: which candidates follow, and what does not go together."""

from collections.abc import Sequence

from qcc.compiler.plan.formats import asks_data, thinned
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Assignment, FormatSpec
from qcc.passes.contract.contract import Rounding

MOST_CANDIDATES = 1000


def combined(asked: Assignment, kept: Sequence[FormatSpec], diagnostics: Diagnostics) -> list[FormatSpec]:
    """Each format under each sparsity, those that store the same once; none if any is wrong, which is reported."""
    count = len(asked.value) * len(kept)
    if count > MOST_CANDIDATES:
        message = f"{count:,} formats and sparsities, more than {MOST_CANDIDATES:,}"
        _once(diagnostics, "Q392", message, asked, "list fewer of one of them")
        return []
    found: dict[str, FormatSpec] = {}
    for sparsity in asked.value:
        for format in kept:
            try:
                spec = thinned(sparsity, format)
            except ValueError as error:
                message = f"`{sparsity.text}` does not go with `{format.text}`: {error}"
                _once(diagnostics, "Q391", message, asked, "give one of them a rule of its own")
                return []
            found[spec.text] = spec
    return list(found.values())


def blind(asked: Assignment, rounding: Assignment | None, diagnostics: Diagnostics) -> bool:
    """Data is to say what is left out, but the rounding that was asked for looks at none; which is reported."""
    method = None if rounding is None else rounding.value
    spec = next((one for one in asked.value if asks_data(one)), None)
    if not isinstance(method, Rounding) or method.uses_gram or spec is None:
        return False
    assert rounding is not None
    message = f"`{spec.text}` goes by calibration data, which `rounding = {rounding.text}` does not look at"
    _once(diagnostics, "Q390", message, asked, "write `rounding = gptq`, or `by = magnitude`")
    return True


def _once(diagnostics: Diagnostics, code: str, message: str, asked: Assignment, help: str) -> None:
    """Not once more for each weight."""
    if all((one.code, one.span) != (code, asked.span) for one in diagnostics.found):
        diagnostics.error(code, message, asked.span, help=help)
