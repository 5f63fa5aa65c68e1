"""As much of a model's file as memory allows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcc.codegen.target.scratch import scratch
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import ModelError
from qcc.ir.onnx.file.load import parse
from qcc.ir.onnx.file.save import whole_size
from qcc.ir.transport.container import expand_into, is_packed
from qcc.ir.trim_file import open_trimmer


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The model's file, of one for transport what it becomes, which is gone afterwards.

    Raises:
        QccError: it is damaged.
    """
    if not is_packed(path):
        yield path
        return
    with scratch() as folder:
        try:
            plain = expand_into(path, folder)[0]
        except ModelError as error:
            raise QccError([Diagnostic(error.code, error.message, help=error.help)]) from error
        yield plain


@contextmanager
def fitting(path: Path, most_bytes: float | None) -> Iterator[Path]:
    """A file to be loaded: the model's own where it fits, else one with fewer levels, which is gone afterwards.

    Raises:
        QccError: it has no levels, or not even the first ones fit.
    """
    try:
        if most_bytes is None or whole_size(path, parse(path).data_files) <= most_bytes:
            yield path
            return
        trimmer = open_trimmer(path, path)
        counts = trimmer.fitting(most_bytes)
    except ModelError as error:
        raise QccError([Diagnostic(error.code, error.message, help=error.help)]) from error
    with scratch() as folder:
        yield trimmer.write(counts, folder / path.name).path
