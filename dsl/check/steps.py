"""The statements ``sampler`` and ``step_cache``: the loop that a model is run in, and what its steps share."""

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from qcc.dsl.check.context import CheckState, atoms_of, only_literal
from qcc.dsl.check.options import WRONG, read_literal, read_option
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.options import Option
from qcc.dsl.policy.policy import Quantity, SamplerFile, StepCache
from qcc.dsl.syntax import tree as syntax

SUFFIXES = (".toml", ".py")
SEARCHED = ("times", "order")
MOST_EVALUATIONS = 1000
FITS = ("affine", "none")
REGIONS = {"auto": (), "blocks": ("int", "int"), "feature": ("str",)}
"""The words for regions, with what each takes."""
_SPELLED = '`auto`, `blocks(FIRST, LAST)` or `feature("VALUE")`'


def read_sampler(context: CheckState, node: syntax.SamplerLine) -> SamplerFile | None:
    """What a statement says; nothing where it is wrong, which is reported."""
    name, folder = node.file.text, node.span.source.path
    if PurePath(name).suffix.lower() not in SUFFIXES:
        help = "a loop is a `.toml` file that describes it, or a `.py` script that runs it"
        context.report.error("Q203", f"`{name}` is no loop", node.file.span, help=help)
        return None
    found = _settings(context, "sampler", node.settings, ("evaluations", "search"))
    evaluations: object = None
    if "evaluations" in found:
        evaluations = read_option(context, _whole("evaluations"), found["evaluations"])
    search = tuple(_words(context, found["search"])) if "search" in found else ()
    if WRONG in (evaluations, *search):
        return None
    path = name if folder is None else str(folder.parent / name)
    told = name if not PurePath(name).is_absolute() and ".." not in PurePath(name).parts else PurePath(name).name
    count = evaluations if isinstance(evaluations, int) else None
    return SamplerFile(path, told, count, tuple(map(str, search)), node.span)


def read_step_cache(context: CheckState, node: syntax.StepCacheBlock) -> StepCache | None:
    """What a statement says; nothing where it is wrong, which is reported."""
    found = _settings(context, "step_cache", node.settings, ("region", "evaluations", "fit"))
    regions = [_region(context, term) for term in found["region"].terms] if "region" in found else [("auto", ())]
    fit: object = FITS[0]
    if "fit" in found:
        fit = read_option(context, Option("fit", "words", FITS), found["fit"])
    if "evaluations" not in found:
        help = "write `evaluations = 50%`, or how many of the loop's steps run the whole model"
        context.report.error("Q205", "`step_cache` needs its option `evaluations`", node.span, help=help)
        return None
    evaluations = _evaluations(context, found["evaluations"])
    good = [one for one in regions if one is not None]
    if evaluations is None or fit is WRONG or len(good) < len(regions):
        return None
    return StepCache(tuple(good), evaluations, str(fit), node.span)


def see_together(context: CheckState, sampler: SamplerFile | None, cache: StepCache | None) -> None:
    """Report a step cache of no loop, or of one that nothing is known of."""
    if cache is None or context.report.errors:
        return
    if sampler is None:
        help = 'write `sampler "loop.toml"`, which says what the loop is'
        context.report.error("Q573", "`step_cache` is of a loop, and there is no `sampler`", cache.span, help=help)
    elif sampler.name.lower().endswith(".py"):
        help = "describe it in a `.toml` file"
        context.report.error("Q573", f"the steps of `{sampler.name}` are known to it alone", cache.span, help=help)


def _settings(
    context: CheckState, owner: str, settings: Sequence[syntax.PropertySetting], known: Sequence[str]
) -> dict[str, syntax.Alternatives]:
    """The values by name; what is wrong with the names is reported."""
    found: dict[str, syntax.Alternatives] = {}
    for one in settings:
        name = one.name.text
        if name not in known:
            help = did_you_mean(name, known, "option")
            context.report.error("Q202", f"unknown option of `{owner}`: `{name}`", one.name.span, help=help)
        elif name in found:
            context.report.error("Q206", f"option `{name}` is given twice", one.span, help="remove one")
        elif one.value is None:
            context.report.error(
                "Q231", f"expected `name = value`, found `{name}`", one.span, help=f"write `{name} = ...`"
            )
        else:
            found[name] = one.value
    return found


def _whole(name: str) -> Option:
    return Option(name, "int", low=1, high=MOST_EVALUATIONS)


def _words(context: CheckState, value: syntax.Alternatives) -> Iterator[object]:
    option = Option("search", "words", SEARCHED)
    for atom in atoms_of(value):
        if isinstance(atom, syntax.Braces | syntax.Invocation):
            message = f"`search` takes {option.expected}, not `{atom.span.text}`"
            context.report.error("Q203", message, atom.span)
            yield WRONG
        else:
            yield read_literal(context, option, atom)


def _evaluations(context: CheckState, value: syntax.Alternatives) -> Quantity | None:
    written = only_literal(value)
    literal = None if written is None else context.literal(written)
    if literal is None and isinstance(written, syntax.Param):
        return None  # reported
    percent = isinstance(literal, syntax.WrittenNumber) and literal.unit == "%"
    option = Option("evaluations", "float", unit="%", low=0.01, high=1) if percent else _whole("evaluations")
    found = read_option(context, option, value)
    if not isinstance(found, int | float):
        return None
    return Quantity(found * 100, "%") if percent else Quantity(float(found))


def _region(context: CheckState, term: syntax.Phrase) -> tuple[str, tuple[int | str, ...]] | None:
    atom = term.atoms[0]
    name = atom.name.text if isinstance(atom, syntax.Invocation) else getattr(atom, "text", term.span.text)
    given = atom.arguments if isinstance(atom, syntax.Invocation) else ()
    wanted = REGIONS.get(name)
    if wanted is None or len(term.atoms) > 1 or len(given) != len(wanted) or any(one.name for one in given):
        message = f"`region` takes {_SPELLED}, not `{term.span.text}`"
        help = did_you_mean(name, REGIONS) if wanted is None else None
        context.report.error("Q203", message, term.span, help=help)
        return None
    high = MOST_EVALUATIONS
    options = [Option(name, "int", low=0, high=high) if one == "int" else Option(name, "str") for one in wanted]
    found = [read_option(context, option, one.value) for option, one in zip(options, given, strict=True)]
    if WRONG in found:
        return None
    values = tuple(one for one in found if isinstance(one, int | str))
    numbers = [one for one in values if isinstance(one, int)]
    if numbers != sorted(numbers):
        context.report.error("Q204", f"`{term.span.text}` ends before it begins", term.span, help="first, then last")
        return None
    return name, values
