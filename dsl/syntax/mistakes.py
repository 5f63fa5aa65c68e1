"""What people write when they mean something else: spellings of other languages, forgotten signs.

Each function looks at one failure of the parser and, if it knows the mistake, says how to spell it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcc.dsl.diagnostics.other_tools import told
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.diagnostics.spelling import nearest
from qcc.dsl.syntax.literals import nearest_unit

if TYPE_CHECKING:
    from qcc.dsl.syntax.failure import Failure

STATEMENTS = (
    *(
        "use",
        "param",
        "target",
        "calibrate",
        "graph",
        "adapter",
        "sampler",
        "step_cache",
        "let",
        "rule",
        "depth",
        "reconstruct",
        "metric",
        "budget",
        "minimize",
        "verify",
        "export",
    ),
    "qpolicy",
)


@dataclass(frozen=True)
class Mistake:
    """A known mistake: how to spell what was meant, and a message if there's a better one."""

    help: str
    message: str | None = None
    span: Span | None = None
    code: str = "Q101"


def likely_mistake(where: "Failure") -> Mistake | None:
    """The first known mistake that explains a failure."""
    return next((mistake for know in _KNOWN if (mistake := know(where)) is not None), None)


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else "..."


_FOREIGN = {
    "&&": ("`&&` isn't an operator", "write `and`"),
    "||": ("`||` isn't an operator", "write `or` between selectors, `|` between candidates"),
    "=<": ("`=<` isn't a comparison", "write `<=`"),
    "=>": ("`=>` isn't a comparison", "write `>=`"),
    "<>": ("`<>` isn't a comparison", "write `!=`"),
    ":=": ("`:=` isn't an assignment", "write `=`"),
    "=~": ("`=~` isn't a comparison", "write `~`"),
    "/*": ("`/*` doesn't start a comment", "comments start with `#` and end with the line"),
}


def _foreign(where: "Failure") -> Mistake | None:
    if where.token.type != "FOREIGN":
        return None
    text = str(where.token)
    if text in _FOREIGN:
        message, help = _FOREIGN[text]
        return Mistake(help, message, code="Q109")
    if text.startswith("//"):
        return Mistake("comments start with `#`", "`//` doesn't start a comment", code="Q109")
    inside = text[1:].rstrip("'“”„»\"")
    kind = "single" if text[0] == "'" else "curly"
    message = f"{kind} quotes don't make a string"
    return Mistake(f'write `"{_short(inside)}"`', message, code="Q109")


def _statement(where: "Failure") -> Mistake | None:
    if where.place.start != "statement" or where.index != 0:
        return None
    text = str(where.token)
    if text == "-":
        return Mistake("this is no YAML: write `name = value` inside `rule <selector> { ... }`")
    meant = told(text.strip('"'), "statement")
    if meant is not None and where.after.type != "COMPARISON":
        return Mistake(meant)
    if where.after.type == "EQUAL" or where.after == ":":
        near = nearest(text, STATEMENTS)
        if near:
            return Mistake(f"did you mean `{near}`?")
        text = text.strip('"')
        return Mistake(f"settings stand in a rule: `rule any {{ {_short(text)} = {_short(where.rest[1:].strip())} }}`")
    if where.after.type == "COMPARISON":
        block = "budget" if where.after.startswith("<") else "verify"
        return Mistake(f"bounds stand in a block: `{block} {{ {_short(where.here)} }}`")
    near = nearest(text, STATEMENTS)
    return Mistake(f"did you mean `{near}`?" if near else f"a statement starts with {', '.join(STATEMENTS)}")


def _colon(where: "Failure") -> Mistake | None:
    if where.token != ":":
        return None
    before = str(where.before)
    if before in STATEMENTS:
        return Mistake(f"write `{before} {_short(where.rest)}`, without the colon")
    if "LEFT_BRACE" in where.accepts and where.place.start == "statement":
        head = where.place.source.text[where.place.first : where.span.start].strip()
        return Mistake(f"write `{_short(head)} {{ {_short(where.rest or '...')} }}`, without the colon")
    if "EQUAL" in where.accepts and where.keyword == "param":
        return Mistake(
            f"a parameter has the type of its default: `{before} = {_short(where.rest.rpartition('=')[2].strip())}`"
        )
    if "EQUAL" in where.accepts or (where.before.type == "NAME" and "RIGHT_PARENTHESIS" in where.accepts):
        return Mistake(f"write `{_short(before)} = {_short(re.split('[,)]', where.rest)[0])}`")
    if "COMPARISON" in where.accepts:
        return Mistake("write a comparison such as `==` or `<=`")
    return Mistake("a colon has no meaning here")


