"""A model that shares constants with others: where those lie, and of what they are computed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qcc.ir.graph.ops import Array


@dataclass(frozen=True)
class BlobPlace:
    """Where the bytes of a constant lie in a data file."""

    offset: int
    length: int


@dataclass(frozen=True)
class NarrowDelta:
    """``base + up @ down``, reshaped; digests of blobs, and the rank."""

    base: str
    up: str
    down: str
    rank: int

    @property
    def blobs(self) -> tuple[str, ...]:
        """All that it is computed of."""
        return self.base, self.up, self.down

    @property
    def text(self) -> str:
        """For people."""
        return f"rank {self.rank}"


@dataclass(frozen=True)
class Sparsely:
    """``base`` with other numbers at some places, counted through; digests of blobs, and how many."""

    base: str
    places: str
    values: str
    count: int

    @property
    def blobs(self) -> tuple[str, ...]:
        """All that it is computed of."""
        return self.base, self.places, self.values

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.count:,} numbers"


@dataclass(frozen=True)
class TwoBitDelta:
    """``base`` with multiples of -3, -1, 1 and 3 added, some a number: each row of each level has a size of its own.

    Args:
        base: the digest of the other constant.
        codes: of the blob of bytes ``[rows, levels, columns / 4]``, rounded up: four codes each, the lowest first.
        sizes: of the blob of floats ``[rows, 1, levels]``.
        levels: how many there are.
    """

    base: str
    codes: str
    sizes: str
    levels: int

    @property
    def blobs(self) -> tuple[str, ...]:
        """All that it is computed of."""
        return self.base, self.codes, self.sizes

    @property
    def text(self) -> str:
        """For people."""
        return f"{2 * self.levels} bits a number"


Rebuilt = NarrowDelta | Sparsely | TwoBitDelta


class PackSource(ABC):
    """A model's file as a graph and large constants, which may be put anywhere."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The large constants, in their order."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Of the file with its data."""

    @abstractmethod
    def layout(self, name: str) -> tuple[int, tuple[int, ...]]:
        """A constant's type, as the framework numbers them, and shape."""

    @abstractmethod
    def data(self, name: str) -> Array:
        """The bytes of a constant, mapped where they lie in a file."""

    @abstractmethod
    def floats(self, name: str) -> Array | None:
        """A constant as an array, if it is of float32 and may be computed of others; None otherwise."""

    @abstractmethod
    def write(
        self,
        path: Path,
        data: str,
        places: Mapping[str, BlobPlace],
        rebuilt: Mapping[str, Rebuilt],
        pool: Mapping[str, BlobPlace],
    ) -> None:
        """Write the model with its large constants in a data file beside it.

        Args:
            path: of the file.
            data: the data file's name.
            places: of the constants that lie there as they are.
            rebuilt: those that are computed of others when a session starts.
            pool: where the parts of those lie, by digest.

        Raises:
            OSError: it cannot be written.
        """
