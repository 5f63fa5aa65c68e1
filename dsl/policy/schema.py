"""What the compiler tells the language: the properties, formats, targets and metrics that policies may name.

The language itself knows none of them, so a new pass, format or target is data given here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from qcc.dsl.policy.options import Interval, Maker, Option, Unit
from qcc.dsl.policy.policy import FormatSpec

__all__ = [
    "FormatFamily",
    "Interval",
    "Metric",
    "Off",
    "Percent",
    "Property",
    "Schema",
    "TargetKind",
    "Unit",
    "Word",
]

Percent = Annotated[float, Unit("%")]
"""An option spelled ``50%``; the pass gets 0.5."""


@dataclass(frozen=True)
class Word:
    """A word of a format, such as ``group 32``: what follows it, and the set of words of which one may stand."""

    argument: Literal["int", "tile"] | tuple[str, ...] | None = None
    """A number, extents such as ``16x16``, one of some words, or nothing."""
    excludes: str = ""
    """The name of the set, as a message says it: ``block`` for ``tensor``, ``channel``, ``group`` and ``tile``."""
    low: int = 1
    high: int = 1 << 20
    """Bounds of a number, or of each extent."""


def _none(_: FormatSpec) -> str:
    """Nothing is wrong."""
    return ""


def _all(_: FormatSpec) -> None:
    """No weights are left out."""


@dataclass(frozen=True)
class FormatFamily:
    """Formats of one keyword: ``int4``, ``float``, ``nf4``."""

    keyword: str
    bits: tuple[int, int] | None = None
    """The widths it comes in, spelled after the keyword."""
    words: Mapping[str, Word] = field(default_factory=dict)
    """In the order of the canonical spelling."""
    spaced: bool = False
    """Whether the bits stand apart: ``bfp 5``."""
    summary: str = ""
    least_bits: int = 16
    """The fewest bits of a weight where the keyword names none; what stays as it is may be float16 already."""
    arguments: Maker | None = None
    """The frozen dataclass whose fields stand in parentheses behind the keyword; such a family has no words."""
    fault: Callable[[FormatSpec], str] = _none
    """What is wrong with words or arguments that are right one by one."""
    stays: Callable[[FormatSpec], tuple[float, float] | None] = _all
    """See `FormatSpec.stays`, of one with arguments in which nothing is wrong."""


@dataclass(frozen=True)
class Property:
    """What a rule may set: a format, one of some methods with its options, or a word or number."""

    name: str
    methods: Mapping[str, Maker] = field(default_factory=dict)
    """Each keyword's frozen dataclass, whose fields are its options."""
    formats: Mapping[str, FormatFamily] | None = None
    """The formats of this property, if they aren't the schema's. A property without methods takes formats."""
    summary: str = ""
    subjects: tuple[str, ...] = ()
    """The classes that have it; classes of layers, where none is named."""
    option: Option | None = None
    """What it takes, where that is neither a format nor a method: a word or a number."""
    also: tuple[str, ...] = ()
    """Classes of what is no layer that have it beside layers."""
    many: bool = False
    """Methods may stand side by side, to choose from."""


@dataclass(frozen=True)
class Off:
    """Leave the layers as they are, whatever an earlier rule said."""


@dataclass(frozen=True)
class TargetKind:
    """A target and the arguments that it takes; None means any."""

    name: str
    arguments: tuple[str, ...] | None = ()
    summary: str = ""
    one: bool = False
    """It takes one of its arguments, and no less."""


@dataclass(frozen=True)
class Metric:
    """What a bound may be put on, which way round, and within which limits."""

    name: str
    relation: Literal["<=", ">="]
    units: Mapping[str, tuple[float, float]]
    """By unit family, the first being the default: above the first number, up to the second."""
    arguments: tuple[str, ...] = ()
    """What may stand in its parentheses, which are then required unless ``optional``."""
    optional: bool = False
    summary: str = ""
    whole: bool = False
    """It is measured on the written file: where ``budget`` bounds it, size is minimised if nothing else is asked."""
    counts: tuple[tuple[str, ...], ...] = ()
    """What may be said in the parentheses by name, those of a group all together: whole numbers."""


@dataclass(frozen=True)
class Schema:
    """Everything that a policy may name."""

    properties: Mapping[str, Property]
    formats: Mapping[str, FormatFamily]
    targets: Mapping[str, TargetKind]
    """The first is what a policy without a target compiles for."""
    budget: Mapping[str, Metric]
    verify: Mapping[str, Metric]
    objectives: tuple[str, ...] = ("output_error", "size")
    """The first is the default."""
    additive: tuple[str, ...] = ("output_error",)
    """The metrics that layers may be counted in apart."""
    export: Maker | None = None
    """A frozen dataclass whose fields are the options of ``export``."""
    depth: Mapping[str, Maker] = field(default_factory=dict)
    """The settings of ``depth``, which name layers, with the dataclass that each becomes."""
    kinds: tuple[str, ...] = ("linear", "conv", "embedding", "recurrent")
    """Classes of layers, beside ``any``."""
    subjects: tuple[str, ...] = ("attention", "cache")
    """Classes of what is no layer; `any` is none of them."""
    floats: tuple[str, ...] = ()
    """The types that ``graph`` may name; the first is what there is without it."""
    ops: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What layers do, with what others call it, in lower case without separators."""
