"""From the grammar's tokens to the syntax tree's nodes."""

import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer
from lark.lark import PostLex

from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.grammar import Grammar
from qcc.dsl.syntax.literals import unquote

DEEPEST = 64
"""How far parentheses and `not` may nest; no reader follows more, and recursion stays shallow."""

STARTS = ("file", "statement", "setting", "bound", "value", "argument")
OPERATORS = frozenset({"PIPE", "COMMA", "EQUAL", "COMPARISON", "MATCH", "AND", "OR", "NOT", "LEFT_BRACE"})
"""Tokens after which a line goes on."""

OPENING = frozenset({"LEFT_PARENTHESIS", "LEFT_BRACKET"})
CLOSING = frozenset({"RIGHT_PARENTHESIS", "RIGHT_BRACKET"})
WORDS = ["NAME", "NUMBER", "DIMS", "STRING", "DOLLAR"]
SIGNS = ["COMPARISON", "MATCH", "LEFT_BRACE", "RIGHT_BRACE", *OPENING, *CLOSING, "COMMA", "PIPE", "EQUAL", "_SEPARATOR"]
NEVER_RIGHT = ["FOREIGN", "UNTERMINATED", "STRAY"]


class TooDeepError(Exception):
    """Parentheses or `not` nest beyond what the language allows."""

    def __init__(self, token: Token) -> None:
        self.token = token
        super().__init__(token)


class LineEnds(PostLex):
    """Drops the line ends that end nothing, and refuses absurd nesting before the parser's stack grows."""

    # With these the contextual lexer finds a token even where it's an error, so that the parser can say which.
    always_accept: Iterable[str] = (*WORDS, *SIGNS, *NEVER_RIGHT)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """Filter one text's tokens, lazily: the lexer must see the parser's state."""
        depth = negations = 0
        before = "_SEPARATOR"
        for token in stream:
            kind = token.type
            if kind == "_SEPARATOR" and (depth or before in OPERATORS or before == kind):
                continue
            if kind in OPENING:
                depth += 1
            elif kind in CLOSING:
                depth = max(0, depth - 1)
            negations = negations + 1 if kind == "NOT" else 0
            if depth + negations > DEEPEST:
                raise TooDeepError(token)
            before = kind
            yield token


Children = list[Any]


