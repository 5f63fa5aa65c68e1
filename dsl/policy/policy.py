"""The checked policy: what a file means, with nothing left to look up."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.policy.data_words import FOLDER
from qcc.dsl.policy.metrics import MetricOn
from qcc.dsl.policy.options import Interval, option_text, options_of
from qcc.dsl.policy.select import Selector
from qcc.dsl.syntax.literals import bytes_text, count_text, number_text, quote

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BlockShape = tuple[int, ...]
WordValue = int | str | BlockShape | bool


@dataclass(frozen=True)
class FormatSpec:
    """One format: a family, its bits, and its words such as ``group 32``, or its arguments by name.

    Arguments that are formats are such, or tuples of them.
    """

    family: str
    bits: int | None
    words: Mapping[str, WordValue] = field(hash=False)
    span: Span = field(compare=False, repr=False)
    spaced: bool = field(default=False, compare=False, repr=False)
    """Whether the bits stand apart from the family's keyword."""
    arguments: Mapping[str, object] | None = field(default=None, hash=False)
    spelled: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The arguments as the language spells them."""
    least_bits: int = field(default=16, compare=False, repr=False)
    """The fewest bits of a weight."""
    stays: tuple[float, float] | None = field(default=None, compare=False, repr=False)
    """The least share of weights that is stored, and bits of each weight beside; None where none is left out."""

    @property
    def text(self) -> str:
        """The canonical spelling: words in the family's order."""
        if self.arguments is not None:
            return f"{self.family}({', '.join(self.spelled)})"
        bits = "" if self.bits is None else f"{' ' if self.spaced else ''}{self.bits}"
        return " ".join([f"{self.family}{bits}", *(_word_text(word, value) for word, value in self.words.items())])


def _word_text(word: str, value: WordValue) -> str:
    if value is True:
        return word
    return f"{word} {'x'.join(map(str, value)) if isinstance(value, tuple) else value}"


class Keep(Enum):
    """The value of the statement ``keep``."""

    KEEP = "keep"


KEEP = Keep.KEEP
"""The layer stays as it is."""


@dataclass(frozen=True)
class Assignment:
    """One property that a rule sets: formats or methods to choose from, a method with its options, or ``KEEP``.

    Methods to choose from are assignments of one each.
    """

    name: str
    value: tuple[FormatSpec, ...] | Keep | Any
    span: Span = field(compare=False, repr=False)
    keyword: str | None = None
    """What the policy calls the method, or the word or number itself as it is spelled."""

    @property
    def text(self) -> str:
        """The value as the language spells it."""
        if self.value is KEEP:
            return "keep"
        if isinstance(self.value, tuple):
            return " | ".join(one.text for one in self.value)
        if not is_dataclass(self.value) or isinstance(self.value, type):
            return str(self.keyword)
        options = [f"{name} = {text}" for name, text in options_text(self.value).items()]
        return f"{self.keyword}({', '.join(options)})" if options else str(self.keyword)


@dataclass(frozen=True)
class Rule:
    """What the layers of a selector may become. A later rule overrides an earlier one, property by property."""

    selector: Selector
    assignments: tuple[Assignment, ...]
    span: Span = field(compare=False, repr=False)
    from_preset: bool = False


@dataclass(frozen=True)
class DepthPart:
    """A setting of ``depth``: what is done to the layers whose names match one of some patterns."""

    name: str
    globs: tuple[str, ...]
    method: Any
    span: Span = field(compare=False, repr=False)

    @property
    def text(self) -> str:
        """The setting and its options as the language spells them."""
        options = (f"{name} = {text}" for name, text in options_text(self.method).items())
        return ", ".join((f"{self.name} = {' | '.join(map(quote, self.globs))}", *options))


@dataclass(frozen=True)
class TargetName:
    """What the model is compiled for, as it is named."""

    name: str
    arguments: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)
    """Absent when the policy names no target."""


Select = Literal["draw", "prototypes"]


@dataclass(frozen=True)
class Calibration:
    """The data to calibrate with; without a path it's generated."""

    path: str | None
    """As written, or beside the policy that wrote it."""
    samples: int | None
    seed: int
    span: Span = field(compare=False, repr=False)
    tokenizer: str | None = None
    """Of a text, named as the data is."""
    mean: str | None = None
    """Of images, as written."""
    std: str | None = None
    select: Select = "draw"
    """How samples are chosen, where there are more than are asked for."""

    def moved(self, move: Callable[[str], str]) -> "Calibration":
        """With its paths changed; a folder's stays one."""
        path, tokenizer = (
            None if one is None else move(one) + (FOLDER if one.endswith(FOLDER) else "")
            for one in (self.path, self.tokenizer)
        )
        return replace(self, path=path, tokenizer=tokenizer)


