"""Selectors: names looked up, `let`s put in, predicates typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qcc.dsl.check.context import CheckState, kind_of
from qcc.dsl.diagnostics.spelling import did_you_mean, one_of
from qcc.dsl.policy import select
from qcc.dsl.policy.regex import Regex, RegexError
from qcc.dsl.policy.select import ANY, DTYPES, FACTS, ORIGINS, Selector, standard_dtype
from qcc.dsl.syntax import tree as syntax

LARGEST = 20_000
"""How many parts a selector may have once its `let`s are put in."""
DEEPEST = 100

_OTHER_NAMES = {
    "linear": ("dense", "matmul", "gemm", "fc", "mlp", "fully-connected"),
    "conv": ("conv1d", "conv2d", "conv3d", "convolution"),
    "embedding": ("embed", "gather", "embeddings"),
    "recurrent": ("lstm", "gru", "rnn"),
    ANY: ("all", "every", "layer", "layers"),
}
OPERATORS = {
    "text": ("~", "!~", "==", "!="),
    "number": ("==", "!=", "<", "<=", ">", ">="),
    "size": ("==", "!=", "<", "<=", ">", ">="),
    "position": ("==", "!=", "<", "<=", ">", ">="),
    "word": ("==", "!="),
    "dims": ("==", "!="),
    "origin": ("==", "!="),
    "op": ("==", "!="),
}
"""The comparisons of each type of fact."""


@dataclass
class Scope:
    """The selectors that one file can name: its own, then those of the files that it uses."""

    lets: dict[str, syntax.LetLine] = field(default_factory=dict)
    used: list["Scope"] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    """Those of its own that something refers to."""

    def find(self, name: str) -> tuple["Scope", syntax.LetLine] | None:
        """A selector and the scope that its own names belong to."""
        if name in self.lets:
            return self, self.lets[name]
        return next((found for one in reversed(self.used) if (found := one.find(name)) is not None), None)

    def names(self) -> list[str]:
        """All names in reach."""
        return list(self.lets) + [name for one in self.used for name in one.names()]


@dataclass
class _TooLargeError(Exception):
    why: str


@dataclass
class Resolver:
    """Resolves selectors, keeping what it has found of each `let`."""

    context: CheckState
    done: dict[int, tuple[Selector | None, int]] = field(default_factory=dict)
    """By the identity of the `let`: the selector, or None if it's wrong, and how many parts it has."""
    open: list[syntax.LetLine] = field(default_factory=list)

    def resolve(self, node: syntax.SelectorTree, scope: Scope) -> Selector | None:
        """The selector that a piece of syntax means; None if it's wrong, which is reported."""
        try:
            found, _ = self._resolve(node, scope, 0)
        except _TooLargeError as error:
            message = f"the selector is too {error.why} once its names are put in"
            self.context.report.error("Q229", message, node.span, help="use fewer or simpler `let`s")
            return None
        return found

    def check_let(self, let: syntax.LetLine, scope: Scope) -> None:
        """Report what is wrong with a `let`, used or not."""
        self.resolve(syntax.Class(let.name.span, let.name.text), scope)

    def _resolve(self, node: syntax.SelectorTree, scope: Scope, depth: int) -> tuple[Selector | None, int]:
        if depth > DEEPEST:
            raise _TooLargeError("deep")
        match node:
            case syntax.Class():
                return self._class(node, scope, depth)
            case syntax.Negation(item=item):
                inner, size = self._resolve(item, scope, depth + 1)
                return (None if inner is None else select.Not(node.span, inner)), size + 1
            case syntax.Filter(base=base, predicates=predicates):
                return self._filter(node, base, predicates, scope, depth)
        kind = select.Either if isinstance(node, syntax.Or) else select.Both
        found, sizes = zip(*(self._resolve(item, scope, depth + 1) for item in node.items), strict=True)
        size = self._bounded(sum(sizes) + 1)
        parts = [part for one in found if one is not None for part in (one.items if isinstance(one, kind) else (one,))]
        return (None if None in found else kind(node.span, tuple(parts))), size

    def _bounded(self, size: int) -> int:
        if size > LARGEST:
            raise _TooLargeError("large")
        return size

    def _class(self, node: syntax.Class, scope: Scope, depth: int) -> tuple[Selector | None, int]:
        kinds = (*self.context.schema.kinds, *self.context.schema.subjects, ANY)
        if node.name in kinds:
            return select.LayerClass(node.span, node.name), 1
        found = scope.find(node.name)
        if found is None:
            self._unknown(node, scope)
            return None, 1
        owner, let = found
        if let.name.span is not node.span:  # not its own check
            owner.named.add(node.name)
        if any(one is let for one in self.open):
            self._cycle(let)
            return None, 1
        if id(let) not in self.done:
            self.open.append(let)
            try:
                self.done[id(let)] = self._resolve(let.selector, owner, depth + 1)
            except _TooLargeError as error:
                self.done[id(let)] = (None, 1)
                message = f"the selector is too {error.why} once its names are put in"
                self.context.report.error("Q229", message, let.name.span, help="use fewer or simpler `let`s")
            finally:
                self.open.pop()
        selector, size = self.done[id(let)]
        return (None if selector is None else replace(selector, span=node.span)), size

    def _cycle(self, let: syntax.LetLine) -> None:
        start = next(at for at, one in enumerate(self.open) if one is let)
        chain = self.open[start:]
        names = " -> ".join(f"`{one.name.text}`" for one in [*chain, let])
        message = f"`{let.name.text}` is defined by itself"
        self.context.report.error("Q217", message, let.name.span, note=names if len(chain) > 1 else None)

    def _unknown(self, node: syntax.Class, scope: Scope) -> None:
        known = [*self.context.schema.kinds, *self.context.schema.subjects, ANY, *scope.names()]
        help = self.context.suggest(node.name, known, "selector")
        for ours, others in _OTHER_NAMES.items():
            if node.name.lower().replace("_", "-") in others and ours in known:
                help = f"did you mean `{ours}`?"
        self.context.report.error("Q216", f"unknown selector `{node.name}`", node.span, help=help)

    def _filter(
        self,
        node: syntax.Filter,
        base: syntax.SelectorTree,
        predicates: tuple[syntax.Comparison, ...],
        scope: Scope,
        depth: int,
    ) -> tuple[Selector | None, int]:
        inner, size = self._resolve(base, scope, depth + 1)
        size = self._bounded(size + len(predicates))
        typed = [read_predicate(self.context, one) for one in predicates]
        good = tuple(one for one in typed if one is not None)
        if inner is None or len(good) < len(typed):
            return None, size
        if isinstance(inner, select.Where):  # a filter of a filter is one filter
            return select.Where(node.span, inner.base, inner.predicates + good), size
        return select.Where(node.span, inner, good), size


