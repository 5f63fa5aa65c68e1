"""Formats: from `int{2,3} group {32,64} | float` to the list of candidates."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod

from qcc.dsl.check.arguments import ArgumentReader
from qcc.dsl.check.context import CheckState
from qcc.dsl.diagnostics.other_tools import told
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.diagnostics.spelling import did_you_mean, nearest, one_of
from qcc.dsl.policy.policy import FormatSpec, WordValue
from qcc.dsl.policy.schema import FormatFamily, Word
from qcc.dsl.policy.select import DTYPES
from qcc.dsl.syntax import tree as syntax

MOST_CANDIDATES = 1000
_WITH_BITS = re.compile(r"([A-Za-z_]+?)([0-9]{1,9})")
_ELEMENT_TYPES = {other: name for name, others in DTYPES.items() for other in (name, *others)}
"""Names of float types, and the formats that may be called so."""


def read_formats(
    context: CheckState, value: syntax.Alternatives, formats: Mapping[str, FormatFamily]
) -> tuple[FormatSpec, ...] | None:
    """The formats that a value spells, in the order written; None if any part is wrong, which is reported."""
    found: list[FormatSpec] = []
    good = True
    for term in value.terms:
        specs = _Term(context, formats, term).read()
        good = good and specs is not None
        found += specs or []
        if len(found) > MOST_CANDIDATES:
            _too_many(context, value.span, len(found))
            return None
    return _without_duplicates(context, found) if good else None


def _too_many(context: CheckState, span: Span, count: int) -> None:
    message = f"{count:,} candidates, more than {MOST_CANDIDATES:,}"
    context.report.error("Q227", message, span, help="list fewer values in the braces")


def _without_duplicates(context: CheckState, specs: list[FormatSpec]) -> tuple[FormatSpec, ...]:
    unique: dict[str, FormatSpec] = {}
    for spec in specs:
        if spec.text in unique:
            context.report.warning("Q241", f"candidate `{spec.text}` is given twice", spec.span, help="remove one")
        else:
            unique[spec.text] = spec
    return tuple(unique.values())


@dataclass
class _Term:
    """Reads one candidate, which may be a grid of them, atom by atom."""

    context: CheckState
    formats: Mapping[str, FormatFamily]
    term: syntax.Phrase
    at: int = 0
    good: bool = True
    words: dict[str, list[WordValue]] = field(default_factory=dict)

    def read(self) -> list[FormatSpec] | None:
        family = self._composed()
        if family is not None:
            return self._with_arguments(family)
        head = self._head()
        if head is None:
            return None
        family, bits = head
        while self.at < len(self.term.atoms):
            self._word(family)
        if not self.good:
            return None
        count = len(bits) * prod(len(values) for values in self.words.values())
        if count > MOST_CANDIDATES:
            _too_many(self.context, self.term.span, count)
            return None
        specs = []
        for width, values in product(bits, product(*self.words.values())):
            given = dict(zip(self.words, values, strict=True))
            ordered = {word: given[word] for word in family.words if word in given}
            least = family.least_bits if width is None else width
            spec = FormatSpec(family.keyword, width, ordered, self.term.span, family.spaced, least_bits=least)
            if fault := family.fault(spec):
                self._error("Q204", fault, self.term.span)
                return None
            specs.append(spec)
        return specs

    def _composed(self) -> FormatFamily | None:
        """The family that the term names, if it is one with arguments."""
        first = self.term.atoms[0]
        name = first.name if isinstance(first, syntax.Invocation) else first
        family = self.formats.get(name.text) if isinstance(name, syntax.Name) else None
        return family if family is not None and family.arguments is not None else None

    def _with_arguments(self, family: FormatFamily) -> list[FormatSpec] | None:
        first, *rest = self.term.atoms
        if rest:
            help = f"what belongs to it stands in parentheses: `{family.keyword}(...)`"
            self._error("Q210", f"unexpected `{rest[0].span.text}` after `{family.keyword}`", rest[0].span, help)
            return None
        name, given = (first.name, first.arguments) if isinstance(first, syntax.Invocation) else (first, ())
        assert isinstance(name, syntax.Name)

        def read(value: syntax.Alternatives) -> tuple[FormatSpec, ...] | None:
            return read_formats(self.context, value, self.context.schema.formats)

        found = ArgumentReader(self.context, family, name, read, MOST_CANDIDATES).read(given, self.term.span)
        if isinstance(found, int):
            _too_many(self.context, self.term.span, found)
            return None
        return found

    def _error(self, code: str, message: str, span: Span, help: str | None = None, note: str | None = None) -> None:
        self.context.report.error(code, message, span, help=help, note=note)
        self.good = False

    def _head(self) -> tuple[FormatFamily, list[int | None]] | None:
        first = self.term.atoms[0]
        if isinstance(first, syntax.Param):
            resolved = self.context.literal(first)
            if resolved is None:
                return None
            first = resolved
        self.at = 1
        if isinstance(first, syntax.Invocation):
            composed = [keyword for keyword, one in self.formats.items() if one.arguments is not None]
            if near := nearest(first.name.text, composed):
                message = f"unknown format `{first.name.text}`"
                self._error("Q207", message, first.name.span, f"did you mean `{near}`?")
                return None
            words = " ".join(argument.span.text.replace(" = ", " ").replace("=", " ") for argument in first.arguments)
            gap = "" if words.isdigit() else " "
            help = f"write `{first.name.text}{gap}{words}`"
            foreign = (told(one.name.text, "word") for one in first.arguments if one.name is not None)
            help = next((one for one in foreign if one is not None), help)
            self._error("Q207", f"a format has words, not parentheses: `{first.name.text}(...)`", first.span, help)
            return None
        if isinstance(first, syntax.String):
            self._error("Q207", "a format isn't quoted", first.span, f"write `{first.text}`")
            return None
        if not isinstance(first, syntax.Name):
            self._error("Q207", f"expected a format, found `{first.span.text}`", first.span, self._meant(first))
            return None
        return self._family(first)

    def _family(self, name: syntax.Name) -> tuple[FormatFamily, list[int | None]] | None:
        split = _WITH_BITS.fullmatch(name.text)
        family = self.formats.get(name.text)
        if family is not None:
            return self._bits(family, name)
        family = self.formats.get(split[1]) if split else None
        if split is None or family is None or family.bits is None:
            self._unknown_format(name)
            return None
        low, high = family.bits
        if not low <= int(split[2]) <= high:
            widths = f"{low} to {high}" if low < high else f"only {low}"
            message = f"`{family.keyword}` has no {int(split[2])} bits here: it takes {widths}"
            help = told(name.text, "format") or f"did you mean `{family.keyword}{min(max(int(split[2]), low), high)}`?"
            self._error("Q204", message, name.span, help)
            return family, [low]  # go on: its words may be wrong as well
        return family, [int(split[2])]

    def _bits(self, family: FormatFamily, name: syntax.Name) -> tuple[FormatFamily, list[int | None]]:
        if family.bits is None:
            return family, [None]
        values: list[int | None] = []
        atom = self.term.atoms[self.at] if self.at < len(self.term.atoms) else None
        if isinstance(atom, syntax.WrittenNumber | syntax.Braces | syntax.Param):
            self.at += 1
            word = Word("int", low=family.bits[0], high=family.bits[1])
            values += [one for one in self._values(family.keyword, word, atom) if isinstance(one, int)]
        else:
            help = f"write `{family.keyword}{' ' if family.spaced else ''}{family.bits[1] // 2 or 1}`"
            self._error("Q211", f"`{family.keyword}` needs its bits", name.span, help)
        return family, values or [family.bits[0]]

    def _unknown_format(self, name: syntax.Name) -> None:
        help = told(name.text, "format") or self._nearest_format(name.text)
        self._error("Q207", f"unknown format `{name.text}`", name.span, help)

    def _nearest_format(self, text: str) -> str:
        if between := re.fullmatch(r"([a-z]+)(\d)-(?:[a-z]+)?(\d)", text):
            low, high = int(between[2]), int(between[3])
            return f"list them in braces: `{between[1]}{{{','.join(str(bits) for bits in range(low, high + 1))}}}`"
        spellings = []
        for keyword, family in self.formats.items():
            low, high = family.bits or (0, -1)
            spellings += [f"{keyword}{bits}" for bits in range(low, high + 1)] or [keyword]
        parts = text.split("-")
        near = nearest(text, spellings)
        if len(parts) > 1 and parts[0] in spellings:
            near = " ".join(parts)
        elif text.lower() in _ELEMENT_TYPES:
            near = next((one for one in (_ELEMENT_TYPES[text.lower()], "float") if one in self.formats), near)
        elif text.startswith(("fp", "bf", "float")) and "float" in self.formats:
            near = near or "float"
        return f"did you mean `{near}`?" if near else self._known()

    def _meant(self, atom: syntax.Atom) -> str:
        if isinstance(atom, syntax.Braces) and all(isinstance(item, syntax.Name) for item in atom.items):
            return f"separate candidates with `|`: `{' | '.join(item.span.text for item in atom.items)}`"
        if isinstance(atom, syntax.WrittenNumber) and atom.unit.startswith("b") and "int" in self.formats:
            return f"did you mean `int{atom.value:g}`?"
        return self._known()

    def _known(self) -> str:
        ranges = (
            f"{one.keyword}{one.bits[0]} to {one.keyword}{one.bits[1]}" if one.bits else one.keyword
            for one in self.formats.values()
        )
        return f"the formats are {', '.join(ranges)}"

    def _word(self, family: FormatFamily) -> None:
        atom = self.term.atoms[self.at]
        self.at += 1
        if isinstance(atom, syntax.Name) and atom.text in family.words:
            self._known_word(family, atom, family.words[atom.text])
            return
        self._unknown_word(family, atom)
        if isinstance(atom, syntax.Name) and atom.text in ("or", "and"):
            self.at = len(self.term.atoms)
        while self.at < len(self.term.atoms) and not isinstance(self.term.atoms[self.at], syntax.Name):
            self.at += 1  # its argument

    def _known_word(self, family: FormatFamily, name: syntax.Name, word: Word) -> None:
        if name.text in self.words:
            self._error("Q206", f"`{name.text}` is given twice", name.span, f"list its values: `{name.text} {{...}}`")
        rivals = [one for one in self.words if word.excludes and family.words[one].excludes == word.excludes]
        if rivals and name.text not in self.words:
            message = f"`{rivals[0]}` and `{name.text}` exclude each other"
            note = f"both say the {word.excludes}"
            help = f"keep one, or write two candidates: `{rivals[0]} ... | {name.text} ...`"
            self._error("Q209", message, name.span, help, note)
        if word.argument is None:
            self.words.setdefault(name.text, [True])
            return
        atom = self.term.atoms[self.at] if self.at < len(self.term.atoms) else None
        names_a_word = isinstance(atom, syntax.Name) and (
            not isinstance(word.argument, tuple) or atom.text in set(family.words) - set(word.argument)
        )
        if atom is None or isinstance(atom, syntax.Invocation) or names_a_word:
            example = {"int": "32", "tile": "16x16"}.get(str(word.argument), word.argument[0])
            self._error("Q211", f"`{name.text}` needs a value", name.span, f"write `{name.text} {example}`")
            self.words.setdefault(name.text, [])
            return
        self.at += 1
        self.words.setdefault(name.text, self._values(name.text, word, atom))

    def _values(self, name: str, word: Word, atom: syntax.Atom) -> list[WordValue]:
        items = atom.items if isinstance(atom, syntax.Braces) else (atom,)
        values = []
        for item in items:
            literal = None if isinstance(item, syntax.Braces | syntax.Invocation) else self.context.literal(item)
            value = None if literal is None else self._value(name, word, literal)
            if value is None:
                self.good = False
            else:
                values.append(value)
        return values

    def _value(self, name: str, word: Word, literal: syntax.Literal) -> WordValue | None:
        if isinstance(word.argument, tuple):
            if isinstance(literal, syntax.Name) and literal.text in word.argument:
                return literal.text
            message = f"`{name}` takes {one_of(word.argument)}, not `{literal.span.text}`"
            self._error("Q203", message, literal.span, did_you_mean(literal.span.text, word.argument))
            return None
        bounds = f"{word.low} to {word.high}"
        if word.argument == "tile":
            if not isinstance(literal, syntax.Dims) or len(literal.sizes) != 2:
                message = f"`{name}` takes extents such as `16x16`, not `{literal.span.text}`"
                number = isinstance(literal, syntax.WrittenNumber)
                self._error(
                    "Q203",
                    message,
                    literal.span,
                    f"write `{literal.span.text}x{literal.span.text}`" if number else None,
                )
                following = self.term.atoms[self.at] if self.at < len(self.term.atoms) else None
                if isinstance(following, syntax.Name) and following.text == "x":  # `16 x 16`
                    self.at = min(self.at + 2, len(self.term.atoms))
            elif not all(word.low <= size <= word.high for size in literal.sizes):
                self._error("Q204", f"each extent of `{name}` is {bounds}", literal.span)
            else:
                return literal.sizes
            return None
        quantity = self.context.quantity(literal) if isinstance(literal, syntax.WrittenNumber) else None
        if isinstance(literal, syntax.WrittenNumber) and quantity is None:
            return None
        if quantity is None or quantity.unit or quantity.value != int(quantity.value):
            self._error("Q203", f"`{name}` takes a whole number, not `{literal.span.text}`", literal.span)
            return None
        if not word.low <= quantity.value <= word.high:
            self._error("Q204", f"`{name}` takes {bounds}, not `{literal.span.text}`", literal.span)
            return None
        return int(quantity.value)

    def _unknown_word(self, family: FormatFamily, atom: syntax.Atom) -> None:
        kinds = {syntax.WrittenNumber: "int", syntax.Dims: "tile"}
        takers = [word for word, one in family.words.items() if one.argument == kinds.get(type(atom))]
        text = atom.name.text if isinstance(atom, syntax.Invocation) else atom.span.text
        split = _WITH_BITS.fullmatch(text)
        help = did_you_mean(text, family.words, "word")
        if type(atom) in kinds and takers:
            help = f"did you mean `{takers[0]} {text}`?"
        elif isinstance(atom, syntax.Invocation) and text in family.words:
            help = f"write `{text} {' '.join(one.span.text for one in atom.arguments)}`"
        elif text in self.formats or text == "or" or (split and split[1] in self.formats):
            help = "separate candidates with `|`"
        elif told(text, "word") is not None:
            pass
        elif split and nearest(split[1], family.words):
            help = f"write `{nearest(split[1], family.words)} {split[2]}`"
        elif not family.words:
            help = f"`{family.keyword}` has no words"
        self._error("Q210", f"unknown word of `{family.keyword}`: `{text}`", atom.span, help)
