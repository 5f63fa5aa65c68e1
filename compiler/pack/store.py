"""The data file of a pack: it only grows, so whoever is stopped leaves every model that was there whole."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import numpy as np

from qcc.compiler.pack.index import PackIndex
from qcc.ir.errors import ModelError
from qcc.ir.graph.ops import Array
from qcc.ir.model.packed import BlobPlace

SMALL_ALIGNMENT, PAGE = 64, 4096
CHUNK_BYTES = 1 << 22  # that are written or read at once
PAGED = 1 << 20  # bytes from which a blob begins on a page: less than a half percent is lost

try:
    import fcntl
except ImportError:  # no locks here: do without
    fcntl = None  # type: ignore[assignment]


class BlobStore(Mapping[str, BlobPlace]):
    """The blobs of a pack, while it is written to.

    What is put lies behind what counts, and counts once the index says so; what a stopped run left there is
    overwritten.

    Args:
        index: of the pack; its places are those of what counts.
    """

    def __init__(self, index: PackIndex) -> None:
        self._index = index
        self._new: dict[str, BlobPlace] = {}
        self._end = index.size

    def __enter__(self) -> "BlobStore":
        self._file = self._index.data.open("r+b" if self._index.data.exists() else "w+b")
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._file.close()
                raise ModelError("Q470", f"`{self._index.folder}` is being written to by another run") from error
            except OSError:
                pass  # no locks on this file system
        if os.fstat(self._file.fileno()).st_size < self._index.size:
            self._file.close()
            raise ModelError("Q471", f"`{self._index.data}` is cut off", "make the pack anew with `qcc pack`")
        self._file.truncate(self._index.size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.forget()
        finally:
            self._file.close()

    def __getitem__(self, key: str) -> BlobPlace:
        return self._new[key] if key in self._new else BlobPlace(*self._index.blobs[key])

    def __iter__(self) -> Iterator[str]:
        return iter({**self._index.blobs, **self._new})

    def __len__(self) -> int:
        return len({**self._index.blobs, **self._new})

    def put(self, data: Array) -> str:
        """Store bytes, if they are not there yet; their digest.

        Raises:
            OSError: they cannot be written.
        """
        raw, key = _raw(data), digest_of(data)
        if key not in self._new and key not in self._index.blobs:
            unit = PAGE if len(raw) >= PAGED else SMALL_ALIGNMENT
            start = self._end + -self._end % unit
            self._file.seek(start)
            for at in range(0, len(raw), CHUNK_BYTES):
                self._file.write(raw[at : at + CHUNK_BYTES])
            self._end = start + len(raw)
            self._new[key] = BlobPlace(start, len(raw))
        return key

    def data(self, key: str) -> Array:
        """The bytes of a blob."""
        self._file.flush()
        place = self[key]
        return np.memmap(self._index.data, np.uint8, "r", place.offset, (place.length,)).view(np.ndarray)

    def flush(self) -> None:
        """Let others see what was put."""
        self._file.flush()

    def forget(self) -> None:
        """Leave out what was put and does not count yet."""
        self._new, self._end = {}, self._index.size
        self._file.flush()
        self._file.truncate(self._index.size)

    def commit(self) -> int:
        """Let what was put count, once the index is written; by how many bytes the data grew.

        Raises:
            OSError: it cannot be written.
        """
        self._file.flush()
        self._file.truncate(self._end)
        os.fsync(self._file.fileno())
        grown = self._end - self._index.size
        self._index.blobs |= {key: (one.offset, one.length) for key, one in self._new.items()}
        self._index.size = self._end
        self._new = {}
        return grown


def digest_of(data: Array) -> str:
    """By which a pack knows bytes."""
    return hashlib.sha256(_raw(data)).hexdigest()


def _raw(data: Array) -> memoryview:
    return memoryview(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)


@contextmanager
def reading(index: PackIndex) -> Iterator[dict[str, bool]]:
    """Whether each blob is what its digest says.

    Raises:
        OSError: the data cannot be read.
    """
    found: dict[str, bool] = {}
    with index.data.open("rb") as file:
        for key, (offset, length) in sorted(index.blobs.items(), key=lambda one: one[1]):
            file.seek(offset)
            digest, left = hashlib.sha256(), length
            while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                digest.update(chunk)
                left -= len(chunk)
            found[key] = digest.hexdigest() == key
    yield found
