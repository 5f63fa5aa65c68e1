"""Numbers in words, as reports have them."""

import math


def share_text(share: float) -> str:
    """A share as a percentage in three digits."""
    if not math.isfinite(share):
        return "not a number" if math.isnan(share) else "∞ %"
    return f"{100 * share:.3g} %" if abs(share) < 1 else f"{100 * share:.0f} %"


def ratio_text(ratio: float, digits: int = 2) -> str:
    """A plain number in a few digits."""
    if not math.isfinite(ratio):
        return "not a number" if math.isnan(ratio) else "∞"
    return f"{ratio:.{digits}g}"
