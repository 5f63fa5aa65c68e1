"""What a policy does to each layer of a model: the answer of ``qcc explain MODEL``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qcc.compiler.build.rewrite import prospects
from qcc.compiler.calibrate import samples
from qcc.compiler.console import terminal
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.choose_form import chooser_of
from qcc.compiler.plan.activations import rounded_reason
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.cascade import Resolved, place, resolve, resolve_others
from qcc.compiler.plan.formats import encoding_of
from qcc.compiler.plan.plan import Plan, Step
from qcc.compiler.plan.policy import load_policy
from qcc.compiler.plan.text import action_text
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.excerpt import escape
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.spelling import nearest
from qcc.dsl.policy.policy import KEEP, Assignment, FormatSpec, Policy
from qcc.dsl.policy.select import matches_glob
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.forms.choose import Chooser
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Site
from qcc.passes.encode import Encode


@dataclass(frozen=True)
class PropertyOrigin:
    """A property's final value and the place that set it; no place if it is a default."""

    name: str
    value: str
    source: str


@dataclass(frozen=True)
class Possibility:
    """A format that the policy names for a layer, and what would become of it."""

    format: str
    source: str
    survives: bool
    form: str
    size_bytes: int
    bits: float
    reason: str


@dataclass(frozen=True)
class Rewriting:
    """A site of a rewriting pass that concerns a layer, and why nothing can be done there, if so.

    A pass that is asked for and has no such site has one row without a site.
    """

    action: str
    site: str
    refused: str


@dataclass(frozen=True)
class Explanation:
    """All that a policy says of one weight."""

    name: str
    kinds: tuple[str, ...]
    shape: tuple[int, int]
    dtype: str
    size_bytes: int
    layers: tuple[str, ...]
    properties: tuple[PropertyOrigin, ...]
    possibilities: tuple[Possibility, ...]
    rewrites: tuple[Rewriting, ...]
    kept: str
    """Why it is kept; empty if it is not."""


@dataclass(frozen=True)
class OtherExplanation:
    """What a policy says of what is no layer."""

    name: str
    kind: str
    properties: tuple[PropertyOrigin, ...]


def explain_layers(model: Path, policy: str, definitions: Mapping[str, str], glob: str | None, format: str) -> int:
    """Print the explanation of every layer, or of those whose names match.

    Raises:
        QccError: the policy or the model is at fault, or no layer matches.
    """
    report = Diagnostics()
    loaded = load_policy(policy, definitions, report=report)
    opened = open_model(model)
    weights = opened.graph.weights()
    data = samples.generate(opened.graph, 1, 0)
    chooser = chooser_of(loaded, opened.graph, data, lambda text: terminal.note(f"timing {text}"))
    given = loaded.calibrate is not None and loaded.calibrate.path is not None
    plan = bind(loaded, opened.graph, opened.size_bytes, report, chooser, chooser.kernels, given=given)
    resolved = resolve(loaded, weights, Diagnostics(), given)
    sites = list(prospects(opened.graph, plan)) if not report.errors else []
    explained = [_explained(one, plan, sites, chooser) for one in resolved if _chosen(one.weight, glob)]
    others = [one for one in _others(loaded, opened.graph) if glob is None or matches_glob(glob, one.name)]
    if glob is not None and not explained and not others:
        raise _no_layer(glob, weights)
    diagnostics = (*report.errors, *report.warnings)
    if format == "json":
        layers = [asdict(one) for one in explained]
        told = terminal.as_json(diagnostics)
        more = {"others": [asdict(one) for one in others], "diagnostics": told}
        terminal.write_json({"model": str(model), "policy": policy, "layers": layers, **more})
    else:
        terminal.write("\n".join((*map(_text, explained), *map(_other_text, others))))
        terminal.report(diagnostics, format)
    return int(bool(report.errors))


def _others(policy: Policy, graph: Graph) -> list[OtherExplanation]:
    """What rules set that are about no layer."""
    return [
        OtherExplanation(one.name, one.subject, tuple(_property(key, found) for key, found in properties.items()))
        for one, properties in resolve_others(policy, graph, Diagnostics()).items()
    ]


def _other_text(one: OtherExplanation) -> str:
    lines = _aligned([(item.name, item.value, item.source) for item in one.properties])
    return _under(f"{one.name}  {one.kind}", lines)


def _chosen(weight: Weight, glob: str | None) -> bool:
    return glob is None or any(matches_glob(glob, name) for layer in weight.layers for name in layer.names)


def _no_layer(glob: str, weights: tuple[Weight, ...]) -> QccError:
    names = [layer.name for weight in weights for layer in weight.layers]
    near = nearest(glob, names)
    help = f"did you mean `{near}`?" if near else "`qcc inspect` lists the layers"
    return QccError([Diagnostic("Q303", f"no layer is called `{glob}`", help=help)])


def _explained(
    one: Resolved, plan: Plan, sites: Sequence[tuple[Step, Sequence[Site]]], chooser: Chooser
) -> Explanation:
    weight = one.weight
    kept = {kept.weight: kept.reason for kept in plan.kept}
    return Explanation(
        name=weight.name,
        kinds=tuple(sorted(weight.kinds)),
        shape=weight.shape,
        dtype=weight.given.text if weight.given else weight.dtype,
        size_bytes=weight.size_bytes,
        layers=tuple(layer.name for layer in weight.layers),
        properties=tuple(_property(name, assignment) for name, assignment in one.properties.items()),
        possibilities=_possibilities(one, plan, chooser),
        rewrites=tuple(_rewritings(weight.name, sites)),
        kept=kept.get(weight.name, ""),
    )


