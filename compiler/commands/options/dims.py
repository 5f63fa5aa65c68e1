"""The option that says how long free axes of generated inputs are: shared by the commands that take it."""

import argparse

from qcc.compiler.console.usage import UsageError


def add_dims(parser: argparse.ArgumentParser) -> None:
    """Declare ``--dim``."""
    help = "the size of a free axis of generated inputs; may be repeated"
    parser.add_argument("--dim", metavar="NAME=N", action="append", default=[], help=help)


def dims(args: argparse.Namespace, least: int = 1) -> dict[str, int]:
    """The sizes given with ``--dim``.

    Raises:
        UsageError: one is no size, or has no name.
    """
    sizes = {}
    for word in args.dim:
        name, equals, size = word.rpartition("=")
        if not (name and equals):
            raise UsageError(f"`--dim {word}` is not NAME=N")
        sizes[name] = whole_number(f"--dim {name}", size, least)
    return sizes


def whole_number(option: str, text: str, least: int = 1) -> int:
    """An option's whole number.

    Raises:
        UsageError: it is none, or too small.
    """
    if text.strip().isascii() and text.strip().isdecimal() and int(text) >= least:
        return int(text)
    raise UsageError(f"`{option}` takes whole numbers from {least}: `{text}`")
