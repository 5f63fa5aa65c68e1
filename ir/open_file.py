"""Opening a model, whatever framework it is of. PyTorch is loaded where a model of it is given, and not before."""

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qcc.ir.encoding.encoded import Encoded
from qcc.ir.errors import ModelError
from qcc.ir.graph.gradients import Gradients, LearningWindow
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Weight
from qcc.ir.model.model import AnyModel
from qcc.ir.model.options import PROGRAM
from qcc.ir.onnx.model import OnnxModel

CONFIG = "config.json"
INSTALL = "install it: `pip install 'qcc[torch]'`"


def open_file(path: Path) -> AnyModel:
    """The model in a file.

    Raises:
        ModelError: there is none that can be read.
    """
    if path.suffix != PROGRAM:
        return OnnxModel(path)
    _need_torch(path)
    model: AnyModel = import_module("qcc.ir.fx.model").FxModel.load(path)
    return model


def is_program(path: Path) -> bool:
    """A file of this name holds a program of torch.export."""
    return path.suffix == PROGRAM


def write_as_onnx(source: Path, path: Path) -> None:
    """Write the model of a file that is no ONNX model as one: as its framework exports it.

    Raises:
        ModelError: there is none that can be read, or that can be exported.
    """
    _need_torch(source)
    import_module("qcc.ir.fx.file.objects").convert(source, path)


def is_pretrained(path: Path) -> bool:
    """A folder of transformers: a configuration, with weights beside it."""
    return (path / CONFIG).is_file()


def save_pretrained(folder: Path, path: Path) -> None:
    """Write the model in a folder of transformers to a file that `open_file` reads.

    Raises:
        ModelError: there is none that can be read, or that can be exported.
    """
    _need_torch(folder)
    import_module("qcc.ir.fx.file.objects").save_pretrained(folder, path)


def is_object(model: object) -> bool:
    """It is a model in memory, as `save_object` takes it."""
    return "torch" in sys.modules and bool(import_module("qcc.ir.fx.file.objects").is_model(model))


def save_object(model: object, inputs: object, path: Path) -> None:
    """Write a model in memory to a file that `open_file` reads.

    Args:
        model: a module, or an exported program.
        inputs: what a module is called with: a tuple, or a mapping of named ones.
        path: of the file; its name tells the format.

    Raises:
        ModelError: it cannot be exported.
    """
    import_module("qcc.ir.fx.file.objects").save(model, inputs, path)


def load_object(path: Path) -> Any:  # noqa: ANN401 - of a framework that need not be installed
    """What a file that was made of a model in memory holds, to be called as that was.

    Raises:
        ModelError: it cannot be read.
    """
    return import_module("qcc.ir.fx.file.objects").load(path)


def trainable_object(module: object) -> Any:  # noqa: ANN401 - of a framework that need not be installed
    """A copy of a compact model in memory whose scales are parameters.

    Raises:
        ModelError: it stores none as floats, ``Q610``.
    """
    return import_module("qcc.ir.fx.emit.train").trainable(module)


def gradients(graph: Graph, outputs: Sequence[str], constants: Iterable[str]) -> Gradients:
    """Gradients of values by constants, of a graph of any framework; PyTorch computes them.

    Raises:
        ModelError: PyTorch is not installed, ``Q645``, or no gradient reaches a constant, ``Q646``.
    """
    if find_spec("torch") is None:
        raise ModelError("Q645", "gradients are computed by PyTorch, which is not installed", INSTALL)
    found: Gradients = import_module("qcc.ir.fx.piece.piece").TorchPiece(graph, outputs, constants)
    return found


def window(
    graph: Graph, output: str, weights: Sequence[tuple[Weight, Array, Encoded]], rank: int, seed: int
) -> LearningWindow:
    """Weights of a part of a graph that learn together, by PyTorch.

    Args:
        graph: the part alone.
        output: what it makes.
        weights: with their matrices and what they were rounded to.
        rank: of what moves roundings.
        seed: of the draw.

    Raises:
        ModelError: PyTorch is not installed, ``Q645``, or no gradient reaches a weight, ``Q646``.
    """
    if find_spec("torch") is None:
        raise ModelError("Q645", "windows of blocks are learned by PyTorch, which is not installed", INSTALL)
    found: LearningWindow = import_module("qcc.ir.fx.piece.train").TorchWindow(graph, output, weights, rank, seed)
    return found


def _need_torch(path: Path) -> None:
    if find_spec("torch") is None:
        raise ModelError("Q642", f"PyTorch reads `{path}`, and is not installed", INSTALL)