def _rewritings(name: str, sites: Sequence[tuple[Step, Sequence[Site]]]) -> Iterator[Rewriting]:
    for step, found in sites:
        action = action_text(step.action)
        about = [Rewriting(action, site.subject, site.refused) for site in found if name in site.layers]
        yield from about
        if name in step.weights and not about:
            yield Rewriting(action, "", "nothing to do")


def _property(name: str, assignment: Assignment) -> PropertyOrigin:
    return PropertyOrigin(name, assignment.text, assignment.span.location)


def _surviving(name: str, plan: Plan) -> set[str]:
    """The formats that the plan leaves a weight: one if it is decided, several if the allocator is to choose."""
    found = {
        step.action.encoding.text for step in plan.steps if isinstance(step.action, Encode) and name in step.weights
    }
    for option in plan.allocate.options if plan.allocate else ():
        if option.subject == name:
            found |= {candidate.text for candidate in option.candidates}
    return found


def _possibilities(one: Resolved, plan: Plan, chooser: Chooser) -> tuple[Possibility, ...]:
    assignment = one.properties.get("weights")
    if assignment is None or assignment.value is KEEP:
        return ()
    name = one.weight.name
    surviving, rounding = _surviving(name, plan), _rounding(name, plan)
    return tuple(
        _rounded(one.weight, spec, action)
        if (action := rounding.get(place(spec.span)))
        else _possibility(one.weight, spec, surviving, chooser)
        for spec in assignment.value
    )


def _rounding(name: str, plan: Plan) -> dict[str, Encode]:
    """What a weight may become with what its layers read encoded, by who asked for its format."""
    found = {
        source: step.action
        for step in plan.steps
        if isinstance(step.action, Encode)
        for weight, source, _ in step.rows
        if weight == name
    }
    for option in plan.allocate.options if plan.allocate else ():
        if option.subject == name:
            found |= {one.source: one.action for one in option.candidates if isinstance(one.action, Encode)}
    return {source: action for source, action in found.items() if action.activations is not None}


def _rounded(weight: Weight, spec: FormatSpec, action: Encode) -> Possibility:
    """A format of a layer with encoded activations."""
    encoding, form = action.encoding, action.form
    size = form.stored_bytes(encoding, weight.shape)
    bits = form.stored_as(encoding).bits_per_weight(weight.shape)
    return Possibility(encoding.text, spec.span.location, True, form.name, size, bits, rounded_reason(action))


def _possibility(weight: Weight, spec: FormatSpec, surviving: set[str], chooser: Chooser) -> Possibility:
    encoding = encoding_of(spec)
    if encoding is None:
        bits, original = 8 * weight.size_bytes / max(weight.params, 1), weight.size_bytes
        return Possibility(spec.text, spec.span.location, True, "", original, bits, "as it is")
    choice = chooser(weight, encoding)
    size = choice.form.stored_bytes(encoding, weight.shape)
    survives = encoding.text in surviving
    reason = choice.reason if survives else _why_not(weight, encoding, size)
    bits = encoding.bits_per_weight(weight.shape)
    return Possibility(encoding.text, spec.span.location, survives, choice.form.name, size, bits, reason)


def _why_not(weight: Weight, encoding: Encoding, size: int) -> str:
    if weight.given is not None and encoding.order[0] >= weight.given.bits:
        return f"no fewer bits than it comes in: {weight.given.text}"
    return "no smaller than the original" if size >= weight.size_bytes else "not for this layer"


def _text(one: Explanation) -> str:
    head = f"{one.name}  {'+'.join(one.kinds)} {one.shape[0]}x{one.shape[1]} {one.dtype}, {one.size_bytes:,} bytes"
    lines = []
    if len(one.layers) > 1:
        lines.append(escape(f"    tied: {', '.join(one.layers)}"))
    rows = [(item.name, item.value, item.source) for item in one.properties]
    lines += _aligned(rows)
    lines += _aligned([_possibility_cells(item) for item in one.possibilities])
    lines += _aligned([_rewriting_cells(item) for item in one.rewrites])
    if one.kept:
        lines.append(escape(f"    -> kept: {one.kept}"))
    elif sum(item.survives for item in one.possibilities) > 1:
        lines.append("    -> the allocator chooses")
    return _under(head, lines)


def _under(head: str, lines: Sequence[str]) -> str:
    """Lines under a head, which keep to a terminal's width."""
    return "\n".join((terminal.paint(terminal.kept_to(escape(head)), "bold"), *map(terminal.kept_to, lines))) + "\n"


def _possibility_cells(item: Possibility) -> tuple[str, ...]:
    mark = "+" if item.survives else "x"
    return f"{mark} {item.format}", item.form or "-", f"{item.size_bytes:,} bytes", f"{item.bits:.2f} bits", item.reason


def _rewriting_cells(item: Rewriting) -> tuple[str, ...]:
    return f"{'x' if item.refused else '+'} {item.action}", item.site or "-", item.refused


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        escape("    " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        for row in rows
    ]
