"""Models in memory: they are compiled from a file, as all are, so that all is hashed, checked and told alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcc.codegen.target.scratch import scratch
from qcc.compiler.files.open_model import model_path
from qcc.compiler.files.staging import output_path
from qcc.ir.model.options import PROGRAM
from qcc.ir.open_file import is_object, save_object

Output = str | Path | None


@contextmanager
def file_of(model: object, inputs: object, output: Output) -> Iterator[tuple[Path, Output]]:
    """The file of a model and where the output goes; for a model in memory both lie in a folder that is gone then.

    Args:
        model: a path, or a model in memory.
        inputs: what a module is called with.
        output: where the output goes, if that is given.

    Raises:
        QccError: it is no model, or cannot be exported.
    """
    if not is_object(model):
        yield model_path(model), output
        return
    with scratch() as folder:
        path = folder / f"{type(model).__name__}{PROGRAM}"
        save_object(model, inputs, path)
        yield path, output_path(path, output)
