"""The options that name data: shared by the commands that run a model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qcc.compiler.console.usage import UsageError
from qcc.dsl.policy.data_words import numbers_of

if TYPE_CHECKING:
    from qcc.compiler.calibrate.sources.source import DataSource


def add_data(parser: argparse.ArgumentParser, what: str = "calibration data") -> None:
    """Declare ``--data`` and what may be said of it.

    Args:
        parser: of the command.
        what: the data is to it.
    """
    add = parser.add_argument
    add("--data", metavar="DATA", help=f"{what}: an .npz file, a folder of images, a .txt text, a .py script")
    add("--tokenizer", metavar="FILE", type=Path, help="of a text in --data: its tokenizer.json")
    add("--mean", metavar="N[,N,N]", help="of images: what is taken off pixels between 0 and 1, once or by channel")
    add("--std", metavar="N[,N,N]", help="of images: what the rest is divided by")


def data_of(args: argparse.Namespace) -> "str | DataSource | None":
    """What ``--data`` names, with what is said of it.

    Raises:
        UsageError: something is said of data that is not there, or of another kind.
    """
    said = args.tokenizer or args.mean or args.std
    if args.data is None:
        if said:
            raise UsageError("`--tokenizer`, `--mean` and `--std` are about `--data`, and there is none")
        return None
    from qcc.compiler.calibrate.sources.source import DataSource  # loads numpy

    path = Path(args.data)
    if not DataSource.takes(path):
        if said:
            raise UsageError("`--tokenizer` is about a `.txt` text, `--mean` and `--std` are about a folder of images")
        return str(args.data)
    return DataSource(path, args.tokenizer, _numbers("--mean", args.mean, 0.0), _numbers("--std", args.std, 1.0))


def _numbers(option: str, text: str | None, default: float) -> tuple[float, ...]:
    found = (default,) if text is None else numbers_of(text)
    if found is None:
        raise UsageError(f"`{option}` takes numbers with commas between, not `{text}`")
    return found
