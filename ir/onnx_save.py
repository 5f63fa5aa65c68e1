"""Writing an ONNX file without ever holding the whole of it, and never half of it.

The graph without its large weights is serialised by the stock library; the weights follow one by one, as protobuf fields or
in a data file beside the model. Everything goes to temporary names first and is renamed when whole.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from qcc.ir import wire
from qcc.ir.errors import ModelError
from qcc.ir.onnx_save_options import ExternalData


INLINE_LIMIT_BYTES = 1_500_000_000  # a protobuf message ends at 2 GB
STREAM_BYTES = 4096  # weights from this size on are streamed
ALIGNMENT = 4096  # data files are mapped page by page
MODEL_METADATA, MAX_IR_VERSION = 14, 13
IR_OF_OPSET = ((25, 13), (24, 12), (23, 11), (21, 10), (20, 9), (18, 8), (0, 3))


@dataclass(frozen=True)
class Written:
    """What was written: the model file and, if its weights lie apart, the data file."""

    path: Path
    data: Path | None
    size_bytes: int


def ir_version(opset: int, current: int) -> int:
    """The IR version that a default opset needs, never below the model's own."""
    return max(current, next(version for lowest, version in IR_OF_OPSET if opset >= lowest))


def serialise(model: ir.Model) -> tuple[onnx.ModelProto, list[ir.Value]]:
    """A model's protobuf without its large weights, and those weights in a stable order."""
    large = [value for value in model.graph.initializers.values() if _size(value) >= STREAM_BYTES]
    for value in large:
        del model.graph.initializers[value.name or ""]
    try:
        proto = ir.serde.serialize_model(model)
        proto.graph.ClearField("value_info")  # runtimes infer it; in a large graph it outweighs small layers
    finally:
        for value in large:
            model.graph.initializers.add(value)
    return proto, large


def save(model: ir.Model, path: Path, external: ExternalData = "auto") -> Written:
    """Write a model, all of it or nothing.

    Raises:
        ModelError: the place cannot be written to.
    """
    proto, large = serialise(model)
    total = proto.ByteSize() + sum(_size(value) for value in large)
    apart = external == "always" or (external == "auto" and total > INLINE_LIMIT_BYTES)
    data = path.with_name(path.name + "_data") if apart else None
    try:
        with _replacing([path] if data is None else [data, path]) as files:
            if data is None:
                _write_inline(files[0], proto, large)
            else:
                _write_apart(files[1], files[0], proto, large, data.name)
    except OSError as error:
        raise ModelError("Q404", f"cannot write `{path}`: {error.strerror or error}") from error
    return Written(path, data, path.stat().st_size + (data.stat().st_size if data else 0))


def size_bytes(model: ir.Model) -> int:
    """About what a model takes in a file."""
    proto, large = serialise(model)
    for node in proto.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    return proto.ByteSize() + sum(_size(value) for value in large)


def whole_size(path: Path, data_files: Sequence[str]) -> int:
    """The size of a model's file and of the data files beside it."""
    return sum((path.parent / name).stat().st_size for name in (path.name, *data_files))


def tensor_header(value: ir.Value) -> onnx.TensorProto:
    """A weight's protobuf without its bytes."""
    tensor = value.const_value
    assert tensor is not None
    return onnx.TensorProto(name=value.name, data_type=int(tensor.dtype), dims=[int(size) for size in tensor.shape.numpy()])


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None or value.const_value.dtype is ir.DataType.STRING else value.const_value.nbytes


def _payload(value: ir.Value) -> bytes:
    assert value.const_value is not None
    return value.const_value.tobytes()


def _write_inline(file: BinaryIO, proto: onnx.ModelProto, large: list[ir.Value]) -> None:
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    heads = [tensor_header(value).SerializeToString(deterministic=True) for value in large]
    raw = [wire.header(wire.TENSOR_RAW_DATA, _size(value)) for value in large]
    tensors = [len(head) + len(mark) + _size(value) for head, mark, value in zip(heads, raw, large, strict=True)]
    marks = [wire.header(wire.GRAPH_INITIALIZER, length) for length in tensors]
    total = len(graph) + sum(tensors) + sum(len(mark) for mark in marks)
    file.write(proto.SerializeToString(deterministic=True))
    file.write(wire.header(wire.MODEL_GRAPH, total) + graph)
    for mark, head, tag, value in zip(marks, heads, raw, large, strict=True):
        file.write(mark + head + tag)
        file.write(_payload(value))


def _write_apart(file: BinaryIO, data: BinaryIO, proto: onnx.ModelProto, large: list[ir.Value], location: str) -> None:
    offset = 0
    for value in large:
        head, size = tensor_header(value), _size(value)
        data.write(bytes(-offset % ALIGNMENT))
        offset += -offset % ALIGNMENT
        for key, text in (("location", location), ("offset", str(offset)), ("length", str(size))):
            head.external_data.add(key=key, value=text)
        head.data_location = onnx.TensorProto.EXTERNAL
        data.write(_payload(value))
        offset += size
        proto.graph.initializer.append(head)
    file.write(proto.SerializeToString(deterministic=True))


@contextmanager
def _replacing(paths: list[Path]) -> Iterator[list[BinaryIO]]:
    """Files opened under temporary names, renamed in order at the end; on any failure, none of them is left."""
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    files: list[BinaryIO] = []
    try:
        for path in temporary:
            files.append(path.open("wb"))
        yield files
        for file in files:
            file.close()
        for source, target in zip(temporary, paths, strict=True):
            source.replace(target)
    finally:
        for file in files:
            file.close()
        for path in temporary:
            path.unlink(missing_ok=True)
