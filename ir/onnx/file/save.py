"""Writing an ONNX file without ever holding the whole of it, and never half of it.

The graph without its large weights is serialised by the stock library; the weights follow one by one, as protobuf
fields or in a data file beside the model. Everything goes to temporary names first and is renamed when whole, the model
last: the data's name tells its content, so a model always finds the data that it was written with.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from qcc.ir.errors import ModelError
from qcc.ir.model.model import Written
from qcc.ir.model.options import ExternalData
from qcc.ir.model.whole_files import DIGITS, data_name, own_data, place, retire, sha256, unfinished
from qcc.ir.onnx.file import wire

INLINE_LIMIT_BYTES = 1_500_000_000  # a protobuf message ends at 2 GB
STREAM_BYTES = 4096  # weights from this size on are streamed
ALIGNMENT = 4096  # data files are mapped page by page
MESSAGE_LIMIT_BYTES = 2**31 - 1
# below opset 18 it is 4, from which constants need not be inputs too
IR_OF_OPSET = ((28, 14), (25, 13), (24, 12), (23, 11), (21, 10), (20, 9), (18, 8), (0, 4))


def ir_version(opset: int, current: int) -> int:
    """The IR version that a default opset needs, never below the model's own."""
    return max(current, next(version for lowest, version in IR_OF_OPSET if opset >= lowest))


def serialise(model: ir.Model) -> tuple[onnx.ModelProto, list[ir.Value]]:
    """A model's protobuf without its large weights, and those weights in a stable order."""
    known = list(model.graph.initializers.values())
    large = [
        value for value in known if _size(value) >= STREAM_BYTES or isinstance(value.const_value, ir.ExternalTensor)
    ]
    for value in large:
        del model.graph.initializers[value.name or ""]
    try:
        proto = ir.serde.serialize_model(model)
        proto.graph.ClearField("value_info")  # runtimes infer it; in a large graph it outweighs small layers
    finally:
        model.graph.initializers.clear()
        for value in known:
            model.graph.initializers.add(value)
    return proto, large


def save(model: ir.Model, path: Path, external: ExternalData | Path = "auto") -> Written:
    """Write a model, all of it or nothing.

    Raises:
        ModelError: the place cannot be written to.
    """
    return save_parts(*serialise(model), path, external)


def save_parts(
    proto: onnx.ModelProto, large: list[ir.Value], path: Path, external: ExternalData | Path = "auto"
) -> Written:
    """Write a model that is serialised but for its large weights, all of it or nothing.

    Weights that lie in the file ``external`` already are referred to there; the others are written with the model.

    Raises:
        ModelError: the place cannot be written to.
    """
    if isinstance(external, Path):
        large = _referred(proto, large, external)
    total = proto.ByteSize() + sum(_size(value) for value in large)
    apart = external == "always" or (external == "auto" and total > INLINE_LIMIT_BYTES)
    if not apart and total > MESSAGE_LIMIT_BYTES:
        raise ModelError(
            "Q404", f"cannot write `{path}`: one ONNX file holds at most 2 GB", "let the weights lie apart"
        )
    before = own_data(path)
    try:
        written = _save_apart(path, proto, large) if apart else _save_whole(path, proto, large)
    except OSError as error:
        raise ModelError("Q404", f"cannot write `{path}`: {error.strerror or error}") from error
    retire(path.parent, set(before) - {written.data.name if written.data else ""})
    return written


def _save_whole(path: Path, proto: onnx.ModelProto, large: list[ir.Value]) -> Written:
    with unfinished(path) as made:
        with made.open("wb") as file:
            _write_inline(file, proto, large)
        place(made, path)
    return Written(path, None, path.stat().st_size)


def _save_apart(path: Path, proto: onnx.ModelProto, large: list[ir.Value]) -> Written:
    with unfinished(path) as made, unfinished(path, "-data") as weights:
        with weights.open("wb") as file:
            spans = _write_data(file, large)
        digest = sha256(weights)
        data = path.with_name(data_name(path, digest))
        proto.graph.initializer.extend(_references(large, spans, data.name))
        made.write_bytes(proto.SerializeToString(deterministic=True))
        known = data.exists()
        place(weights, data)
        try:
            place(made, path)
        except OSError:
            if not known:
                data.unlink()
            raise
    return Written(path, data, path.stat().st_size + data.stat().st_size, digest)


def size_bytes(model: ir.Model) -> int:
    """What a model takes in one file, to the byte."""
    return size_of_parts(*serialise(model))


