"""Feeds kept in a file, so that data of any size takes the memory of one sample."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcc.codegen.target.scratch import scratch

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Place:
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int


class Spooled(Mapping[str, np.ndarray]):
    """A feed that lies in a file: each array is read when it is asked for, and kept by nobody else.

    Args:
        path: of the file.
        places: of the arrays in it, by name.
        owner: keeps the file while it lives.
    """

    def __init__(self, path: Path, places: Mapping[str, _Place], owner: object = None) -> None:
        self._path, self._places, self._owner = path, places, owner

    def __reduce__(self) -> tuple[object, ...]:
        """Another process reads the same file."""
        return Spooled, (self._path, self._places)

    def __getitem__(self, name: str) -> np.ndarray:
        """The array, read now."""
        place = self._places[name]
        count = int(np.prod(place.shape, dtype=np.int64))
        return np.fromfile(self._path, place.dtype, count, offset=place.offset).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many arrays there are."""
        return len(self._places)


class Spool:
    """A file of feeds, which is gone with the last of them.

    Raises:
        OSError: no such file can be written.
    """

    def __init__(self) -> None:
        self._held = ExitStack()
        self._path = self._held.enter_context(scratch()) / "feeds"
        self._size = 0

    def __del__(self) -> None:
        """Nobody reads it any more."""
        self._held.close()

    def add(self, feed: Feed) -> Spooled:
        """Write a feed behind the others."""
        places = {}
        with self._path.open("ab") as file:
            for name, array in feed.items():
                whole = np.ascontiguousarray(array)
                places[name] = _Place(whole.dtype, np.shape(array), self._size)
                file.write(whole.data.cast("B") if whole.size else b"")
                self._size += whole.nbytes
        return Spooled(self._path, places, self)
