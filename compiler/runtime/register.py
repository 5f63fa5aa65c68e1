"""Registering a kernel library with ONNX Runtime."""

from qcc.compiler.files.kernel_library import PLAIN
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import first_line
from qcc.ir.onnx.file.runtime import onnxruntime


def register(options: onnxruntime.SessionOptions, library: str) -> None:
    """Let sessions with these options take kernels from a library.

    Args:
        options: changed.
        library: as `loadable` spells it.

    Raises:
        QccError: the system or the runtime refuses it.
    """
    try:
        options.register_custom_ops_library(library)
    except Exception as error:  # the runtime raises a dozen unrelated classes
        message = f"cannot load the kernel library `{library}`: {first_line(error)}"
        raise QccError([Diagnostic("Q408", message, help=PLAIN)]) from error