def _calibrate(where: "Failure") -> Mistake | None:
    """`calibrate` without its data, or with its data where the options belong."""
    if where.keyword != "calibrate":
        return None
    text = where.place.source.text[where.place.first : where.place.last]
    if where.place.start == "setting" and where.token.type == "STRING" and where.index == 0:
        return Mistake(f"the data stands before the braces: `calibrate {_short(str(where.token))} {{ samples = 64 }}`")
    named = where.token.type == "EQUAL" and where.index == 2
    nothing = where.index == 1 and (where.ended or where.token.type == "NUMBER" or str(where.token) in "{([=")
    if where.place.start != "statement" or not (named or nothing):
        return None
    options = text[len("calibrate") :].strip(" \t={}()[]") if named or not where.ended else ""
    following = where.place.source.text[where.place.last :].lstrip(" \t")
    if not options and following.startswith("{"):
        options = following[1:].partition("}")[0].strip()
    options = _short(options) if "=" in options else "samples = 64"
    return Mistake(
        f'the data is named first: `calibrate "data.npz" {{ {options} }}`, or `calibrate generated {{ {options} }}`'
    )


def _quoted_name(where: "Failure") -> Mistake | None:
    if where.token.type == "STRING" and where.index == 0 and where.place.start in ("setting", "bound"):
        return Mistake(f"names aren't quoted: write `{_short(str(where.token)[1:-1])}`")
    return None


def _equal_for_comparison(where: "Failure") -> Mistake | None:
    if where.token.type != "EQUAL" or "COMPARISON" not in where.accepts:
        return None
    if where.place.start == "bound":
        sign = "<=" if where.keyword == "budget" else ">="
        return Mistake(f"a bound is a comparison: did you mean `{where.before} {sign} {_short(where.rest)}`?")
    return Mistake("did you mean `==`?")


def _comparison_for_equal(where: "Failure") -> Mistake | None:
    if where.token.type != "COMPARISON" or "EQUAL" not in where.accepts:
        return None
    if where.token == "==":
        return Mistake("did you mean `=`? only selectors compare with `==`")
    if where.place.start == "setting":
        return Mistake(
            f"settings use `=`; a bound stands in `budget {{ {where.before} {where.token} ... }}` or `verify`"
        )
    return Mistake("did you mean `=`?")


def _word_with_equal(where: "Failure") -> Mistake | None:
    if where.token.type != "EQUAL" or where.place.start != "setting" or where.before.type != "NAME":
        return None
    method = where.tokens[2] if where.index > 2 else where.before
    if where.index >= 4 and method.type == "NAME" and method.isalpha() and where.index <= 5 and where.keyword == "rule":
        option = re.split(r"[\s,})\]]", where.rest)[0]
        return Mistake(f"options stand in parentheses: `{method}({where.before} = {option})`")
    if where.rest[:1].isdigit() and where.keyword == "rule":
        return Mistake(f"a word's value follows it without `=`: `{where.before} {_short(where.rest)}`")
    help = "separate settings with `,` or a new line"
    return Mistake(help + ("; a format's word has its value without `=`" if where.keyword == "rule" else ""))


def _equal_after_keyword(where: "Failure") -> Mistake | None:
    if where.token.type != "EQUAL" or where.before not in STATEMENTS or where.place.start != "statement":
        return None
    named = where.before in ("let", "param")
    middle = "name = " if named else ""
    return Mistake(f"write `{where.before} {middle}{_short(where.rest)}`" + ("" if named else ", without `=`"))


def _separated_badly(where: "Failure") -> Mistake | None:
    if where.place.start == "bound" and where.token.type == "NAME" and where.before.type in ("NUMBER", "DOLLAR"):
        return Mistake("separate bounds with `,` or a new line; all of them must hold")
    if (
        where.token.type == "COMMA"
        and where.place.start == "statement"
        and where.keyword in ("use", "minimize", "target")
    ):
        return Mistake(f"`{where.keyword}` takes one; further ones need their own line")
    return None


