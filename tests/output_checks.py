"""Checks of outputs, made up."""

from typing import Any

from qcc.compiler.verify.differences import Measures
from qcc.compiler.verify.outputs import OutputCheck


def measures(cosine: float, sqnr: float, relative_error: float, **others: float) -> Measures:
    """What metrics say."""
    return Measures({"cosine": cosine, "sqnr": sqnr, "relative_error": relative_error, **others})


def output_check(name: str, cosine: float, sqnr: float, relative_error: float, *more: Any) -> OutputCheck:
    """Of an output, with what metrics say of it."""
    return OutputCheck(name, measures(cosine, sqnr, relative_error), *more)
