"""Binding a policy to a graph: the cascade resolved for every weight, and the Plan that follows."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from qcc.compiler.plan.activations import ActivationBinder
from qcc.compiler.plan.catalog import rewrites
from qcc.compiler.plan.formats import encoding_of
from qcc.compiler.plan.plan import Allocate, Candidate, Kept, Kernels, Limit, OpenChoice, Plan, Step
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.policy.policy import KEEP, Assignment, FormatSpec, Policy, Rule
from qcc.dsl.policy.select import GENERATED, GIVEN, Facts, asks_for_data, has_predicate, matches, near_misses
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.forms.choose import Choice, choose
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.passes.clean import Clean
from qcc.passes.contract.contract import Rewrite, Rounding
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest

Chooser = Callable[[Weight, Encoding], Choice]
"""Finds the form of a weight under an encoding."""


@dataclass(frozen=True)
class Latency:
    """What the model takes for one sample, in seconds on one thread, and what a weight's layers do under an action."""

    model_s: float
    of: Callable[[Weight, Encode | None], float]


@dataclass(frozen=True)
class Resolved:
    """A weight and what the cascade left of the rules that match it, property by property."""

    weight: Weight
    properties: dict[str, Assignment] = field(hash=False)

    @property
    def kept(self) -> bool:
        """The last word on the weight is to leave it alone."""
        value = self.properties.get("weights")
        return value is None or value.value is KEEP


def facts(weights: Sequence[Weight], given: bool) -> list[list[Facts]]:
    """What selectors see of each weight: one entry for each layer that reads it; data may be ``given``."""
    return [
        [
            Facts(
                name=layer.name,
                kinds=frozenset({layer.kind.value}),
                params=weight.params,
                outputs=weight.shape[0],
                inputs=weight.view.shape[1] * layer.groups if layer.kernel else weight.shape[1],
                dtype=weight.dtype,
                position=position,
                count=len(weights),
                kernel=layer.kernel,
                data=GIVEN if given else GENERATED,
            )
            for layer in weight.layers
        ]
        for position, weight in enumerate(weights)
    ]


def resolve(policy: Policy, weights: Sequence[Weight], diagnostics: Diagnostics, given: bool) -> list[Resolved]:
    """Apply the rules in order; a rule matches a weight if it matches a layer that reads it.

    A rule about given data may match nothing without: it would with other data.
    """
    seen, otherwise = facts(weights, given), facts(weights, not given)
    properties: list[dict[str, Assignment]] = [{} for _ in weights]
    for rule in policy.rules:
        hits = _hits(rule, seen)
        if not hits and not rule.from_preset and not (asks_for_data(rule.selector) and _hits(rule, otherwise)):
            _report_unmatched(rule, [layer for layers in seen for layer in layers], diagnostics)
        for at in hits:
            for assignment in rule.assignments:
                properties[at]["weights" if assignment.value is KEEP else assignment.name] = assignment
    return [Resolved(weight, found) for weight, found in zip(weights, properties, strict=True)]


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


def _hits(rule: Rule, seen: Sequence[Sequence[Facts]]) -> list[int]:
    return [at for at, layers in enumerate(seen) if any(matches(rule.selector, layer) for layer in layers)]


def bind(
    policy: Policy,
    graph: Graph,
    input_bytes: int,
    diagnostics: Diagnostics,
    chooser: Chooser = choose,
    kernels: Kernels | None = None,
    latency: Latency | None = None,
    given: bool = True,
) -> Plan:
    """The plan of a policy for a cleaned graph; undecided where a weight has several candidates.

    ``latency`` is needed where the policy bounds or minimises it. Data is ``given``, or generated.
    """
    resolved = resolve(policy, graph.weights(), diagnostics, given)
    steps: dict[Encode, list[tuple[str, str]]] = {}
    options, kept = [], []
    narrowest: dict[str, Encoding | None] = {}
    activations = ActivationBinder(kernels, diagnostics)
    for one in resolved:
        possible = activations(one.weight, one.properties.get("activations"), _candidates(one, chooser))
        candidates = [_timed(candidate, one.weight, latency) for candidate in possible]
        narrowest[one.weight.name] = _narrowest(one.weight, candidates)
        encoded = [candidate for candidate in candidates if candidate.action is not None]
        if not encoded:
            kept.append(Kept(one.weight.name, _why_kept(one)))
        elif len(candidates) == 1 and encoded[0].action is not None:
            steps.setdefault(encoded[0].action, []).append((one.weight.name, encoded[0].source))
        else:
            options.append(OpenChoice(one.weight.name, tuple(candidates)))
    activations.report()
    reference = {"size": float(input_bytes), "latency": latency.model_s * 1e3 if latency else 1.0}
    bounds = [bound for bound in policy.budget if given or bound.argument != GIVEN]
    limits = tuple(Limit(b.metric, b.quantity.of(reference.get(b.metric, 1.0)), b.text) for b in bounds)
    fixed_ms = 0.0 if latency is None else 1e3 * _fixed_seconds(latency, resolved, steps, options)
    allocate = Allocate(policy.minimize, limits, tuple(options), fixed_ms) if options or limits else None
    done = (Step(Clean()), *_rewrite_steps(resolved, narrowest), *encode_steps(steps))
    return Plan(done, tuple(kept), allocate, kernels)


