"""What a checkpoint holds, tensor by tensor."""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Held:
    """A tensor of a checkpoint.

    Args:
        name: as the file has it.
        shape: of what it decodes to.
        stored: the file's own name of how.
        size_bytes: of all that is stored of it.
        ours: the format of the language that stores the same numbers; empty if none does.
        why: where none does, what is different.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    size_bytes: int
    ours: str = ""
    why: str = ""

    @property
    def params(self) -> int:
        """How many numbers it is."""
        return prod(self.shape)


@dataclass(frozen=True)
class WeightFile:
    """A file of weights.

    Args:
        kind: of file.
        tensors: all of them, in their order.
    """

    kind: str
    tensors: tuple[Held, ...]
