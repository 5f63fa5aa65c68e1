"""The text of a plan, read back."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar, cast, get_args, get_type_hints

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from qcc.codegen.target.target import Arithmetic
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.check import check
from qcc.compiler.plan.plan import Allocate, Candidate, Counted, Kept, Kernels, Limit, OpenChoice, Plan, Step
from qcc.compiler.plan.text import FLOAT, VERSION
from qcc.compiler.plan.values import ValueReader, WrongValueError
from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.load import load_text
from qcc.dsl.syntax.grammar import Grammar
from qcc.ir.encoding.algebra import Encoding

T = TypeVar("T")
GRAMMAR = Grammar(Path(__file__).with_name("plan.lark"))
HELP = "`qcc compile MODEL --emit plan` prints plans as they are written"
EXPECTED = {
    "ACTION": "a pass", "COLON": "`:`", "FOR": "`for`", "LESSTHAN": "`<=`", "NUMBER": "a number", "PLAN": "`plan 1`",
    "TERM": "a statement", "VALUE": "a format or a pass", "WORD": "a name",
    "_LINE": "a line at the margin", "_ROW": "an indented line",
}  # fmt: skip
"""What a message calls the pieces that may follow."""


def from_text(source: Source) -> Plan:
    """The plan that a text says.

    Raises:
        QccError: with everything that is wrong with it.
    """
    report = Diagnostics()
    try:
        tree = _parser().parse(source.text)
    except UnexpectedInput as failure:
        raise QccError([_syntax_error(source, failure)]) from None
    plan = _PlanBuilder(source, report).transform(tree)
    report.raise_if_errors()
    assert isinstance(plan, Plan)
    try:
        check(plan)
    except ValueError as error:
        raise QccError(
            [Diagnostic("Q652", f"`{source.name}` is no plan that can be run: {error}", help=HELP)]
        ) from None
    return plan


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return GRAMMAR.parser()


def _syntax_error(source: Source, failure: UnexpectedInput) -> Diagnostic:
    accepts: set[str] = set()
    start = end = len(source.text.rstrip())
    if isinstance(failure, UnexpectedToken):
        accepts = failure.accepts or failure.expected
        if failure.token.type == "_ROW":  # what is indented is wrong, not that the line before has ended
            start = failure.token.end_pos or 0
            end = start + len(source.text[start:].split(maxsplit=1)[0])
        elif failure.token.type != "$END":
            start, end = failure.token.start_pos or 0, failure.token.end_pos or 0
    elif isinstance(failure, UnexpectedCharacters):
        accepts, start = failure.allowed or set(), failure.pos_in_stream or 0
        end = start + 1
    shown = source.text[start:end].partition("\n")[0].strip()
    found = f"`{shown}`" if shown else "the end of the line" if start < end else "the end of the text"
    wanted = sorted(words for name, words in EXPECTED.items() if name in accepts)
    message = f"expected {' or '.join(wanted)}, found {found}" if wanted else f"unexpected {found}"
    start = min(start, max(len(source.text) - 1, 0))
    return Diagnostic("Q651", message, Span(source, start, start + max(len(shown), 1)), help=HELP)


@dataclass(frozen=True)
class _ValueSource:
    """Who asked for the encoding of what layers read."""

    source: str


@dataclass(frozen=True)
class _Stored:
    """What a weight will be stored in; None for float."""

    encoding: Encoding | None


@dataclass(frozen=True)
class _Treated:
    """A weight of a step, with what may be told of it, once or not at all."""

    weight: str
    source: str
    values: tuple[str, ...]
    stored: tuple[Encoding | None, ...]


class _PlanBuilder(Transformer[Token, object]):
    """Makes a plan of the tree of its text; what is wrong is reported, and left out."""

    def __init__(self, source: Source, report: Diagnostics) -> None:
        super().__init__()
        self._source, self._report = source, report
        self._values = ValueReader(source, report)

    def start(self, children: list[object]) -> Plan:
        """All of it."""
        number, *parts = children
        assert isinstance(number, Token)
        if str(number) != str(VERSION):
            self._error(f"unknown plan version `{number}`", number, f"this qcc reads `plan {VERSION}`")
        allocate = self._once(parts, Allocate, "allocate")
        options = tuple(one for one in parts if isinstance(one, OpenChoice))
        if allocate is not None:
            allocate = replace(allocate, options=options)
        elif options:
            self._report.error(
                "Q651", f"`{options[0].subject}` is to be chosen, and nothing says how", help="`allocate`"
            )
        terms = [one for one in parts if isinstance(one, Token)]
        self._check_terms(terms)
        return Plan(
            tuple(one for one in parts if isinstance(one, Step)),
            tuple(kept for one in parts if isinstance(one, tuple) for kept in one),
            allocate,
            self._once(parts, Kernels, "kernels"),
            tuple(str(one).rstrip() for one in terms),
        )

    def term(self, children: list[Token]) -> Token:
        """A statement of the policy."""
        return children[0]

    def kernels(self, children: list[Token]) -> Kernels | None:
        """What kernels are made for."""
        activations, target, *processors = children
        known = get_args(get_type_hints(Kernels)["activations"])
        if str(activations) not in known:
            self._error(f"unknown activations `{activations}`", activations, did_you_mean(str(activations), known))
        names = tuple(self._word(one) for one in processors)
        try:
            return Kernels(self._word(target), names, cast(Arithmetic, str(activations)))
        except ValueError as error:
            self._error(str(error), target, "`kernels bf16 for cpu avx2`: a target, and processors of it")
            return None

    def values(self, children: list[Token]) -> _ValueSource:
        """Who asked for the encoding of what layers read."""
        return _ValueSource(self._word(children[0]))

    def stored(self, children: list[Token]) -> _Stored:
        """What a weight will be stored in."""
        try:
            return _Stored(self._values.encoding(self._span(children[0])))
        except WrongValueError:
            return _Stored(None)

    def treated(self, children: list[object]) -> _Treated:
        """A weight of a step."""
        weight, source, *more = children
        assert isinstance(weight, Token) and isinstance(source, Token)
        values = tuple(one.source for one in more if isinstance(one, _ValueSource))
        stored = tuple(one.encoding for one in more if isinstance(one, _Stored))
        return _Treated(self._word(weight), self._word(source), values, stored)

    def step(self, children: list[object]) -> Step | None:
        """A pass with its weights."""
        action, *rows = children
        assert isinstance(action, Token)
        treated = [row for row in rows if isinstance(row, _Treated)]
        encodings = tuple(encoding for row in treated for encoding in row.stored)
        values = tuple(value for row in treated for value in row.values)
        if {len(encodings), len(values)} - {0, len(treated)}:
            self._error("some of the weights below say more than others", action, HELP)
        try:
            done = self._values.action(self._span(action))
        except WrongValueError:
            return None
        weights, sources = tuple(row.weight for row in treated), tuple(row.source for row in treated)
        return Step(done, weights, sources, encodings, values)

    def limit(self, children: list[Token]) -> Limit:
        """A row of the budget."""
        metric, bound, source = children
        return Limit(self._word(metric), self._number(bound), self._word(source))

    def fixed(self, children: list[Token]) -> dict[str, float]:
        """What is not open takes of a row."""
        return {self._word(children[0]): self._number(children[1])}

    def counted(self, children: list[Token]) -> Counted:
        """What counts in a metric."""
        metric, *subjects = children
        return Counted(self._word(metric), tuple(map(self._word, subjects)))

    def cost(self, children: list[Token]) -> dict[str, float]:
        """What a candidate takes of a row."""
        return {self._word(children[0]): self._number(children[1])}

    def allocate(self, children: list[object]) -> Allocate:
        """What choices are to reach."""
        objective, *rows = children
        assert isinstance(objective, Token)
        limits = tuple(row for row in rows if isinstance(row, Limit))
        counted = tuple(row for row in rows if isinstance(row, Counted))
        return Allocate(self._word(objective), limits, (), _merged(rows), counted)

    def candidate(self, children: list[object]) -> Candidate | None:
        """One of the things that a weight may become."""
        source, *more, value = children
        assert isinstance(source, Token) and isinstance(value, Token)
        span, asked = self._span(value), [one.source for one in more if isinstance(one, _ValueSource)]
        try:
            action = None if span.text.partition("#")[0].strip() == FLOAT else self._values.action(span)
        except WrongValueError:
            return None
        return Candidate(action, self._word(source), _merged(more), "".join(asked))

    def choice(self, children: list[object]) -> OpenChoice:
        """A weight with its candidates."""
        subject, *candidates = children
        assert isinstance(subject, Token)
        return OpenChoice(self._word(subject), tuple(one for one in candidates if isinstance(one, Candidate)))

    def kept(self, children: list[Token]) -> tuple[Kept, ...]:
        """The weights that stay."""
        words = [self._word(one) for one in children]
        return tuple(Kept(name, reason) for name, reason in zip(words[::2], words[1::2], strict=True))

    def _check_terms(self, terms: Sequence[Token]) -> None:
        """Report what the policy language has against the statements, where they stand."""
        blank = ["\n" if char == "\n" else " " for char in self._source.text]
        for one in terms:
            start = one.start_pos or 0
            blank[start : start + len(one)] = str(one)
        try:
            load_text("".join(blank), schema(), self._source.name)
        except QccError as error:
            self._report.found += [one for one in error.diagnostics if one.severity is Severity.ERROR]

    def _once(self, parts: Sequence[object], kind: type[T], name: str) -> T | None:
        found = [one for one in parts if isinstance(one, kind)]
        if len(found) > 1:
            self._report.error("Q651", f"`{name}` is given twice in `{self._source.name}`", help="keep one")
        return found[0] if found else None

    def _word(self, token: Token) -> str:
        text = str(token)
        if not text.startswith('"'):
            return text
        try:
            return str(json.loads(text))
        except ValueError as error:
            self._error(
                f"bad text in quotes: {error.args[0].partition(':')[0].lower()}", token, "spell it as JSON does"
            )
            return text

    def _number(self, token: Token) -> float:
        try:
            found = float(token)
        except ValueError:
            found = math.inf
        if not math.isfinite(found):
            self._error(f"`{token}` is no number", token, None)
        return found

    def _span(self, token: Token) -> Span:
        start = token.start_pos or 0
        return Span(self._source, start, start + len(token))

    def _error(self, message: str, token: Token, help: str | None) -> None:
        self._report.error("Q651", message, self._span(token), help=help)


def _merged(rows: Sequence[object]) -> dict[str, float]:
    return {name: value for row in rows if isinstance(row, dict) for name, value in row.items()}
