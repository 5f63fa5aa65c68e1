"""Finding a model's kernel library."""

from pathlib import Path

from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError

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
