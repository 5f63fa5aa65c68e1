"""Registering a kernel library with ONNX Runtime."""

import ctypes
from collections.abc import Sequence

from qcc.compiler.files.kernel_library import PLAIN
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import first_line
from qcc.ir.onnx.file.runtime import onnxruntime, usable

PROVIDER = "qcc_provider"


def register(options: onnxruntime.SessionOptions, library: str, providers: Sequence[str] = ()) -> None:
    """Let sessions with these options take kernels from a library.

    A node whose kernels run by a provider that a session lacks would fail to load, though the model has a function for
    it: then nothing is registered.

    Args:
        options: changed.
        library: as `loadable` spells it.
        providers: of the session, as far as the runtime has them; without any, the CPU's.

    Raises:
        QccError: the system or the runtime refuses it.
    """
    if (provider := _provider(library)) and provider not in usable(providers):
        return
    try:
        options.register_custom_ops_library(library)
    except Exception as error:  # the runtime raises a dozen unrelated classes
        message = f"cannot load the kernel library `{library}`: {first_line(error)}"
        raise QccError([Diagnostic("Q408", message, help=PLAIN)]) from error


def _provider(library: str) -> str:
    """The execution provider that runs a library's kernels; empty where it does not say."""
    try:
        return (ctypes.c_char_p.in_dll(ctypes.CDLL(library), PROVIDER).value or b"").decode()
    except (OSError, ValueError):
        return ""
