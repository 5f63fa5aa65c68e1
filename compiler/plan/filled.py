"""Properties beside formats that leave something out: which candidates follow."""

from collections.abc import Sequence
from itertools import product

from qcc.compiler.plan.formats import encoding_of, filled, learns
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Assignment, FormatSpec
from qcc.ir.graph.ops import Kind, Weight

MOST_CANDIDATES = 1000


def combined(asked: Assignment, kept: Sequence[FormatSpec], diagnostics: Diagnostics) -> list[FormatSpec]:
    """Each format in each that leaves something out, those that store the same once.

    Where there are too many there are none, which is told.
    """
    others = specs_of(asked)
    count = len(others) * len(kept)
    if count > MOST_CANDIDATES:
        what = "sparsities" if asked.name == "sparsity" else asked.name
        message = f"{count:,} formats and {what}, more than {MOST_CANDIDATES:,}"
        if _fresh(diagnostics, "Q391", asked):
            diagnostics.error("Q391", message, asked.span, help="list fewer of one of them")
        return []
    return list({one.text: one for one in (filled(*pair) for pair in product(others, kept))}.values())


def check_tied(weight: Weight, specs: Sequence[FormatSpec], diagnostics: Diagnostics) -> Sequence[FormatSpec]:
    """The formats that a weight may get: those that merge rows do so in tables alone, which is told once a format."""
    others = sorted(weight.kinds - {Kind.EMBEDDING})
    found = []
    for spec in specs:
        encoding = encoding_of(spec) if others else None
        if encoding is None or not encoding.merges:
            found.append(spec)
            continue
        message = f"`{weight.name}` is read by {others[0]} layers, which would get as many equal results as rows share"
        help = "write `tied = expand` to let them, or give the rule to tables that are looked up alone"
        if all((one.code, one.message) != ("Q348", message) for one in diagnostics.found):
            diagnostics.error("Q348", message, spec.span, help=help)
    return found


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
