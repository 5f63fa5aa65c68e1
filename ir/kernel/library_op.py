"""What every op that kernel libraries take says of itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np


class LibraryOp(ABC):
    """An op of domain ``qcc``, which its name stands for."""

    counted: ClassVar[tuple[str, str]] = ("", "")
    """How a report counts what many nodes were before: one of them, and what is said of them."""

    @property
    @abstractmethod
    def name(self) -> str:
        """In domain ``qcc``."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """All inputs in order."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """What it makes."""

    @property
    def attributes(self) -> Mapping[str, float]:
        """With usual numbers."""
        return {}

    def constants(self) -> Mapping[str, np.ndarray]:
        """The inputs that must be known when a session begins, of the smallest node, filled with ones."""
        return {}

    def dtype(self, name: str) -> np.dtype:
        """Of another input, or an output."""
        return np.dtype(np.float32)
