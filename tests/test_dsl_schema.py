"""A small schema for the language's tests, and the tests of schemas themselves.

The other tests of the language take ``SCHEMA`` from here with ``runpy``: the test folder is no package.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import pytest

from qcc.dsl.policy.options import describe, option_text, options_of
from qcc.dsl.policy.policy import FormatSpec
from qcc.dsl.policy.schema import FormatFamily, Interval, Metric, Percent, Property, Schema, TargetKind, Word


@dataclass(frozen=True)
class Nearest:
    """Round each weight to the nearest code.

    Source: folklore.
    """

    clip: Literal["none", "mse"] = "mse"
    """How the range is chosen."""


@dataclass(frozen=True)
class Gptq:
    """Round with error feedback."""

    damp: Percent = 0.01
    steps: Annotated[int, Interval(1, 64), "blocks of columns"] = 8
    ordered: bool = False
    note: str | None = None


@dataclass(frozen=True)
class Smoothquant:
    """Move the activations' range into the weights."""

    strength: Annotated[float, Interval(0, 1)]


@dataclass(frozen=True)
class Magnitude:
    """Sort channels by magnitude."""

    group: Annotated[int, Interval(1, 1024)] = 32


@dataclass(frozen=True)
class Gains:
    """Fold norms."""

    gains: bool = True


@dataclass(frozen=True)
class LeaveOut:
    """Leaves out."""

    cure: Literal["off", "linear", "best"] = "off"


@dataclass(frozen=True)
class Plain:
    """Without options."""


@dataclass(frozen=True)
class Blocks:
    """Zero whole blocks."""

    shape: tuple[int, int]
    keep: Annotated[Percent, Interval(0.01, 1)]
    by: Literal["magnitude", "hessian"] = "magnitude"

    def __post_init__(self) -> None:
        if self.shape == (1, 1):
            raise ValueError("a block has more than one element")


@dataclass(frozen=True)
class Export:
    """How the file is written."""

    opset: Literal["auto", 21, 25] = "auto"
    external_data: Literal["auto", "always", "never"] = "auto"
    activations: Literal["int8", "exact"] | None = None


class Stored:
    """A way to store weights, which is spelled as a format."""

    option_kind: ClassVar[str] = "format"
    text = "int1"


STORED = Stored()


@dataclass(frozen=True)
class Bands:
    """Two formats in one weight."""

    fine: Stored
    coarse: Stored
    share: Annotated[Percent, Interval(0.01, 1)]


@dataclass(frozen=True)
class Sum:
    """Some formats, one upon the other."""

    count: Annotated[int, Interval(1, 8)] = 1
    levels: tuple[Stored, ...] = (STORED,)


@dataclass(frozen=True)
class Narrow:
    """A product, perhaps beside a format."""

    base: Stored | None = None
    share: Percent | None = None
    factors: Stored = STORED
    tile: tuple[int, int] = (1, 1)


def _fault(spec: FormatSpec) -> str:
    return "" if spec.arguments and "share" in spec.arguments else "`narrow` takes a share"


_INT_WORDS = {
    "tensor": Word(excludes="block"),
    "channel": Word(excludes="block"),
    "group": Word("int", excludes="block", low=2, high=65536),
    "tile": Word("tile", excludes="block"),
    "sym": Word(excludes="zero point"),
    "asym": Word(excludes="zero point"),
    "scale": Word(("fp32", "fp16")),
}
FORMATS = {
    "int": FormatFamily("int", (2, 8), _INT_WORDS),
    "bf16": FormatFamily("bf16"),
    "fp16": FormatFamily("fp16"),
    "float": FormatFamily("float"),
    "nf4": FormatFamily("nf4", None, {"group": Word("int", low=2, high=4096)}),
    "bfp": FormatFamily("bfp", (2, 8), {"block": Word("int", low=2, high=1024)}, spaced=True),
    "bands": FormatFamily("bands", arguments=Bands),
    "sum": FormatFamily("sum", arguments=Sum),
    "narrow": FormatFamily("narrow", arguments=Narrow, fault=_fault),
}
ACTIVATIONS = {
    "int": FormatFamily("int", (8, 8), {"static": Word(excludes="ranges"), "dynamic": Word(excludes="ranges")}),
    "float": FormatFamily("float"),
}
INFINITY = float("inf")
SCHEMA = Schema(
    properties={
        "weights": Property("weights"),
        "fallback": Property("fallback"),
        "activations": Property("activations", formats=ACTIVATIONS),
        "rounding": Property("rounding", {"nearest": Nearest, "gptq": Gptq}),
        "fold": Property("fold", {"smoothquant": Smoothquant}),
        "permute": Property("permute", {"magnitude": Magnitude}),
        "sparsity": Property("sparsity", {"blocks": Blocks}),
        # what the presets set besides
        "fold_branches": Property("fold_branches", {"on": Plain}),
        "fold_norm": Property("fold_norm", {"on": Gains}),
        "rotate": Property("rotate", {"hadamard": Plain}),
        "equalize": Property("equalize", {"on": Plain}),
        "query_key": Property("query_key", {"on": Plain}),
        "fuse": Property("fuse", {"on": Plain}, subjects=("attention",)),
    },
    formats=FORMATS,
    targets={
        "onnxruntime": TargetKind("onnxruntime"),
        "cpu": TargetKind("cpu", ("native", "avx2", "avx512-vnni")),
        "qdq": TargetKind("qdq", ("tensorrt", "qnn"), one=True),
    },
    budget={
        "size": Metric("size", "<=", {"%": (0, 100), "B": (0, INFINITY)}),
        "output_error": Metric("output_error", "<=", {"%": (0, INFINITY)}, arguments=("given",), optional=True),
    },
    depth={"leave_out": LeaveOut, "share": Plain},
    objectives=("output_error", "size", "latency", "content", "quality"),
    additive=("output_error", "content", "quality"),
    verify={
        "cosine": Metric("cosine", ">=", {"": (-1, 1)}),
        "sqnr": Metric("sqnr", ">=", {"dB": (0, INFINITY), "": (0, INFINITY)}),
        "relative_error": Metric("relative_error", "<=", {"": (0, INFINITY), "%": (0, INFINITY)}),
        "drop": Metric("drop", "<=", {"%": (0, 100)}, arguments=("accuracy",)),
    },
    export=Export,
    floats=("float", "fp16", "bf16"),
)


def test_a_method_describes_itself() -> None:
    assert describe(Gptq) == (
        "gptq(...)\n\nRound with error feedback.\n\nOptions:\n"
        "  damp     a percentage (default 1%)\n"
        "  steps    a whole number from 1 to 64 (default 8). blocks of columns\n"
        "  ordered  true or false (default false)\n"
        "  note     a text (optional)\n"
    )
    assert "strength  a number from 0 to 1 (required)" in describe(Smoothquant)


def test_ranges_and_units_are_known_by_their_attributes() -> None:
    class Bounds:
        low, high = 1, 9

    @dataclass(frozen=True)
    class Method:
        size: Annotated[int, Bounds()] = 3

    option = options_of(Method)["size"]
    assert (option.low, option.high, option.default) == (1, 9, 3)


def test_percentages_are_fractions_inside() -> None:
    option = options_of(Gptq)["damp"]
    assert option_text(option, 0.07) == "7%"


def test_a_type_without_a_spelling_is_refused() -> None:
    @dataclass(frozen=True)
    class Method:
        table: dict[str, int] = field(default_factory=dict)

    with pytest.raises(TypeError, match="table"):
        options_of(Method)
