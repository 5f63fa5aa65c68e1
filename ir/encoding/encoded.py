"""A stored matrix: an encoding with the parts of one matrix."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Parts
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.reference import NUMPY
from qcc.ir.encoding.swaps import Curve
from qcc.ir.errors import Refused

LAST_DIGIT = 2.0**-23  # of a float32, as a share of it


@dataclass(frozen=True)
class Scales:
    """Per block of a matrix, ``[down, across]``: scales as stored, and zero points (None if symmetric).

    An encoding without scales has ones, which nobody stores. Scales that are no plain floats come with what is
    ``stored`` of them.
    """

    scale: np.ndarray
    zero: np.ndarray | None
    stored: Parts | None = None

    def rows(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Scales (float32) and zeros, one row a block ``[blocks, 1]``."""
        zero = None if self.zero is None else self.zero.reshape(-1, 1)
        return self.scale.astype(np.float32).reshape(-1, 1), zero


@dataclass(frozen=True)
class Encoded:
    """A stored matrix ``[out, in]``: the parts that its encoding names, and how a search came to them.

    Raises:
        ValueError: the parts are not of the encoding.
    """

    encoding: Encoding
    shape: MatrixShape
    parts: Parts
    curve: Curve = field(default=(), compare=False)

    def __post_init__(self) -> None:
        known = self.encoding.parts(self.shape)
        if known.keys() != self.parts.keys():
            raise ValueError(f"{self.encoding.text} has the parts {', '.join(known)}, not {', '.join(self.parts)}")
        for name, part in known.items():
            array, name_of = self.parts[name], part.dtype.__name__
            wide = part.dtype is np.uint8 and part.bits < 8 and int(array.max(initial=0)) >> part.bits
            if wide or array.shape != part.shape or array.dtype != part.dtype:
                raise ValueError(f"`{name}` of {self.encoding.text} is {part.bits} bits in {name_of} {part.shape} here")

    @property
    def codes(self) -> np.ndarray:
        """The codes ``[out, in]`` of a matrix stored by blocks."""
        return self.parts["codes"]

    @property
    def scales(self) -> Scales:
        """The scales and zero points of a matrix stored by blocks."""
        assert isinstance(self.encoding, Blocked)
        grid, blocks = self.encoding.grid, self.encoding.block.grid(self.shape)
        if self.encoding.scale is None:
            return Scales(np.ones(blocks, np.float32), None)
        plain = self.parts.get("scale.values")
        stored = {name[len("scale.") :]: part for name, part in self.parts.items() if name.startswith("scale.")}
        scale = self.encoding.scales.decode(NUMPY, stored.__getitem__, blocks) if plain is None else plain
        zero = None
        if isinstance(grid, IntGrid) and not grid.symmetric:
            zero = (self.parts["zero"].astype(np.int16) + grid.middle).astype(np.uint8)
        return Scales(scale, zero, stored)

    def decode(self) -> np.ndarray:
        """The float32 matrix ``[out, in]`` that is stored."""
        found: np.ndarray = self.encoding.decode(NUMPY, self.parts.__getitem__, self.shape)
        return found

    def turned(self) -> "Encoded | None":
        """The transposed matrix as it would be stored, of the same numbers; None where there is no such thing."""
        encoding = self.encoding.turned()
        if encoding is None:
            return None
        parts = {name: np.ascontiguousarray(part.T) for name, part in self.parts.items()}
        return Encoded(encoding, self.shape[::-1], parts)


def stored(encoding: Blocked, codes: np.ndarray, scales: Scales) -> dict[str, np.ndarray]:
    """The parts of a matrix of these codes ``[out, in]`` and scales."""
    parts: dict[str, np.ndarray] = {}
    if encoding.scale is not None:
        held: Mapping[str, np.ndarray] = {"values": scales.scale} if scales.stored is None else scales.stored
        parts |= {f"scale.{name}": part for name, part in held.items()}
    if scales.zero is not None:
        assert isinstance(encoding.grid, IntGrid)
        parts["zero"] = (scales.zero.astype(np.int16) - encoding.grid.middle).astype(np.int8)
    return parts | {"codes": codes}


def check_finite(matrix: np.ndarray) -> None:
    """Refuse a weight that no finite grid can hold.

    Raises:
        Refused: it has a NaN or an infinity.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(np.sum(matrix, dtype=np.float64))
    if not np.isfinite(total) and not np.isfinite(matrix).all():
        bad = np.argwhere(~np.isfinite(matrix))[0]
        raise Refused(f"the weight holds {matrix[tuple(bad)]} at row {bad[0]}, column {bad[1]}", broken=True)


def remainder(matrix: np.ndarray, stored: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """What storing a matrix left of it; nothing where that is no digit of what it was once: no scale holds it."""
    left: np.ndarray = matrix - stored
    left[np.abs(left) <= LAST_DIGIT * np.abs(whole)] = 0
    return left


def leaves(encoding: Encoding) -> Iterator[Encoding]:
    """The encodings in it, itself included, that hold no others."""
    if not encoding.within:
        yield encoding
    for one in encoding.within:
        yield from leaves(one)
