"""Binding a policy to a graph: the cascade resolved for every weight, and the Plan that follows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import TypeVar, cast

from qcc.compiler.plan.activations import ActivationBinder
from qcc.compiler.plan.cascade import SPARSITY, Other, Resolved, counted, place, resolve, resolve_others
from qcc.compiler.plan.catalog import ADDITIVE, rewrites, subject_passes
from qcc.compiler.plan.costs import BITS, SIZE, Meter, costs_of, metric_of, subject_costs
from qcc.compiler.plan.filled import check_tied, combined, specs_of, warn_blind
from qcc.compiler.plan.formats import encoding_of
from qcc.compiler.plan.plan import Allocate, Candidate, Counted, Kept, Kernels, Limit, OpenChoice, Plan, PlanRow, Step
from qcc.compiler.plan.targets import runtime_chooser, target_of
from qcc.compiler.plan.terms import terms_of
from qcc.compiler.scores.check import DROP
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.options import options_of
from qcc.dsl.policy.policy import KEEP, Assignment, FormatSpec, Policy
from qcc.dsl.policy.schema import Off
from qcc.dsl.policy.select import GIVEN, asks_for_data, matches_glob
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.forms.choose import Chooser
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import Pass, Phase, Restructure, Rewrite, Rounding, SitePass
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.encode import Encode
from qcc.passes.half.half import Floats, Half
from qcc.passes.rounding.nearest import Nearest

BEFORE = (Phase.BRANCHES, Phase.STRUCTURE)
"""The phases whose passes change which weights there are, or their shapes."""
FALLBACK = "fallback"
"""The property that says what the weights that lose most become where a bound of ``verify`` fails."""
NO_ENCODINGS: Mapping[str, Encoding | None] = MappingProxyType({})
ActionT = TypeVar("ActionT", bound=Pass)


@dataclass(frozen=True)
class Earlier:
    """What has been done to the graph before rules are bound to it again: the steps, and the weights that it had."""

    steps: tuple[Step, ...] = ()
    weights: tuple[Weight, ...] = ()


def opened_by_data(policy: Policy, weights: Sequence[Weight]) -> tuple[str, ...]:
    """What given data would let layers become that none may without: a line each."""
    if not any(asks_for_data(rule.selector) for rule in policy.rules):
        return ()
    without, then = (resolve(policy, weights, Diagnostics(), given) for given in (False, True))
    opened: Counter[str] = Counter()
    for one, other in zip(without, then, strict=True):
        asked = other.properties.get("weights")
        if asked is not None and asked != one.properties.get("weights"):
            opened[asked.text] += 1
    text = "more to choose from where data is given (`--data FILE.npz`)"
    return tuple(f"{count} weight{'' if count == 1 else 's'}: {text}: {names}" for names, count in opened.items())


def bind(
    policy: Policy,
    graph: Graph,
    input_bytes: int,
    diagnostics: Diagnostics,
    chooser: Chooser | None = None,
    kernels: Kernels | None = None,
    meters: Sequence[Meter] = (),
    given: bool = True,
    earlier: Earlier | None = None,
) -> Plan:
    """The plan of a policy for a cleaned graph; undecided where a weight has several candidates.

    ``meters`` are of what the policy bounds or minimises beside bytes and loss. Data is ``given``, or generated.
    Where the steps that change the structure have run, ``earlier`` says so; else the plan has those that the policy
    asks for.
    """
    chooser = chooser or runtime_chooser(policy)
    resolved = resolve(policy, graph.weights(), diagnostics, given, earlier.weights if earlier else ())
    steps: dict[Encode, list[PlanRow]] = {}
    options, kept = [], []
    narrowest: dict[str, Encoding | None] = {}
    params = sum(one.weight.params for one in resolved)

    def costed(candidate: Candidate, weight: Weight) -> Candidate:
        half = policy.floats is not None
        return replace(candidate, costs=costs_of(weight, _encode(candidate), params, meters, half))

    named = target_of(policy).rounding_forms(policy.target.arguments)
    activations = ActivationBinder(graph, kernels, diagnostics, named)
    for one in resolved:
        asked = _candidates(one, chooser, diagnostics, given)
        possible = activations(one.weight, one.properties.get("activations"), asked)
        candidates = [costed(candidate, one.weight) for candidate in possible if _gains(one.weight, candidate)]
        narrowest[one.weight.name] = _narrowest(one.weight, candidates)
        encoded = [(one.action, one) for one in candidates if isinstance(one.action, Encode)]
        if not encoded:
            kept.append(Kept(one.weight.name, _why_kept(one)))
        elif len(candidates) == 1:
            action, chosen = encoded[0]
            steps.setdefault(action, []).append(chosen.row(one.weight.name))
        else:
            options.append(OpenChoice(one.weight.name, tuple(candidates)))
    activations.report()
    reference = {SIZE: float(input_bytes)} | {metric_of(one.name): one.whole for one in meters}
    metered = {one: [row.name for row in meters if metric_of(row.name) == one] or [one] for one in {*reference}}
    bounds = [one for one in policy.budget if one.metric != DROP and (given or one.argument != GIVEN)]
    limits = tuple(
        Limit(row, b.quantity.of(reference.get(b.metric, 1.0)), b.text)
        for b in bounds
        for row in metered.get(b.metric, [b.metric])
    )
    fixed = _fixed(resolved, steps, options, meters, policy.floats is not None)
    asked_of_others = resolve_others(policy, graph, diagnostics)
    stored, choices = bound_subjects(asked_of_others, diagnostics, meters)
    fixed |= _fixed_of_others(stored, choices, meters, fixed)
    _see_weighed(policy, choices, given, diagnostics)
    open_ = (*options, *choices)
    allocate = Allocate(policy.minimize, limits, open_, fixed) if open_ or limits else None
    if policy.metrics and allocate is not None:
        found = counted(policy, graph.weights(), diagnostics, given)
        allocate = replace(allocate, counted=_counted(found, options, diagnostics))
    first: Iterable[Step] = earlier.steps if earlier else ()
    if earlier is None:
        first = [*_depth_steps(policy, graph.weights(), diagnostics), *_asked_steps(resolved, BEFORE)]
    others = _other_steps(asked_of_others)
    done = (Step(Clean()), *first, *_asked_steps(resolved, (Phase.REWRITE,), narrowest), *others)
    done += (*_before_rounding(steps, options),)
    done += (*_asked_steps(resolved, (Phase.TUNE,)), *stored, *steps_of(steps))
    done += () if policy.floats is None else (Step(Half(cast(Floats, policy.floats.name))),)
    return Plan(done, tuple(kept), allocate, kernels, terms_of(policy))


def _before_rounding(steps: Mapping[Encode, Sequence[PlanRow]], options: Sequence[OpenChoice]) -> Iterable[Step]:
    """What ways to round activations want done to the graph, at the layers that are, or may be, rounded so."""
    pairs = [(action, name, value) for action, rows in steps.items() for name, _, value in rows]
    open_ = [(one.action, option.subject, one.value_source) for option in options for one in option.candidates]
    pairs += [(action, name, value) for action, name, value in open_ if isinstance(action, Encode)]
    found: dict[Rewrite, dict[str, str]] = {}
    for action, name, source in pairs:
        before = None if action.activations is None else action.activations.before()
        if before is not None:
            found.setdefault(before, {}).setdefault(name, source)
    for before, rows in found.items():
        yield Step(before, (*rows,), (*rows.values(),), (None,) * len(rows))


def _counted(
    found: Mapping[str, Sequence[str]], options: Sequence[OpenChoice], diagnostics: Diagnostics
) -> tuple[Counted, ...]:
    """What is open of the weights that count in each metric; a weight that counts in none could become anything."""
    open_ = [option.subject for option in options]
    missed = [name for name in open_ if not any(name in names for names in found.values())]
    if missed:
        more = f" and {len(missed) - 1:,} more" if missed[1:] else ""
        help = "let the selector of one of the metrics match them, or give them one format"
        diagnostics.error("Q672", f"`{missed[0]}`{more} has formats to choose from, and counts in no metric", help=help)
    return tuple(Counted(metric, tuple(name for name in open_ if name in {*names})) for metric, names in found.items())


def _fixed(
    resolved: Sequence[Resolved],
    steps: Mapping[Encode, Sequence[PlanRow]],
    open_: Sequence[OpenChoice],
    meters: Sequence[Meter],
    half: bool,
) -> dict[str, float]:
    """What all that is not open takes: its share of the average bits, and what meters tell.

    What is no weight's layer takes what it took.
    """
    params = sum(one.weight.params for one in resolved)
    undecided = {option.subject for option in open_}
    actions = {name: action for action, found in steps.items() for name, _, _ in found}
    rows = [
        costs_of(one.weight, actions.get(one.weight.name), params, meters, half)
        for one in resolved
        if one.weight.name not in undecided
    ]
    fixed = {one.name: max(one.rest + sum(row[one.name] for row in rows), 0.0) for one in meters}
    return {BITS: sum(row[BITS] for row in rows)} | fixed


def first_steps(policy: Policy, graph: Graph, given: bool, diagnostics: Diagnostics) -> tuple[Step, ...]:
    """The steps that a policy asks for before its rules are bound to what those leave; of rules nothing is told."""
    resolved = resolve(policy, graph.weights(), Diagnostics(), given)
    return (*_depth_steps(policy, graph.weights(), diagnostics), *_asked_steps(resolved, BEFORE))


def _depth_steps(policy: Policy, weights: Sequence[Weight], diagnostics: Diagnostics) -> Iterable[Step]:
    """What the block `depth` asks for, as far as it is decided."""
    steps = depth_steps(policy, weights, diagnostics)
    return (one for one in steps if not (isinstance(one.action, Restructure) and one.action.is_open()))


def depth_steps(policy: Policy, weights: Sequence[Weight], diagnostics: Diagnostics) -> Iterable[Step]:
    """What the block `depth` asks for: a weight is meant if a layer that reads it is."""
    for part in policy.depth:
        meant: dict[str, None] = {}
        for glob in part.globs:
            names = {one.name: [name for layer in one.layers for name in layer.names] for one in weights}
            found = [one for one, called in names.items() if any(matches_glob(glob, name) for name in called)]
            meant.update(dict.fromkeys(found))
            if not found:
                help = "`qcc inspect` lists the layers"
                diagnostics.error("Q521", f'no layer is called "{glob}"', part.span, help=help)
        if meant:
            yield Step(part.method, tuple(meant), (place(part.span),) * len(meant))


def _asked_steps(
    resolved: Sequence[Resolved], phases: Sequence[Phase], narrowest: Mapping[str, Encoding | None] = NO_ENCODINGS
) -> Iterable[Step]:
    """One step for each pass with its options, family by family; ``keep`` is about formats alone."""
    for family in rewrites(*phases):
        asked: dict[SitePass, list[tuple[str, str, Encoding | None]]] = {}
        for one in resolved:
            assignment = one.properties.get(family)
            if assignment is not None and isinstance(assignment.value, SitePass):
                name = one.weight.name
                asked.setdefault(assignment.value, []).append((name, place(assignment.span), narrowest.get(name)))
        for action, rows in asked.items():
            weights, sources, encodings = zip(*rows, strict=True)
            yield Step(action, weights, sources, encodings if narrowest else ())


def _other_steps(asked: Mapping[Other, Mapping[str, Assignment]]) -> Iterable[Step]:
    """One step for each pass over what is no layer, with its options."""
    for family in rewrites(Phase.REWRITE):
        found: dict[SitePass, list[tuple[str, str]]] = {}
        for one, properties in asked.items():
            assignment = properties.get(family)
            if assignment is not None and isinstance(assignment.value, SitePass):
                found.setdefault(assignment.value, []).append((one.name, place(assignment.span)))
        for action, rows in found.items():
            names, sources = zip(*rows, strict=True)
            yield Step(action, names, sources, (None,) * len(names))


def bound_subjects(
    asked: Mapping[Other, Mapping[str, Assignment]], diagnostics: Diagnostics, meters: Sequence[Meter] = ()
) -> tuple[list[Step], list[OpenChoice]]:
    """One step for each way to store what is no layer, and what has several ways to be stored."""
    steps, options = list[Step](), list[OpenChoice]()
    for definition in subject_passes().values():
        found: dict[SubjectPass, list[tuple[str, str]]] = {}
        for one, properties in asked.items():
            own = {name: properties[name] for name in options_of(definition) if name in properties}
            ways = _stored_so(definition, own, diagnostics) if own and one.subject in definition.subjects else []
            source = place(next(iter(own.values())).span) if own else ""
            if len(ways) == 1 and ways[0] is not None:
                found.setdefault(ways[0], []).append((one.name, source))
            elif len(ways) > 1:
                costed = (Candidate(way, source, subject_costs(one.name, way, meters)) for way in ways)
                options.append(OpenChoice(one.name, tuple(costed)))
        for action, rows in found.items():
            names, sources = zip(*rows, strict=True)
            steps.append(Step(action, names, sources))
    return steps, options


def _stored_so(
    definition: type[SubjectPass], asked: Mapping[str, Assignment], diagnostics: Diagnostics
) -> list[SubjectPass | None]:
    """What rules say of a subject, as passes: each format with each; None leaves it. Nothing where that is wrong."""
    given: dict[str, list[object]] = {}
    for name, one in asked.items():
        specs: tuple[FormatSpec, ...] = one.value if isinstance(one.value, tuple) else ()
        if len(specs) > 1 and not definition.weighed:
            help = f"keep one of {', '.join(f'`{spec.text}`' for spec in specs)}"
            diagnostics.error("Q690", f"`{name}` takes one format: no program chooses it", one.span, help=help)
            return []
        if not isinstance(one.value, Off):
            given[name] = [encoding_of(spec) for spec in specs] if specs else [one.value]
    try:
        actions = [definition(**dict(zip(given, each, strict=True))) for each in product(*given.values())]
    except ValueError as error:
        diagnostics.error("Q770", str(error), next(iter(asked.values())).span)
        return []
    if len(actions) > 1 or not actions[0].nothing:
        return list(dict.fromkeys(None if one.nothing else one for one in actions))
    if not any(isinstance(one.value, tuple | Off) for one in asked.values()):
        span = next(iter(asked.values())).span
        diagnostics.error("Q691", "the rule says how, and not what", span, help=f"write `{definition.wants}`")
    return []


def _fixed_of_others(
    steps: Sequence[Step], options: Sequence[OpenChoice], meters: Sequence[Meter], fixed: Mapping[str, float]
) -> dict[str, float]:
    """What all takes of rows that see what is no layer, with what of that is decided."""
    open_ = {option.subject for option in options}
    actions = {name: step.action for step in steps for name in step.weights}
    return {
        one.name: fixed[one.name]
        + sum(one.subject(name, actions.get(name)) for name in one.subjects if name not in open_)
        for one in meters
    }


def _see_weighed(policy: Policy, options: Sequence[OpenChoice], given: bool, diagnostics: Diagnostics) -> None:
    """Say so where what is no layer has several ways to be stored, and nothing tells which loses less."""
    if options and (not given or policy.minimize not in ADDITIVE):
        several = f"`{options[0].subject}` can be kept in {len(options[0].candidates)} ways, and "
        why, help = "without data nothing tells what each loses", 'name texts, `calibrate "text.npz"`'
        if given:
            why, help = f"`minimize {policy.minimize}` weighs no loss", f"`minimize {ADDITIVE[0]}`, and bound the rest"
        diagnostics.error("Q690", several + why, help=f"{help}, or keep one format")


def steps_of(steps: Mapping[ActionT, Sequence[PlanRow]]) -> Iterable[Step]:
    """One step for each action."""
    for action, rows in steps.items():
        weights, sources, values = zip(*rows, strict=True)
        yield Step(action, weights, sources, value_sources=values if any(values) else ())


def fallbacks(
    policy: Policy, weights: Sequence[Weight], chooser: Chooser, given: bool
) -> Mapping[str, tuple[Candidate, ...]]:
    """What each weight becomes if it loses too much: by name, to be tried in order."""
    found: dict[str, tuple[Candidate, ...]] = {}
    for one in resolve(policy, weights, Diagnostics(), given):
        asked = None if one.kept else one.properties.get(FALLBACK)
        ladder = [] if asked is None else _of(one, specs_of(asked), chooser)
        rungs = (rung for rung in ladder if _gains(one.weight, rung))
        rows = (replace(rung, costs=costs_of(one.weight, _encode(rung), 1)) for rung in rungs)
        found[one.weight.name] = tuple(rows)
    return {name: ladder for name, ladder in found.items() if ladder}


def _candidates(one: Resolved, chooser: Chooser, diagnostics: Diagnostics, given: bool) -> list[Candidate]:
    """What a weight may become by the formats that rules set, and by what leaves something out: each with each."""
    if one.kept:
        return []
    formats, others = one.properties.get("weights"), [one.properties.get(name) for name in one.filling]
    assert one.asked is not None
    kept: Sequence[FormatSpec] = (
        (FormatSpec("float", None, {}, one.asked.span),) if formats is None else specs_of(formats)
    )
    for asked in others:
        if asked is not None and not given and asked.name == SPARSITY:
            warn_blind(asked, diagnostics)
        kept = kept if asked is None else combined(asked, kept, diagnostics)
    return _of(one, check_tied(one.weight, kept, diagnostics), chooser)


def _of(one: Resolved, specs: Sequence[FormatSpec], chooser: Chooser) -> list[Candidate]:
    rounding = one.properties["rounding"].value if "rounding" in one.properties else Nearest()
    assert isinstance(rounding, Rounding)
    found = [_candidate(one.weight, spec, rounding, chooser) for spec in specs]
    return [candidate for candidate in found if candidate is not None]


def _encode(candidate: Candidate) -> Encode | None:
    return candidate.action if isinstance(candidate.action, Encode) else None


def _candidate(weight: Weight, spec: FormatSpec, rounding: Rounding, chooser: Chooser) -> Candidate | None:
    source = place(spec.span)
    encoding = encoding_of(spec)
    if encoding is None:
        return Candidate(None, source)
    if weight.given is not None and encoding.order[0] >= weight.given.bits:
        return None  # rounded twice to as many bits it would only lose
    return Candidate(Encode(encoding, rounding, chooser(weight, encoding).form), source)


def _gains(weight: Weight, candidate: Candidate) -> bool:
    """It makes the weight smaller, or multiplies integers, which is for speed."""
    action = candidate.action
    if not isinstance(action, Encode) or action.activations is not None:
        return True
    return action.form.stored_bytes(action.encoding, weight.shape) < weight.size_bytes


def _narrowest(weight: Weight, candidates: Sequence[Candidate]) -> Encoding | None:
    """The smallest of the encodings that a weight may get."""
    encodings = [candidate.action.encoding for candidate in candidates if isinstance(candidate.action, Encode)]
    return min(encodings, key=lambda encoding: encoding.size_bits(weight.shape), default=None)


def _why_kept(one: Resolved) -> str:
    assignment = one.asked
    if assignment is None:
        return "no rule sets its format"
    if assignment.value is KEEP:
        return f"keep, {place(assignment.span)}"
    if any(spec.family == "float" for spec in assignment.value):
        return f"float, {place(assignment.span)}"
    if one.weight.given is not None:
        return f"comes in {one.weight.given.text}, and no format asked for has fewer bits"
    return "encoded it would not be smaller"
