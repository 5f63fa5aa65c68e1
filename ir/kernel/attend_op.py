"""An attention over the blocks of scores that are kept, named by the sizes of blocks and heads."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.kernel.library_op import LibraryOp

_NAME = re.compile(r"attend_block(\d+)_segment(\d+)_of(\d+)", re.ASCII)


@dataclass(frozen=True)
class AttendOp(LibraryOp):
    """``y [samples, heads, shared by, rows, channels]``, of queries that meet some blocks of keys.

    Inputs are the scaled ``queries`` of ``y``'s shape, filled up to whole segments; ``keys`` and ``values``
    ``[samples, heads, 1, rows, channels]``, of which each row meets those of its own segment up to itself;
    ``sorted_keys`` and ``sorted_values`` ``[samples, heads, rows, channels]``, of which a block meets those that are
    ``kept [samples, heads, shared by, blocks, blocks]``, of queries and of keys, none in its own segment.

    Args:
        block: rows of a block.
        segment: rows of a segment, whole blocks.
        channels: of a head.
    """

    counted: ClassVar[tuple[str, str]] = ("attention", "over blocks in a kernel of ours")

    block: int
    segment: int
    channels: int

    @property
    def name(self) -> str:
        """The op's name in domain ``qcc``."""
        return f"attend_block{self.block}_segment{self.segment}_of{self.channels}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs in order."""
        return "queries", "keys", "values", "sorted_keys", "sorted_values", "kept"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it makes."""
        return ("y",)

    def dtype(self, name: str) -> np.dtype:
        """See `LibraryOp.dtype`."""
        return np.dtype(bool) if name == "kept" else super().dtype(name)


def parse_attend(name: str) -> AttendOp | None:
    """The op that a name stands for, if it is such a name."""
    found = _NAME.fullmatch(name)
    made = None if found is None else AttendOp(*map(int, found.groups()))
    return made if made is not None and made.name == name else None
