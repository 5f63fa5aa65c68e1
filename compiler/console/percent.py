"""Shares as text."""

import math

SMALLEST_PERCENT = 1e-4


def percent(share: float) -> str:
    """A share as the console has it: two digits."""
    if not math.isfinite(share):
        return "infinite"
    value = 100 * share
    if value == 0 or abs(value) >= 10:
        return f"{value:.1f}%"
    return f"{value:.2g}%" if abs(value) >= SMALLEST_PERCENT else f"{value:.1e}%"