class _TreeBuilder(Transformer[Token, syntax.SyntaxNode]):
    """Builds each node as the parser reduces it. Holds the source and where in it the parsed text begins."""

    source = Source("", "")
    offset = 0

    def span(self, first: Token | syntax.SyntaxNode, last: Token | syntax.SyntaxNode | None = None) -> Span:
        """From the start of one child to the end of another."""
        return Span(self.source, self._from(first), self._until(first if last is None else last))

    def _from(self, child: Token | syntax.SyntaxNode) -> int:
        return (child.start_pos or 0) + self.offset if isinstance(child, Token) else child.span.start

    def _until(self, child: Token | syntax.SyntaxNode) -> int:
        return (child.end_pos or 0) + self.offset if isinstance(child, Token) else child.span.end

    def _word(self, token: Token) -> syntax.Name:
        return syntax.Name(self.span(token), str(token))

    def file(self, children: Children) -> syntax.File:
        return syntax.File(Span(self.source, self.offset, len(self.source.text)), tuple(children))

    def version(self, children: Children) -> syntax.VersionLine:
        return syntax.VersionLine(self.span(children[0], children[1]), self.number(children[1:]))

    def use(self, children: Children) -> syntax.UseLine:
        return syntax.UseLine(self.span(children[0], children[1]), self.string(children[1:]))

    def param(self, children: Children) -> syntax.ParamLine:
        return syntax.ParamLine(self.span(children[0], children[2]), self._word(children[1]), children[2])

    def target(self, children: Children) -> syntax.TargetLine:
        called = children[1]
        if isinstance(called, syntax.Invocation):
            return syntax.TargetLine(self.span(children[0], called), called.name, called.arguments)
        return syntax.TargetLine(self.span(children[0], called), self._word(called), ())

    def calibrate(self, children: Children) -> syntax.CalibrateLine:
        data = self.string(children[1:]) if children[1].type == "STRING" else self._word(children[1])
        return syntax.CalibrateLine(self.span(children[0], children[-1]), data, tuple(children[3:-1]))

    def graph(self, children: Children) -> syntax.GraphLine:
        return syntax.GraphLine(self.span(children[0], children[1]), self._word(children[1]))

    def adapter(self, children: Children) -> syntax.AdapterLine:
        return syntax.AdapterLine(
            self.span(children[0], children[-1]), self.string(children[1:]), tuple(children[3:-1])
        )

    def sampler(self, children: Children) -> syntax.SamplerLine:
        return syntax.SamplerLine(
            self.span(children[0], children[-1]), self.string(children[1:]), tuple(children[3:-1])
        )

    def step_cache(self, children: Children) -> syntax.StepCacheBlock:
        return syntax.StepCacheBlock(self.span(children[0], children[-1]), tuple(children[2:-1]))

    def let(self, children: Children) -> syntax.LetLine:
        return syntax.LetLine(self.span(children[0], children[2]), self._word(children[1]), children[2])

    def rule(self, children: Children) -> syntax.RuleBlock:
        return syntax.RuleBlock(self.span(children[0], children[-1]), children[1], tuple(children[3:-1]))

    def budget(self, children: Children) -> syntax.BudgetBlock:
        return syntax.BudgetBlock(self.span(children[0], children[-1]), tuple(children[2:-1]))

    def minimize(self, children: Children) -> syntax.MinimizeLine:
        called = children[1]
        if isinstance(called, syntax.Invocation):
            return syntax.MinimizeLine(self.span(children[0], called), called.name, called.arguments)
        return syntax.MinimizeLine(self.span(children[0], called), self._word(called))

    def metric(self, children: Children) -> syntax.MetricLine:
        words = self._word(children[1]), self._word(children[2])
        return syntax.MetricLine(self.span(children[0], children[3]), *words, children[3])

    def verify(self, children: Children) -> syntax.VerifyBlock:
        return syntax.VerifyBlock(self.span(children[0], children[-1]), tuple(children[2:-1]))

    def export(self, children: Children) -> syntax.ExportBlock:
        return syntax.ExportBlock(self.span(children[0], children[-1]), tuple(children[2:-1]))

    def reconstruct(self, children: Children) -> syntax.ReconstructBlock:
        return syntax.ReconstructBlock(self.span(children[0], children[-1]), tuple(children[2:-1]))

    def depth(self, children: Children) -> syntax.DepthBlock:
        return syntax.DepthBlock(self.span(children[0], children[-1]), tuple(children[2:-1]))

    def setting(self, children: Children) -> syntax.PropertySetting:
        value = children[1] if len(children) > 1 else None
        return syntax.PropertySetting(self.span(children[0], children[-1]), self._word(children[0]), value)

    def bound(self, children: Children) -> syntax.BoundTree:
        arguments, (relation, quantity) = tuple(children[1:-3]), children[-2:]
        span = self.span(children[0], quantity)
        return syntax.BoundTree(span, self._word(children[0]), arguments, str(relation), self.span(relation), quantity)

    def value(self, children: Children) -> syntax.Alternatives:
        return syntax.Alternatives(self.span(children[0], children[-1]), tuple(children))

    def term(self, children: Children) -> syntax.Phrase:
        return syntax.Phrase(self.span(children[0], children[-1]), tuple(children))

    def grid(self, children: Children) -> syntax.Braces:
        return syntax.Braces(self.span(children[0], children[-1]), tuple(children[1:-1]))

    def call(self, children: Children) -> syntax.Invocation:
        return syntax.Invocation(self.span(children[0], children[-1]), self._word(children[0]), tuple(children[1:-1]))

    def argument(self, children: Children) -> syntax.Argument:
        name = self._word(children[0]) if len(children) == 2 else None
        return syntax.Argument(self.span(children[0], children[-1]), name, children[-1])

    def name(self, children: Children) -> syntax.Name:
        return self._word(children[0])

    def number(self, children: Children) -> syntax.WrittenNumber:
        text = str(children[0])
        digits = _number_prefix(text)
        # A number too long to be meant reads as infinite, which every check refuses.
        value = float(digits) if len(digits) < 64 else float("inf")
        return syntax.WrittenNumber(self.span(children[0]), value, text[len(digits) :].strip(), digits)

    def dims(self, children: Children) -> syntax.Dims:
        sizes = tuple(int(size[:10]) for size in str(children[0]).split("x"))
        return syntax.Dims(self.span(children[0]), sizes)

    def string(self, children: Children) -> syntax.String:
        return syntax.String(self.span(children[0]), unquote(str(children[0])))

    def regex(self, children: Children) -> syntax.RegexLiteral:
        return syntax.RegexLiteral(self.span(children[0]), str(children[0])[1:-1].replace("\\/", "/"))

    def dollar(self, children: Children) -> syntax.Param:
        return syntax.Param(self.span(children[0]), str(children[0])[1:])

    def selector(self, children: Children) -> syntax.SelectorTree:
        return self._joined(syntax.Or, children)

    def disjunction(self, children: Children) -> syntax.SelectorTree:
        return self._joined(syntax.Or, children[::2])

    def conjunction(self, children: Children) -> syntax.SelectorTree:
        return self._joined(syntax.And, children[::2])

    def negation(self, children: Children) -> syntax.Negation:
        return syntax.Negation(self.span(children[0], children[1]), children[1])

    def class_(self, children: Children) -> syntax.Class:
        return syntax.Class(self.span(children[0]), str(children[0]))

    def filter(self, children: Children) -> syntax.Filter:
        base = self.class_(children[:1]) if isinstance(children[0], Token) else children[0]
        predicates = tuple(one for one in children[1:] if isinstance(one, syntax.Comparison))
        return syntax.Filter(self.span(base, children[-1]), base, predicates)

    def predicate(self, children: Children) -> syntax.Comparison:
        field, operator, value = children
        span = self.span(field, value)
        return syntax.Comparison(span, self._word(field), str(operator), self.span(operator), value)

    def _joined(self, kind: type[syntax.Or] | type[syntax.And], items: Children) -> syntax.SelectorTree:
        if len(items) == 1:
            only: syntax.SelectorTree = items[0]
            return only
        # `a or b, c` is one choice of three.
        flat = [part for item in items for part in (item.items if isinstance(item, kind) else (item,))]
        return kind(self.span(items[0], items[-1]), tuple(flat))


