"""The block ``depth``: which blocks of a model are left out."""

from collections.abc import Mapping, Sequence

from qcc.dsl.check.context import CheckState
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.policy import DepthPart
from qcc.dsl.syntax import tree as syntax


def read_depth(
    context: CheckState, settings: Sequence[syntax.PropertySetting], known: Mapping[str, type]
) -> dict[str, DepthPart]:
    """What each setting says, by its name; what is wrong is reported and left out."""
    found: dict[str, DepthPart] = {}
    for one in settings:
        name = one.name.text
        if name not in known:
            help = did_you_mean(name, known, "option")
            context.report.error("Q202", f"unknown option of `depth`: `{name}`", one.name.span, help=help)
        elif name in found:
            context.report.error("Q206", f"setting `{name}` is given twice", one.span, help="separate names by `|`")
        elif (globs := _globs(context, one)) is not None:
            found[name] = DepthPart(name, globs, known[name](), one.span)
    return found


def _globs(context: CheckState, setting: syntax.PropertySetting) -> tuple[str, ...] | None:
    """Names of layers, or patterns for them."""
    help = f'write `{setting.name.text} = "layers.4.*"`'
    if setting.value is None:
        context.report.error("Q231", f"expected `name = value`, found `{setting.name.text}`", setting.span, help=help)
        return None
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
