"""A model's file as a graph and large constants, which may be put anywhere."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from qcc.ir.graph.ops import Array
from qcc.ir.model.whole_files import place, unfinished
from qcc.ir.onnx.file.external import entries_of, size_of
from qcc.ir.onnx.file.load import parse
from qcc.ir.onnx.pack.rebuild import Rebuilt, write_rebuilt

SMALLEST = 1024  # bytes: what is less stays in the graph
LATEST_PLAIN = 13  # the opset from which all is there that rebuilds a constant
MAIN = ("", "ai.onnx")


@dataclass(frozen=True)
class BlobPlace:
    """Where the bytes of a constant lie in a data file."""

    offset: int
    length: int


class PackSource:
    """A model that is to lie in a pack.

    Args:
        path: of its file.

    Raises:
        ModelError: the file or its data cannot be read.
    """

    def __init__(self, path: Path) -> None:
        located = parse(path)
        self._proto, self._folder = located.proto, located.folder
        self.data_files = located.data_files
        _lift(self._proto.graph)
        self._large = {one.name: one for one in self._proto.graph.initializer if _is_large(one)}
        named = [*self._proto.graph.input, *self._proto.graph.output]
        self._fixed = {one.name for one in named}

    @property
    def names(self) -> tuple[str, ...]:
        """The large constants, in their order."""
        return tuple(self._large)

    def size(self, name: str) -> int:
        """The bytes of a constant."""
        return size_of(self._large[name])

    def layout(self, name: str) -> tuple[int, tuple[int, ...]]:
        """A constant's type, as ONNX numbers them, and shape."""
        return self._large[name].data_type, tuple(self._large[name].dims)

    def data(self, name: str) -> Array:
        """The bytes of a constant, mapped where they lie in a file."""
        tensor = self._large[name]
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return np.frombuffer(tensor.raw_data, np.uint8)
        entries = entries_of(tensor)
        file = self._folder / entries["location"]
        return np.memmap(file, np.uint8, "r", int(entries.get("offset", "0")), (size_of(tensor),)).view(np.ndarray)

    def floats(self, name: str) -> Array | None:
        """A constant as an array, if it is of float32 and may be computed of others; None otherwise."""
        kind, shape = self.layout(name)
        versions = [one.version for one in self._proto.opset_import if one.domain in MAIN]
        if kind != onnx.TensorProto.FLOAT or name in self._fixed or min(versions, default=0) < LATEST_PLAIN:
            return None
        return self.data(name).view(np.float32).reshape(shape)

    def write(
        self, path: Path, data: str, places: Mapping[str, BlobPlace], rebuilt: Mapping[str, Rebuilt], pool: "Places"
    ) -> None:
        """Write the model with its large constants in a data file beside it.

        Args:
            path: of the file.
            data: the data file's name.
            places: of the constants that lie there as they are.
            rebuilt: those that are computed of others when a session starts.
            pool: where the parts of those lie.

        Raises:
            OSError: it cannot be written.
        """
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


Places = Mapping[str, BlobPlace]
"""Where blobs lie, by their digests."""


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


def dtype_text(number: int) -> str:
    """What people call a type of ONNX."""
    return ir.DataType(number).name.lower()


def digests(ones: Iterable[Rebuilt]) -> set[str]:
    """The blobs that some constants are computed of."""
    return {key for one in ones for key in one.blobs}
