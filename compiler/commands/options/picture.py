"""The option ``--picture``: a file that a drawing goes into, lines as .svg or pixels as .png."""

import argparse
from pathlib import Path

from qcc.compiler.console.usage import UsageError
from qcc.compiler.files.staging import write_whole
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError

PIXELS = ".png"
ENDS = (".svg", PIXELS)


def add_picture(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare it; ``what`` is drawn."""
    parser.add_argument("--picture", metavar="FILE", type=Path, help=f"draw {what} into an .svg or .png file")


def check_picture(path: Path | None) -> None:
    """Tell before the long work what would fail after it.

    Raises:
        UsageError: it is none of the kinds that there are.
        QccError: it cannot be written.
    """
    if path is None:
        return
    if path.suffix not in ENDS:
        raise UsageError(f"a picture ends in .svg or .png: `{path}`")
    if not path.parent.is_dir():
        raise QccError([Diagnostic("Q404", f"cannot write `{path}`: no such folder")])
    if path.is_dir():
        raise QccError([Diagnostic("Q404", f"cannot write `{path}`: it is a folder")])
    if path.suffix == PIXELS:
        from qcc.compiler.report.page.raster import png  # what it takes is told now, too

        png('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')


def write_picture(path: Path | None, svg: str) -> None:
    """Write a drawing in the kind that the name ends in."""
    if path is None:
        return
    if path.suffix == PIXELS:
        from qcc.compiler.report.page.raster import png

        write_whole(path, png(svg))
    else:
        write_whole(path, svg)