def _timed(candidate: Candidate, weight: Weight, latency: Latency | None) -> Candidate:
    return candidate if latency is None else replace(candidate, latency_ms=1e3 * latency.of(weight, candidate.action))


def _fixed_seconds(
    latency: Latency,
    resolved: Sequence[Resolved],
    steps: dict[Encode, list[tuple[str, str]]],
    open: Sequence[OpenChoice],
) -> float:
    """What the model will take apart from the weights that are still open: what is not linear takes what it took."""
    weights = {one.weight.name: one.weight for one in resolved}
    undecided = {option.weight for option in open}
    total = latency.model_s - sum(latency.of(weight, None) for name, weight in weights.items())
    actions = {name: action for action, pairs in steps.items() for name, _ in pairs}
    total += sum(latency.of(weight, actions.get(name)) for name, weight in weights.items() if name not in undecided)
    return max(total, 0.0)


def _rewrite_steps(resolved: Sequence[Resolved], narrowest: dict[str, Encoding | None]) -> Iterable[Step]:
    """One step for each rewriting pass with its options, family by family; ``keep`` is about formats alone."""
    for family in rewrites():
        asked: dict[Rewrite, list[tuple[str, str, Encoding | None]]] = {}
        for one in resolved:
            assignment = one.properties.get(family)
            if assignment is not None and isinstance(assignment.value, Rewrite):
                name = one.weight.name
                asked.setdefault(assignment.value, []).append((name, place(assignment.span), narrowest[name]))
        for action, rows in asked.items():
            weights, sources, encodings = zip(*rows, strict=True)
            yield Step(action, weights, sources, encodings)


def encode_steps(steps: dict[Encode, list[tuple[str, str]]]) -> Iterable[Step]:
    """One step for each way to encode."""
    for action, pairs in steps.items():
        yield Step(action, tuple(name for name, _ in pairs), tuple(source for _, source in pairs))


def _candidates(one: Resolved, chooser: Chooser) -> list[Candidate]:
    if one.kept:
        return []
    assignment = one.properties["weights"]
    rounding = one.properties["rounding"].value if "rounding" in one.properties else Nearest()
    assert isinstance(assignment.value, tuple) and isinstance(rounding, Rounding)
    found = [_candidate(one.weight, spec, rounding, chooser) for spec in assignment.value]
    return [candidate for candidate in found if candidate is not None]


def _candidate(weight: Weight, spec: FormatSpec, rounding: Rounding, chooser: Chooser) -> Candidate | None:
    source = place(spec.span)
    encoding = encoding_of(spec)
    if encoding is None:
        return Candidate(None, source)
    form = chooser(weight, encoding).form
    if form.stored_bytes(encoding, weight.shape) >= weight.size_bytes:
        return None
    return Candidate(Encode(encoding, rounding, form), source)


def _narrowest(weight: Weight, candidates: Sequence[Candidate]) -> Encoding | None:
    """The smallest of the encodings that a weight may get."""
    encodings = [candidate.action.encoding for candidate in candidates if candidate.action is not None]
    return min(encodings, key=lambda encoding: encoding.size_bits(weight.shape), default=None)


def place(span: Span) -> str:
    """Where a rule stands, without the folder: how a policy's path was spelled must not change what is written."""
    name = span.source.name if span.source.preset else PurePath(span.source.name).name
    return f"{name}:{span.line}:{span.column}"


def _why_kept(one: Resolved) -> str:
    assignment = one.properties.get("weights")
    if assignment is None:
        return "no rule sets its format"
    if assignment.value is KEEP:
        return f"keep, {place(assignment.span)}"
    if any(spec.family == "float" for spec in assignment.value):
        return f"float, {place(assignment.span)}"
    return "encoded it would not be smaller"


def _report_unmatched(rule: Rule, layers: list[Facts], diagnostics: Diagnostics) -> None:
    message = f"no layer matches `{rule.selector.text}`"
    misses = near_misses(rule.selector, layers)
    note = "; ".join(misses) if misses else None
    if has_predicate(rule.selector):
        diagnostics.error("Q301", message, rule.selector.span, help="`qcc inspect` lists the layers", note=note)
    else:
        diagnostics.warning("Q302", message, rule.selector.span, note=note)
