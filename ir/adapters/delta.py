"""What a kind of adapter is: tensors by their roles, and what a layer becomes by them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array


@dataclass(frozen=True)
class Affine:
    """What a layer or a norm multiplies by and adds, in float64, as the framework of its author holds it.

    Args:
        weight: ``[out, in]``, ``[out, in, kh, kw]``, ``[entries, width]`` or ``[channels]``; None if there is none.
        bias: ``[out]``; None if there is none.
        is_table: it is looked up, and not multiplied.
    """

    weight: Array | None
    bias: Array | None = None
    is_table: bool = False

    @property
    def matrix(self) -> Array:
        """The weight with one row for each output channel.

        Raises:
            Refused: there is none.
        """
        if self.weight is None or self.weight.ndim < 2:
            raise Refused("it has no weight matrix")
        return self.weight.reshape(len(self.weight), -1)

    def with_matrix(self, matrix: Array, bias: Array | None = None) -> "Affine":
        """With another weight of the same size, and maybe another bias."""
        assert self.weight is not None
        return Affine(matrix.reshape(self.weight.shape), self.bias if bias is None else bias, self.is_table)


@dataclass(frozen=True)
class DeltaParts:
    """The tensors of one adapter at one layer.

    Args:
        arrays: by their roles, in float64; those that all layers share are among them.
        scaling: what a product of a rank is multiplied by, as the file or its settings say.
        settings: what stands beside the file.
        alpha: what the file itself says at this layer, if it does.
    """

    arrays: Mapping[str, Array]
    scaling: Callable[[int], float]
    settings: Mapping[str, object]
    alpha: float | None = None

    def __getitem__(self, role: str) -> Array:
        return self.arrays[role]

    def get(self, role: str) -> Array | None:
        """A tensor, if there is such."""
        return self.arrays.get(role)

    def flag(self, name: str) -> bool:
        """A setting is on."""
        return self.settings.get(name) is True


class Delta(ABC):
    """A kind of adapter. A member is a class in a module of `kinds`; its docstring says what it does.

    Args:
        label: what reports call it.
        endings: how the names of its tensors end, by role; the longest ending of all kinds wins, and of kinds with
            the same that of which the layer has more.
        needed: the roles of which one set must be there.
        shared: the roles whose tensors stand once in a file, for all layers.
    """

    label: ClassVar[str]
    endings: ClassVar[Mapping[str, tuple[str, ...]]]
    needed: ClassVar[tuple[frozenset[str], ...]]
    shared: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def apply(self, parts: DeltaParts, base: Affine) -> Affine:
        """What a layer becomes.

        Raises:
            Refused: the tensors do not fit the layer, with both shapes.
        """


def fits(array: Array, base: Affine, what: str) -> Array:
    """A tensor in the shape of a weight.

    Raises:
        Refused: it has another number of numbers, or axes that are not those of the weight.
    """
    weight = base.weight
    if weight is None:
        raise Refused("it has no weight")
    plain = [size for size in array.shape if size != 1] == [size for size in weight.shape if size != 1]
    if array.size != weight.size or not (plain or array.ndim < weight.ndim) or len(array) != len(weight):
        raise Refused(f"{what} is {spelled(array)}, the weight {spelled(weight)}")
    return array.reshape(weight.shape)


def product(up: Array, down: Array, what: str) -> Array:
    """The product of two factors, whose other axes are one.

    Raises:
        Refused: they do not go together.
    """
    left, right = up.reshape(len(up), -1), down.reshape(len(down), -1)
    if left.shape[1] != len(right):
        raise Refused(f"the factors of {what} are {spelled(up)} and {spelled(down)}")
    found: Array = left @ right
    return found


def tucker(core: Array, up: Array, down: Array, what: str) -> Array:
    """A convolution's weight of a core ``[i, j, kh, kw]`` and factors ``[i, out]`` and ``[j, in]``.

    Raises:
        Refused: they do not go together.
    """
    if core.ndim < 3 or up.ndim != 2 or down.ndim != 2 or core.shape[:2] != (len(up), len(down)):
        raise Refused(f"the core and factors of {what} are {spelled(core)}, {spelled(up)} and {spelled(down)}")
    found: Array = np.einsum("ij...,ip,jr->pr...", core, up, down)
    return found


def vector(array: Array, size: int, what: str) -> Array:
    """A tensor as a vector.

    Raises:
        Refused: it is none of this size.
    """
    if array.size != size:
        raise Refused(f"{what} is {spelled(array)}, the layer has {size:,} output channels")
    return array.reshape(-1)


def spelled(array: Array) -> str:
    """A shape, for people: ``384x8``."""
    return "x".join(map(str, array.shape)) or "a number"
