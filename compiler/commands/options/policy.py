"""The options that say which policy: shared by the commands that take one."""

import argparse

from qcc.compiler.console.usage import UsageError
from qcc.dsl.load import preset_names

DEFAULT_POLICY = "balanced"


def add_policy(parser: argparse.ArgumentParser, default: str | None = DEFAULT_POLICY) -> None:
    """Declare ``-p`` and ``-D``; ``default`` is None where a plan may take the place of a policy."""
    help = f"a .qpolicy file, or a preset: {', '.join(preset_names())} (default: {DEFAULT_POLICY})"
    parser.add_argument("-p", "--policy", metavar="POLICY", default=default, help=help)
    add_definitions(parser)


def add_definitions(parser: argparse.ArgumentParser) -> None:
    """Declare ``-D``."""
    help = "the value of a parameter that the policy declares"
    parser.add_argument("-D", dest="definitions", metavar="NAME=VALUE", action="append", default=[], help=help)


def definitions(args: argparse.Namespace) -> dict[str, str]:
    """The parameters given with ``-D``.

    Raises:
        UsageError: one has no value.
    """
    found = {}
    for text in args.definitions:
        name, equal, value = text.partition("=")
        if not equal or not name.strip():
            raise UsageError(f"`-D {text}` gives no value", "write it as `-D name=value`")
        found[name.strip()] = value.strip()
    return found
