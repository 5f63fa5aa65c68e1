"""What a format of the language is: a keyword, the words that may follow it, and the encoding that they name."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import ScaleType
from qcc.ir.encoding.blocks import Block

BLOCK_WORDS = ("tensor", "channel", "group", "tile")
SYMMETRY_WORDS = ("sym", "asym")


@dataclass(frozen=True)
class Spelled:
    """What was written behind a keyword; None is what the family takes by default.

    Args:
        bits: the number that belongs to the keyword, as in ``int4``.
        block: of ``tensor``, ``channel``, ``group n`` and ``tile nxm``.
        asym: zero points are stored.
        scale: the word behind ``scale``.
    """

    bits: int | None = None
    block: Block | None = None
    asym: bool = False
    scale: ScaleType | None = None


class Format(ABC):
    """A family of encodings, as the language spells it. The docstring is its manual page.

    One module of `formats` holds one or some; nothing else registers it.
    """

    keyword: ClassVar[str]
    bits: ClassVar[tuple[int, int] | None] = None
    """The widths it comes in, spelled after the keyword."""
    words: ClassVar[tuple[str, ...]] = ()
    """Of `BLOCK_WORDS` and `SYMMETRY_WORDS`, in the order of the canonical spelling."""
    scales: ClassVar[tuple[ScaleType, ...]] = ()
    """How scales may be stored, the default first; one that is fixed is not spelled."""

    @abstractmethod
    def encoding(self, spelled: Spelled) -> Encoding:
        """The encoding that the words name."""
