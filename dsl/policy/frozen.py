"""A schema as data: what policies are checked by, without loading what it was read off.

Loading every pass and every format takes several times as long as checking a policy. So what the language asks of
them is written down; what takes more than that, such as whether the arguments of a format go together, is asked of
the schema that they are loaded for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from itertools import product
from typing import Any, cast

from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.policy.options import Maker, Option, StandIn, options_of, summary_of
from qcc.dsl.policy.policy import FormatSpec
from qcc.dsl.policy.schema import FormatFamily, Metric, Property, Schema, TargetKind, Word

Live = Callable[[], Schema]
"""Loads all that a schema is read off."""
SAMPLE: Mapping[object, object] = {"int": 32, "tile": (16, 16), None: True}
"""A value for each kind of word; which one does not matter to whether words go together."""


WORDS = ("objectives", "additive", "kinds", "subjects", "floats")
"""What is nothing but words."""


def freeze(schema: Schema) -> dict[str, Any]:
    """A schema as JSON has it."""
    found = {
        "properties": [_property(one) for one in schema.properties.values()],
        "formats": [_family(one) for one in schema.formats.values()],
        "targets": [asdict(one) for one in schema.targets.values()],
        "budget": [asdict(one) for one in schema.budget.values()],
        "verify": [asdict(one) for one in schema.verify.values()],
        "export": None if schema.export is None else _maker(schema.export),
        "depth": {name: _maker(one) for name, one in schema.depth.items()},
        "ops": schema.ops,
        **{name: getattr(schema, name) for name in WORDS},
    }
    assert found.keys() == {one.name for one in fields(Schema)}
    return found


def thaw(data: Mapping[str, Any], live: Live) -> Schema:
    """The schema that was frozen; ``live`` is called only where its options do not tell."""
    schemas = _Thawed(live)
    return Schema(
        properties={one["name"]: schemas.property(one) for one in data["properties"]},
        formats={one["keyword"]: schemas.family(one, lambda: live().formats) for one in data["formats"]},
        targets={
            one["name"]: TargetKind(one["name"], _tuple(one["arguments"]), one["summary"], one["one"])
            for one in data["targets"]
        },
        budget={one["name"]: _metric(one) for one in data["budget"]},
        verify={one["name"]: _metric(one) for one in data["verify"]},
        export=None if data["export"] is None else _thawed(data["export"], lambda: live().export),
        depth={name: _thawed(one, partial(_depth, live, name)) for name, one in data["depth"].items()},
        ops={name: tuple(words) for name, words in data["ops"].items()},
        **{name: tuple(data[name]) for name in WORDS},
    )


class _Thawed:
    """Makes properties and formats, which ask ``live`` for what was not written down."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def property(self, data: Mapping[str, Any]) -> Property:
        name, own = data["name"], data["formats"]
        methods = {
            keyword: _thawed(one, partial(self._method, name, keyword)) for keyword, one in data["methods"].items()
        }
        families = None
        if own is not None:
            families = {one["keyword"]: self.family(one, partial(self._own, name)) for one in own}
        option = None if data["option"] is None else _option(data["option"])
        classes = tuple(data["subjects"]), tuple(data["also"])
        return Property(name, methods, families, data["summary"], classes[0], option, classes[1], data["many"])

    def family(self, data: Mapping[str, Any], others: Callable[[], Mapping[str, FormatFamily]]) -> FormatFamily:
        keyword, suspects = data["keyword"], frozenset(data["suspects"] or ())
        made = data["arguments"] is not None
        always = made or data["suspects"] is None

        def fault(spec: FormatSpec) -> str:
            return others()[keyword].fault(spec) if always or suspects & spec.words.keys() else ""

        asked = {"stays": lambda spec: others()[keyword].stays(spec)} if made else {}
        return FormatFamily(
            keyword,
            _tuple(data["bits"]),
            {
                name: Word(_argument(one["argument"]), one["excludes"], one["low"], one["high"])
                for name, one in data["words"].items()
            },
            data["spaced"],
            data["summary"],
            data["least_bits"],
            _thawed(data["arguments"], lambda: others()[keyword].arguments) if made else None,
            fault=fault,
            **asked,
        )

    def _method(self, name: str, keyword: str) -> Maker:
        return self._live().properties[name].methods[keyword]

    def _own(self, name: str) -> Mapping[str, FormatFamily]:
        return self._live().properties[name].formats or {}


