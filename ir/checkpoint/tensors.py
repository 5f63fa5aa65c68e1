"""The numbers in a safetensors file, read one by one where they lie."""

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np

from qcc.ir.checkpoint.safetensors import LONGEST
from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Array

TYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "BOOL": np.dtype("?"),
}
META = "__metadata__"
MOST_AXES = 16


@dataclass(frozen=True)
class _Place:
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorFile(Mapping[str, Array]):
    """The tensors of a file by their names; each is read when it is asked for.

    Args:
        path: of the file.
        notes: what it says of itself, by key.
        places: where each tensor lies.
    """

    path: Path
    notes: Mapping[str, str]
    places: Mapping[str, _Place] = field(repr=False)

    def __getitem__(self, name: str) -> Array:
        place = self.places[name]
        if place.start == place.end:
            return np.zeros(place.shape, place.dtype)
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return np.frombuffer(mapped[place.start : place.end], place.dtype).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's, without reading it."""
        return self.places[name].shape


def read_tensors(path: Path) -> TensorFile:
    """The tensors of a safetensors file.

    Nothing in it is run, and what it says of itself is not believed: each tensor lies within the file and takes the
    bytes that its type and shape take.

    Raises:
        ModelError: there is no such file, or it is damaged.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(LONGEST, size - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            head = json.loads(file.read(length))
        return _file(path, head, 8 + length, size)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) or "null" in str(error):
            told = getattr(error, "strerror", None) or "no file is called so"
            raise ModelError("Q400", f"cannot read `{path}`: {told.lower()}") from error
        raise _damaged(path, str(error)) from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header is not understood: {type(error).__name__} {error}") from error


def _file(path: Path, head: Mapping[str, object], start: int, size: int) -> TensorFile:
    notes = head.get(META) or {}
    if not isinstance(notes, dict) or not all(isinstance(one, str) for one in notes.values()):
        raise ValueError("its notes are no texts")
    places = {name: _place(name, entry, start, size) for name, entry in head.items() if name != META}
    return TensorFile(path, notes, places)


def _place(name: str, entry: object, start: int, size: int) -> _Place:
    if not isinstance(entry, dict):
        raise ValueError(f"`{name}` is told no place")
    dtype, shape, (begin, end) = TYPES.get(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    if dtype is None:
        raise ValueError(f"`{name}` is of type {entry['dtype']}, which is not read")
    if not all(type(one) is int and one >= 0 for one in (*shape, begin, end)) or len(shape) > MOST_AXES:
        raise ValueError(f"`{name}` has no shape or no place")
    if end - begin != prod(shape) * dtype.itemsize or start + end > size:
        raise ValueError(f"`{name}` of {dtype} {list(shape)} does not fill the bytes {begin:,} to {end:,} of the file")
    return _Place(dtype, shape, start + begin, start + end)


def _damaged(path: Path, why: str) -> ModelError:
    help = "an upload or a download may not have been whole: fetch it again"
    return ModelError("Q439", f"`{path}` is a damaged checkpoint: {why}", help)
