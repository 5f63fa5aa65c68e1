"""What a policy asks that no model can give, as far as the policy alone tells."""

from pathlib import Path

from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Bound, FormatSpec, Policy

FLOAT_BITS = 32


def check_reach(policy: Policy, report: Diagnostics) -> None:
    """Report calibration data that is not there, and bounds of size or bits below what the candidates can reach."""
    _check_data(policy, report)
    _check_adapters(policy, report)
    specs = _candidates(policy)
    if not specs or _thinned(policy):
        return
    for bound in policy.budget:
        least, what = _least(bound, specs)
        if bound.quantity.value < least:
            message = f"no choice of this policy's formats reaches `{bound.text}`"
            smallest = min(specs, key=lambda spec: spec.least_bits).text
            note = f"the smallest candidate is `{smallest}`: {what}"
            help = "allow fewer bits, such as `int{2,3,4} group 32`, or more of the budget"
            report.error("Q233", message, bound.span, help=help, note=note)


def _check_data(policy: Policy, report: Diagnostics) -> None:
    calibrate = policy.calibrate
    if calibrate is None or calibrate.path is None:
        return
    if not _is_file(calibrate.path):
        help = "make it with `numpy.savez`, an array for each input, or write `calibrate generated`"
        report.warning("Q420", f"no such calibration file: `{calibrate.path}`", calibrate.span, help=help)


def _check_adapters(policy: Policy, report: Diagnostics) -> None:
    for one in policy.adapters:
        if not _is_file(one.path):
            help = "it is looked for beside the policy"
            report.warning("Q420", f"no such adapter: `{one.path}`", one.span, help=help)


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _candidates(policy: Policy) -> list[FormatSpec]:
    return [
        spec
        for rule in policy.rules
        for one in rule.assignments
        if one.name == "weights" and isinstance(one.value, tuple)
        for spec in one.value
    ]


def _thinned(policy: Policy) -> bool:
    """Some weights may be left out: what is left is not for the formats alone to say."""
    sparsities = [one.value for rule in policy.rules for one in rule.assignments if one.name == "sparsity"]
    return any(isinstance(value, tuple) and not all(spec.least_bits for spec in value) for value in sparsities)


def _least(bound: Bound, specs: list[FormatSpec]) -> tuple[float, str]:
    """What a bound cannot be below, and why; 0 where the policy alone does not tell."""
    bits = min(spec.least_bits for spec in specs)
    if bound.metric == "bits":
        return bits, f"{bits:g} bits a weight before its scales"
    if bound.metric == "size" and bound.quantity.unit == "%":
        share = 100 * bits / FLOAT_BITS
        return share, f"{share:.3g}% of float32 before its scales"
    return 0, ""
