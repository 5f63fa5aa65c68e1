"""The statement ``metric``: which layers count in which metric, where several decide."""

from collections.abc import Iterable, Mapping

from qcc.dsl.check.context import CheckState
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.dsl.policy.metrics import MetricOn, worst_of
from qcc.dsl.policy.policy import Bound
from qcc.dsl.policy.select import Selector
from qcc.dsl.syntax import tree as syntax

ON = "on"


def read_metric_line(context: CheckState, node: syntax.MetricLine, selector: Selector | None) -> dict[str, MetricOn]:
    """The metric with its layers, by its name; nothing if it's wrong, which is reported."""
    name, known = node.metric.text, context.schema.additive
    if node.joint.text != ON:
        message = f"expected `{ON}` behind `metric {name}`, found `{node.joint.text}`"
        context.report.error("Q260", message, node.joint.span, help=f"write `metric {name} {ON} linear`")
        return {}
    if name not in known:
        message = f"`{name}` is no metric that adds up over layers"
        context.report.error("Q260", message, node.metric.span, help=did_you_mean(name, known, "metric"))
        return {}
    return {} if selector is None else {name: MetricOn(name, selector, node.span)}


def see_metrics(
    context: CheckState, metrics: Mapping[str, MetricOn], minimize: str | None, bounds: Iterable[Bound], whole: Span
) -> None:
    """Say where a metric that decides has no layers of its own, or one that has some decides nothing."""
    worst, bounded = worst_of(minimize or ""), {one.metric for one in bounds}
    for name in worst:
        if name not in metrics:
            help = f"write `metric {name} {ON} SELECTOR`"
            context.report.error("Q261", f"nothing says which layers count in `{name}`", whole, help=help)
    for name, one in metrics.items():
        if name not in worst and name not in bounded:
            help = f"write `minimize max(..., {name})`, or bound it in `budget`"
            context.report.error("Q261", f"`{name}` decides nothing", one.span or whole, help=help)