@dataclass(frozen=True)
class GraphFloats:
    """The type of numbers in which the whole graph computes."""

    name: str
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The statement as the language spells it."""
        return f"graph {self.name}"


@dataclass(frozen=True)
class Reconstruct:
    """Weights are learned in windows of blocks, each against what the float model's blocks make."""

    window: Annotated[int, Interval(1, 32), "blocks that learn together"] = 2
    overlap: Annotated[int, Interval(0, 31), "blocks that the next window learns again"] = 1
    rank: Annotated[int, Interval(0, 256), "of what moves the roundings of a weight; 0 moves each by itself"] = 5
    steps: Annotated[int, Interval(1, 100_000), "of gradient descent, in each window"] = 200
    truncate: Annotated[bool, "outliers of weights are cut off before"] = False

    def __post_init__(self) -> None:
        """Refuse windows that go nowhere."""
        if self.overlap >= self.window:
            raise ValueError(f"`overlap = {self.overlap}` leaves nothing new to a window of {self.window}")

    @property
    def text(self) -> str:
        """The statement as the language spells it."""
        return f"reconstruct {{ {', '.join(f'{name} = {text}' for name, text in options_text(self).items())} }}"


@dataclass(frozen=True)
class AdapterFile:
    """What fine-tuning changed in the weights, in a file beside the model."""

    path: str
    """As written, or beside the policy that wrote it."""
    name: str
    """As written."""
    scale: float = 1.0
    alpha: float | None = None
    only: str | None = None
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The statement as the language spells it."""
        options = [] if self.scale == 1 else [f"scale = {number_text(self.scale)}"]
        options += [] if self.alpha is None else [f"alpha = {number_text(self.alpha)}"]
        options += [] if self.only is None else [f"only = {quote(self.only)}"]
        return f"adapter {quote(self.name)}" + (f" {{ {', '.join(options)} }}" if options else "")


@dataclass(frozen=True)
class SamplerFile:
    """The loop in which the model is run, in a file: how often it is called, and what is searched for."""

    path: str
    """As written, or beside the policy that wrote it."""
    name: str
    """As written."""
    evaluations: int | None = None
    """Of the model a sample; None as the file says."""
    search: tuple[str, ...] = ()
    """What may differ from the file."""
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The statement as the language spells it."""
        options = [] if self.evaluations is None else [f"evaluations = {self.evaluations}"]
        options += [f"search = {' '.join(self.search)}"] if self.search else []
        return f"sampler {quote(self.name)}" + (f" {{ {', '.join(options)} }}" if options else "")


@dataclass(frozen=True)
class StepCache:
    """Which evaluations of a loop reuse a part of an earlier one."""

    regions: tuple[tuple[str, tuple[int | str, ...]], ...]
    """Each a word with its arguments."""
    evaluations: "Quantity"
    """That run the whole model: a share, or how many."""
    fit: str = "affine"
    span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The statement as the language spells it."""
        regions = " | ".join(_region_text(*one) for one in self.regions)
        return f"step_cache {{ region = {regions}, evaluations = {self.evaluations.text}, fit = {self.fit} }}"


def _region_text(word: str, arguments: tuple[int | str, ...]) -> str:
    told = ", ".join(quote(one) if isinstance(one, str) else str(one) for one in arguments)
    return f"{word}({told})" if arguments else word


@dataclass(frozen=True)
class Quantity:
    """A number with its unit's family: ``""``, ``%``, ``B``, ``ms`` or ``dB``."""

    value: float
    unit: str = ""

    def of(self, reference: float) -> float:
        """The absolute quantity: a percentage is taken of the reference."""
        return reference * self.value / 100 if self.unit == "%" else self.value

    @property
    def text(self) -> str:
        """The quantity as the language spells it."""
        if self.unit == "B":
            return bytes_text(self.value)
        gap = "" if self.unit in ("", "%") else " "
        return f"{number_text(self.value)}{gap}{self.unit}"


