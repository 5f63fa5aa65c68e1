"""What may be written at a place, from the schema that policies are checked against."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from qcc.compiler.editor.context import CursorPlace, place_at
from qcc.compiler.editor.document import Document
from qcc.compiler.editor.names import visible
from qcc.dsl.check.calibrate import CalibrateOptions
from qcc.dsl.check.selectors import OPERATORS
from qcc.dsl.load import SUFFIX, preset_names, preset_summary
from qcc.dsl.policy.options import Maker, Option, options_of, summary_of
from qcc.dsl.policy.policy import Reconstruct
from qcc.dsl.policy.schema import FormatFamily, Schema
from qcc.dsl.policy.select import ANY, DTYPES, FACTS, ORIGINS
from qcc.dsl.syntax.mistakes import STATEMENTS

Sort = Literal["keyword", "property", "value", "function", "option", "name", "file", "unit"]


@dataclass(frozen=True)
class Completion:
    """A word that may stand at the cursor, and how it goes on."""

    label: str
    sort: Sort
    detail: str = ""
    behind: str = ""
    """What is written along, such as ` = `."""


def completions(document: Document, offset: int, schema: Schema) -> list[Completion]:
    """What may stand at a place, those that begin as the word there does first."""
    place = place_at(document.text, offset)
    if place is None:
        return [*_files(document, offset)]
    found = {one.label: one for one in _all(document, place, schema)}
    return [one for one in found.values() if one.label.lower().startswith(place.word.lower())] or [*found.values()]


def _all(document: Document, place: CursorPlace, schema: Schema) -> Iterator[Completion]:
    if not place.statement:
        yield from (Completion(word, "keyword") for word in STATEMENTS)
        return
    if place.block and place.statement in _BLOCKS:
        yield from _BLOCKS[place.statement](place, schema)
    elif not place.block and place.statement in _HEADS:
        yield from _HEADS[place.statement](place, schema)
    if place.statement in ("rule", "let") and not place.block:
        lets, _ = visible(document, schema)
        yield from (Completion(name, "name", "a selector of this policy") for name in lets if not place.brackets)
    elif place.setting or place.word.startswith("$"):
        _, params = visible(document, schema)
        yield from (Completion(f"${name}", "name", "a parameter") for name in params)


def _files(document: Document, offset: int) -> Iterator[Completion]:
    """In a quoted text behind `use`: presets, and policies beside this one."""
    line = document.text[document.text.rfind("\n", 0, offset) + 1 : offset].lstrip()
    if not line.startswith("use"):
        return
    yield from (Completion(name, "file", preset_summary(name)) for name in preset_names())
    if document.folder is not None and document.folder.is_dir():
        beside = sorted(one.name for one in document.folder.glob(f"*{SUFFIX}"))
        yield from (Completion(name, "file", "beside this policy") for name in beside)


def _selector(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
    if place.statement == "let" and "=" not in place.before and not place.brackets:
        return
    if "[" in place.brackets:
        yield from _predicate(place, schema)
        return
    if place.before[-1:] and place.before[-1] not in ("rule", "=", "and", "or", "not"):
        yield from (Completion(word, "keyword", behind=" ") for word in ("and", "or"))
        return
    yield from (Completion(kind, "value", "a class of layers") for kind in (ANY, *schema.kinds))
    yield from (Completion(one, "value", "no layer, with properties of its own") for one in schema.subjects)
    yield Completion("not", "keyword", behind=" ")


def _predicate(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
    values: dict[str, Iterable[str]] = {"position": ("first", "last"), "dtype": DTYPES, "data": ORIGINS}
    values["op"] = schema.ops
    if place.option:
        yield from (Completion(str(word), "value") for word in values.get(place.option, ()))
    elif len(place.before) == 1 and place.before[0] in FACTS:
        yield from (Completion(sign, "value", behind=" ") for sign in OPERATORS[FACTS[place.before[0]]])
    elif not place.before:
        yield from (Completion(fact, "property", f"a fact of a layer: {kind}") for fact, kind in FACTS.items())


def _rule(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
    if not place.setting:
        yield from (Completion(one.name, "property", one.summary, " = ") for one in schema.properties.values())
        yield Completion("keep", "keyword", "leave the layers as they are")
        return
    known = schema.properties.get(place.setting)
    if known is None or (not place.owners and "=" not in place.before[:2] and place.before):
        return
    if known.methods:
        yield from _methods(place, known.methods)
    else:
        yield from _formats(place, schema.formats if known.formats is None else known.formats)


def _methods(place: CursorPlace, methods: Mapping[str, Maker]) -> Iterator[Completion]:
    if place.owners:
        method = methods.get(place.owners[-1])
        yield from _options(place, {} if method is None else options_of(method))
        return
    for keyword, method in methods.items():
        yield Completion(keyword, "function" if options_of(method) else "value", summary_of(method))


def _formats(place: CursorPlace, formats: Mapping[str, FormatFamily]) -> Iterator[Completion]:
    composed = formats.get(place.owners[-1]) if place.owners else None
    if composed is not None and composed.arguments is not None:
        options = options_of(composed.arguments)
        yield from _options(place, options)
        if not place.option and not any(one.kind == "format" for one in options.values()):
            return
        if place.option and options.get(place.option, _ANY_FORMAT).kind != "format":
            return
    head = [word for word in place.before if word not in ("=", place.setting, place.option)]
    family = _family(head[0], formats) if head else None
    if family is None:
        yield from _spellings(formats)
        return
    given = set(head[1:])
    last = family.words.get(head[-1])
    if last is not None and isinstance(last.argument, tuple):
        yield from (Completion(word, "value") for word in last.argument)
        return
    closed = {family.words[word].excludes for word in given if word in family.words} - {""}
    for word, one in family.words.items():
        if word not in given and one.excludes not in closed:
            yield Completion(word, "value", f"a word of `{family.keyword}`", " " if one.argument else "")


_ANY_FORMAT = Option("", "format")


def _family(text: str, formats: Mapping[str, FormatFamily]) -> FormatFamily | None:
    return formats.get(text) or formats.get(text.rstrip("0123456789"))


def _spellings(formats: Mapping[str, FormatFamily]) -> Iterator[Completion]:
    for one in formats.values():
        low, high = one.bits or (0, -1)
        gap = " " if one.spaced else ""
        spelled = [f"{one.keyword}{gap}{bits}" for bits in range(low, high + 1)] or [one.keyword]
        yield from (Completion(text, "function" if one.arguments else "value", one.summary) for text in spelled)


def _options(place: CursorPlace, options: Mapping[str, Option]) -> Iterator[Completion]:
    if place.option:
        option = options.get(place.option)
        words = () if option is None else ("true", "false") if option.kind == "bool" else option.words
        yield from (Completion(str(word), "value") for word in words)
    elif not place.before:
        for name, one in options.items():
            detail = f"{one.expected.replace('`', '')}. {one.summary}".rstrip(". ")
            yield Completion(name, "option", detail, " = ")


def _bounds(which: Literal["budget", "verify"]) -> Callable[[CursorPlace, Schema], Iterator[Completion]]:
    def found(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
        known = schema.budget if which == "budget" else schema.verify
        if not place.setting:
            for one in known.values():
                behind = "" if one.arguments else f" {one.relation} "
                yield Completion(one.name, "property", one.summary, behind)
        elif place.owners and place.setting in known:
            yield from (Completion(word, "value") for word in known[place.setting].arguments)

    return found


def _settings(
    options: Callable[[Schema], Mapping[str, Option]],
) -> Callable[[CursorPlace, Schema], Iterator[Completion]]:
    def found(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
        known = options(schema)
        inner = place if place.setting else CursorPlace("", "", (), "", (), place.word, True)
        yield from _options(inner, known)

    return found


def _depth(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
    if not place.setting:
        options = [name for method in schema.depth.values() for name in options_of(method)]
        yield from (Completion(name, "property", behind=" = ") for name in (*schema.depth, *options))


def _target(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
    if place.owners:
        kind = schema.targets.get(place.owners[-1])
        yield from (Completion(word, "value") for word in (kind.arguments or () if kind else ()))
    elif place.before == ("target",):
        yield from (Completion(one.name, "value", one.summary) for one in schema.targets.values())


def _minimize(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
    if place.before == ("minimize",):
        yield from (Completion(word, "value") for word in schema.objectives)


def _graph(place: CursorPlace, schema: Schema) -> Iterator[Completion]:
    if place.before == ("graph",):
        yield from (Completion(word, "value") for word in schema.floats)


def _calibrate(place: CursorPlace, _schema: Schema) -> Iterator[Completion]:
    if place.before == ("calibrate",):
        yield Completion("generated", "value", "data from the shapes of the inputs")


_BLOCKS: dict[str, Callable[[CursorPlace, Schema], Iterator[Completion]]] = {
    "rule": _rule,
    "budget": _bounds("budget"),
    "verify": _bounds("verify"),
    "export": _settings(lambda schema: {} if schema.export is None else options_of(schema.export)),
    "calibrate": _settings(lambda _: options_of(CalibrateOptions)),
    "depth": _depth,
    "reconstruct": _settings(lambda _: options_of(Reconstruct)),
}
_HEADS: dict[str, Callable[[CursorPlace, Schema], Iterator[Completion]]] = {
    "rule": _selector,
    "let": _selector,
    "target": _target,
    "minimize": _minimize,
    "graph": _graph,
    "calibrate": _calibrate,
}
