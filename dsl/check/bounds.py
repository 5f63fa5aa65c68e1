"""Bounds: `size <= 25%` against what the schema says of `size`."""

from collections.abc import Mapping
from itertools import chain

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
    word, found = None, dict[str, int]()
    for one in node.arguments:
        if word is None and (said := _word(context, one, metric)) is not None:
            word = said
        elif one.name is not None and one.name.text in chain(*metric.counts) and one.name.text not in found:
            count = _count(context, one)
            if count is None:
                return None
            found[one.name.text] = count
        else:
            message = f"unknown argument of `{metric.name}`: `{one.span.text}`"
            help = did_you_mean(one.span.text, metric.arguments) or f"write {_usual(metric)}"
            context.report.error("Q212", message, one.span, help=help)
            return None
    for group in metric.counts:
        missing = [name for name in group if name not in found]
        if missing and len(missing) < len(group):
            message = f"`{metric.name}` needs to know `{missing[0]}`, too"
            context.report.error("Q212", message, node.metric.span, help=f"write {_usual(metric)}")
            return None
    return word, tuple((name, found[name]) for name in chain(*metric.counts) if name in found)


def _word(context: CheckState, argument: syntax.Argument, metric: Metric) -> str | None:
    """What an argument without a name says, where the metric knows it."""
    literal = only_literal(argument.value)
    word = None if literal is None or argument.name is not None else context.literal(literal)
    return word.text if isinstance(word, syntax.Name) and word.text in metric.arguments else None


def _count(context: CheckState, argument: syntax.Argument) -> int | None:
    """A whole number from 1; None if it is none, which is reported."""
    assert argument.name is not None
    literal = only_literal(argument.value)
    number = None if literal is None else context.literal(literal)
    quantity = context.quantity(number) if isinstance(number, syntax.WrittenNumber) else None
    if quantity is None or quantity.unit or quantity.value < 1 or quantity.value % 1 or quantity.value > 1e9:
        context.report.error("Q203", f"`{argument.name.text}` takes a whole number", argument.span, help="such as `2`")
        return None
    return int(quantity.value)


def _usual(metric: Metric) -> str:
    """How a metric's parentheses may be filled."""
    spelled = [", ".join(f"{name} = 512" for name in group) for group in metric.counts if len(group) > 1]
    spelled += [f"{group[0]} = 2" for group in metric.counts if len(group) == 1]
    return " or ".join(f"`{metric.name}({one})`" for one in spelled) or f"`{metric.name}` alone"


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