def _brackets_round_value(where: "Failure") -> Mistake | None:
    if where.place.start != "setting" or where.token.type not in ("LEFT_BRACKET", "LEFT_PARENTHESIS"):
        return None
    if where.before.type == "EQUAL":
        return Mistake("candidates are separated by `|`, without brackets: `int4 | int8`")
    if where.token.type == "LEFT_BRACKET":
        return Mistake(f"options stand in parentheses: `{where.before}(...)`")
    return None


def _selector_parts(where: "Failure") -> Mistake | None:
    """Odd ends of a selector: `linear.ffn`, `linear()`, `linear not conv`, none at all."""
    if where.place.start != "statement" or where.keyword not in ("rule", "let"):
        return None
    kind = where.token.type
    if kind == "LEFT_BRACE" and where.before == "rule":
        return Mistake("every rule says which layers it is for: `rule any { ... }`")
    if where.token == "." and where.before.type == "NAME" and where.after.type == "NAME":
        return Mistake(f'select by name with `{where.before}[name ~ "*{where.after}*"]`')
    if kind == "LEFT_PARENTHESIS" and where.before.type == "NAME":
        return Mistake(f"a filter stands in brackets: `{where.before}[params > 100k]`")
    if kind == "NOT":
        return Mistake(f"write `and {_short(where.here.partition('{')[0].strip())}`")
    if kind in ("MATCH", "COMPARISON") and "LEFT_BRACKET" in where.accepts:
        return Mistake(
            f"a filter follows a class: `any[{where.before} {_short(where.here.partition('{')[0].strip())}]`"
        )
    return None


def _missing_brace(where: "Failure") -> Mistake | None:
    if "LEFT_BRACE" not in where.accepts or where.place.start != "statement":
        return None
    if where.token.type == "NAME" and where.after.type in ("EQUAL",):
        head = where.place.source.text[where.place.first : where.span.start].strip()
        return Mistake(f"settings stand in braces: `{_short(head)} {{ {_short(where.here)} }}`")
    if where.token.type in ("NAME", "STRING") and where.keyword == "rule":
        return Mistake("join selectors with `,`, `and` or `or`; settings stand in `{ }`")
    if where.ended and where.keyword == "rule":
        return Mistake("a rule's settings stand in braces: `rule linear { weights = int4 }`")
    if where.keyword in ("budget", "verify") and not where.ended:
        metric = {"budget": "size ", "verify": "cosine "}[where.keyword] if where.token.type == "COMPARISON" else ""
        return Mistake(f"bounds stand in braces: `{where.keyword} {{ {metric}{_short(where.here)} }}`")
    if where.keyword == "export":
        return Mistake("options stand in braces: `export { opset = 21 }`")
    if where.keyword == "depth":
        return Mistake('settings stand in braces: `depth { leave_out = "layers.4.*" }`')
    return None


def _missing_sign(where: "Failure") -> Mistake | None:
    if where.token.type not in ("NAME", "NUMBER", "STRING", "DIMS", "DOLLAR") or where.before.type != "NAME":
        return None
    rest = f"{where.token} {where.rest}".strip()
    if where.place.start == "bound" and "COMPARISON" in where.accepts:
        sign = "<=" if where.keyword == "budget" else ">="
        return Mistake(f"did you mean `{where.before} {sign} {_short(rest)}`?")
    if where.place.start == "setting" and where.place.source.text[: where.place.first].rstrip().endswith(","):
        return Mistake("a comma ends a setting; candidates are separated by `|`")
    if "EQUAL" in where.accepts and "PIPE" not in where.accepts:
        return Mistake(f"did you mean `{where.before} = {_short(rest)}`?")
    if where.token in ("in", "like", "is", "matches") and where.after.type in ("STRING", "NUMBER"):
        sign = "~" if where.after.type == "STRING" else "=="
        return Mistake(f"did you mean `{where.before} {sign} {where.after}`?")
    if "COMPARISON" in where.accepts:
        sign = "~" if where.token.type == "STRING" else "=="
        return Mistake(f"did you mean `{where.before} {sign} {where.token}`?")
    return None


def _metric_last(where: "Failure") -> Mistake | None:
    if where.place.start == "bound" and where.index == 0 and where.token.type == "NUMBER":
        return Mistake("the metric comes first: `size <= 25%`")
    return None


