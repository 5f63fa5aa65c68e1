"""Arguments of formats: from `bands(int4 | int3, int1, share = {10%, 20%})` to what each candidate is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod

from qcc.dsl.check.context import CheckState
from qcc.dsl.check.options import WRONG, read_literal
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.options import Option, option_text, options_of
from qcc.dsl.policy.policy import FormatSpec
from qcc.dsl.policy.schema import FormatFamily
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.literals import UNITS

ReadFormats = Callable[[syntax.Alternatives], tuple[FormatSpec, ...] | None]


@dataclass
class ArgumentReader:
    """Reads what stands in the parentheses behind a format's keyword.

    An argument without a name is the next one that can be spelled so; one with a name moves on behind it.

    Args:
        context: of the check.
        family: of the format.
        name: the keyword as written.
        read_formats: reads arguments that are formats.
        most: combinations of alternatives that are still read.
    """

    context: CheckState
    family: FormatFamily
    name: syntax.Name
    read_formats: ReadFormats
    most: int
    _good: bool = True
    _next: int = 0
    _given: dict[str, list[list[object]]] = field(default_factory=dict)
    _guessed: set[str] = field(default_factory=set)

    def read(self, arguments: tuple[syntax.Argument, ...], span: Span) -> list[FormatSpec] | int | None:
        """Each combination of alternatives; their count if too many, None if any is wrong, which is reported."""
        assert self.family.arguments is not None
        options = options_of(self.family.arguments)
        for one in arguments:
            option = self._which(options, one)
            if option is not None:
                self._read(option, one)
        for name, option in options.items():
            if option.required and name not in self._given:
                spelling = f"write `{self.family.keyword}({name} = ...)`: {option.expected}"
                self._error("Q205", f"`{self.family.keyword}` needs its argument `{name}`", self.name.span, spelling)
        if not self._good:
            return None
        sides = (self._side_by_side(options[name], given) for name, given in self._given.items())
        count = prod(len(values) for given in sides for values in given)
        return count if count > self.most else self._specs(options, span)

    def _specs(self, options: Mapping[str, Option], span: Span) -> list[FormatSpec] | None:
        choices = {
            name: list(product(*self._side_by_side(options[name], given))) for name, given in self._given.items()
        }
        found: dict[str, FormatSpec] = {}
        for values in product(*choices.values()):
            pairs = zip(choices, values, strict=True)
            written = {name: value if options[name].many else value[0] for name, value in pairs}
            ordered = {name: written[name] for name in options if name in written}
            spelled = tuple(_spelled(options[name], value) for name, value in ordered.items())
            family = self.family
            spec = FormatSpec(
                family.keyword, None, {}, span, arguments=ordered, spelled=spelled, least_bits=family.least_bits
            )
            if fault := family.fault(spec):
                self._error("Q204", fault, span)
                return None
            found[spec.text] = replace(spec, stays=family.stays(spec))
        return list(found.values())

    def _side_by_side(self, option: Option, given: list[list[object]]) -> list[list[object]]:
        """Alternatives of a format of which there may be many, as many formats where another argument says so."""
        beside = getattr(self.family.arguments, "beside", "")
        if option.many and beside in self._given:
            return [[value] for values in given for value in values]
        return given

    def _which(self, options: Mapping[str, Option], given: syntax.Argument) -> Option | None:
        """The option that an argument is for."""
        keyword, names = self.family.keyword, list(options)
        if given.name is not None and given.name.text not in options:
            help = did_you_mean(given.name.text, options, "option")
            self._error("Q202", f"unknown argument of `{keyword}`: `{given.name.text}`", given.name.span, help)
            return None
        if given.name is not None:
            option = options[given.name.text]
        else:
            free = [one for one in options.values() if one.many or one.name not in self._given]
            ahead = [one for one in free if names.index(one.name) >= self._next]
            fitting = [one for one in (*ahead, *free) if self._takes(one, given.value)]
            if not free:
                has = f"it has {', '.join(f'`{name}`' for name in names)}"
                self._error("Q202", f"`{keyword}` has {len(names)} arguments, this is one too many", given.span, has)
                return None
            option = (fitting or ahead or free)[0]
            if not fitting:
                self._guessed.add(option.name)
        self._next = names.index(option.name) + (not option.many)
        again = option.name in self._given and option.name not in self._guessed
        if again and (not option.many or given.name is not None):
            self._error("Q206", f"argument `{option.name}` is given twice", given.span, "remove one")
            return None
        return option

    def _takes(self, option: Option, value: syntax.Alternatives) -> bool:
        """An argument looks like a value of the option."""
        atom = value.terms[0].atoms[0]
        if isinstance(atom, syntax.Braces):
            atom = atom.items[0]
        if isinstance(atom, syntax.Param) and atom.name in self.context.params:
            atom = self.context.params[atom.name].value
        match atom:
            case syntax.WrittenNumber(unit=unit):
                family = UNITS[unit][0] if unit in UNITS else unit
                return option.kind in ("int", "float") and option.unit == family
            case syntax.Dims():
                return option.kind == "dims"
            case syntax.Name(text=text):
                return option.kind == "format" or text in option.words
            case syntax.Invocation():
                return option.kind == "format"
        return option.kind == "str"

    def _read(self, option: Option, given: syntax.Argument) -> None:
        values: list[object] = []
        if option.kind == "format":
            specs = self.read_formats(given.value)
            self._good = self._good and specs is not None
            values = list(specs or ())
        else:
            values = [value for term in given.value.terms for value in self._literals(option, term)]
        self._given.setdefault(option.name, []).append(values)

    def _literals(self, option: Option, term: syntax.Phrase) -> list[object]:
        """The values of one alternative, which may be several in braces."""
        first, *rest = term.atoms
        if rest or isinstance(first, syntax.Invocation):
            self._error("Q203", f"`{option.name}` takes {option.expected}, not `{term.span.text}`", term.span)
            return []
        items = first.items if isinstance(first, syntax.Braces) else (first,)
        values = [read_literal(self.context, option, item) for item in items]
        self._good = self._good and WRONG not in values
        return values

    def _error(self, code: str, message: str, span: Span, help: str | None = None) -> None:
        self.context.report.error(code, message, span, help=help)
        self._good = False


def _spelled(option: Option, value: object) -> str:
    """An argument: formats and extents tell by themselves what they are."""
    text = option_text(option, value)
    return text if option.kind in ("format", "dims") else f"{option.name} = {text}"