def _depth(live: Live, name: str) -> Maker:
    return live().depth[name]


def _property(one: Property) -> dict[str, Any]:
    own = None if one.formats is None else [_family(family) for family in one.formats.values()]
    methods = {keyword: _maker(method) for keyword, method in one.methods.items()}
    option = None if one.option is None else asdict(one.option)
    told: dict[str, Any] = {"summary": one.summary, "subjects": one.subjects, "option": option}
    told |= {"also": one.also, "many": one.many}
    return {"name": one.name, "methods": methods, "formats": own, **told}


def _family(one: FormatFamily) -> dict[str, Any]:
    plain = {each.name: getattr(one, each.name) for each in fields(one) if each.name not in ("fault", "stays", "words")}
    arguments = None if one.arguments is None else _maker(one.arguments)
    words = {name: asdict(word) for name, word in one.words.items()}
    return plain | {"words": words, "arguments": arguments, "suspects": _suspects(one)}


def _suspects(one: FormatFamily) -> list[str] | None:
    """Words of which one stands in every format of the family that has a fault, as few as it takes.

    None where one has a fault and no words: it is always asked about then.
    """
    faulty = [set(spec.words) for spec in _specs(one) if one.fault(spec)] if one.arguments is None else []
    found: list[str] = []
    if not all(faulty):
        return None
    while faulty:
        most = max(
            sorted({word for words in faulty for word in words}),
            key=lambda word: sum(word in words for words in faulty),
        )
        found.append(most)
        faulty = [words for words in faulty if most not in words]
    return found


def _specs(one: FormatFamily) -> Iterator[FormatSpec]:
    """Every format of a family with words, numbers apart."""
    sets: dict[str, list[tuple[str, object]]] = {}
    for name, word in one.words.items():
        values = word.argument if isinstance(word.argument, tuple) else (SAMPLE[word.argument],)
        sets.setdefault(word.excludes or name, []).extend((name, value) for value in values)
    widths = range(one.bits[0], one.bits[1] + 1) if one.bits is not None else (None,)
    span = Span(Source("", ""), 0, 0)
    choices = [list(words) for words in product(*([None, *choice] for choice in sets.values()))]
    for bits, words in product(widths, choices):
        chosen = cast(Mapping[str, int], dict(pair for pair in words if pair is not None))
        yield FormatSpec(one.keyword, bits, chosen, span)


def _maker(method: Maker) -> dict[str, Any]:
    """The options of a dataclass, and whether it refuses some values of them."""
    return {
        "options": [asdict(one) for one in options_of(method).values()],
        "summary": summary_of(method),
        "beside": getattr(method, "beside", ""),
        "refuses": hasattr(method, "__post_init__"),
    }


def _thawed(data: Mapping[str, Any], real: Callable[[], Maker | None]) -> StandIn:
    options = {one["name"]: _option(one) for one in data["options"]}

    def make(**values: object) -> object:
        if not data["refuses"]:
            return values
        found = real()
        assert found is not None
        return found(**values)

    return StandIn(options, make, data["summary"], data["beside"])


def _option(data: Mapping[str, Any]) -> Option:
    default = data["default"]
    return Option(
        **{**data, "words": tuple(data["words"]), "default": _tuple(default) if isinstance(default, list) else default}
    )


def _metric(data: Mapping[str, Any]) -> Metric:
    units = {name: (low, high) for name, (low, high) in data["units"].items()}
    return Metric(
        **{**data, "units": units, "arguments": tuple(data["arguments"]), "counts": tuple(map(tuple, data["counts"]))}
    )


def _argument(data: Any) -> Any:  # noqa: ANN401 - of several types
    return tuple(data) if isinstance(data, list) else data


def _tuple(data: Sequence[Any] | None) -> Any:  # noqa: ANN401 - of the type of the field
    return None if data is None else tuple(data)