def _unquoted(where: "Failure") -> Mistake | None:
    """A file, preset or glob without its quotes."""
    text = where.place.source.text
    if "STRING" in where.accepts and where.before in ("use", "calibrate") and not where.ended:
        end = re.compile(r"[^\s{}()\[\]=,;#]+").match(text, where.span.start)
        word = end.group() if end else {"use": "balanced", "calibrate": "data.npz"}[str(where.before)]
        span = Span(where.span.source, where.span.start, where.span.start + len(word))
        return Mistake(f'write `{where.before} "{_short(word)}"`', span=span)
    if where.token == "." and where.tokens and where.tokens[0] in ("use", "calibrate"):
        word = where.before + text[where.span.start : where.place.last].split()[0]
        return Mistake(f'write `{where.keyword} "{_short(word)}"`')
    if where.token == "*" and where.before.type == "NUMBER":
        return Mistake("extents are written `16x16`")
    if where.token != "*" and where.token != "?":
        return None
    found = re.compile(r"[^\s\]\[{},]+").match(text, where.span.start)
    glob = found.group() if found else str(where.token)
    if "NOT" in where.accepts:
        meant = "any" if glob == "*" else f'any[name ~ "{_short(glob)}"]'
        return Mistake(f"did you mean `{meant}`?")
    if where.before.type in ("MATCH", "COMPARISON"):
        return Mistake(f'a pattern is quoted: `"{_short(glob)}"`')
    return Mistake('patterns are quoted, and match names: `any[name ~ "*ffn*"]`')


def _name_as_selector(where: "Failure") -> Mistake | None:
    if where.token.type == "STRING" and "NOT" in where.accepts:
        return Mistake(f"select by name with `any[name ~ {_short(str(where.token))}]`")
    if where.token == "[" and "NOT" in where.accepts:
        return Mistake("a filter follows a class: `any[...]`")
    if where.token == "!" and "NOT" in where.accepts:
        return Mistake("write `not`")
    if where.token == "&" or (where.token == "|" and "AND" in where.accepts):
        return Mistake(f"write `{'and' if where.token == '&' else 'or'}`")
    return None


def _unit(where: "Failure") -> Mistake | None:
    if where.token.type != "NAME" or where.before.type != "NUMBER" or where.before[-1:].isalpha():
        return None
    unit = nearest_unit(str(where.token))
    if unit is None:
        return None
    spelled = f"{where.before}{unit}" if unit in ("%", "k", "M", "G") else f"{where.before} {unit}"
    return Mistake(f"did you mean `{spelled}`?", f"unknown unit `{where.token}`", code="Q215")


def _joined_predicates(where: "Failure") -> Mistake | None:
    if where.token.type == "NAME" and "RIGHT_BRACKET" in where.accepts and where.token in ("and", "or"):
        if where.token == "and":
            return Mistake("separate predicates with `,`: all of them must hold")
        return Mistake("write two filters: `linear[...] or linear[...]`")
    return None


def _dollar(where: "Failure") -> Mistake | None:
    if where.token == "$":
        name = where.rest.lstrip("{( ").partition("}")[0]
        return Mistake(f"write `${name}`" if name.isidentifier() else "a parameter is written `$name`")
    return None


def _range(where: "Failure") -> Mistake | None:
    if where.token != "." or not where.rest.startswith("."):
        return None
    if where.place.start == "setting":
        return Mistake("list them in braces: `int{2,3,4}`")
    return Mistake("write two comparisons: `position >= 0, position <= 3`")


def _version(where: "Failure") -> Mistake | None:
    return Mistake("write `qpolicy 1`") if where.before == "qpolicy" else None


def _slash(where: "Failure") -> Mistake | None:
    if where.token == "/" and where.before.type == "MATCH":
        return Mistake("close it with `/` on the same line", "unterminated regular expression", code="Q103")
    return None


_KNOWN: tuple[Callable[["Failure"], Mistake | None], ...] = (
    _foreign,
    _calibrate,
    _slash,
    _version,
    _unit,
    _equal_after_keyword,
    _separated_badly,
    _brackets_round_value,
    _selector_parts,
    _statement,
    _colon,
    _quoted_name,
    _equal_for_comparison,
    _comparison_for_equal,
    _word_with_equal,
    _joined_predicates,
    _missing_brace,
    _metric_last,
    _unquoted,
    _missing_sign,
    _name_as_selector,
    _dollar,
    _range,
)
