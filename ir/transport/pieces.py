"""A file's bytes in pieces, each of which is coded by itself."""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from qcc.ir.encoding.packing import pack, planes, unpack
from qcc.ir.transport import rans

LEAST_BYTES = 256  # below, a table costs more than it saves
MOST_TIMES = 500  # smaller than it was: beyond, all is deflated, so that a small file cannot claim to be a huge one
PLANE = re.compile(r"(.*?)(\d+)", re.DOTALL)
EFFORT = 6  # of deflating
LOOK_BYTES = 1 << 16

Span = tuple[int, int]


@dataclass(frozen=True)
class Stored:
    """A constant: where its bytes lie in a file, by its name.

    Args:
        name: of the constant.
        start: of its bytes.
        size: of all of them.
        width: bytes of an element.
    """

    name: str
    start: int
    size: int
    width: int


@dataclass(frozen=True)
class CodedPiece:
    """Some bytes of a file, and how they are coded.

    Args:
        spans: where they lie, as starts and sizes; the planes of the same codes are apart.
        how: ``deflate``; ``bytes``, each byte of an element coded by itself; ``planes``, codes of so many bits.
        number: bytes of an element, or bits of a code.
        sizes: of what is coded.
    """

    spans: tuple[Span, ...]
    how: str
    number: int
    sizes: tuple[int, ...]


def coded(data: np.ndarray, constants: Sequence[Stored]) -> Iterator[tuple[CodedPiece, list[bytes]]]:
    """The pieces of a file, in order, with what each becomes.

    Args:
        data: the bytes of the file.
        constants: those that lie in it.
    """
    known = sorted((one for one in constants if one.size >= LEAST_BYTES), key=lambda one: one.start)
    end = 0
    for group in _groups(known):
        for one in group:
            if one.start > end:
                yield _deflated(data, ((end, one.start - end),))
            end = one.start + one.size
        yield _best(data, group)
    if end < len(data):
        yield _deflated(data, ((end, len(data) - end),))


def restored(piece: CodedPiece, streams: Sequence[memoryview], out: np.ndarray) -> None:
    """Put the bytes of a piece where they were.

    Args:
        piece: says where.
        streams: what they became.
        out: the bytes of the file.

    Raises:
        ValueError: they are not what the piece says.
    """
    if any(start < 0 or size < 0 or start + size > len(out) for start, size in piece.spans):
        raise ValueError("a piece beyond the end of the file")
    sizes = [size for _, size in piece.spans]
    parts: Sequence[np.ndarray]
    if piece.how == "planes":
        parts = _planes_of(streams[0], piece.number, sizes)
    elif piece.how == "bytes":
        (size,) = sizes
        if not 0 < piece.number <= max(size, 1) or size % piece.number or len(streams) != piece.number:
            raise ValueError("no whole number of elements")
        count = size // piece.number
        parts = (np.stack([rans.decode(one, count) for one in streams], 1).reshape(-1),)
    else:
        parts = np.split(_inflated(streams[0], sum(sizes)), np.cumsum(sizes)[:-1])
    for (start, size), part in zip(piece.spans, parts, strict=True):
        out[start : start + size] = part


def _planes_of(stream: memoryview, bits: int, sizes: Sequence[int]) -> tuple[np.ndarray, ...]:
    count = _codes(sizes, bits)
    if count is None:
        raise ValueError("planes of other sizes")
    return pack(rans.decode(stream, count), bits)


def _inflated(stream: memoryview, size: int) -> np.ndarray:
    try:
        found = zlib.decompressobj().decompress(stream, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(found) != size:
        raise ValueError("a piece of another size")
    return np.frombuffer(found, np.uint8)


def _groups(constants: Sequence[Stored]) -> Iterator[tuple[Stored, ...]]:
    """Constants that are the planes of the same codes together: they follow each other, numbered from zero."""
    at = 0
    while at < len(constants):
        group: tuple[Stored, ...] = (constants[at],)
        if name := PLANE.fullmatch(constants[at].name):
            wanted = (f"{name[1]}{number}" for number in range(len(constants) - at))
            pairs = takewhile(lambda pair: pair[0].name == pair[1], zip(constants[at:], wanted, strict=True))
            group = tuple(one for one, _ in pairs) or group
        if not (all(one.width == 1 for one in group) and _bits([one.size for one in group])):
            group = group[:1]
        yield group
        at += len(group)


def _bits(sizes: Sequence[int]) -> int:
    """Of the codes whose planes have these sizes; none if there are none."""
    return next((bits for bits in range(2, 9) if len(planes(bits)) == len(sizes) and _codes(sizes, bits)), 0)


def _codes(sizes: Sequence[int], bits: int) -> int | None:
    """How many codes planes of these sizes hold; None if they are none of codes of so many bits."""
    if not 0 < bits <= 8 or len(planes(bits)) != len(sizes):
        return None
    count = sizes[0] * 8 // planes(bits)[0]
    fits = all(size * 8 == count * width for size, width in zip(sizes, planes(bits), strict=True))
    return count if fits else None


def _best(data: np.ndarray, group: Sequence[Stored]) -> tuple[CodedPiece, list[bytes]]:
    """By the entropy of its symbols, unless it is deflated as well."""
    spans = tuple((one.start, one.size) for one in group)
    parts = tuple(data[start : start + size] for start, size in spans)
    if len(group) > 1:
        how, number = "planes", _bits([one.size for one in group])
        symbols = [unpack(parts, number, _codes([one.size for one in group], number) or 0)]
    else:
        how, number = "bytes", group[0].width
        symbols = [np.ascontiguousarray(one) for one in parts[0].reshape(-1, number).T]
    if all(one.min() < one.max() for one in symbols):
        streams = [rans.encode(one) for one in symbols]
        raw, taken = sum(size for _, size in spans), sum(map(len, streams))
        if raw <= MOST_TIMES * taken and taken / raw < _deflates_to(parts):
            return CodedPiece(spans, how, number, tuple(map(len, streams))), streams
    return _deflated(data, spans)


def _deflates_to(parts: Sequence[np.ndarray]) -> float:
    """The share that is left of some bytes when they are deflated, by their beginnings: all of them takes long."""
    some = [part[:LOOK_BYTES].tobytes() for part in parts]
    return sum(len(zlib.compress(one, EFFORT)) for one in some) / sum(map(len, some))


def _deflated(data: np.ndarray, spans: tuple[Span, ...]) -> tuple[CodedPiece, list[bytes]]:
    whole = b"".join(data[start : start + size].tobytes() for start, size in spans)
    stream = zlib.compress(whole, EFFORT)
    return CodedPiece(spans, "deflate", 1, (len(stream),)), [stream]
