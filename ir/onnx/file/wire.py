"""The protobuf wire format of an ONNX file, read and written without holding its weights.

An ``.onnx`` file is one protobuf message, so the stock parser copies every weight into memory and refuses files over
2 GB. Here the file is scanned instead: large ``raw_data`` payloads are left where they lie and the rest, a few hundred
kilobytes, is handed to the parser with each payload described as external data *inside the file itself*.

Source: the protobuf encoding specification (developers.google.com/protocol-buffers, "Encoding") and ``onnx.proto``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

Buffer = bytes | memoryview

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MODEL_GRAPH, GRAPH_INITIALIZER = 7, 5
TENSOR_NAME, TENSOR_RAW_DATA, TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 8, 9, 13, 14
ENTRY_KEY, ENTRY_VALUE = 1, 2


class WireError(ValueError):
    """The bytes are not a protobuf message; ``offset`` is where that shows."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"not a protobuf message at byte {offset}")
        self.offset = offset


@dataclass(frozen=True)
class Field:
    """One field of a message: ``start:end`` with its tag, ``payload:end`` without tag and length."""

    number: int
    kind: int
    start: int
    payload: int
    end: int


def varint(value: int) -> bytes:
    """Encode a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def header(number: int, length: int) -> bytes:
    """The tag and length that precede a length-delimited field."""
    return varint(number << 3 | LENGTH) + varint(length)


def fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of the message that lies in ``data[start:end]``.

    Raises:
        WireError: the bytes there are not a whole message.
    """
    at = start
    while at < end:
        tag, payload = _read_varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise WireError(at)
        stop = _field_end(data, kind, payload, end)
        if kind == LENGTH:
            length, payload = _read_varint(data, payload, end)
            stop = payload + length
        if stop > end:
            raise WireError(at)
        yield Field(number, kind, at, payload, stop)
        at = stop


def externalise(data: Buffer, location: str, threshold: int) -> bytes:
    """Rewrite a model so that its payloads of ``threshold`` bytes and more point into the file ``location``.

    Only initialisers of the main graph are treated; all other bytes are copied as they are.

    Raises:
        WireError: the bytes are not a protobuf message.
    """
    out: list[bytes] = []
    for field in fields(data, 0, len(data)):
        if field.number != MODEL_GRAPH or field.kind != LENGTH:
            out.append(bytes(data[field.start : field.end]))
            continue
        graph = b"".join(_graph_parts(data, field, location, threshold))
        out += [header(MODEL_GRAPH, len(graph)), graph]
    return b"".join(out)


def _graph_parts(data: Buffer, graph: Field, location: str, threshold: int) -> Iterator[bytes]:
    for field in fields(data, graph.payload, graph.end):
        if field.number != GRAPH_INITIALIZER or field.end - field.payload < threshold:
            yield bytes(data[field.start : field.end])
            continue
        tensor = b"".join(_tensor_parts(data, field, location, threshold))
        yield header(GRAPH_INITIALIZER, len(tensor)) + tensor


def _tensor_parts(data: Buffer, tensor: Field, location: str, threshold: int) -> Iterator[bytes]:
    for field in fields(data, tensor.payload, tensor.end):
        size = field.end - field.payload
        if field.number != TENSOR_RAW_DATA or size < threshold:
            yield bytes(data[field.start : field.end])
            continue
        for key, value in (("location", location), ("offset", str(field.payload)), ("length", str(size))):
            entry = _text(ENTRY_KEY, key) + _text(ENTRY_VALUE, value)
            yield header(TENSOR_EXTERNAL_DATA, len(entry)) + entry
        yield varint(TENSOR_DATA_LOCATION << 3 | VARINT) + varint(1)


def _text(number: int, text: str) -> bytes:
    raw = text.encode()
    return header(number, len(raw)) + raw


def _read_varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(at, min(at + 10, end)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise WireError(at)


def _field_end(data: Buffer, kind: int, payload: int, end: int) -> int:
    if kind == VARINT:
        return _read_varint(data, payload, end)[1]
    if kind == FIXED64:
        return payload + 8
    if kind == FIXED32:
        return payload + 4
    if kind == LENGTH:
        return payload
    raise WireError(payload)
