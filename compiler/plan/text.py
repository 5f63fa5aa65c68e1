"""A plan as stable text."""

from collections.abc import Iterable

from qcc.compiler.plan.catalog import keyword_of
from qcc.compiler.plan.plan import Plan
from qcc.compiler.plan.serial import VERSION
from qcc.dsl.policy.policy import options_text
from qcc.passes.contract.contract import Activations, Pass, Rounding, SitePass
from qcc.passes.encode import Encode


def to_text(plan: Plan) -> str:
    """Stable text, one line a weight."""
    lines = [f"plan {VERSION}", *plan.terms] + ([f"kernels {plan.kernels.text}"] if plan.kernels else [])
    for step in plan.steps:
        lines.append(action_text(step.action))
        lines += _columns(zip(step.weights, step.sources, strict=True))
    if plan.allocate is not None:
        bounds = "".join(f", {limit.metric} <= {limit.bound:.10g}" for limit in plan.allocate.limits)
        lines.append(f"allocate minimize {plan.allocate.objective}{bounds}")
        lines += _columns(
            (option.subject, " | ".join(one.text for one in option.candidates)) for option in plan.allocate.options
        )
    if plan.kept:
        lines.append("keep")
        lines += _columns((kept.weight, kept.reason) for kept in plan.kept)
    return "\n".join(lines) + "\n"


def action_text(action: Pass | Rounding | Activations) -> str:
    """A pass as it would be written: keyword and options."""
    if isinstance(action, Encode):
        inputs = "" if action.activations is None else f", activations {action_text(action.activations)}"
        return f"encode {action.encoding.text}, rounding {action_text(action.rounding)}{inputs}, {action.form}"
    options = [f"{name} = {text}" for name, text in options_text(action).items()]  # type: ignore[arg-type]
    owner = f"{action.property} = " if isinstance(action, SitePass) else ""
    return owner + keyword_of(type(action)) + (f"({', '.join(options)})" if options else "")


def _columns(pairs: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(pairs)
    width = max((len(left) for left, _ in rows), default=0)
    return [f"    {left:<{width}}  {right}".rstrip() for left, right in rows]
