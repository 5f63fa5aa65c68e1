"""The block ``depth``: which blocks of a model are left out, or share their weights."""

from collections.abc import Mapping, Sequence

from qcc.dsl.check.context import CheckState
from qcc.dsl.check.options import GivenOption, build
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.options import Maker, options_of
from qcc.dsl.policy.policy import DepthPart
from qcc.dsl.syntax import tree as syntax


def read_depth(
    context: CheckState, settings: Sequence[syntax.PropertySetting], known: Mapping[str, Maker]
) -> dict[str, DepthPart]:
    """What each setting says, by its name; what is wrong is reported and left out.

    A setting names layers for what is called so, or is an option of such a one.
    """
    owners = {option: name for name, method in known.items() for option in options_of(method)}
    parts: dict[str, syntax.PropertySetting] = {}
    given: dict[str, dict[str, GivenOption]] = {}
    for one in settings:
        name = one.name.text
        if name not in known and name not in owners:
            help = did_you_mean(name, [*known, *owners], "option")
            context.report.error("Q202", f"unknown option of `depth`: `{name}`", one.name.span, help=help)
            continue
        into = parts if name in known else given.setdefault(owners[name], {})
        if name in into:
            help = "separate names by `|`" if name in known else "keep one"
            context.report.error("Q206", f"setting `{name}` is given twice", one.span, help=help)
        elif one.value is None:
            help = f"write `{name} = {_example(name, known, owners)}`"
            context.report.error("Q231", f"expected `name = value`, found `{name}`", one.span, help=help)
        elif name in known:
            parts[name] = one
        else:
            given[owners[name]][name] = GivenOption(one.name, one.value, one.span)
    for owner in given.keys() - parts.keys():
        for name, option in given[owner].items():
            help = f"write `{owner} = {_example(owner, known, owners)}` beside it"
            context.report.error(
                "Q205", f"`{name}` says how `{owner}` is done, which is missing", option.span, help=help
            )
    found: dict[str, DepthPart] = {}
    for name, one in parts.items():
        globs = _globs(context, one)
        method = build(context, name, known[name], [*given.get(name, {}).values()], one.span)
        if globs is not None and method is not None:
            found[name] = DepthPart(name, globs, method, one.span)
    return found


def _example(name: str, known: Mapping[str, Maker], owners: Mapping[str, str]) -> str:
    """A value that the setting could have."""
    if name in known:
        return '"layers.4.*"'
    option = options_of(known[owners[name]])[name]
    return str(option.words[-1]) if option.words else "..."


def _globs(context: CheckState, setting: syntax.PropertySetting) -> tuple[str, ...] | None:
    """Names of layers, or patterns for them."""
    help = f'write `{setting.name.text} = "layers.4.*"`'
    assert setting.value is not None
    found = []
    for term in setting.value.terms:
        atom = term.atoms[0]
        literal = context.literal(atom) if isinstance(atom, syntax.Param) else atom
        if literal is None:
            return None
        if len(term.atoms) > 1 or not isinstance(literal, syntax.String) or not literal.text:
            message = f"`{setting.name.text}` takes names of layers as texts, not `{term.span.text}`"
            context.report.error("Q203", message, term.span, help=help)
            return None
        found.append(literal.text)
    return tuple(found)