def _number_prefix(text: str) -> str:
    end = len(text)
    while end:
        try:
            float(text[:end])
        except ValueError:
            end -= 1
        else:
            break
    return text[:end].rstrip()


GRAMMAR = Grammar(Path(__file__).with_name("grammar.lark"), STARTS, LineEnds())
_BUILDER = _TreeBuilder(visit_tokens=False)
_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return GRAMMAR.parser(_BUILDER)


@lru_cache(maxsize=1)
def _lexer() -> Lark:
    return GRAMMAR.lexer()


def build_tree(source: Source, start: str, text: str, offset: int = 0) -> syntax.SyntaxNode:
    """Parse a text that stands at ``offset`` of its source, from one of the grammar's ``STARTS``.

    Raises:
        lark.UnexpectedToken: the text isn't in the grammar.
        TooDeepError: it nests too far.
    """
    parser = _parser()
    with _ONE_AT_A_TIME:  # the builder is the parser's, hence shared
        _BUILDER.source, _BUILDER.offset = source, offset
        tree: object = parser.parse(text, start=start)
    assert isinstance(tree, syntax.SyntaxNode)
    return tree


def tokens(text: str, *, trivia: bool = False) -> list[Token]:
    """All tokens of a text, right or wrong; with ``trivia`` also blanks and comments."""
    return list(_lexer().lex(text, dont_ignore=trivia))
