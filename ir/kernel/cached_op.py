"""An attention over rows that are kept as codes, named by its heads and by what keys and values are kept in."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.encoding.cached.rows import HALF, SCALE_TYPES, CachedRows
from qcc.ir.kernel.library_op import LibraryOp

_CODE = r"(float|int(?:4|8)(?:g\d+(?:fp16|fp32|e8m0))?)"
_NAME = re.compile(rf"attend_(\d+)x(\d+)x(\d+)_{_CODE}_{_CODE}(_first)?", re.ASCII)
_GROUPS = re.compile(r"g(\d+)(.*)", re.ASCII)


@dataclass(frozen=True)
class RowCode:
    """What numbers of a row are kept in.

    Args:
        bits: of a code; 32 for floats.
        group: numbers that share a scale, which is kept beside them; 0 where all stand for themselves.
        scale: what that is kept in.
    """

    bits: int = 32
    group: int = 0
    scale: str = ""

    @classmethod
    def of(cls, rows: CachedRows | None) -> "RowCode":
        """Of a cache, whose channels are moved outside of the op; None for floats."""
        if rows is None:
            return cls()
        return cls(rows.bits) if rows.by_channel else cls(rows.bits, rows.size, str(rows.encoding.scale))

    @classmethod
    def parsed(cls, word: str) -> "RowCode":
        """The inverse of `word`."""
        if word == "float":
            return cls()
        found = _GROUPS.fullmatch(word[len("int8") :])
        bits = int(word[len("int") : len("int8")])
        return cls(bits) if found is None else cls(bits, int(found[1]), found[2])

    @property
    def word(self) -> str:
        """In names."""
        kind = "float" if self.is_float else f"int{self.bits}"
        return kind + (f"g{self.group}{self.scale}" if self.group else "")

    @property
    def is_float(self) -> bool:
        """It is no code."""
        return self.bits == RowCode.bits

    @property
    def dtype(self) -> np.dtype:
        """Of codes; two of 4 bits share a byte."""
        return np.dtype(np.float32 if self.is_float else np.uint8 if self.bits == HALF else np.int8)

    @property
    def scale_dtype(self) -> np.dtype:
        """Of scales."""
        return np.dtype(SCALE_TYPES[self.scale])


@dataclass(frozen=True)
class CachedOp(LibraryOp):
    """``y = softmax(queries keys' + bias) values``, and the caches with the new rows behind.

    Inputs are the scaled ``queries [samples, new, heads * channels]``; the new ``keys`` and ``values [samples, new,
    kept heads * channels]``, their channels as they are kept; ``past_keys`` and ``past_values [samples, kept heads,
    rows, channels]`` as codes, two of 4 bits a byte, the first half of a row in the lower halves; beside them where
    groups have scales ``past_keys_scale`` and ``past_values_scale [.., rows, groups]``; the ``bias [1 or samples, 1 or
    heads, 1 or new, all rows]``; and ``first_keys`` and ``first_values [samples, kept heads, first, channels]`` in
    floats, which stand before the others. Outputs are ``y`` like ``queries``, and ``present_keys`` and
    ``present_values`` with their scales.

    Args:
        heads: of queries.
        kept_heads: of keys and values.
        channels: of a head.
        keys: what they are kept in.
        values: the same.
        first: there are first rows in floats.
    """

    counted: ClassVar[tuple[str, str]] = ("attention", "over caches in a kernel of ours")

    heads: int
    kept_heads: int
    channels: int
    keys: RowCode
    values: RowCode
    first: bool = False

    @property
    def name(self) -> str:
        """The op's name in domain ``qcc``."""
        sizes = f"{self.heads}x{self.kept_heads}x{self.channels}"
        return f"attend_{sizes}_{self.keys.word}_{self.values.word}{'_first' * self.first}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs in order."""
        past = tuple(f"past_{name}" for name in self._kept)
        return ("queries", "keys", "values", *past, "bias", *(("first_keys", "first_values") if self.first else ()))

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it makes."""
        return ("y", *(f"present_{name}" for name in self._kept))

    @property
    def _kept(self) -> tuple[str, ...]:
        pairs = ("keys", self.keys), ("values", self.values)
        return tuple(word for name, code in pairs for word in (name, f"{name}_scale")[: 1 + bool(code.group)])

    def dtype(self, name: str) -> np.dtype:
        """See `LibraryOp.dtype`."""
        kind, _, part = name.partition("_")
        if kind not in ("past", "present"):
            return super().dtype(name)
        code = self.keys if part.startswith("keys") else self.values
        return code.scale_dtype if part.endswith("_scale") else code.dtype


def parse_cached(name: str) -> CachedOp | None:
    """The op that a name stands for, if it is such a name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    heads, kept, channels = map(int, found.groups()[:3])
    if not kept or heads % kept:
        return None
    keys, values = map(RowCode.parsed, found.groups()[3:5])
    made = CachedOp(heads, kept, channels, keys, values, bool(found[6]))
    return made if made.name == name else None
