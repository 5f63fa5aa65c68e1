"""Leaving residual branches out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.regions.residual import ResidualBranch, residual_branches
from qcc.passes.contract.contract import Context, Edit, Invariant, Restructure, Site


@dataclass(frozen=True)
class LeaveOut(Restructure):
    """Leave residual branches out: what is computed of a value and added to it, so that the value alone goes on.

    A branch goes if all its layers are named. Layers that are named and lie in no such branch are an error: without
    them the model would not be one. The loss is what the policy's ``verify`` allows.

    Rewrite:
        y = x + f(x)  -->  y = x

    Source: FoldGPT, 2024 (arXiv:2407.00928), of which only leaving blocks out is here; Residual networks behave like
        ensembles of relatively shallow networks, Veit et al. 2016 (arXiv:1605.06431), section 4.
    """

    property: ClassVar[str] = "leave_out"
    statement: ClassVar[str] = "depth"
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.SHAPES,))
    after: ClassVar[tuple[str, ...]] = ("clean",)

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The outermost branches all of whose layers are targets, and the targets that lie in none."""
        found = _chosen(graph, targets)
        inside = {name for branch in found for name in branch.weights}
        why = "not all of a residual branch"
        rest = [Site(name, (name,), why) for name in targets if name not in inside]
        return [*(Site(branch.name, branch.weights) for branch in found), *rest]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Leave out, one after the other: the sum of one may be the stream of the next."""
        edits = []
        for site in self.sites(graph, targets):
            if not context.takes(site.subject):
                continue
            edits.append(site.refusal if site.refused else _leave_out(graph, site))
        return edits

    def silence(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Multiply the branches by zero."""
        for branch in _chosen(graph, targets):
            if context.takes(branch.name):
                zero = np.zeros((1,), np.dtype(graph.value(branch.end).dtype))
                graph.insert("mul", branch.end, zero, [(branch.op, branch.position)])


def _chosen(graph: Graph, targets: Sequence[str]) -> list[ResidualBranch]:
    found = [branch for branch in residual_branches(graph) if set(branch.weights) <= set(targets)]
    return [one for one in found if not any(one.ops < other.ops for other in found)]


def _leave_out(graph: Graph, site: Site) -> Edit:
    branch = next(one for one in residual_branches(graph) if one.weights == site.layers)
    try:
        graph.remove(branch.sum, branch.stream)
    except Refused as refused:
        return Edit(site.subject, refused.reason, refused=True, layers=site.layers)
    return Edit(site.subject, f"left out, {len(branch.ops)} ops", layers=site.layers)
