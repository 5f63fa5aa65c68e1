"""Methods and their options: from `gptq(damp = 1%)` to an instance of the method's dataclass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from qcc.dsl.check.context import CheckState, kind_of, only_literal
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.options import Maker, Option, options_of
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.literals import from_percent

T = TypeVar("T")
WRONG = object()
"""In the place of a value that is wrong, which is reported."""


@dataclass(frozen=True)
class GivenOption:
    """An option as written: by name, or by its place."""

    name: syntax.Name | None
    value: syntax.Alternatives
    span: Span


def read_method(
    context: CheckState, owner: str, value: syntax.Alternatives, methods: Mapping[str, Maker]
) -> tuple[str, object] | None:
    """The keyword and the instance that a value spells; None if it's wrong, which is reported."""
    if len(value.terms) > 1:
        kept = f"keep one of {', '.join(f'`{term.span.text}`' for term in value.terms)}"
        context.report.error("Q203", f"`{owner}` takes one method, not a choice", value.span, help=kept)
        return None
    first, *rest = value.terms[0].atoms
    if isinstance(first, syntax.Param):
        resolved = context.literal(first)
        if resolved is None:
            return None
        first = resolved
    if isinstance(first, syntax.Invocation):
        name, given = first.name, [_argument(methods, first.name, one) for one in first.arguments]
        if rest:
            context.report.error("Q203", f"unexpected `{rest[0].span.text}` after the options", rest[0].span)
            return None
    elif isinstance(first, syntax.Name):
        name, given = first, []
    else:
        help = did_you_mean("", methods)
        context.report.error("Q208", f"expected a method, found `{first.span.text}`", first.span, help=help)
        return None
    if name.text not in methods:
        help = did_you_mean(name.text, methods, "method")
        context.report.error("Q208", f"unknown method of `{owner}`: `{name.text}`", name.span, help=help)
        return None
    method = methods[name.text]
    given += _side_by_side(method, rest)
    built = build(context, name.text, method, given, name.span)
    return None if built is None else (name.text, built)


def _argument(methods: Mapping[str, Maker], name: syntax.Name, one: syntax.Argument) -> GivenOption:
    """An argument in parentheses, whose name may stand before its value without a sign: `blocks(input "segments")`."""
    terms = one.value.terms
    if one.name is None and name.text in methods and len(terms) == 1 and len(terms[0].atoms) == 2:
        first, second = terms[0].atoms
        if isinstance(first, syntax.Name) and first.text in options_of(methods[name.text]):
            return GivenOption(first, _as_value(second), one.span)
    return GivenOption(one.name, one.value, one.span)


def _side_by_side(method: Maker, atoms: Sequence[syntax.Atom]) -> list[GivenOption]:
    """Options without parentheses: `blocks 16x1 keep 50% by hessian`."""
    options = options_of(method)
    given = []
    at = 0
    while at < len(atoms):
        atom = atoms[at]
        named = isinstance(atom, syntax.Name) and atom.text in options and at + 1 < len(atoms)
        name = atom if named and isinstance(atom, syntax.Name) else None
        value = atoms[at + 1] if named else atom
        given.append(GivenOption(name, _as_value(value), atom.span.to(value.span)))
        at += 2 if named else 1
    return given


def _as_value(atom: syntax.Atom) -> syntax.Alternatives:
    return syntax.Alternatives(atom.span, (syntax.Phrase(atom.span, (atom,)),))


def build(
    context: CheckState, owner: str, method: Callable[..., T], given: Sequence[GivenOption], span: Span
) -> T | None:
    """An instance of a frozen dataclass from its options; None if any is wrong, which is reported."""
    options = options_of(method)
    values: dict[str, object] = {}
    good = True
    for place, one in enumerate(given):
        option = _which(context, owner, options, one, place)
        if option is None:
            good = False
            continue
        if option.name in values:
            context.report.error("Q206", f"option `{option.name}` is given twice", one.span, help="remove one")
            good = False
            continue
        values[option.name] = read_option(context, option, one.value)
        good = good and values[option.name] is not WRONG
    missing = [name for name, option in options.items() if option.required and name not in values]
    for name in missing:
        spelling = f"write `{owner}({name} = ...)`: {options[name].expected}"
        context.report.error("Q205", f"`{owner}` needs its option `{name}`", span, help=spelling)
    if not good or missing:
        return None
    try:
        return method(**values)
    except ValueError as error:  # what the dataclass itself refuses
        context.report.error("Q204", str(error), given[0].span.to(given[-1].span) if given else span)
        return None


