"""How data is named in a policy and on the command line."""

import math

ARRAYS, TEXT, FOLDER = ".npz", ".txt", "/"
"""How a name in a policy ends: a folder of images is told from a file by its slash."""


def numbers_of(text: str) -> tuple[float, ...] | None:
    """Numbers with commas between; None where it is none."""
    try:
        found = tuple(float(one) for one in text.split(","))
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None
