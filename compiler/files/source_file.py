"""What a model is compiled from: a file, so that all is hashed, checked and told alike.

It is the model's own, or one that is made of it: of a model in memory, of a folder of transformers, and of a program
that is to come out as ONNX.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcc.codegen.target.scratch import scratch
from qcc.compiler.files.check_outputs import check_model
from qcc.compiler.files.open_model import model_path
from qcc.compiler.files.spoken import called
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.model.options import ONNX, PROGRAM
from qcc.ir.open_file import is_object, is_pretrained, is_program, save_object, save_pretrained, write_as_onnx

Output = str | Path | None


@contextmanager
def source_file(model: object, inputs: object, output: Output) -> Iterator[tuple[Path, Output]]:
    """The file that a model is compiled from, which is gone then if it was made for it, and where the output goes.

    Args:
        model: a path, or a model in memory.
        inputs: what a module is called with.
        output: where the output goes; None leaves it to the file's name, and of a model in memory means nowhere.

    Raises:
        QccError: it is no model, or cannot be exported.
    """
    as_onnx = output is not None and Path(output).suffix == ONNX
    if is_object(model):
        with scratch() as folder:
            path = folder / f"{type(model).__name__}{ONNX if as_onnx else PROGRAM}"
            save_object(model, inputs, path)
            with called(path, type(model).__name__):
                yield path, output
        return
    path = model_path(model)
    if inputs is not None:
        message = f"`example_inputs` are for modules in memory: what `{path}` takes stands in it"
        raise QccError([Diagnostic("Q382", message, help="leave them out")])
    if is_pretrained(path):
        target = path.parent / f"{path.name}.qcc{PROGRAM}" if output is None else Path(output)
        check_model(path, target, True, ())
        with scratch() as folder:
            made = folder / f"{path.name}{ONNX if as_onnx else PROGRAM}"
            with called(made, str(path)):
                save_pretrained(path, made)
                yield made, target
        return
    if not (as_onnx and is_program(path)):
        yield path, output
        return
    check_model(path, Path(str(output)), True, ())  # before the work
    with scratch() as folder:
        made = folder / f"{path.stem}{ONNX}"
        with called(made, str(path)):
            write_as_onnx(path, made)
            yield made, output
