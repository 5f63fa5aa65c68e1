"""Sizes as people write them."""

import math
import re

from qcc.dsl.syntax.literals import UNITS, nearest_unit

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z%]*)", re.ASCII)


class SizeError(ValueError):
    """A text is no size."""

    def __init__(self, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.help = help


def byte_size(text: str, shares: bool = False) -> tuple[float, bool]:
    """A size in bytes, as in ``45MiB``, or a share where those may be; the second tells which.

    Raises:
        SizeError: it is neither.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = found["unit"] or "B" if found else ""
    family, factor = UNITS.get(unit, ("", 1.0))
    if found is None or family not in (("B", "%") if shares else ("B",)):
        near = nearest_unit(unit) if unit else None
        meant = f"did you mean `{found['number']}{near}`?" if found and near and UNITS[near][0] == "B" else None
        raise SizeError(f"`{text}` is not a size such as `45MiB`" + (" or `60%`" if shares else ""), meant)
    value = float(found["number"]) * (1e-2 if family == "%" else factor)
    if not math.isfinite(value):
        raise SizeError(f"`{text}` is larger than any file")
    return value, family == "%"