def _which(
    context: CheckState, owner: str, options: Mapping[str, Option], given: GivenOption, place: int
) -> Option | None:
    if given.name is None:
        if place < len(options):
            return list(options.values())[place]
        message = f"`{owner}` has {len(options) or 'no'} option{'s' if len(options) != 1 else ''}, this is one too many"
        help = f"it has {', '.join(f'`{name}`' for name in options)}" if options else "remove it"
        context.report.error("Q202", message, given.span, help=help)
        return None
    if given.name.text in options:
        return options[given.name.text]
    meant = did_you_mean(given.name.text, options, "option") if options else f"`{owner}` has no options"
    context.report.error("Q202", f"unknown option of `{owner}`: `{given.name.text}`", given.name.span, help=meant)
    return None


def read_option(context: CheckState, option: Option, value: syntax.Alternatives) -> object:
    """What a value is as an option's; `WRONG` if it is none, which is reported."""
    written = only_literal(value)
    if written is None:
        message = f"`{option.name}` takes {option.expected}, not `{value.span.text}`"
        context.report.error("Q203", message, value.span)
        return WRONG
    return read_literal(context, option, written)


def read_literal(context: CheckState, option: Option, written: syntax.Literal) -> object:
    """What a literal is as an option's value; `WRONG` if it can't be, which is reported."""
    literal = context.literal(written)
    if literal is None:
        return WRONG
    if option.kind in ("int", "float") and isinstance(literal, syntax.WrittenNumber):
        return _number(context, option, literal)
    if option.kind == "words":
        return _word(context, option, literal)
    if option.kind == "bool" and isinstance(literal, syntax.Name) and literal.text in ("true", "false"):
        return literal.text == "true"
    if option.kind == "str" and isinstance(literal, syntax.String | syntax.Name):
        return literal.text
    if option.kind == "dims" and isinstance(literal, syntax.Dims):
        return _dims(context, option, literal)
    bools = {"yes": "true", "on": "true", "True": "true", "no": "false", "off": "false", "False": "false"}
    help = None
    if option.kind == "bool" and isinstance(literal, syntax.Name) and literal.text in bools:
        help = f"did you mean `{bools[literal.text]}`?"
    _wrong_type(context, option, literal, help)
    return WRONG


def _wrong_type(context: CheckState, option: Option, literal: syntax.Literal, help: str | None = None) -> None:
    message = f"`{option.name}` takes {option.expected}, not {kind_of(literal)}"
    context.report.error("Q203", message, literal.span, help=help)


def _number(context: CheckState, option: Option, literal: syntax.WrittenNumber) -> object:
    quantity = context.quantity(literal)
    if quantity is None:
        return WRONG
    if quantity.unit != option.unit:
        help = None
        if option.unit == "%":
            scaled = quantity.value * 100 if 0 < quantity.value <= 1 else quantity.value
            help = f"did you mean `{scaled:g}%`?"
        _wrong_type(context, option, literal, help)
        return WRONG
    value = from_percent(literal.digits) if option.unit == "%" else quantity.value
    if option.kind == "int" and value != int(value):
        message = f"`{option.name}` takes a whole number, not `{literal.span.text}`"
        context.report.error("Q203", message, literal.span)
        return WRONG
    if (option.low is not None and value < option.low) or (option.high is not None and value > option.high):
        message = f"`{option.name}` takes {option.expected}, not `{literal.span.text}`"
        context.report.error("Q204", message, literal.span)
        return WRONG
    return int(value) if option.kind == "int" else float(value)


def _word(context: CheckState, option: Option, literal: syntax.Literal) -> object:
    if isinstance(literal, syntax.Name | syntax.String):
        written: str | int | float = literal.text
    elif isinstance(literal, syntax.WrittenNumber) and not literal.unit:
        written = literal.value
    else:
        _wrong_type(context, option, literal)
        return WRONG
    for word in option.words:
        if word == written and type(word) is not bool:
            return word
    message = f"`{option.name}` takes {option.expected}, not `{literal.span.text}`"
    help = did_you_mean(str(written), [str(word) for word in option.words])
    context.report.error("Q203", message, literal.span, help=help if help and help.startswith("did") else None)
    return WRONG


def _dims(context: CheckState, option: Option, literal: syntax.Dims) -> object:
    low = 1 if option.low is None else option.low
    high = 1 << 20 if option.high is None else option.high
    if all(low <= size <= high for size in literal.sizes):
        return literal.sizes
    context.report.error("Q204", f"each extent of `{option.name}` is {low:g} to {high:g}", literal.span)
    return WRONG
