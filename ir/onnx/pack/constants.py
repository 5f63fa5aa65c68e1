"""A model's file as a graph and large constants, which may be put anywhere."""

# ruff: noqa: D102 - the face documents the methods that it asks for

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from qcc.ir.graph.ops import Array
from qcc.ir.model.packed import BlobPlace, PackSource, Rebuilt
from qcc.ir.model.whole_files import place, unfinished
from qcc.ir.onnx.file.external import entries_of, size_of
from qcc.ir.onnx.file.load import parse
from qcc.ir.onnx.file.save import whole_size
from qcc.ir.onnx.pack.rebuild import write_rebuilt

SMALLEST = 1024  # bytes: what is less stays in the graph
LATEST_PLAIN = 13  # the opset from which all is there that rebuilds a constant
MAIN = ("", "ai.onnx")


class OnnxPackSource(PackSource):
    """A model that is to lie in a pack.

    Args:
        path: of its file.

    Raises:
        ModelError: the file or its data cannot be read.
    """

    def __init__(self, path: Path) -> None:
        located = parse(path)
        self._proto, self._folder = located.proto, located.folder
        self._bytes = whole_size(path, located.data_files)
        _lift(self._proto.graph)
        self._large = {one.name: one for one in self._proto.graph.initializer if _is_large(one)}
        named = [*self._proto.graph.input, *self._proto.graph.output]
        self._fixed = {one.name for one in named}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._large)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def layout(self, name: str) -> tuple[int, tuple[int, ...]]:
        return self._large[name].data_type, tuple(self._large[name].dims)

    def data(self, name: str) -> Array:
        tensor = self._large[name]
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return np.frombuffer(tensor.raw_data, np.uint8)
        entries = entries_of(tensor)
        file = self._folder / entries["location"]
        return np.memmap(file, np.uint8, "r", int(entries.get("offset", "0")), (size_of(tensor),)).view(np.ndarray)

    def floats(self, name: str) -> Array | None:
        kind, shape = self.layout(name)
        versions = [one.version for one in self._proto.opset_import if one.domain in MAIN]
        if kind != onnx.TensorProto.FLOAT or name in self._fixed or min(versions, default=0) < LATEST_PLAIN:
            return None
        return self.data(name).view(np.float32).reshape(shape)

    def write(
        self,
        path: Path,
        data: str,
        places: Mapping[str, BlobPlace],
        rebuilt: Mapping[str, Rebuilt],
        pool: Mapping[str, BlobPlace],
    ) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        kept = [one for one in proto.graph.initializer if one.name not in rebuilt]
        del proto.graph.initializer[:]
        for tensor in kept:
            if tensor.name in places:
                _refer(tensor, data, places[tensor.name])
        proto.graph.initializer.extend(kept)
        for name, how in rebuilt.items():
            parts = write_rebuilt(proto.graph, name, self._large[name], how)
            for part, key in parts:
                _refer(part, data, pool[key])
                proto.graph.initializer.append(part)
        with unfinished(path) as made:
            made.write_bytes(proto.SerializeToString(deterministic=True))
            place(made, path)


def packed_places(path: Path) -> tuple[str, ...]:
    """The data files that a packed model names.

    Raises:
        ModelError: it cannot be read, or names what is outside of its folder.
    """
    return parse(path).data_files


def _lift(graph: onnx.GraphProto) -> None:
    """Let constants that nodes hold be initialisers."""
    for node in [one for one in graph.node if one.op_type == "Constant" and one.domain in MAIN]:
        value = next((one.t for one in node.attribute if one.name == "value"), None)
        if value is not None and size_of(value) >= SMALLEST and _is_large(value):
            tensor = graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            graph.node.remove(node)


def _is_large(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED) or size_of(tensor) < SMALLEST:
        return False
    if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.raw_data:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.raw_data) == size_of(tensor)


def _refer(tensor: onnx.TensorProto, data: str, found: BlobPlace) -> None:
    del tensor.external_data[:]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", data), ("offset", str(found.offset)), ("length", str(found.length))):
        tensor.external_data.add(key=key, value=value)
