"""Where a model's weights lie when they lie in files, its own included.

The runtime takes locations relative to one folder and refuses links that lead out of it, and download caches are made
of such links. So links are followed here, once, and every location is rewritten relative to the folder that holds all
the real files.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from qcc.ir.onnx.file.check import check_tensor, subgraphs


@dataclass(frozen=True)
class Located:
    """A model's protobuf, the folder its locations are relative to, and the data files beside it as it names them."""

    proto: onnx.ModelProto
    folder: Path
    data_files: tuple[str, ...]


class DataError(ValueError):
    """A data file is missing, too short, or outside the model's folder."""

    def __init__(self, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.help = help


def locate(proto: onnx.ModelProto, path: Path) -> Located:
    """Find every weight that lies in a file, and rewrite where it lies.

    Weights of the main graph stay in their files; the few that subgraphs and attributes keep there are read.

    Raises:
        DataError: a file is missing, too short, or outside the model's folder.
    """
    names: dict[str, Path] = {}
    for tensor in external_tensors(proto.graph):
        check_tensor(tensor)
        location = entries_of(tensor).get("location", "")
        if location not in names:
            names[location] = real_file(path, location, tensor.name)
        _check_span(tensor, names[location])
    main = sum(
        tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer
    )  # they come first
    own = path.resolve()
    folder = Path(os.path.commonpath([own.parent, *(file.parent for file in names.values())]))
    for position, tensor in enumerate(external_tensors(proto.graph)):
        file = names[entries_of(tensor)["location"]]
        if position < main:
            next(entry for entry in tensor.external_data if entry.key == "location").value = str(
                file.relative_to(folder)
            )
        else:
            _read(tensor, file)
    return Located(proto, folder, tuple(sorted(name for name, file in names.items() if file != own)))


def open_in(model: ir.Model, folder: Path) -> None:
    """Let the weights of a deserialised model be read from their files, whose places `locate` has checked."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            # absolute, without a base folder: with one, the library refuses files that have two hard links
            value.const_value = ir.ExternalTensor(
                str(folder / tensor.location),
                tensor.offset,
                tensor.length,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
            )


def relative_to(proto: onnx.ModelProto, folder: Path) -> None:
    """Undo `open_in` in a serialised model: the runtime takes no absolute locations."""
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(Path(entry.value).relative_to(folder))


def size_of(tensor: onnx.TensorProto) -> int:
    """The bytes of a tensor of this type and shape."""
    count = 1
    for size in tensor.dims:
        count *= size
    return -(-count * int(ir.DataType(tensor.data_type).bitwidth) // 8)


def external_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors of a graph that lie in files, those of subgraphs and attributes included; the main graph's first."""
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


def entries_of(tensor: onnx.TensorProto) -> dict[str, str]:
    """Where a tensor lies: ``location``, and where they are given ``offset`` and ``length``."""
    return {entry.key: entry.value for entry in tensor.external_data}


def real_file(path: Path, location: str, name: str) -> Path:
    """The file that a model at a path names as the place of a weight.

    Raises:
        DataError: it is missing, cannot be, or is outside the model's folder.
    """
    try:
        file = (path.parent / location).resolve()
        there = file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, or a circle of links
        raise DataError(f"weight `{name}` lies in a file whose name cannot be: {location[:40]!r}") from error
    if not location or not any(file.is_relative_to(root) for root in (path.parent.resolve(), path.resolve().parent)):
        raise DataError(f"weight `{name}` lies outside the model's folder: `{location}`")
    if not there:
        raise DataError(
            f"`{path}` keeps its weights in `{location}`, which is missing",
            help="keep the .onnx file and its data file together",
        )
    return file


def _check_span(tensor: onnx.TensorProto, file: Path) -> None:
    if tensor.data_type == onnx.TensorProto.STRING:
        raise DataError(f"weight `{tensor.name}` holds texts, which cannot lie in a file of their own")
    entries, size = entries_of(tensor), size_of(tensor)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(size)))
    except ValueError as error:
        raise DataError(f"weight `{tensor.name}` does not say where in `{entries['location']}` it lies") from error
    if offset < 0 or length != size or offset + length > file.stat().st_size:
        raise DataError(f"weight `{tensor.name}` does not fit its data in `{entries['location']}`: truncated file?")


def _read(tensor: onnx.TensorProto, file: Path) -> None:
    with file.open("rb") as source:
        source.seek(int(entries_of(tensor).get("offset", "0")))
        tensor.raw_data = source.read(size_of(tensor))
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