def read_predicate(context: CheckState, node: syntax.Comparison) -> select.Predicate | None:
    """A predicate whose operator and value fit its field; None if they don't, which is reported."""
    name = node.fact.text
    if name not in FACTS:
        others = {"inputs": "in", "outputs": "out", "size": "params", "type": "dtype", "index": "position"}
        help = f"did you mean `{others[name]}`?" if name in others else did_you_mean(name, FACTS)
        context.report.error("Q218", f"unknown field `{name}`", node.fact.span, help=help)
        return None
    kind = FACTS[name]
    if node.operator not in OPERATORS[kind]:
        help = f"`{name}` takes {one_of(OPERATORS[kind])}".replace("one of ", "")
        if kind == "text":
            help = 'compare names with `~`: `name ~ "*ffn*"`, or with `==`'
        message = f"`{node.operator}` doesn't apply to `{name}`"
        context.report.error("Q219", message, node.operator_span, help=help)
        return None
    value: object
    if isinstance(node.value, syntax.RegexLiteral):
        value = _regex(context, node, node.value)
    else:
        literal = context.literal(node.value)
        if literal is None:
            return None
        value = _VALUES[kind](context, node, literal)
    if value is None:
        return None
    assert isinstance(value, str | float | tuple | Regex)
    return select.Predicate(name, node.operator, value, node.span)


def _mismatch(
    context: CheckState, node: syntax.Comparison, found: syntax.Literal, wants: str, help: str | None
) -> None:
    message = f"`{node.fact.text}` takes {wants}, not {kind_of(found)}"
    context.report.error("Q219", message, found.span, help=help)


def _text(context: CheckState, node: syntax.Comparison, literal: syntax.Literal) -> str | None:
    if isinstance(literal, syntax.String):
        return literal.text
    star = "*" if "~" in node.operator else ""
    _mismatch(context, node, literal, "a quoted text", f'write `"{star}{literal.span.text}{star}"`')
    return None