@dataclass(frozen=True)
class Bound:
    """What the whole must satisfy, such as ``size <= 25%``."""

    metric: str
    argument: str | None
    relation: str
    quantity: Quantity
    span: Span = field(compare=False, repr=False)
    counts: tuple[tuple[str, int], ...] = ()
    """What its parentheses say by name."""

    @property
    def text(self) -> str:
        """The bound as the language spells it."""
        named = (f"{name} = {count_text(count)}" for name, count in self.counts)
        said = ", ".join((*((self.argument,) if self.argument else ()), *named))
        argument = f"({said})" if said else ""
        return f"{self.metric}{argument} {self.relation} {self.quantity.text}"


@dataclass(frozen=True)
class Policy:
    """A policy in full: presets inlined, parameters and selectors put in their places."""

    sources: tuple[Source, ...] = field(compare=False, repr=False)
    """The file and all that it uses."""
    rules: tuple[Rule, ...]
    target: TargetName
    calibrate: Calibration | None
    budget: tuple[Bound, ...]
    minimize: str
    verify: tuple[Bound, ...]
    export: Any
    """An instance of the schema's export options; None if it has none."""
    params: Mapping[str, str] = field(hash=False)
    """Each parameter's value, as spelled."""
    depth: tuple[DepthPart, ...] = ()
    """Which blocks the model loses."""
    adapters: tuple[AdapterFile, ...] = ()
    """What the model's weights become before anything else is done."""
    sampler: SamplerFile | None = None
    """The loop that the model is run in."""
    step_cache: StepCache | None = None
    """What of it is done again and what is kept."""
    floats: GraphFloats | None = None
    """What the whole graph computes in, if it is another type than the one it came in."""
    reconstruct: Reconstruct | None = None
    """How weights are learned behind rounding."""
    metrics: tuple[MetricOn, ...] = ()
    """Which layers count in which metric, where there are several."""
    digest: str = field(default="", compare=False, repr=False)
    """Of the policy that this one is a part of; its own if it is empty."""

    @property
    def folder(self) -> Path:
        """In which the files lie that its formats name: the policy's own, or the one at hand."""
        paths = (source.path for source in self.sources if source.path is not None and not source.preset)
        return next((path.parent for path in paths), Path())


def options_text(value: "DataclassInstance") -> dict[str, str]:
    """A method's options as the language spells them."""
    known = options_of(type(value))
    pairs = ((one.name, getattr(value, one.name)) for one in fields(value) if one.init)
    return {name: option_text(known[name], setting) for name, setting in pairs if setting is not None}


def to_text(policy: Policy) -> str:
    """The policy as stable text, itself a policy that says the same."""
    return "\n".join(_lines(policy)) + "\n"


def _lines(policy: Policy) -> Iterator[str]:
    yield "qpolicy 1"
    for name, value in policy.params.items():
        yield f"# {name} = {value}"
    arguments = f"({', '.join(policy.target.arguments)})" if policy.target.arguments else ""
    yield f"target {policy.target.name}{arguments}"
    if policy.calibrate is not None:
        yield _calibrate_text(policy.calibrate)
    yield from (one.text for one in policy.adapters)
    yield from (one.text for one in (policy.sampler, policy.step_cache) if one is not None)
    if policy.floats is not None:
        yield policy.floats.text
    for rule in policy.rules:
        yield f"rule {rule.selector.text} {{"
        for one in rule.assignments:
            yield f"    {one.text}" if one.value is KEEP else f"    {one.name} = {one.text}"
        yield "}"
    if policy.depth:
        yield f"depth {{ {', '.join(one.text for one in policy.depth)} }}"
    if policy.reconstruct is not None:
        yield policy.reconstruct.text
    yield from (one.text for one in policy.metrics)
    if policy.budget:
        yield f"budget {{ {', '.join(one.text for one in policy.budget)} }}"
    yield f"minimize {policy.minimize}"
    if policy.verify:
        yield f"verify {{ {', '.join(one.text for one in policy.verify)} }}"
    if policy.export is not None:
        options = options_text(policy.export).items()
        yield f"export {{ {', '.join(f'{name} = {text}' for name, text in options)} }}"


def _calibrate_text(calibrate: Calibration) -> str:
    data = "generated" if calibrate.path is None else quote(calibrate.path)
    samples = [] if calibrate.samples is None else [f"samples = {calibrate.samples}"]
    texts = {"tokenizer": calibrate.tokenizer, "mean": calibrate.mean, "std": calibrate.std}
    samples += [] if calibrate.select == "draw" else [f"select = {calibrate.select}"]
    more = [f"{name} = {quote(text)}" for name, text in texts.items() if text is not None]
    return f"calibrate {data} {{ {', '.join([*samples, f'seed = {calibrate.seed}', *more])} }}"
