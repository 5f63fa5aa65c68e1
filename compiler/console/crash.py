"""A bug in qcc itself: one line for the user, and the rest in a file to send along."""

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from qcc.compiler.console import terminal
from qcc.dsl.diagnostics.diagnostic import Diagnostic

PACKAGES = ("qcc", "numpy", "onnx", "onnx_ir", "onnxruntime", "scipy", "lark")
LONGEST_SUMMARY = 200


def describe_crash(error: Exception, words: Sequence[str]) -> Diagnostic:
    """What to tell the user of an unexpected error on a command line; ``QCC_DEBUG`` prints the traceback as well."""
    text = "".join(traceback.format_exception(error))
    if os.environ.get("QCC_DEBUG"):
        terminal.note(text)
    first = str(error).strip().splitlines()[:1]
    summary = ": ".join([type(error).__name__, *first])[:LONGEST_SUMMARY]
    file = _written("\n".join([f"qcc {' '.join(words)}", *_versions(), "", text]))
    what = f"with the file {file}" if file else "with what QCC_DEBUG=1 shows"
    help = f"please report it to the authors of qcc {what}" + ("; QCC_DEBUG=1 shows the traceback" if file else "")
    return Diagnostic("internal", f"internal error, a bug in qcc: {summary}", help=help)


def _written(text: str) -> str | None:
    try:
        handle, name = tempfile.mkstemp(prefix="qcc-crash-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return name


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} is not installed")
    return [*found, f"Python {sys.version}", platform.platform()]
