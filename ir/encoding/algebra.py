"""The algebra of encodings: the parts that are stored, and one expression that says what they mean.

An encoding names its parts (`Encoding.parts`) and says once, in a handful of operations, what they decode to
(`Encoding.decode`). Sizes and the layout of files follow from the parts. Each consumer brings an interpreter of the
operations: numpy computes the matrix (`reference`), the ONNX adapter writes nodes that do.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from qcc.ir.encoding.grid import Grid
from qcc.ir.encoding.tables.lookups import NO_LOOKUPS, Lookups

V = TypeVar("V")
MatrixShape = tuple[int, int]
Read = Callable[[str], V]
Parts = Mapping[str, np.ndarray]
Rows = slice | np.ndarray
Columns = int | np.ndarray
LEAST_POWER = 1e-3  # of the mean
DOUBT = 1e-2  # of the mean of a Gram matrix's diagonal, on top of all of it


@dataclass(frozen=True)
class Part:
    """An array that is stored.

    Args:
        shape: of the array.
        bits: that each element takes in a file.
        dtype: numpy's type of the elements in memory; codes of few bits lie one a byte.
        floats: the float type of ONNX's own whose bits the elements are, by its name in the language.
        whole: it belongs to the matrix as a whole, even if it is as long as there are rows.
        apart: a decoder reads rows of it, wherever they belong to: each fills whole units of codes by itself.
    """

    shape: tuple[int, ...]
    bits: int
    dtype: type[np.generic] = np.uint8
    floats: str = ""
    whole: bool = False
    apart: bool = False

    def is_of_rows(self, rows: int) -> bool:
        """It holds something of each row of a matrix of so many."""
        return not self.whole and self.shape[:1] == (rows,)

    @property
    def size_bits(self) -> int:
        """Bits of all elements, before any padding to whole bytes."""
        return prod(self.shape) * self.bits


class Ops(Protocol[V]):
    """An interpreter of decode expressions."""

    def numbers(self, codes: V, grid: Grid, shape: Sequence[int]) -> V:
        """The numbers, float32, that codes of a grid stand for, in this shape."""
        ...

    def scaled(self, codes: V, grid: Grid, zero: V | None, scale: V, blocked: Sequence[int], shape: Sequence[int]) -> V:
        """``(numbers - zero) * scale`` in a shape with the blocks apart, over which both broadcast, as ``shape``."""
        ...

    def floats(self, stored: V) -> V:
        """Stored floats, as float32 where they are computed with."""
        ...

    def decode(self, encoding: "Encoding", read: Read[V], shape: MatrixShape) -> V:
        """What an encoding within another decodes to."""
        ...

    def decode_rows(self, encoding: "Encoding", read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """What rows of an encoding within another decode to."""
        ...

    def total(self, levels: Sequence[V]) -> V:
        """The sum of all levels: whoever reads it may leave out the last ones."""
        ...

    def multiply(self, left: V, right: V) -> V:
        """The product of two matrices."""
        ...

    def apart(self, value: V, axes: Sequence[int]) -> V:
        """With new axes of size one at these places."""
        ...

    def spread(self, value: V, axis: int, size: int, count: int) -> V:
        """Each element ``size`` times along an axis, cut at ``count``."""
        ...

    def reshape(self, value: V, shape: Sequence[int]) -> V:
        """In another shape."""
        ...

    def transpose(self, value: V, order: Sequence[int]) -> V:
        """With its axes in another order."""
        ...

    def concat(self, values: Sequence[V], axis: int) -> V:
        """One behind the other."""
        ...

    def take(self, value: V, index: V, axis: int) -> V:
        """What stands at these places of an axis, which count from its end below zero; whole numbers, as floats too."""
        ...

    def rows(self, part: V, index: V, lead: Sequence[int]) -> V:
        """The rows of a part that stand at these places ``[*lead]``; codes stay codes."""
        ...

    def times(self, left: V, right: V) -> V:
        """The products of elements, over which both broadcast."""
        ...

    def places(self, numbers: V, count: int) -> V:
        """Where each of so many numbers stands when they are sorted; equal ones stay as they stand."""
        ...

    def ranks(self, numbers: V) -> V:
        """For each number above zero, the first being 1, which of those it is; 0 for others."""
        ...

    def cut(self, value: V, shape: Sequence[int]) -> V:
        """The first elements along each axis."""
        ...

    def constant(self, name: str, array: np.ndarray) -> V:
        """An array that is the same for all weights, by its name."""
        ...

    def zeros(self, shape: Sequence[int]) -> V:
        """Nothing but zeros, float32."""
        ...


class Fitted(ABC):
    """A matrix that is about to be stored: scales and all else that codes rest on are fixed, codes are the nearest.

    A rounding method may still choose other codes, weight by weight.
    """

    fixed: ClassVar[bool] = False
    """What it stands for does not depend on what it is asked to `round`."""
    curve: tuple[tuple[float, float], ...] = ()  # see `swaps.Curve`
    width: int = 1
    """So many neighbouring columns, from the first on, have one code: they are chosen by `round_tuple`."""

    @abstractmethod
    def round(self, rows: Rows, columns: Columns, values: np.ndarray) -> np.ndarray:
        """Store some weights as the nearest to these values that they may become, and give what those are.

        Several threads may ask for different rows at a time.

        Args:
            rows: of the weights.
            columns: theirs: one for all rows, or one for each of an array of rows.
            values: a number for each weight, float32.
        """

    def round_tuple(self, rows: slice, start: int, values: np.ndarray) -> np.ndarray:
        """Store as many neighbouring columns as have one code, and give what they are.

        Args:
            rows: of the weights.
            start: the first of the columns, a multiple of `width`.
            values: of the columns ``[width or what is left, rows]``, float32.
        """
        return np.stack([self.round(rows, start + at, one) for at, one in enumerate(values)])

    @abstractmethod
    def parts(self) -> dict[str, np.ndarray]:
        """What is stored now; not a copy."""

    def meant(self, matrix: np.ndarray) -> np.ndarray:
        """What a matrix ``[out, in]`` should be rounded to: where some weights are gone, others have moved for it."""
        return matrix

    def settled(self, asked: "Encoding") -> "Encoding":
        """The encoding whose parts these are: the one that was asked for, with all decided that it left open."""
        return asked


@dataclass(frozen=True)
class Fitter:
    """How a matrix becomes the parts of an encoding.

    Args:
        leaf: stores a matrix in an encoding that holds no other.
        power: of what each column is multiplied with, the mean square; None if no data tells.
        gram: the mean products of what two columns are multiplied with ``[in, in]``; None if no data tells.
        sensitivity: what a squared error of each column costs once later columns have made up for it; None if untold.
        damping: what is added to the diagonal of ``gram`` where it is to have an inverse, as a share of its mean.
        lookups: how rows are looked up, by what tells so (`Encoding.sources`).
    """

    leaf: Callable[[np.ndarray, "Encoding", "Fitter"], Fitted]
    power: np.ndarray | None = None
    sensitivity: np.ndarray | None = None
    gram: np.ndarray | None = None
    damping: float = 0.0
    lookups: Mapping[str, Lookups] = field(default_factory=dict)

    def of(self, columns: np.ndarray) -> "Fitter":
        """For a matrix of some of the columns."""
        power, sensitivity = (None if one is None else one[columns] for one in (self.power, self.sensitivity))
        gram = None if self.gram is None else self.gram[np.ix_(columns, columns)]
        return replace(self, power=power, sensitivity=sensitivity, gram=gram)

    def blind(self) -> "Fitter":
        """For a matrix whose rows and columns are others."""
        return replace(self, power=None, sensitivity=None, gram=None, lookups=NO_LOOKUPS)

    def damped(self) -> np.ndarray | None:
        """The products, float64, one in the mean of the diagonal, with so much added that they have an inverse.

        Columns of nothing count like usual ones. None where data tells of nothing.
        """
        if self.gram is None or not self.gram.any():
            return None
        power = np.diag(self.gram).astype(np.float64)
        found = np.asarray(self.gram / np.mean(power))
        np.fill_diagonal(found, np.where(power > 0, power / np.mean(power), 1.0) + max(self.damping, DOUBT))
        return found

    def whitened(self, matrix: np.ndarray) -> np.ndarray:
        """A matrix ``[out, in]``, float64, such that the plain squared error of it is that of the layer's output.

        Where no products are known, columns weigh what they do by themselves.
        """
        if self.gram is None or not self.gram.any():
            return np.asarray(matrix * np.sqrt(self.weights(matrix.shape[1]), dtype=np.float64))
        products = self.gram / np.float64(np.mean(np.diag(self.gram)))
        products[np.diag_indices(len(products))] += DOUBT
        return np.asarray(matrix @ np.linalg.cholesky(products))

    def weights(self, count: int) -> np.ndarray:
        """How much the squared error of each column matters, float32, one in the mean."""
        if self.power is None or not self.power.any():
            return np.ones(count, np.float32)
        least = float(self.power.mean()) * LEAST_POWER  # a column that data never moved may move on other data
        return np.asarray(np.maximum(self.power, least) / np.mean(self.power), np.float32)


class Encoding(ABC):
    """A way to store a matrix ``[out, in]``. Compares and hashes by value."""

    option_kind: ClassVar[str] = "format"
    """How the language spells one where it is an argument."""
    corrects: ClassVar[bool] = False
    """In a sum it makes up for what stands before it, and goes only where that goes."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The canonical spelling, in the language's words."""

    @abstractmethod
    def parts(self, shape: MatrixShape) -> Mapping[str, Part]:
        """What is stored of a matrix of this shape, by name."""

    @abstractmethod
    def decode(self, ops: Ops[V], read: Read[V], shape: MatrixShape) -> V:
        """What the parts mean: the matrix, float32.

        Args:
            ops: the operations to say it in.
            read: gives a part by its name.
            shape: of the matrix.
        """

    @abstractmethod
    def fit(self, matrix: np.ndarray, fitter: Fitter) -> Fitted:
        """Choose scales and all that codes rest on for a matrix of finite numbers, and the nearest codes.

        Raises:
            Refused: the encoding cannot hold the matrix.
        """

    @property
    def within(self) -> tuple["Encoding", ...]:
        """The encodings that it is made of."""
        return ()

    @property
    def tile(self) -> MatrixShape | None:
        """Extents of the tiles of which it stores some, each a row of the one `within`; None if it has none."""
        return None

    def tiles_kept(self, shape: MatrixShape) -> int:
        """How many of the tiles of a matrix are stored."""
        return 0

    @property
    def stays(self) -> tuple[float, float] | None:
        """The least share of weights that is stored, and bits of each weight beside; None where none is left out."""
        return None

    @property
    def undecodable(self) -> str:
        """Why no decoder in a file knows it, though it can be rounded to and decoded here; empty if one does."""
        return next((one.undecodable for one in self.within if one.undecodable), "")

    @property
    def learns(self) -> bool:
        """It is the better for knowing what the matrix is multiplied with."""
        return any(one.learns for one in self.within)

    @property
    def sources(self) -> frozenset[str]:
        """What must tell how rows are looked up: files of interactions by name, `CALIBRATION` for the data at hand."""
        return frozenset(name for one in self.within for name in one.sources)

    @property
    def merges(self) -> bool:
        """Rows share what is stored: what multiplies by the matrix gets as many equal results."""
        return any(one.merges for one in self.within)

    def check_lookups(self, lookups: Mapping[str, Lookups]) -> None:
        """Raise a `ModelError` where what tells how rows are looked up does not tell enough."""
        for one in self.within:
            one.check_lookups(lookups)

    def note(self, shape: MatrixShape) -> str:
        """What is worth telling of a matrix that is stored so, beside its size; empty if nothing is."""
        return "; ".join(filter(None, (one.note(shape) for one in self.within)))

    def warning(self, shape: MatrixShape, lookups: Mapping[str, Lookups]) -> str:
        """What whoever uses the model must know of a matrix that is stored so; empty if nothing."""
        return "; ".join(filter(None, (one.warning(shape, lookups) for one in self.within)))

    @property
    def summands(self) -> tuple["Encoding", ...]:
        """What it is the sum of, each holding what those before it left, by the names of parts ``0.`` and so on."""
        return ()

    def summing(self, summands: tuple["Encoding", ...]) -> "Encoding":
        """The sum of others in the place of the `summands`.

        Raises:
            NotImplementedError: it is no sum.
        """
        raise NotImplementedError(f"{self.text} is no sum of {len(summands)}")

    @property
    def open(self) -> bool:
        """The parts of a matrix depend on what is in it: `parts` tells about how large they are, for all alike."""
        return any(one.open for one in self.within)

    @property
    def rows_apart(self) -> bool:
        """A row can be decoded from its own rows of what is stored."""
        return False

    def decode_rows(self, ops: Ops[V], read: Read[V], lead: Sequence[int], shape: MatrixShape) -> V:
        """The same of some rows ``[*lead, in]``, of which ``read`` gives the parts; lone numbers stay whole.

        Args:
            ops: see `decode`.
            read: gives a part of these rows by its name, or the whole of one that is no row's.
            lead: how the rows stand.
            shape: of the whole matrix.

        Raises:
            NotImplementedError: rows cannot be told apart.
        """
        raise NotImplementedError(f"rows of {self.text} cannot be told apart")

    def turned(self) -> "Encoding | None":
        """The encoding of the transposed matrix, whose parts are those of this one transposed; None if none is."""
        return None

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands in lists: by the bits of a weight, about, then by its text."""
        return round(self.bits_per_weight((256, 256))), self.text

    def size_bits(self, shape: MatrixShape) -> int:
        """Bits of all parts of a matrix, before any padding to whole bytes."""
        return sum(part.size_bits for part in self.parts(shape).values())

    def bits_per_weight(self, shape: MatrixShape) -> float:
        """``size_bits`` shared out over the weights."""
        return self.size_bits(shape) / max(shape[0] * shape[1], 1)


def under(read: Read[V], prefix: str) -> Read[V]:
    """Reads the parts of an encoding that stands within another."""
    return lambda name: read(f"{prefix}.{name}")


def inside(parts: Mapping[str, V], prefix: str) -> dict[str, V]:
    """The parts of an encoding within another, by their names in that."""
    return {f"{prefix}.{name}": part for name, part in parts.items()}
