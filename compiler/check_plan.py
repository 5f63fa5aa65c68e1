"""Whether a plan fits a model."""

from pathlib import Path

from qcc.compiler.plan import Plan
from qcc.ir.errors import ModelError
from qcc.ir.onnx_graph import OnnxGraph


def check_plan(plan: Plan, graph: OnnxGraph, model: Path) -> None:
    """See that a plan names weights of the model alone.

    Raises:
        ModelError: it names others.
    """
    named = [name for step in plan.steps for name in step.weights] + [kept.weight for kept in plan.kept]
    missing = sorted(set(named) - {weight.name for weight in graph.weights()})
    if missing:
        help = "a plan fits the model that it was made for"
        raise ModelError("Q431", f"the plan is for another model: `{model}` has no weight `{missing[0]}`", help=help)
