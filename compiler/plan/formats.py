"""The formats that the language may name, read off their definitions, and what a format of a policy stands for."""

from dataclasses import MISSING, Field, field, fields, make_dataclass, replace
from functools import lru_cache
from typing import Any, get_type_hints

import qcc.ir.encoding.formats
from qcc.dsl.policy.policy import FormatSpec
from qcc.dsl.policy.schema import FormatFamily, Word
from qcc.ir.discovery import by_name, classes
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32, PLAIN_NAMES, scales
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block
from qcc.ir.encoding.format import MID, Composition, Format, Spelled

SMALLEST_GROUP = 2
WORDS = {
    "tensor": Word(excludes="block"),
    "channel": Word(excludes="block"),
    "group": Word("int", excludes="block", low=SMALLEST_GROUP),
    "tile": Word("tile", excludes="block"),
    "sym": Word(excludes="symmetry"),
    "asym": Word(excludes="symmetry"),
    MID: Word(excludes="symmetry"),
}
"""What may stand behind a format's keyword, beside ``scale``."""
FLOAT = FormatFamily("float", summary="as it is")
WHOLE = {
    "sparsity": FormatFamily("dense", summary="all weights stay"),
    "rows": FormatFamily("all", summary="all rows stay"),
}
"""The properties that leave something out and fill in what `weights` says, each with what leaves nothing out."""


@lru_cache
def formats() -> dict[str, Format]:
    """Every family of formats with words by its keyword."""
    found = classes(qcc.ir.encoding.formats, Format)  # type: ignore[type-abstract]  # concrete ones
    known = by_name(found, lambda one: one.keyword)
    return {keyword: known[keyword]() for keyword in sorted(known)}


@lru_cache
def compositions() -> dict[str, type[Composition]]:
    """Every family of formats with arguments by its keyword."""
    found = classes(qcc.ir.encoding.formats, Composition)  # type: ignore[type-abstract]  # concrete ones
    known = by_name(found, lambda one: one.keyword)
    return {keyword: known[keyword] for keyword in sorted(known)}


@lru_cache
def families() -> dict[str, FormatFamily]:
    """The families of formats as the language sees them, by keyword."""
    found = [*map(_family, formats().values()), *map(_composed, compositions().values())]
    return {one.keyword: one for one in sorted(found, key=lambda one: one.keyword)} | {FLOAT.keyword: FLOAT}


def _family(one: Format) -> FormatFamily:
    words = {word: Word(excludes="numbers") for word in one.variants} | {word: WORDS[word] for word in one.words}
    names = sorted((*PLAIN_NAMES, *scales()), key=lambda name: (name != one.scale, name not in PLAIN_NAMES, name))
    scale = {"scale": Word(tuple(names), excludes="scale")} if one.scale else {}
    codes = None if one.bits else one.encoding(Spelled()).parts((1, 1)).get("codes")
    least = 0 if codes is None else codes.bits
    words |= scale
    return FormatFamily(one.keyword, one.bits, words, one.spaced, summary(type(one)), least, fault=_fault)


def _composed(one: type[Composition]) -> FormatFamily:
    return FormatFamily(one.keyword, summary=summary(one), least_bits=0, arguments=one, fault=_fault, stays=_stays)


def _fault(spec: FormatSpec) -> str:
    """What is wrong with a format whose words or arguments are right one by one."""
    try:
        encoding_of(spec)
    except ValueError as error:
        return str(error)
    return ""


def _stays(spec: FormatSpec) -> tuple[float, float] | None:
    encoding = encoding_of(spec)
    return None if encoding is None else encoding.stays


@lru_cache
def filling(name: str) -> dict[str, FormatFamily]:
    """What a property of `WHOLE` takes: formats that leave something out, without what the property `weights` says."""
    found = {one.keyword: _open(one) for one in compositions().values() if one.filled and one.fills == name}
    return found | {WHOLE[name].keyword: WHOLE[name]}


def _open(one: type[Composition]) -> FormatFamily:
    hints = get_type_hints(one, include_extras=True)
    left = [(each.name, hints[each.name], each) for each in fields(one) if each.name != one.filled]
    asked = make_dataclass(one.__name__, [(name, hint, _default(each)) for name, hint, each in left], frozen=True)
    asked.__doc__ = one.__doc__
    return replace(_composed(one), arguments=asked)


def _default(one: "Field[Any]") -> Any:  # noqa: ANN401 - a field has no other type
    return field() if one.default is MISSING else field(default=one.default)


def filled(asked: FormatSpec, kept: FormatSpec) -> FormatSpec:
    """A format that leaves something out, with what is kept stored in another."""
    if asked.arguments is None:
        return kept
    name = compositions()[asked.family].filled
    spelled = (*asked.spelled, kept.text)
    return replace(asked, arguments={**asked.arguments, name: kept}, spelled=spelled, span=kept.span)


def learns(spec: FormatSpec) -> bool:
    """Calibration data tells what it becomes."""
    encoding = encoding_of(spec)
    return encoding is not None and encoding.learns


def encoding_of(spec: FormatSpec) -> Encoding | None:
    """The encoding that a format of the language names; None for ``float``.

    Raises:
        ValueError: its words or arguments do not go together.
    """
    if spec.arguments is not None:
        arguments = {name: _argument(value) for name, value in spec.arguments.items()}
        return compositions()[spec.family](**arguments).encoding()
    family = formats().get(spec.family)
    if family is None:
        return None
    words, block = spec.words, None
    if "tensor" in words:
        block = TENSOR
    elif "channel" in words:
        block = CHANNEL
    elif isinstance(size := words.get("group"), int) and not isinstance(size, bool):
        block = Block(1, size)
    elif isinstance(tile := words.get("tile"), tuple):
        block = Block(tile[0], tile[1])
    scale = words.get("scale")
    variant = next((word for word in family.variants if word in words), None)
    scale = scale if isinstance(scale, str) else None
    return family.encoding(Spelled(spec.bits, block, "asym" in words, MID in words, variant, scale))


def _argument(value: object) -> Any:  # noqa: ANN401 - of the type of the field
    """An argument with encodings in the place of formats."""
    if isinstance(value, FormatSpec):
        return encoding_of(value) or FLOAT32
    return tuple(map(_argument, value)) if isinstance(value, tuple) else value


def summary(documented: object) -> str:
    """A definition's first line as a list has it: no capital, no full stop."""
    line = (documented.__doc__ or "").partition("\n")[0].rstrip(".")
    return line[:1].lower() + line[1:]
