"""Files of ``torch.export.save``."""

import typing
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch._export.serde import serialize
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from qcc.ir.errors import ModelError, first_line
from qcc.ir.fx.quiet import quiet


def load_program(path: Path) -> ExportedProgram:
    """The program in a file.

    Raises:
        ModelError: there is no such file, or torch reads no program in it.
    """
    if not path.is_file():
        raise ModelError("Q400", f"no such file: `{path}`")
    try:
        with quiet(), _read_once():
            return _in_memory(torch.export.load(path))
    except Exception as error:  # torch raises many unrelated classes
        message = f"`{path}` holds no program that PyTorch {torch.__version__} can read: {first_line(error)}"
        raise ModelError("Q643", message, "write it with `torch.export.save`, under this version") from error


def _in_memory(program: ExportedProgram) -> ExportedProgram:
    """The program where passes read and write its tensors, which another device's memory is not."""
    tensors = (
        one for one in (*program.state_dict.values(), *program.constants.values()) if isinstance(one, torch.Tensor)
    )
    if all(one.device.type == "cpu" for one in tensors):
        return program
    moved: ExportedProgram = move_to_device_pass(program, "cpu")
    return moved


@contextmanager
def _read_once() -> Iterator[None]:
    """Within, torch reads off once what types the fields of a class of its schema have, and not for each node anew."""
    known: dict[type, dict[str, object]] = {}

    def hints(kind: type, *given: Any, **named: Any) -> dict[str, object]:  # noqa: ANN401 - as typing has it
        return known.get(kind) or known.setdefault(kind, typing.get_type_hints(kind, *given, **named))

    seen = {**vars(typing), "get_type_hints": hints}
    with mock.patch.object(serialize, "typing", SimpleNamespace(**seen)):
        yield


def repack(archive: BytesIO, path: Path) -> None:
    """Write an archive with its texts compressed: a graph is many words. Equal archives give equal files.

    Raises:
        OSError: it cannot be written.
    """
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            method = zipfile.ZIP_DEFLATED if entry.filename.endswith(".json") else zipfile.ZIP_STORED
            target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry), method)
