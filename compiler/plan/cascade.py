"""The cascade: what the rules of a policy that match a weight, or another subject, leave of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from qcc.compiler.plan.catalog import subjects
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.policy.metrics import MetricOn
from qcc.dsl.policy.policy import KEEP, Assignment, Policy, Rule
from qcc.dsl.policy.select import GENERATED, GIVEN, Facts, asks_for_data, classes, has_predicate, matches, near_misses
from qcc.ir.attention.find import attention_names, cache_names
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Weight
from qcc.ir.regions.functions import functions

SPARSITY = "sparsity"
"""The property that says which weights are left out."""
ROWS = "rows"
"""The property that says which rows of a table become one."""


def place(span: Span) -> str:
    """Where a rule stands, without the folder: how a policy's path was spelled must not change what is written."""
    name = span.source.name if span.source.preset else PurePath(span.source.name).name
    return f"{name}:{span.line}:{span.column}"


@dataclass(frozen=True)
class Resolved:
    """A weight and what the cascade left of the rules that match it, property by property."""

    weight: Weight
    properties: dict[str, Assignment] = field(hash=False)

    @property
    def kept(self) -> bool:
        """The last word on the weight is to leave it alone."""
        value = self.asked
        return value is None or value.value is KEEP

    @property
    def asked(self) -> Assignment | None:
        """What says how the weight is stored: its formats, or if there are none what leaves something out."""
        return next((self.properties[name] for name in ("weights", *self.filling) if name in self.properties), None)

    @property
    def filling(self) -> tuple[str, ...]:
        """The properties that may leave something of the weight out, from the inside out."""
        return (SPARSITY, ROWS) if Kind.EMBEDDING in self.weight.kinds else (SPARSITY,)


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
                groups=layer.groups,
                op=layer.function,
                bytes=weight.size_bytes,
                data=GIVEN if given else GENERATED,
                others=layer.names[1:],
            )
            for layer in weight.layers
        ]
        for position, weight in enumerate(weights)
    ]


def resolve(
    policy: Policy, weights: Sequence[Weight], diagnostics: Diagnostics, given: bool, before: Sequence[Weight] = ()
) -> list[Resolved]:
    """Apply the rules in order; a rule matches a weight if it matches a layer that reads it.

    A rule about given data may match nothing without: it would with other data. One that matched a weight that the
    graph had ``before`` did match.
    """
    seen, otherwise = facts(weights, given), [*facts(before, given), *facts(weights, not given)]
    had = facts(before, given)
    properties: list[dict[str, Assignment]] = [{} for _ in weights]
    for rule in (rule for rule in policy.rules if _about_layers(rule)):
        hits = _hits(rule, seen)
        elsewhere = otherwise if asks_for_data(rule.selector) else had
        if not hits and not rule.from_preset and not _hits(rule, elsewhere):
            _report_unmatched(rule, [layer for layers in seen for layer in layers], diagnostics)
        for at in hits:
            for assignment in rule.assignments:
                properties[at]["weights" if assignment.value is KEEP else assignment.name] = assignment
    return [Resolved(weight, found) for weight, found in zip(weights, properties, strict=True)]


def other_subjects(graph: Graph, subject: str) -> tuple[str, ...]:
    """What rules may be about beside layers, by name."""
    found = {"attention": attention_names, "cache": cache_names}.get(subject)
    return found(graph) if found is not None else tuple(one.name for one in functions(graph, (subject,)))


@dataclass(frozen=True)
class Other:
    """What a rule is about that is no layer: its class, and its name among those."""

    subject: str
    name: str


def other_facts(graph: Graph) -> list[list[Facts]]:
    """What selectors see of what is no layer."""
    return [[one] for subject in subjects() for one in _facts_of(other_subjects(graph, subject), subject)]


def resolve_others(policy: Policy, graph: Graph, diagnostics: Diagnostics) -> dict[Other, dict[str, Assignment]]:
    """Apply the rules about what is no layer: by subject, what they set, property by property."""
    found: dict[Other, dict[str, Assignment]] = {}
    for rule in policy.rules:
        names = {one: other_subjects(graph, one) for one in _subjects(rule)}
        named = [Other(one, name) for one in names for name in names[one]]
        seen = [[fact] for one in names for fact in _facts_of(names[one], one)]
        hits = _hits(rule, seen)
        if names and not hits and not rule.from_preset:
            _report_unmatched(rule, [one for ones in seen for one in ones], diagnostics)
        for at in hits:
            found.setdefault(named[at], {}).update({one.name: one for one in rule.assignments})
    return found


def _subjects(rule: Rule) -> list[str]:
    """What a rule is about that is no layer."""
    named = classes(rule.selector)
    return [one for one in subjects() if one in named]


def _about_layers(rule: Rule) -> bool:
    """A rule is about layers, maybe among others."""
    return not _subjects(rule) or len(classes(rule.selector)) > len(_subjects(rule))


def _facts_of(names: Sequence[str], subject: str) -> list[Facts]:
    kinds, count = frozenset({subject}), len(names)
    return [Facts(name, kinds, 0, 0, 0, "", at, count, op=subject) for at, name in enumerate(names)]


def counted(policy: Policy, weights: Sequence[Weight], diagnostics: Diagnostics, given: bool) -> dict[str, list[str]]:
    """The weights that count in each metric that has layers of its own."""
    seen, found = facts(weights, given), dict[str, list[str]]()
    for one in policy.metrics:
        hits = _hits(one, seen)
        if not hits:
            _report_unmatched(one, [layer for layers in seen for layer in layers], diagnostics)
        found[one.metric] = [weights[at].name for at in hits]
    return found


def _hits(rule: Rule | MetricOn, seen: Sequence[Sequence[Facts]]) -> list[int]:
    return [at for at, layers in enumerate(seen) if any(matches(rule.selector, layer) for layer in layers)]


def _report_unmatched(rule: Rule | MetricOn, layers: list[Facts], diagnostics: Diagnostics) -> None:
    message = f"no layer matches `{rule.selector.text}`"
    misses = near_misses(rule.selector, layers)
    note = "; ".join(misses) if misses else None
    if has_predicate(rule.selector):
        diagnostics.error("Q301", message, rule.selector.span, help="`qcc inspect` lists the layers", note=note)
    else:
        diagnostics.warning("Q302", message, rule.selector.span, note=note)