def size_of_parts(proto: onnx.ModelProto, large: list[ir.Value]) -> int:
    """What a model takes in one file, which is serialised but for its large weights."""
    small = int(proto.graph.ByteSize())
    around = int(proto.ByteSize()) - small - len(wire.header(wire.MODEL_GRAPH, small))
    graph = small + sum(framed_size(value) for value in large)
    return around + len(wire.header(wire.MODEL_GRAPH, graph)) + graph


def size_apart(proto: onnx.ModelProto, large: list[ir.Value], path: Path) -> int:
    """The same where those lie in a data file beside a model of this name."""
    spans, end = [], 0
    for value in large:
        start = end + -end % ALIGNMENT
        spans.append((start, _size(value)))
        end = start + _size(value)
    heads = _references(large, spans, data_name(path, "0" * DIGITS))
    small, around = int(proto.graph.ByteSize()), int(proto.ByteSize())
    around -= small + len(wire.header(wire.MODEL_GRAPH, small))
    for head in heads:
        small += head.ByteSize() + len(wire.header(wire.GRAPH_INITIALIZER, head.ByteSize()))
    return around + len(wire.header(wire.MODEL_GRAPH, small)) + small + end


def framed_size(value: ir.Value) -> int:
    """What a large weight takes in a graph's message."""
    return len(_frame(value)) + _size(value)


def whole_size(path: Path, data_files: Sequence[str]) -> int:
    """The size of a model's file and of the data files beside it."""
    return sum((path.parent / name).stat().st_size for name in (path.name, *data_files))


def tensor_header(value: ir.Value) -> onnx.TensorProto:
    """A weight's protobuf without its bytes."""
    tensor = value.const_value
    assert tensor is not None
    return onnx.TensorProto(
        name=value.name, data_type=int(tensor.dtype), dims=[int(size) for size in tensor.shape.numpy()]
    )


def _size(value: ir.Value) -> int:
    tensor = value.const_value
    return 0 if tensor is None or tensor.dtype is ir.DataType.STRING else int(tensor.nbytes)


def _write_payload(file: BinaryIO, value: ir.Value) -> None:
    """Copy a weight's bytes, from file to file where it lies in one."""
    tensor = value.const_value
    assert tensor is not None
    if hasattr(tensor, "tofile"):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())


def _frame(value: ir.Value) -> bytes:
    """What precedes a weight's bytes in a graph's message."""
    head: bytes = tensor_header(value).SerializeToString(deterministic=True)
    head += wire.header(wire.TENSOR_RAW_DATA, _size(value))
    return wire.header(wire.GRAPH_INITIALIZER, len(head) + _size(value)) + head


def _write_inline(file: BinaryIO, proto: onnx.ModelProto, large: list[ir.Value]) -> None:
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    frames = [_frame(value) for value in large]
    total = len(graph) + sum(len(frame) + _size(value) for frame, value in zip(frames, large, strict=True))
    file.write(proto.SerializeToString(deterministic=True))
    file.write(wire.header(wire.MODEL_GRAPH, total) + graph)
    for frame, value in zip(frames, large, strict=True):
        file.write(frame)
        _write_payload(file, value)


def _referred(proto: onnx.ModelProto, large: list[ir.Value], data: Path) -> list[ir.Value]:
    """Let a model refer to what lies in a file beside it; gives what does not."""
    there: list[ir.Value] = []
    spans: list[tuple[int, int]] = []
    for value in large:
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and Path(tensor.path).samefile(data):
            there.append(value)
            spans.append((tensor.offset or 0, _size(value)))
    proto.graph.initializer.extend(_references(there, spans, data.name))
    return [value for value in large if value not in there]


def _write_data(file: BinaryIO, large: list[ir.Value]) -> list[tuple[int, int]]:
    """Write weights one behind the other, page by page; gives the offset and length of each."""
    spans, offset = [], 0
    for value in large:
        size, gap = _size(value), -offset % ALIGNMENT
        file.write(bytes(gap))
        _write_payload(file, value)
        spans.append((offset + gap, size))
        offset += gap + size
    return spans


def _references(large: list[ir.Value], spans: list[tuple[int, int]], location: str) -> list[onnx.TensorProto]:
    """What the model holds in place of weights that lie in a data file."""
    heads = []
    for value, (offset, length) in zip(large, spans, strict=True):
        head = tensor_header(value)
        for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
            head.external_data.add(key=key, value=text)
        head.data_location = onnx.TensorProto.EXTERNAL
        heads.append(head)
    return heads
