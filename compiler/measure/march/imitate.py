"""A graph that computes what a plan will make of it, before anything is stored."""

from qcc.compiler.plan.plan import Plan
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Tuning
from qcc.passes.contract.tunable import Tunable
from qcc.passes.encode import Encode


def tunables_of(graph: Graph, plan: Plan) -> list[Tunable]:
    """What the steps of a plan may tune, those apart where they refuse."""
    steps = [(step.action, step.weights) for step in plan.steps if isinstance(step.action, Tuning)]
    found = [one for action, weights in steps for one in action.tunables(graph, weights)]
    return [one for one in found if not one.refused]


def imitated(graph: Graph, plan: Plan, context: Context) -> Graph:
    """A copy that computes what the encoded graph will.

    Args:
        graph: before anything is stored.
        plan: decided.
        context: as for its passes.
    """
    copy = graph.copy()
    for step in plan.steps:
        if isinstance(step.action, Encode):
            step.action.imitate(copy, step.weights, context)
    return copy
