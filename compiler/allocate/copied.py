"""Where encoding gains nothing: the output is the input, and all that is told of it is told of that."""

from pathlib import Path

from qcc.compiler.allocate.settle import Settled
from qcc.compiler.build.run import Built
from qcc.compiler.plan.plan import Kept, Plan
from qcc.ir.graph.graph import Graph
from qcc.ir.model.model import AnyModel

REASON = "the output is a copy of the input, since the model gets no smaller"


def copy_plan(plan: Plan, graph: Graph) -> Plan:
    """The plan that does nothing, not even clean, instead of one that would gain nothing."""
    kept = {one.weight: one.reason for one in plan.kept}
    rows = tuple(Kept(weight.name, kept.get(weight.name, REASON)) for weight in graph.weights())
    return Plan((), rows, kernels=plan.kernels, terms=plan.terms)


def copies(plan: Plan) -> bool:
    """A plan does nothing: what it gives is the input."""
    return not plan.steps and plan.decided


def copied(model: AnyModel, graph: Graph, plan: Plan, staged: Path) -> Settled:
    """Copy a model to a file, under a plan that says so.

    Raises:
        OSError: it cannot be copied.
    """
    return Settled(copy_plan(plan, graph), Built(graph, ()), model.copy(staged))
