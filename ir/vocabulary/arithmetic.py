"""Formulas of steps, and numpy's reading of them, which is the reference."""

import math
from typing import Any, Protocol, TypeVar

import numpy as np

V = TypeVar("V")


class Arithmetic(Protocol[V]):
    """An interpreter of formulas; its values take ``+``, ``-``, ``*`` and ``/`` among each other and with numbers."""

    def above(self, value: V, low: float) -> V:
        """No less than a number; NaN stays NaN."""
        ...

    def clamp(self, value: V, low: float, high: float) -> V:
        """Into the bounds; NaN stays NaN."""
        ...

    def exp(self, value: V) -> V:
        """The exponential function."""
        ...

    def logistic(self, value: V) -> V:
        """``1 / (1 + exp(-value))``."""
        ...

    def tanh(self, value: V) -> V:
        """The hyperbolic tangent."""
        ...

    def normal(self, value: V) -> V:
        """The normal distribution, ``(1 + erf(value / sqrt(2))) / 2``."""
        ...


class NumpyArithmetic:
    """The reference, in the type of what it is given: float64 wherever it counts."""

    def above(self, value: np.ndarray, low: float) -> np.ndarray:
        """See `Arithmetic.above`."""
        return np.asarray(np.maximum(value, low))

    def clamp(self, value: np.ndarray, low: float, high: float) -> np.ndarray:
        """See `Arithmetic.clamp`."""
        return np.asarray(np.clip(value, low, high))

    def exp(self, value: np.ndarray) -> np.ndarray:
        """See `Arithmetic.exp`."""
        return np.asarray(np.exp(value))

    def logistic(self, value: np.ndarray) -> np.ndarray:
        """See `Arithmetic.logistic`."""
        return np.asarray((1 + np.tanh(value / 2)) / 2)

    def tanh(self, value: np.ndarray) -> np.ndarray:
        """See `Arithmetic.tanh`."""
        return np.asarray(np.tanh(value))

    def normal(self, value: np.ndarray) -> np.ndarray:
        """See `Arithmetic.normal`."""
        erf: Any = np.vectorize(math.erf, otypes=[np.float64])
        return np.asarray((1 + erf(value / math.sqrt(2))) / 2)


NUMPY_ARITHMETIC = NumpyArithmetic()
