"""The grammar of policies as railroad diagrams, read off the one file that the parser is made of."""

import html
import io
from pathlib import Path
from typing import Any

import lark
import railroad
from lark import Token, Tree

GRAMMAR = Path(__file__).parent.parent / "dsl" / "syntax" / "grammar.lark"
QUIET = ["FOREIGN", "UNTERMINATED", "STRAY", "COMMENT", "BLANK", "CONTINUED"]  # are in no policy that is right
DiagramPart = Any  # of railroad-diagrams, which has no types
UNSEEN = "_"  # what lark leaves out of trees begins with it
REPEATED = {"?": railroad.Optional, "*": railroad.ZeroOrMore, "+": railroad.OneOrMore}


def grammar_page() -> str:
    """A page in Markdown, with a diagram for every rule and every token that is no fixed word."""
    lines = [
        "# Grammar",
        "",
        "Of the file that the parser is made of, [`dsl/syntax/grammar.lark`](../dsl/syntax/grammar.lark).",
    ]
    lines += ["A rule's name leads to its diagram; what means what is in [language.md](language.md).", ""]
    rules, terminals = _definitions(GRAMMAR.read_text(encoding="utf-8"))
    fixed = {name: body for name, body in terminals.items() if body.startswith('"')}
    diagrams = _Diagrams({name: _unquoted(body) for name, body in fixed.items()}, set(rules))
    for name, body in rules.items():
        lines += [f"## {name.lstrip(UNSEEN)}", "", diagrams.draw(body), ""]
    lines += ["## Tokens", "", "| Token | Is matched by |", "|---|---|"]
    shown = {name: body for name, body in terminals.items() if name not in fixed and name.lstrip(UNSEEN) not in QUIET}
    lines += [
        f"| {name.lstrip('_')} | <code>{html.escape(body).replace('|', '&#124;')}</code> |"
        for name, body in shown.items()
    ]
    return "\n".join(lines) + "\n"


def _definitions(text: str) -> tuple[dict[str, Tree[Token]], dict[str, str]]:
    """The rules as trees, and the terminals as they stand, by name."""
    own = Path(lark.__file__).parent / "grammars" / "lark.lark"
    parser = lark.Lark(
        own.read_text(encoding="utf-8"), parser="lalr", maybe_placeholders=False, import_paths=[str(own.parent)]
    )
    rules, terminals = dict[str, Tree[Token]](), dict[str, str]()
    for item in parser.parse(text + "\n").children:
        if not isinstance(item, Tree) or item.data not in ("rule", "token"):
            continue
        name, body = item.children[0], item.children[-1]
        assert isinstance(name, Token) and isinstance(body, Tree)
        if item.data == "rule":
            rules[name.lstrip("?!")] = body
        else:
            terminals[name] = text.splitlines()[(name.line or 1) - 1].partition(":")[2].strip()
    return rules, terminals


def _unquoted(body: str) -> str:
    return body.strip('"')


class _Diagrams:
    """Diagrams of rules; words stand for terminals that are nothing else, and other rules' names are links."""

    def __init__(self, words: dict[str, str], rules: set[str]) -> None:
        self._words, self._rules = words, rules

    def draw(self, body: Tree[Token]) -> str:
        """The diagram as SVG, in one line."""
        diagram = railroad.Diagram(self._part(body), type="simple")
        with io.StringIO() as file:
            diagram.writeSvg(file.write)
            return f'<div class="railroad">{file.getvalue().replace(chr(10), " ")}</div>'

    def _part(self, node: Tree[Token] | Token) -> DiagramPart:
        if isinstance(node, Token):
            return self._token(node)
        kind, items = str(node.data), [one for one in node.children if not isinstance(one, Token) or one.type != "OP"]
        if kind == "expansions":
            return railroad.Choice(0, *map(self._part, items))
        if kind == "expansion":
            return railroad.Sequence(*map(self._part, items))
        if kind == "expr":
            return REPEATED[str(node.children[-1])](self._part(node.children[0]))
        return (
            railroad.Optional(self._part(items[0])) if kind == "maybe" else self._part(items[0])
        )  # else: names, aliases

    def _token(self, token: Token) -> DiagramPart:
        text = str(token)
        if token.type == "STRING":
            return railroad.Terminal(_unquoted(text))
        if text in self._words:
            return railroad.Terminal(self._words[text])
        if text in self._rules:
            return railroad.NonTerminal(text.lstrip(UNSEEN), href=f"#{text.lstrip(UNSEEN)}")
        return railroad.NonTerminal(text.lstrip(UNSEEN), href="#tokens")
