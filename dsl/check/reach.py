"""What a policy asks that no model can give, as far as the policy alone tells."""

from pathlib import Path

from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.data_words import FOLDER
from qcc.dsl.policy.policy import Bound, FormatSpec, Policy

FLOAT_BITS = 32
LEAST_FLOAT = 16  # of a weight that stays as it is, which may be float16 already


def check_reach(policy: Policy, report: Diagnostics) -> None:
    """Report calibration data that is not there, and bounds of size or bits below what the candidates can reach."""
    _check_data(policy, report)
    _check_adapters(policy, report)
    _check_sampler(policy, report)
    choices = _choices(policy)
    if not choices:
        return
    bits, smallest = min(choices, key=lambda choice: choice[0])
    for bound in policy.budget:
        least, what = _least(bound, bits)
        if bound.quantity.value < least:
            message = f"no choice of this policy's formats reaches `{bound.text}`"
            note = f"the smallest candidate is `{smallest}`: {what}"
            help = "allow fewer bits, such as `int{2,3,4} group 32`, or more of the budget"
            report.error("Q233", message, bound.span, help=help, note=note)


def _check_data(policy: Policy, report: Diagnostics) -> None:
    calibrate = policy.calibrate
    if calibrate is None or calibrate.path is None:
        return
    if calibrate.path.endswith(FOLDER):
        if not Path(calibrate.path).is_dir():
            report.warning("Q420", f"no such folder of images: `{calibrate.path}`", calibrate.span)
    elif not _is_file(calibrate.path):
        help = "make it with `numpy.savez`, an array for each input, or write `calibrate generated`"
        report.warning("Q420", f"no such calibration file: `{calibrate.path}`", calibrate.span, help=help)


def _check_adapters(policy: Policy, report: Diagnostics) -> None:
    for one in policy.adapters:
        if not _is_file(one.path):
            help = "it is looked for beside the policy"
            report.warning("Q420", f"no such adapter: `{one.path}`", one.span, help=help)


def _check_sampler(policy: Policy, report: Diagnostics) -> None:
    one = policy.sampler
    if one is not None and not _is_file(one.path):
        report.warning("Q570", f"no such loop: `{one.path}`", one.span, help="it is looked for beside the policy")


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _choices(policy: Policy) -> list[tuple[float, str]]:
    """The fewest bits of each format that weights may have, also of what may stay of them, and how it is spelled."""
    found = [(_bits(spec), spec.text) for spec in _asked(policy, "weights")]
    for name in ("sparsity", "rows"):
        found += [
            (_thinned(spec, bits), f"{spec.text}` of `{text}" if text else spec.text)
            for spec in _asked(policy, name)
            for bits, text in found or [(LEAST_FLOAT, "")]
            if spec.stays is not None
        ]
    return found


def _asked(policy: Policy, name: str) -> list[FormatSpec]:
    return [
        spec
        for rule in policy.rules
        for one in rule.assignments
        if one.name == name and isinstance(one.value, tuple)
        for spec in one.value
    ]


def _bits(spec: FormatSpec) -> float:
    """The fewest bits of a weight in a format, also where that leaves some out."""
    if spec.stays is None:
        return spec.least_bits
    inner = [_bits(one) for one in (spec.arguments or {}).values() if isinstance(one, FormatSpec)]
    return _thinned(spec, min(inner, default=LEAST_FLOAT))


def _thinned(spec: FormatSpec, bits: float) -> float:
    """The same of one that leaves weights out, where others have so many."""
    assert spec.stays is not None
    share, beside = spec.stays
    return min(bits, share * bits + beside)


def _least(bound: Bound, bits: float) -> tuple[float, str]:
    """What a bound cannot be below with so many bits a weight, and why; 0 where the policy alone does not tell."""
    if bound.metric == "bits":
        return bits, f"{bits:.3g} bits a weight before its scales"
    if bound.metric == "size" and bound.quantity.unit == "%":
        share = 100 * bits / FLOAT_BITS
        return share, f"{share:.3g}% of float32 before its scales"
    return 0, ""
