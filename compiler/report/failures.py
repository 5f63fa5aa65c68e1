"""What is told when the verification fails: which bound, by how much, what lost most, and what to do."""

from qcc.compiler.console.percent import percent
from qcc.compiler.report.result import Result
from qcc.compiler.verify.outputs import BoundCheck, OutputCheck
from qcc.dsl.diagnostics.diagnostic import Diagnostic

LISTED_LOSERS = 5


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
    data = " on generated data" if verification.generated else ""
    output = next((one for one in verification.outputs if one.output == check.output), None)
    message = f"verification failed: `{check.bound.text}` does not hold{data}, it is {measured(check)}"
    losers = ", ".join(f"`{name}` ({percent(loss)})" for name, loss in verification.losers[:LISTED_LOSERS])
    notes = [f"most is lost in {losers}, as measured at the outputs"] if losers else []
    notes += _notes(output)
    return Diagnostic("Q320", message, check.bound.span, _help(result), "; ".join(notes) or None)


def _notes(output: OutputCheck | None) -> list[str]:
    if output is None:
        return []
    return [f"`{output.output}`: {note}" for note in output.notes]


def _help(result: Result) -> str:
    """What may help, the likeliest first."""
    ways = ["allow more bits" if not result.verification.losers else "give the layers that lose most more bits"]
    if result.allocation is None:
        ways.append("let a budget choose (`weights = int{4,8} channel`, `minimize output_error`)")
    if result.verification.generated:
        data = "give data (`--data FILE.npz`), on which `rounding = gptq` pays, too"
        return f"{data}; {', '.join(ways)}, or loosen the bound"
    return f"{', '.join(ways)}, round with `rounding = gptq`, or loosen the bound"
