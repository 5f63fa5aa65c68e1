"""What a format of the language is: a keyword, what may follow it, and the encoding that is named so."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Part
from qcc.ir.encoding.blocks import Block

MOST_LEAVES = 64
"""Of the encodings that one is made of."""
LARGEST_RANK = 1 << 20
BLOCK_WORDS = ("tensor", "channel", "group", "tile")
SYMMETRY_WORDS = ("sym", "asym")
MID = "mid"
"""No number is zero: it lies in the middle between two."""


@dataclass(frozen=True)
class Spelled:
    """What was written behind a keyword; None is what the family takes by default.

    Args:
        bits: the number that belongs to the keyword, as in ``int4``.
        block: of ``tensor``, ``channel``, ``group n`` and ``tile nxm``.
        asym: zero points are stored.
        mid: zero is half a step from the numbers beside it.
        variant: of the family's variants.
        scale: the word behind ``scale``.
    """

    bits: int | None = None
    block: Block | None = None
    asym: bool = False
    mid: bool = False
    variant: str | None = None
    scale: str | None = None


class Format(ABC):
    """A family of encodings, as the language spells it. The docstring is its manual page.

    One module of `formats` holds one or some; nothing else registers it.
    """

    keyword: ClassVar[str]
    bits: ClassVar[tuple[int, int] | None] = None
    """The widths it comes in, spelled after the keyword."""
    spaced: ClassVar[bool] = False
    """They stand apart from it: ``bfp 5``."""
    words: ClassVar[tuple[str, ...]] = ()
    """Of `BLOCK_WORDS`, `SYMMETRY_WORDS` and `MID`, in the order of the canonical spelling."""
    variants: ClassVar[tuple[str, ...]] = ()
    """Words that say which numbers they are, of which one may stand before all others; the first is the default."""
    scale: ClassVar[str] = ""
    """How scales are stored by default, where ``scale`` may stand with every other way; empty where it may not."""

    @abstractmethod
    def encoding(self, spelled: Spelled) -> Encoding:
        """The encoding that the words name."""


@dataclass(frozen=True)
class Composition(ABC):
    """A format that is made of others and has arguments: the fields, in the order in which they may stand unnamed.

    A field is an `Encoding`, a tuple of such, a whole number, a share (`Share`), extents, or one of some words. The
    docstring is the manual page. One module of `formats` holds one or some; nothing else registers it.

    Raises:
        ValueError: the arguments do not go together.
    """

    keyword: ClassVar[str]
    beside: ClassVar[str] = ""
    """Where this argument is given, alternatives in formats of which there may be many are no candidates but more of
    them, side by side."""
    filled: ClassVar[str] = ""
    """The argument that `weights` says where the format is asked for by the property `fills`: what is left of a weight
    is stored so; empty where it leaves nothing out."""
    fills: ClassVar[str] = "sparsity"
    """The rule property that takes it without that argument."""

    @abstractmethod
    def encoding(self) -> Encoding:
        """The encoding that the arguments name."""


@dataclass(frozen=True)
class Limits:
    """Bounds of an argument, both included, and its unit."""

    low: float
    high: float
    unit: str = ""


Share = Annotated[float, Limits(1e-4, 1, "%")]
"""An argument spelled ``50%``, which is 0.5."""


def least_share(asked: float) -> float:
    """What a share of a few things is at least, once it is rounded to one or more of them.

    One of 1.5 that were asked for is two thirds; more are less off.
    """
    return asked if asked == 1 else asked * 2 / 3


def check_share(share: float) -> None:
    """See that a share is one.

    Raises:
        ValueError: it is not.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share is above 0% and up to 100%, not {share:.6g}")


def percent(share: float) -> str:
    """A share as the language spells it."""
    return f"{Decimal(repr(float(share))).scaleb(2).normalize():f}%"


def numbers_below(limit: int, shape: tuple[int, ...]) -> Part:
    """The part that holds whole numbers below a limit."""
    narrow = limit <= 1 << 16
    return Part(shape, 16 if narrow else 32, np.uint16 if narrow else np.int32)


def quoted(text: str) -> str:
    """A text as the language spells it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def whole(parts: Mapping[str, Part]) -> dict[str, Part]:
    """The same parts, of the matrix as a whole."""
    return {name: replace(part, whole=True) for name, part in parts.items()}
