"""Bounds: `size <= 25%` against what the schema says of `size`."""

from collections.abc import Mapping

from qcc.dsl.check.context import CheckState, kind_of, only_literal
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.metrics import WORST
from qcc.dsl.policy.policy import Bound, Quantity
from qcc.dsl.policy.schema import Metric
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.literals import FAMILIES


def read_bound(
    context: CheckState,
    node: syntax.BoundTree,
    block: str,
    metrics: Mapping[str, Metric],
    elsewhere: Mapping[str, Metric],
) -> Bound | None:
    """A bound with its quantity in base units; None if it's wrong, which is reported."""
    metric = metrics.get(node.metric.text)
    if metric is None:
        _unknown_metric(context, node, block, metrics, elsewhere)
        return None
    said = _said(context, node, metric)
    if node.relation != metric.relation:
        other = "a smaller one is better" if metric.relation == "<=" else "a larger one is better"
        message = f"`{metric.name}` is bounded with `{metric.relation}`, not `{node.relation}`"
        help = f"did you mean `{metric.relation}`?"
        context.report.error("Q213", message, node.relation_span, help=help, note=f"{other}")
        said = None
    quantity = _quantity(context, node, metric)
    if quantity is None or said is None:
        return None
    return Bound(metric.name, said[0], node.relation, quantity, node.span, said[1])


def _unknown_metric(
    context: CheckState,
    node: syntax.BoundTree,
    block: str,
    metrics: Mapping[str, Metric],
    elsewhere: Mapping[str, Metric],
) -> None:
    name = node.metric.text
    help = did_you_mean(name, metrics, "metric")
    if name in elsewhere:
        help = f"`{name}` belongs in `{'verify' if block == 'budget' else 'budget'} {{ }}`"
    known = f"`{block}` knows {', '.join(f'`{one}`' for one in metrics)}" if help and "expected" not in help else None
    context.report.error("Q212", f"unknown metric of `{block}`: `{name}`", node.metric.span, help=help, note=known)


Counts = tuple[tuple[str, int], ...]


def _said(context: CheckState, node: syntax.BoundTree, metric: Metric) -> tuple[str | None, Counts] | None:
    """What stands in the parentheses: a word, or counts by name; None if it's wrong, which is reported."""
    if not node.arguments and (metric.optional or not metric.arguments):
        return None, ()
    if not node.arguments:
        message = f"`{metric.name}` needs to know of what"
        help = f"write `{metric.name}({metric.arguments[0]})`"
        context.report.error("Q212", message, node.metric.span, help=help)
        return None
    first = node.arguments[0]
    if metric.counts and any(one.name is not None for one in node.arguments):
        return _counts(context, node, metric)
    literal = only_literal(first.value)
    word = None if literal is None or first.name is not None else context.literal(literal)
    if isinstance(word, syntax.Name) and len(node.arguments) == 1 and word.text in metric.arguments:
        return word.text, ()
    wrong = next((one for one in node.arguments[1:]), first)
    message = f"unknown argument of `{metric.name}`: `{wrong.span.text}`"
    help = did_you_mean(wrong.span.text, metric.arguments) or f"write `{metric.name}` alone"
    context.report.error("Q212", message, wrong.span, help=help)
    return None


def _counts(context: CheckState, node: syntax.BoundTree, metric: Metric) -> tuple[None, Counts] | None:
    found: dict[str, int] = {}
    usual = ", ".join(f"{name} = 512" for name in metric.counts)
    for one in node.arguments:
        name = "" if one.name is None else one.name.text
        literal = only_literal(one.value)
        number = None if literal is None else context.literal(literal)
        quantity = context.quantity(number) if isinstance(number, syntax.WrittenNumber) else None
        if name not in metric.counts or name in found:
            message = f"unknown argument of `{metric.name}`: `{one.span.text}`"
            context.report.error("Q212", message, one.span, help=f"write `{metric.name}({usual})`")
            return None
        if quantity is None or quantity.unit or quantity.value < 1 or quantity.value % 1 or quantity.value > 1e9:
            context.report.error("Q203", f"`{name}` takes a whole number of tokens", one.span, help="such as `2k`")
            return None
        found[name] = int(quantity.value)
    if missing := [name for name in metric.counts if name not in found]:
        message = f"`{metric.name}` needs to know `{missing[0]}`, too"
        context.report.error("Q212", message, node.metric.span, help=f"write `{metric.name}({usual})`")
        return None
    return None, tuple((name, found[name]) for name in metric.counts)


def _quantity(context: CheckState, node: syntax.BoundTree, metric: Metric) -> Quantity | None:
    literal = context.literal(node.quantity)
    if literal is None:
        return None
    wanted = " or ".join(FAMILIES[unit] for unit in metric.units)
    if not isinstance(literal, syntax.WrittenNumber):
        message = f"`{metric.name}` takes {wanted}, not {kind_of(literal)}"
        context.report.error("Q203", message, literal.span)
        return None
    quantity = context.quantity(literal)
    if quantity is None:
        return None
    # "sqnr >= 30" and "sqnr >= 30 dB" say the same.
    if not quantity.unit and "" in metric.units:
        quantity = Quantity(quantity.value, next(iter(metric.units)))
    if quantity.unit not in metric.units:
        help = None
        if not quantity.unit and "%" in metric.units:
            scaled = quantity.value * 100 if quantity.value <= 1 else quantity.value
            help = f"did you mean `{scaled:g}%`?"
        elif quantity.unit == "%" and "" in metric.units:
            help = f"did you mean `{quantity.value / 100:g}`?"
        message = f"`{metric.name}` takes {wanted}, not {kind_of(literal)}"
        context.report.error("Q215", message, literal.span, help=help)
        return None
    low, high = metric.units[quantity.unit]
    if low < quantity.value <= high:
        return quantity
    limits = f"above {Quantity(low, quantity.unit).text}"
    if high < float("inf"):
        limits += f" and at most {Quantity(high, quantity.unit).text}"
    context.report.error("Q214", f"no model has `{node.span.text}`", node.span, help=f"`{metric.name}` is {limits}")
    return None


def check_objective(context: CheckState, line: syntax.MinimizeLine) -> str | None:
    """What `minimize` names; None if it's unknown, which is reported."""
    name = line.objective
    if line.among:
        return _worst(context, line)
    if name.text in context.schema.objectives:
        return name.text
    help = did_you_mean(name.text, context.schema.objectives, "objective")
    context.report.error("Q228", f"unknown objective `{name.text}`", name.span, help=help)
    return None


def _worst(context: CheckState, line: syntax.MinimizeLine) -> str | None:
    """The largest of several metrics, as one text."""
    if line.objective.text != WORST:
        message = f"`minimize` takes no `{line.objective.text}(...)`"
        context.report.error("Q228", message, line.objective.span, help=f"write `minimize {WORST}(content, quality)`")
        return None
    names = []
    for argument in line.among:
        literal = only_literal(argument.value)
        word = None if literal is None or argument.name is not None else context.literal(literal)
        if not isinstance(word, syntax.Name) or word.text not in context.schema.additive:
            help = did_you_mean(argument.span.text, context.schema.additive, "metric")
            context.report.error("Q228", f"unknown objective `{argument.span.text}`", argument.span, help=help)
            return None
        names.append(word.text)
    return f"{WORST}({', '.join(dict.fromkeys(names))})"
