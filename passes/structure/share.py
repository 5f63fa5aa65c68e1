"""Neighbouring blocks that share their weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.ir.regions.residual import ResidualBranch, residual_branches
from qcc.passes.contract.contract import Between, Context, Edit, Invariant, Restructure, Site

Group = tuple[ResidualBranch, ...]


@dataclass(frozen=True)
class Share(Restructure):
    """Let residual branches use the weights of one that is built alike and comes before them: each is stored once.

    Branches are alike whose weights have the same shapes and types, in order. Of the branches that are named, each
    takes the weights of the first that is alike; what else it has, norms and biases among it, stays its own. Layers
    that are named and lie in no branch, or in one that is like no other, are an error. The loss is what the policy's
    ``verify`` allows: nothing is trained.

    With ``pairs`` some of the branches that are named take the weights of the neighbour before them, the last that is
    built like them, as many as pay within the budget: the allocator decides it together with bits. Which comes first
    is told by what the outputs lose for the bytes that fall, measured beside the pairs before it, or by how far the
    gradients of the outputs' error by the weights agree, at both places where they are used.

    Args:
        pairs: how many branches share at most; all that are named by default.
        by: what ranks pairs: `loss`, or `gradient`, which takes PyTorch.

    Rewrite:
        y = x + f(x; W); z = y + f(y; V)  -->  y = x + f(x; W); z = y + f(y; W)

    Source: FoldGPT, 2024 (arXiv:2407.00928), section 3.3, which trains afterwards; gradients that match as a sign of
        what may share weights: Few-shot neural architecture search by gradient matching, Hu et al. 2022
        (arXiv:2203.15207), section 3.
    """

    property: ClassVar[str] = "share"
    statement: ClassVar[str] = "depth"
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.SHAPES,))
    after: ClassVar[tuple[str, ...]] = ("clean", "leave_out")
    asks: ClassVar[str] = "share weights"
    opens: ClassVar[str] = "pairs"

    pairs: Annotated[int, Between(0, 1000)] = 0
    by: Literal["loss", "gradient"] = "loss"

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The branches that take the weights of another, and the targets that lie in none that shares."""
        groups = alike(graph, targets)
        inside = {name for group in groups for branch in group for name in branch.weights}
        why = "it is in no residual branch that is built like another that is named"
        rest = [Site(name, (name,), why) for name in targets if name not in inside]
        return [*(Site(one.name, one.weights) for group in groups for one in group[1:]), *rest]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Let layers read the constants of others."""
        edits = [site.refusal for site in self.sites(graph, targets) if site.refused and context.takes(site.subject)]
        weights = {weight.name: weight for weight in graph.weights()}
        for first, *others in alike(graph, targets):
            for other in (one for one in others if context.takes(one.name)):
                pairs = [(weights[to], weights[name]) for to, name in zip(other.weights, first.weights, strict=True)]
                edits.append(_shared(graph, first, other, pairs))
        return edits

    def silence(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Write the same numbers twice."""
        weights = {weight.name: weight for weight in graph.weights()}
        for first, *others in alike(graph, targets):
            for other in (one for one in others if context.takes(one.name)):
                for to, name in zip(other.weights, first.weights, strict=True):
                    array = graph.constant(weights[name].constant)
                    assert array is not None
                    graph.replace_constant(weights[to].constant, array)


def _shared(graph: Graph, first: ResidualBranch, other: ResidualBranch, pairs: Sequence[tuple[Weight, Weight]]) -> Edit:
    saved = 0
    try:
        for own, taken in pairs:
            saved += own.params
            for op in graph.ops():
                for position, name in enumerate(op.inputs):
                    if name == own.constant:
                        graph.use_constant(op.name, position, taken.constant)
    except Refused as refused:
        return Edit(other.name, refused.reason, refused=True, layers=other.weights)
    return Edit(other.name, f"{saved:,} weights are those of `{first.name}`", layers=other.weights)


def alike(graph: Graph, targets: Sequence[str]) -> list[Group]:
    """The branches that are named, those that are alike together, in the order in which they run."""
    weights = {weight.name: weight for weight in graph.weights()}
    found = [one for one in residual_branches(graph) if set(one.weights) <= set(targets)]
    found = [one for one in found if not any(one.ops < other.ops for other in found)]
    groups: dict[tuple[object, ...], list[ResidualBranch]] = {}
    for one in found:
        built = (weights[name] for name in one.weights)
        alike = tuple((weight.shape, weight.dtype, weight.view, len(weight.layers)) for weight in built)
        groups.setdefault(alike, []).append(one)
    return [tuple(group) for group in groups.values() if len(group) > 1]
