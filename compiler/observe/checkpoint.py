"""How far a pass over the data has come, kept from time to time, so that one that is interrupted goes on where it was.

What is kept is named by a hash of the model, the data and all that was asked: it can serve no other pass. It is written
at one stroke, in the cache folder, and removed when the pass is whole.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np

from qcc.codegen.target import cache
from qcc.ir.graph.ops import Array

PREFIX = "observed-"
EVERY_S = 20.0  # between two writings
SHARE = 20  # of the time at most one part in so many goes into writing
OLD_S = 7 * 86400.0  # what nobody has gone on with is removed


@dataclass
class Checkpoint:
    """Of one pass.

    Args:
        digest: makes the hash, which reads the whole model; asked only where something was kept, or is to be.
    """

    digest: Callable[[], str]
    _name: str = ""
    _last: float = field(default_factory=time.monotonic)
    _took: float = 0.0
    _kept: bool = False

    @property
    def name(self) -> str:
        """Of the file."""
        if not self._name:
            self._name = f"{PREFIX}{self.digest()}.npz"
        return self._name

    def load(self) -> dict[str, Array]:
        """What was kept of this pass; nothing where that cannot be read."""
        if not cache.names(PREFIX):
            return {}
        cache.remove_old(PREFIX, OLD_S)
        try:
            with cache.opened(self.name) as file, np.load(file, allow_pickle=False) as found:
                self._kept = True
                return {name: found[name] for name in found.files}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, MemoryError):
            return {}

    @property
    def unsaved_s(self) -> float:
        """How long nothing has been kept."""
        return time.monotonic() - self._last

    @property
    def due(self) -> bool:
        """It is time to keep what there is."""
        return time.monotonic() - self._last >= max(EVERY_S, SHARE * self._took)

    def save(self, state: Mapping[str, Array]) -> None:
        """Keep what there is, if that can be done."""

        def write(file: BinaryIO) -> None:
            np.savez(file, allow_pickle=False, **state)

        start = time.monotonic()
        with suppress(OSError):
            cache.write_whole(self.name, write)
            self._kept = True
        self._last = time.monotonic()
        self._took = self._last - start

    def remove(self) -> None:
        """The pass is whole."""
        if self._kept:
            cache.remove(self.name)
            self._kept = False
