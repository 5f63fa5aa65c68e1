"""A model's files as one, for transport: written from them, and turned into them again, bit for bit."""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from qcc.ir.errors import ModelError
from qcc.ir.model.options import PROGRAM
from qcc.ir.model.whole_files import place, sha256, unfinished
from qcc.ir.onnx.file.external import entries_of
from qcc.ir.onnx.file.load import parse
from qcc.ir.transport.pieces import CodedPiece, Stored, coded, restored

MAGIC = b"qcc transport 1\n"
HEAD_BYTES = 1 << 26  # at most
MOST_TIMES = 1100  # larger than its file no model is: nothing that is coded gets as small
DIGEST = re.compile("[0-9a-f]{64}")
HELP = "copy it anew, or pack the model again: `export { entropy = rans }`"
SIZES = 1 << 50


@dataclass(frozen=True)
class _Packed:
    """A file within: what it was called, how many bytes it had, their digest, and its pieces."""

    name: str
    size: int
    digest: str
    pieces: tuple[CodedPiece, ...]


def is_packed(path: Path) -> bool:
    """It is a file for transport."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def write_packed(model: Path, data: Path | None, path: Path) -> int:
    """Write a model, and its data file if it has one, for transport; how many bytes that takes.

    What is written has been read again, and was the same.

    Raises:
        OSError: it cannot be written.
    """
    constants = _constants(model)
    heads, streams = [], []
    for file in (model, *([data] if data else [])):
        pieces = []
        for piece, parts in coded(np.fromfile(file, np.uint8), constants.get(file.name, ())):
            pieces.append([[list(span) for span in piece.spans], piece.how, piece.number, list(piece.sizes)])
            streams += parts
        heads.append({"name": file.name, "size": file.stat().st_size, "sha256": sha256(file), "pieces": pieces})
    head = zlib.compress(json.dumps(heads, separators=(",", ":")).encode(), 9)
    with unfinished(path) as made:
        made.write_bytes(b"".join((MAGIC, len(head).to_bytes(4, "little"), head, *streams)))
        for _ in expanded(made):  # a coder that errs must not be found out years later
            pass
        place(made, path)
    return path.stat().st_size


def expanded(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The files of a model for transport, by their names, the model first.

    Raises:
        ModelError: it is none, or damaged.
    """
    try:
        whole = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise ModelError("Q400", f"no such file: `{path}`") from error
    except OSError as error:
        raise ModelError("Q400", f"cannot read `{path}`: {error.strerror}") from error
    if whole[: len(MAGIC)].tobytes() != MAGIC:
        help = "`qcc compile` writes one beside the model where the policy says `export { entropy = rans }`"
        raise ModelError("Q437", f"`{path}` is no model for transport", help)
    try:
        files, at = _head(whole)
        for file in files:
            out = np.zeros(file.size, np.uint8)
            for piece in file.pieces:
                parts, at = _cut(whole, at, piece.sizes)
                restored(piece, parts, out)
            if _digest(out) != file.digest:
                raise ValueError("its bytes are others than it says")
            yield file.name, out
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError, zlib.error, RecursionError) as error:
        raise ModelError("Q438", f"`{path}` is damaged, or not whole: {error}", HELP) from error


def expand_into(path: Path, folder: Path) -> list[Path]:
    """Write the files of a model for transport into a folder; the model's own comes first.

    Raises:
        ModelError: it is none, or damaged.
        OSError: they cannot be written.
    """
    found = []
    for name, data in expanded(path):
        data.tofile(folder / name)
        found.append(folder / name)
    return found


def _digest(data: np.ndarray) -> str:
    return hashlib.sha256(data.data).hexdigest()


def _head(whole: np.ndarray) -> tuple[list[_Packed], int]:
    start = len(MAGIC) + 4
    size = int.from_bytes(whole[len(MAGIC) : start].tobytes(), "little")
    if start + size > len(whole):
        raise ValueError("it ends early")
    inflate = zlib.decompressobj()
    text = inflate.decompress(whole[start : start + size].tobytes(), HEAD_BYTES)
    files = [_file(one) for one in json.loads(text)]
    if not files or sum(one.size for one in files) > MOST_TIMES * len(whole):
        raise ValueError("it would be larger than it can be")
    if len({one.name for one in files}) < len(files):
        raise ValueError("two files of one name")
    return files, start + size


def _file(head: Mapping[str, Any]) -> _Packed:
    name, size, digest = str(head["name"]), _size(head["size"]), str(head["sha256"])
    if not name or Path(name).name != name or "\0" in name or name == ".." or not DIGEST.fullmatch(digest):
        raise ValueError("a file that cannot be called so")
    pieces = []
    for spans, how, number, sizes in head["pieces"]:
        places = tuple((_size(start), _size(length)) for start, length in spans)
        if not places or not sizes:
            raise ValueError("a piece of nothing")
        pieces.append(CodedPiece(places, str(how), _size(number), tuple(map(_size, sizes))))
    return _Packed(name, size, digest, tuple(pieces))


def _size(number: object) -> int:
    if not isinstance(number, int) or not 0 <= number < SIZES:
        raise ValueError("a size that is none")
    return number


def _cut(whole: np.ndarray, at: int, sizes: Sequence[int]) -> tuple[list[memoryview], int]:
    parts = []
    for size in sizes:
        if at + size > len(whole):
            raise ValueError("it ends early")
        parts.append(whole[at : at + size].data)
        at += size
    return parts, at


def _constants(model: Path) -> dict[str, list[Stored]]:
    """The large constants of an ONNX file, by the file that they lie in."""
    found: dict[str, list[Stored]] = {}
    if model.suffix == PROGRAM:
        return found
    for tensor in parse(model).proto.graph.initializer:
        entries = entries_of(tensor)
        if "length" not in entries:
            continue
        width = max(ir.DataType(tensor.data_type).bitwidth // 8, 1)
        size = int(entries["length"])
        one = Stored(tensor.name, int(entries.get("offset", "0")), size, width if size % width == 0 else 1)
        found.setdefault(Path(entries["location"]).name, []).append(one)
    return found