def _number(context: CheckState, node: syntax.Comparison, literal: syntax.Literal) -> float | None:
    if not isinstance(literal, syntax.WrittenNumber):
        _mismatch(context, node, literal, "a number such as `100k`", None)
        return None
    quantity = context.quantity(literal)
    if quantity is None:
        return None
    if quantity.unit or quantity.value != int(quantity.value):
        help = (
            "`params` counts numbers; `bytes` are what they take"
            if node.fact.text == "params" and quantity.unit == "B"
            else None
        )
        _mismatch(context, node, literal, "a whole number", help)
        return None
    return quantity.value


def _size(context: CheckState, node: syntax.Comparison, literal: syntax.Literal) -> float | None:
    if not isinstance(literal, syntax.WrittenNumber):
        _mismatch(context, node, literal, "a size such as `1 MB`", None)
        return None
    quantity = context.quantity(literal)
    if quantity is None:
        return None
    if quantity.unit not in ("", "B") or quantity.value != int(quantity.value):
        _mismatch(context, node, literal, "a size such as `1 MB`", None)
        return None
    return quantity.value


def _position(context: CheckState, node: syntax.Comparison, literal: syntax.Literal) -> str | float | None:
    if isinstance(literal, syntax.WrittenNumber):
        return _number(context, node, literal)
    if isinstance(literal, syntax.Name) and literal.text in ("first", "last"):
        if node.operator in ("==", "!="):
            return literal.text
        help = "write `position == first`, or count: from 0, or from -1 at the end"
        context.report.error("Q219", f"`{literal.text}` has no `{node.operator}`", node.operator_span, help=help)
        return None
    near = did_you_mean(literal.span.text, ["first", "last"])
    _mismatch(context, node, literal, "`first`, `last` or a number", near)
    return None


def _word(context: CheckState, _: syntax.Comparison, literal: syntax.Literal) -> str | None:
    text = literal.text if isinstance(literal, syntax.Name | syntax.String) else ""
    name = standard_dtype(text)
    if name in DTYPES:
        return name
    message = f"unknown element type `{literal.span.text}`"
    context.report.error("Q219", message, literal.span, help=did_you_mean(text, DTYPES))
    return None


def _origin(context: CheckState, node: syntax.Comparison, literal: syntax.Literal) -> str | None:
    if isinstance(literal, syntax.Name) and literal.text in ORIGINS:
        return literal.text
    near = did_you_mean(literal.span.text, ORIGINS)
    _mismatch(context, node, literal, "`given` or `generated`", near)
    return None


def _op(context: CheckState, _: syntax.Comparison, literal: syntax.Literal) -> str | None:
    text = literal.text if isinstance(literal, syntax.Name | syntax.String) else ""
    known = context.schema.ops
    if text in known:
        return text
    others = {name: one for one, names in known.items() for name in names}
    plain = text.lower().replace("_", "").replace("-", "")
    help = f"did you mean `{others[plain]}`?" if plain in others else context.suggest(text, known)
    context.report.error("Q219", f"unknown op `{literal.span.text}`", literal.span, help=help)
    return None


def _dims(context: CheckState, node: syntax.Comparison, literal: syntax.Literal) -> tuple[int, ...] | None:
    if isinstance(literal, syntax.Dims):
        return literal.sizes
    number = _number(context, node, literal) if isinstance(literal, syntax.WrittenNumber) else None
    if number is not None:
        return (int(number),)
    if not isinstance(literal, syntax.WrittenNumber):
        _mismatch(context, node, literal, "extents such as `3x3`", None)
    return None


_VALUES = {
    "text": _text,
    "number": _number,
    "position": _position,
    "word": _word,
    "dims": _dims,
    "origin": _origin,
    "size": _size,
    "op": _op,
}


def _regex(context: CheckState, node: syntax.Comparison, regex: syntax.RegexLiteral) -> Regex | None:
    if FACTS[node.fact.text] != "text" or "~" not in node.operator:
        help = f"write `name ~ {regex.span.text}`"
        context.report.error("Q219", "a regular expression only fits `name ~`", regex.span, help=help)
        return None
    try:
        return Regex(regex.pattern)
    except RegexError as error:
        help = 'a glob may do: `"*ffn*"`'
        context.report.error("Q220", f"bad regular expression: {error}", regex.span, help=help)
        return None


def reserved(context: CheckState, kinds: Mapping[str, object] | tuple[str, ...], name: syntax.Name) -> bool:
    """Whether a `let` takes a name that already means something; reported."""
    if name.text not in kinds and name.text not in (ANY, "and", "or", "not"):
        return False
    context.report.error("Q230", f"`{name.text}` already means something", name.span, help="choose another name")
    return True
