"""Models of PyTorch that are in memory: modules, graph modules and exported programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from qcc.ir.errors import ModelError, first_line
from qcc.ir.fx.file.archive import load_program
from qcc.ir.fx.file.pretrained import export_pretrained
from qcc.ir.fx.file.to_onnx import write_onnx
from qcc.ir.fx.program import export_module
from qcc.ir.fx.quiet import quiet
from qcc.ir.model.options import ONNX


def is_model(model: object) -> bool:
    """It is a module or a program."""
    return isinstance(model, torch.nn.Module | ExportedProgram)


def save(model: torch.nn.Module | ExportedProgram, inputs: object, path: Path) -> None:
    """Write a program, or what a module is exported to, to a file: as ONNX where that is the file's name.

    Args:
        model: the module, which is left as it is, or the program.
        inputs: what the module is called with: a tuple, one tensor, or a mapping of named ones.
        path: of the file.

    Raises:
        ModelError: there are no inputs to export the module with, or torch cannot do it; or a program is given some.
    """
    if isinstance(model, torch.nn.Module):
        model = _exported(model, inputs)
    elif inputs is not None:
        raise ModelError("Q382", "`example_inputs` are for modules: a program has its own", "leave them out")
    if path.suffix == ONNX:
        write_onnx(model, path)
        return
    try:
        with quiet():
            torch.export.save(model, path)
    except Exception as error:  # torch raises many unrelated classes
        raise ModelError("Q440", f"torch.export.save cannot write the program: {first_line(error)}") from error


def save_pretrained(folder: Path, path: Path) -> None:
    """Write the model in a folder of transformers to a file: as ONNX where that is the file's name.

    Raises:
        ModelError: see `export_pretrained`.
    """
    save(export_pretrained(folder), None, path)


def load(path: Path) -> Any:  # noqa: ANN401 - torch types it so
    """The graph module of a program in a file."""
    program = load_program(path)
    with quiet():
        return program.module()


def convert(source: Path, path: Path) -> None:
    """Write a program in a file as an ONNX model.

    Raises:
        ModelError: there is none that torch can read, or torch cannot export it.
    """
    write_onnx(load_program(source), path)


def _exported(module: torch.nn.Module, inputs: object) -> ExportedProgram:
    if inputs is None:
        message = "a module is compiled by what it computes, which inputs must show"
        raise ModelError("Q644", message, "give them: `qcc.compile(module, policy, example_inputs=(tensor,))`")
    if isinstance(inputs, Mapping):
        return export_module(module, (), dict(inputs))
    return export_module(module, tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,))
