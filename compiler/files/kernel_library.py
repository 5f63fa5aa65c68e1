"""Finding a model's kernel library, and registering it with ONNX Runtime."""

from pathlib import Path

from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import first_line
from qcc.ir.onnx.file.runtime import onnxruntime

PLAIN = "the model runs without a library too, slower: `Session(path, kernels=False)`, or move the file away"


def kernels_beside(model: Path) -> Path:
    """Where a model's kernel library lies, if it has one: ``net.kernels.so`` beside ``net.onnx``."""
    return model.with_name(f"{model.stem}.kernels.so")


def find(model: Path, kernels: bool | str | Path | None) -> Path | None:
    """The library to load, as `Session` takes its argument ``kernels``.

    Raises:
        QccError: it is asked for and is not there.
    """
    if kernels is False:
        return None
    path = kernels_beside(model) if kernels is None or kernels is True else Path(kernels)
    if path.is_file():
        return path
    if kernels is None:
        return None
    raise QccError([Diagnostic("Q408", f"no such kernel library: `{path}`", help=PLAIN)])


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
