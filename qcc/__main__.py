"""The command ``qcc``, also as ``python -m qcc``."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from qcc.compiler.commands.cli import run

BROKEN_PIPE = 141  # as a shell reports a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the words after ``qcc``; by default the process's own.

    Returns:
        0 done; 1 the input is at fault; 2 the command line is; 3 the model cannot be, or is not, what the policy
        demands; 70 a bug in qcc; 129 the terminal hung up; 130 interrupted; 141 whoever read the output stopped
        reading; 143 told to end.
    """
    _take_streams()
    try:
        status = run(sys.argv[1:], alone=True) if argv is None else run(list(argv))
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    return status


def _take_streams() -> None:
    """Let what is printed go nowhere where a stream is closed, and print escaped what its encoding does not have."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # as of `>&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the process's end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let the interpreter's own flush at exit go nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError, AttributeError):  # a stream without a file
            continue


if __name__ == "__main__":
    sys.exit(main())
