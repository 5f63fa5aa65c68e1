"""An attention over rows that are all given, named by its heads and by what hides scores."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from qcc.ir.kernel.library_op import LibraryOp

_NAME = re.compile(r"attend_dense_(\d+)x(\d+)x(\d+)(_masked)?(_causal)?", re.ASCII)


@dataclass(frozen=True)
class DenseOp(LibraryOp):
    """``y = softmax(scale queries keys' + mask) values``, as `Attention` of the standard has it.

    Inputs are ``queries [samples, rows, heads * channels]``; ``keys`` and ``values [samples, columns, kept heads *
    channels]``; and the ``mask [1 or samples, 1 or heads, 1 or rows, 1 or columns]`` of two to four axes, floats that
    are added or flags of what is seen. ``y`` is as ``queries``. The attribute ``scale`` multiplies scores.

    Args:
        heads: of queries.
        kept_heads: of keys and values.
        channels: of a head.
        masked: there is a mask.
        causal: a row sees as many columns as it has rows before it, and one more.
    """

    counted: ClassVar[tuple[str, str]] = ("attention", "as one op in a kernel of ours")

    heads: int
    kept_heads: int
    channels: int
    masked: bool = False
    causal: bool = False

    @property
    def name(self) -> str:
        """The op's name in domain ``qcc``."""
        sizes = f"{self.heads}x{self.kept_heads}x{self.channels}"
        return f"attend_dense_{sizes}{'_masked' * self.masked}{'_causal' * self.causal}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs in order."""
        return ("queries", "keys", "values", *(("mask",) if self.masked else ()))

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it makes."""
        return ("y",)

    @property
    def attributes(self) -> Mapping[str, float]:
        """With the standard's own scale."""
        return {"scale": float(max(self.channels, 1)) ** -0.5}


def parse_dense(name: str) -> DenseOp | None:
    """The op that a name stands for, if it is such a name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    heads, kept, channels = map(int, found.groups()[:3])
    if not kept or heads % kept:
        return None
    made = DenseOp(heads, kept, channels, bool(found[4]), bool(found[5]))
    return made if made.name == name else None
