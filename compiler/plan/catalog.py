"""What the language may name: read off the passes, the encodings and the targets, so that nothing is declared twice."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Literal

import qcc.passes
from qcc.codegen.target.find import makers, targets
from qcc.codegen.target.target import Arithmetic
from qcc.compiler.metrics.find import additive, judged
from qcc.compiler.plan.costs import CONTEXT, GENERATION, LEARNED, METERED, ROOFLINE, THREADS
from qcc.compiler.plan.formats import encoding_of, families, filling, summary
from qcc.compiler.scores.check import DROP
from qcc.compiler.scores.find import scores
from qcc.dsl.policy.options import options_of
from qcc.dsl.policy.policy import FormatSpec
from qcc.dsl.policy.schema import FormatFamily, Interval, Metric, Off, Property, Schema, TargetKind, Unit
from qcc.ir.discovery import by_name, load
from qcc.ir.graph.ops import LAYER_KINDS, Kind
from qcc.ir.model.options import LEAST_RAISED, MOST_RAISED, ExternalData
from qcc.ir.plugins import check_plugins
from qcc.ir.vocabulary.find import OPS
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.contract import Invariant, Pass, Phase, Rounding, SitePass
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.half.half import DTYPES

ON, OFF, FLOAT = "on", "off", "float"
LOST = Metric(
    DROP,
    "<=",
    {"%": (0, float("inf")), "": (0, float("inf"))},
    tuple(scores()),
    summary="what is lost of a score on labels or by a function of your own, as far as samples tell",
    whole=True,
)
SHARE_OR_BYTES = {"%": (0, float("inf")), "B": (0, float("inf"))}
BUDGET = {
    "size": Metric(
        "size", "<=", {"%": (0, 100), "B": (0, float("inf"))}, summary="of the written model, of the input's"
    ),
    "bits": Metric("bits", "<=", {"": (0, 32)}, summary="average bits of a weight, overheads included"),
    "latency": Metric(
        "latency",
        "<=",
        {"%": (0, float("inf")), "ms": (0, float("inf"))},
        (LEARNED, ROOFLINE),
        optional=True,
        summary="predicted time of one sample, of the input's; on one thread, unless it says on how many",
        counts=(GENERATION, (THREADS,)),
    ),
    "energy": Metric(
        "energy",
        "<=",
        {"%": (0, float("inf"))},
        summary="of bytes and operations of one sample by a stated table, of the input's",
    ),
    "activations": Metric(
        "activations",
        "<=",
        SHARE_OR_BYTES,
        summary="bytes of the values that ops write for one sample, of the input's",
    ),
    "peak": Metric(
        "peak",
        "<=",
        SHARE_OR_BYTES,
        summary="bytes of values that are alive at a time for one sample, at most, of the input's",
    ),
    "cache": Metric(
        "cache",
        "<=",
        SHARE_OR_BYTES,
        optional=True,
        summary="bytes of the caches of one text behind so many tokens, of the input's",
        counts=((CONTEXT,),),
    ),
    "traffic": Metric(
        "traffic",
        "<=",
        SHARE_OR_BYTES,
        optional=True,
        summary="bytes of weights and of caches that a token reads behind so many others, of the input's",
        counts=((CONTEXT,),),
    ),
} | {
    one.name: Metric(one.name, one.relation, one.units, one.arguments, bool(one.arguments), one.summary)
    for one in additive().values()
}
BUDGET[DROP] = LOST
OBJECTIVES = ("output_error", "size", *METERED, *(name for name in additive() if name != "output_error"))
ADDITIVE = tuple(additive())
VERIFY = {one.name: Metric(one.name, one.relation, one.units, summary=one.summary) for one in judged().values()}
VERIFY[DROP] = LOST


NO_KERNELS = "none"


class _Makers:
    """The words for what makes kernels, as the targets say them."""

    @property
    def words(self) -> tuple[str, ...]:
        return *makers(), NO_KERNELS


@dataclass(frozen=True)
class Export:
    """How the model is written.

    Args:
        opset: raise the model at least to this version; what the formats need is always met.
        external_data: weights beside the model in one file: for large models, always, or never.
        kernels: who makes the kernels of a target that has some, by default as the target has it; `none` leaves all to
            ONNX Runtime.
        activations: how kernels compute: `bf16` as exactly as ONNX Runtime's own with inputs rounded to 8 bits, `int8`
            faster with formats of one scale a row, whose inputs are rounded to int8 row by row, `exact` in float32.
        rows: the rows of activations that kernels are chosen for; by default, as many as calibration shows, and one.
        trim: what the written model may take at most: levels of sums (`stack`) are left out for it, those of least
            worth first. `qcc trim` makes the same of the whole file.
        entropy: write the model a second time, for transport: `rans` takes as many bits for a code as it is unlikely.
            `qcc expand` makes the model of it again, bit for bit, and `qcc.Session` opens it.
    """

    opset: Annotated[int, Interval(LEAST_RAISED, MOST_RAISED)] | None = None
    external_data: ExternalData = "auto"
    kernels: Annotated[str, _Makers()] | None = None
    activations: Arithmetic = "bf16"
    rows: Annotated[int, Interval(1, 1 << 20)] | None = None
    trim: Annotated[int, Interval(1, 1 << 50), Unit("B")] | None = None
    entropy: Literal["rans"] | None = None


@lru_cache
def passes() -> dict[str, type[Pass]]:
    """The passes that the driver runs of itself, by keyword."""
    return {
        keyword_of(found): found for found in _classes() if issubclass(found, Pass) and not issubclass(found, SitePass)
    }


@lru_cache
def roundings() -> dict[str, type[Rounding]]:
    """Every value of the rule property ``rounding`` by its keyword."""
    return by_name((found for found in _classes() if issubclass(found, Rounding)), keyword_of)


@lru_cache
def activations() -> dict[str, type[Activations]]:
    """Every value of the rule property ``activations`` by its keyword."""
    return by_name((found for found in _classes() if issubclass(found, Activations)), keyword_of)


@lru_cache
def rewrites(*phases: Phase) -> dict[str, dict[str, type[SitePass]]]:
    """The families of passes that rules ask for, of some phases or of all, in the order in which they run.

    Each rule property has its values by keyword.
    """
    wanted = phases or tuple(Phase)
    return {name: values for phase in wanted for name, values in _families(phase).items()}


def asked_by(statement: str) -> dict[str, dict[str, type[SitePass]]]:
    """The families that a statement of the language asks for."""
    found = rewrites().items()
    return {name: values for name, values in found if {one.statement for one in values.values()} == {statement}}


def _families(phase: Phase) -> dict[str, dict[str, type[SitePass]]]:
    families: dict[str, list[type[SitePass]]] = {}
    for found in _classes():
        if issubclass(found, SitePass) and found.phase is phase:
            beside = _folder(found.__module__) == _folder(_module(found.property))
            assert beside, f"{found} is not in the folder of its property's module"
            families.setdefault(found.property, []).append(found)
    values = {name: by_name(found, keyword_of) for name, found in families.items()}
    return {name: values[name] for name in _in_order(values)}


@lru_cache
def schema() -> Schema:
    """What the checker holds policies to.

    Raises:
        ModelError: a plugin is no good.
    """
    check_plugins()
    properties = {
        "weights": Property("weights", summary="formats that the weight may get; the allocator chooses among several"),
        "sparsity": Property(
            "sparsity",
            formats=filling("sparsity"),
            summary="weights that are left out; what stays is stored as `weights` says, or as it is",
        ),
        "rows": Property(
            "rows",
            formats=filling("rows"),
            summary="rows of embeddings that become one; what is left is stored as `weights` says, or as it is",
        ),
        "fallback": Property(
            "fallback",
            summary="formats for the weights that lose most where `verify` fails, to be tried in order",
        ),
        "rounding": Property("rounding", dict(roundings()), summary="how codes are chosen"),
        "activations": Property(
            "activations",
            {**activations(), OFF: Off},
            summary="how what is multiplied with the weights is rounded; the allocator chooses among several",
            many=True,
        ),
    }
    for name, values in asked_by("rule").items():
        properties[name] = Property(
            name, {**values, OFF: Off}, summary=_modulesummary(name), subjects=subjects_of(name)
        )
    for definition in subject_passes().values():
        plain = {name: one for name, one in families().items() if one.arguments is None}
        formats = {name: _kept_by(definition, one) for name, one in plain.items()}
        for option in options_of(definition).values():
            if option.kind == "method":
                known = properties[option.name]
                properties[option.name] = replace(known, also=(*known.also, *definition.subjects))
                continue
            takes = {"formats": formats} if option.kind == "format" else {"option": option}
            told = Property(option.name, summary=option.summary, subjects=definition.subjects, **takes)
            properties[option.name] = told
    kinds = {one.name: TargetKind(one.name, one.words, one.summary, one.one_word) for one in targets().values()}
    depth = {name: values[ON] for name, values in asked_by("depth").items()}
    bounds = BUDGET, VERIFY, OBJECTIVES
    given = properties, families(), kinds, *bounds, ADDITIVE, Export, depth
    return Schema(*given, subjects=subjects(), floats=(FLOAT, *DTYPES), ops=_ops())


@lru_cache
def subjects() -> tuple[str, ...]:
    """The classes of what is no layer, as passes name them."""
    found = [one for one in _classes() if issubclass(one, SitePass | SubjectPass)]
    return tuple(sorted({subject for one in found for subject in one.subjects}))


@lru_cache
def subject_passes() -> dict[str, type[SubjectPass]]:
    """The passes whose fields are properties of rules about what is no layer, by keyword."""
    return {keyword_of(one): one for one in _classes() if issubclass(one, SubjectPass)}


def _kept_by(definition: type[SubjectPass], family: FormatFamily) -> FormatFamily:
    """A family of formats of which some are refused."""

    def fault(spec: FormatSpec) -> str:
        if wrong := family.fault(spec):
            return wrong
        encoding = encoding_of(spec)
        return "" if encoding is None else definition.refuses(encoding)

    return replace(family, fault=fault)


def subjects_of(name: str) -> tuple[str, ...]:
    """What a property of rules is about beside layers; empty for what layers have."""
    own = [subject for one in subject_passes().values() if name in options_of(one) for subject in one.subjects]
    found = [*own, *(subject for one in rewrites().get(name, {}).values() for subject in one.subjects)]
    return tuple(dict.fromkeys(found))


def _ops() -> dict[str, tuple[str, ...]]:
    """What layers do, by the names of ops within their kinds, with the frameworks' names of each.

    A product of matrices, one of which is a weight, is ``linear``.
    """
    found = {one.function: one for one in OPS.values() if one.kind in LAYER_KINDS}
    names = {function: f"{one.onnx} {one.aten}" for function, one in found.items()}
    names[Kind.LINEAR] += " " + " ".join(f"{one.onnx} {one.aten}" for one in OPS.values() if one.kind == Kind.MATMUL)
    names[Kind.EMBEDDING] += " gather"
    return {function: tuple(re.sub("[_-]", "", text).lower().split()) for function, text in names.items()}


def keyword_of(definition: type) -> str:
    """A pass's keyword: its class's name in snake_case, or ``on`` for a rewriting pass called like its property."""
    name = getattr(definition, "keyword", "") or _snake_case(definition.__name__)
    return ON if issubclass(definition, SitePass) and name == definition.property else name


def after(definition: type[Pass]) -> tuple[str, ...]:
    """What runs before a pass: what it names, and before one that stores weights all that rules may ask for."""
    others = rewrites() if definition.phase is Phase.ENCODE else ()
    return tuple(dict.fromkeys((*definition.after, *others)))


def promises(definition: type[Pass]) -> str:
    """What a pass leaves as it is, in words."""
    return ", ".join(one for one in Invariant if one in definition.keeps) or "what is fed and returned"


def _in_order(families: dict[str, dict[str, type[SitePass]]]) -> Iterator[str]:
    """By what each runs after, in alphabetical order where that is open."""
    left = dict(sorted(families.items()))
    while left:
        ready = (name for name, values in left.items() if not _before(values.values()) & left.keys() - {name})
        first = next(ready, None)
        assert first is not None, f"these passes each run after another of them: {', '.join(left)}"
        del left[first]
        yield first


def _before(values: Iterable[type[SitePass]]) -> set[str]:
    return {name for one in values for name in one.after}


@lru_cache
def _classes() -> tuple[type, ...]:
    """The concrete passes and ways of rounding of all modules."""
    found: list[type] = []
    for module in _modules():
        members = vars(load(module)).values()
        found += [one for one in members if _is_definition(one, module)]
    return tuple(found)


def _modules() -> tuple[str, ...]:
    """The modules of all folders of passes, by the keyword that each may define."""
    found = pkgutil.walk_packages(qcc.passes.__path__, f"{qcc.passes.__name__}.")
    return tuple(sorted((one.name for one in found if not one.ispkg), key=_keyword))


def _is_definition(member: object, module: str) -> bool:
    return (
        inspect.isclass(member)
        and issubclass(member, Pass | Rounding | Activations)
        and not inspect.isabstract(member)
        and not member.__name__.startswith("_")
        and member.__module__ == module
    )


def _keyword(module: str) -> str:
    return module.rpartition(".")[2]


def _folder(module: str) -> str:
    return module.rpartition(".")[0]


def _module(keyword: str) -> str:
    return next(module for module in _modules() if _keyword(module) == keyword)


def _modulesummary(name: str) -> str:
    """A module's first line as a list has it: no capital, no full stop."""
    return summary(importlib.import_module(_module(name)))


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
