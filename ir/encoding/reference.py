"""Numpy's reading of decode expressions, which is the reference."""

from collections.abc import Sequence

import numpy as np

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Read
from qcc.ir.encoding.grid import Grid


class NumpyOps:
    """The reference: what the parts of an encoding mean, computed."""

    def numbers(self, codes: np.ndarray, grid: Grid, shape: Sequence[int]) -> np.ndarray:
        """See `Ops.numbers`."""
        found: np.ndarray = grid.numbers(codes.reshape(shape))
        return found

    def scaled(
        self,
        codes: np.ndarray,
        grid: Grid,
        zero: np.ndarray | None,
        scale: np.ndarray,
        blocked: Sequence[int],
        shape: Sequence[int],
    ) -> np.ndarray:
        """See `Ops.scaled`."""
        values = grid.numbers(codes.reshape(blocked))
        if zero is not None:
            values -= zero
        values *= scale
        return values.reshape(shape)

    def floats(self, stored: np.ndarray) -> np.ndarray:
        """See `Ops.floats`."""
        return stored.astype(np.float32)

    def decode(self, encoding: Encoding, read: Read[np.ndarray], shape: MatrixShape) -> np.ndarray:
        """See `Ops.decode`."""
        return encoding.decode(self, read, shape)

    def decode_rows(
        self, encoding: Encoding, read: Read[np.ndarray], lead: Sequence[int], shape: MatrixShape
    ) -> np.ndarray:
        """See `Ops.decode_rows`."""
        return encoding.decode_rows(self, read, lead, shape)

    def total(self, levels: Sequence[np.ndarray]) -> np.ndarray:
        """See `Ops.total`."""
        found, *others = levels
        for other in others:
            found = found + other
        return found

    def multiply(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """See `Ops.multiply`."""
        product: np.ndarray = left @ right
        return product

    def apart(self, value: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """See `Ops.apart`."""
        return np.expand_dims(value, tuple(axes))

    def spread(self, value: np.ndarray, axis: int, size: int, count: int) -> np.ndarray:
        """See `Ops.spread`."""
        return np.take(value, np.arange(count) // size, axis)

    def reshape(self, value: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """See `Ops.reshape`."""
        return value.reshape(shape)

    def transpose(self, value: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """See `Ops.transpose`."""
        return value.transpose(order)

    def concat(self, values: Sequence[np.ndarray], axis: int) -> np.ndarray:
        """See `Ops.concat`."""
        return np.concatenate(values, axis)

    def take(self, value: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
        """See `Ops.take`."""
        return np.take(value, index.astype(np.intp, copy=False), axis)

    def rows(self, part: np.ndarray, index: np.ndarray, lead: Sequence[int]) -> np.ndarray:
        """See `Ops.rows`."""
        return self.take(part, index, 0)

    def times(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """See `Ops.times`."""
        product: np.ndarray = left * right
        return product

    def places(self, numbers: np.ndarray, count: int) -> np.ndarray:
        """See `Ops.places`."""
        return np.argsort(np.argsort(numbers, kind="stable"), kind="stable")

    def ranks(self, numbers: np.ndarray) -> np.ndarray:
        """See `Ops.ranks`."""
        above = numbers > 0
        return np.cumsum(above, dtype=np.int32) * above

    def cut(self, value: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """See `Ops.cut`."""
        return value[tuple(map(slice, shape))]

    def constant(self, name: str, array: np.ndarray) -> np.ndarray:
        """See `Ops.constant`."""
        return array

    def zeros(self, shape: Sequence[int]) -> np.ndarray:
        """See `Ops.zeros`."""
        return np.zeros(shape, np.float32)


NUMPY = NumpyOps()
