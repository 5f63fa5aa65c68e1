"""What is told when the verification fails: which bound, by how much, what lost most, and what to do."""

import re

from qcc.compiler.console.percent import percent
from qcc.compiler.judge.told import score_text
from qcc.compiler.report.result import LayerRow, Result
from qcc.compiler.verify.outputs import BoundCheck, OutputCheck, Verification
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.passes.encode import Encode

LISTED_LOSERS = 5
ENOUGH = 0.8  # of the noise
BITS = 7.0  # a layer with fewer gets eight, one with more is kept
NAMEABLE = re.compile(r'[^"\\\n\r]+')  # in a policy's quotes


def failed_bounds(result: Result) -> list[Diagnostic]:
    """The bounds of ``verify`` that do not hold, as errors."""
    return [_failed(check, result) for check in result.verification.bounds if not check.passed]


def measured(check: BoundCheck) -> str:
    """The value that a bound was held to, in its unit."""
    if check.bound.quantity.unit == "%":
        return percent(check.value)
    unit = f" {check.bound.quantity.unit}" if check.bound.quantity.unit else ""
    return f"{check.value:.6g}{unit}"


def _failed(check: BoundCheck, result: Result) -> Diagnostic:
    verification = result.verification
    score = next((one for one in verification.scores if one.bound == check.bound), None)
    data = " on generated data" if verification.generated and score is None else ""
    output = next((one for one in verification.outputs if one.output == check.output), None)
    message = f"verification failed: `{check.bound.text}` does not hold{data}, it is {measured(check)}"
    kept = [f"kept as `{result.output}`"] if result.written else []
    run = [f"not the file was run, but {verification.stand_in}"] if verification.stand_in else []
    notes = [*([score_text(score)] if score else []), *losses(verification), *_notes(output), *run, *kept]
    more = "give more samples with labels, which make it surer; " if score is not None and score.unsure else ""
    return Diagnostic("Q320", message, check.bound.span, more + _help(result), "; ".join(notes) or None)


def _notes(output: OutputCheck | None) -> list[str]:
    if output is None:
        return []
    return [f"`{output.output}`: {note}" for note in output.notes]


def losses(verification: Verification) -> list[str]:
    """What loses most, in a line, if that was measured."""
    shown = verification.losers[:LISTED_LOSERS]
    if not shown:
        return []
    first, *others = (f"`{one.weight}` {percent(one.share)}" for one in shown)
    return [f"loses most: {first} of the noise" + "".join(f", {one}" for one in others)]


def suggestion(result: Result) -> str:
    """A rule, for the end of the policy, that gives more bits to the layers that lose most; empty where none may."""
    rows = {row.name: row for row in result.layers}
    chosen: dict[str, list[str]] = {}
    told = 0.0
    for one in result.verification.losers[:LISTED_LOSERS]:
        if told >= ENOUGH or one.weight not in rows or not NAMEABLE.fullmatch(one.weight):
            break
        told += one.share
        chosen.setdefault(_more(rows[one.weight]), []).append(f'any[name ~ "{one.weight}"]')
    return " ".join(f"rule {', '.join(names)} {{ {what} }}" for what, names in chosen.items())


def _more(row: LayerRow) -> str:
    return "weights = int8 channel" if row.bits < BITS else "keep"


def _help(result: Result) -> str:
    """What may help, the likeliest first."""
    keeping = "" if result.written else "; `--keep-failed` keeps the file to look at"
    rule = suggestion(result)
    ways = [f"end the policy with `{rule}`" if rule else "allow more bits"]
    if result.allocation is None:
        ways.append("let a budget choose (`weights = int{4,8} channel`, `minimize output_error`)")
    if result.verification.generated:
        data = "give data (`--data FILE.npz`), on which `rounding = gptq` pays, too"
        return f"{data}; {', '.join(ways)}, or loosen the bound{keeping}"
    if not any(isinstance(one.action, Encode) and one.action.rounding.uses_gram for one in result.plan.steps):
        ways.append("round with `rounding = gptq`")
    return f"{', '.join(ways)}, or loosen the bound{keeping}"
