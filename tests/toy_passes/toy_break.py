"""A toy pass that says it keeps the function, and does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Edit, Rewrite, Site


@dataclass(frozen=True)
class ToyBreak(Rewrite):
    """Multiply weights by one, but one of them by two.

    Args:
        victim: the weight that is broken; none if empty.
        how: ``double``, or ``untie`` to take its last reader away; or what does no harm: ``insert`` for one more op
            before each layer, ``mean`` to put the mean of all targets into each.
    """

    property: ClassVar[str] = "toy_break"
    after: ClassVar[tuple[str, ...]] = ("clean", "toy_scale")

    victim: str = ""
    how: str = "double"

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """Every target."""
        return [Site(f"at {name}", (name,)) for name in targets]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Multiply."""
        edits = []
        weights = {weight.name: weight for weight in graph.weights()}
        summed = targets if self.how == "mean" else ()
        mean: np.ndarray = np.asarray(sum(graph.matrix(weights[one]).T for one in summed) / np.float32(len(targets)))
        for site in self.sites(graph, targets):
            if not context.takes(site.subject):
                continue
            (name,) = site.layers
            array = graph.constant(weights[name].constant)
            assert array is not None
            if name == self.victim and self.how == "untie":
                graph.set_operand(weights[name].layers[-1].op, 1, np.array(array))
            if self.how == "insert":
                layer = weights[name].layers[0]
                graph.insert("mul", layer.input, np.ones(1, np.float32), [(layer.op, 0)])
            if self.how == "mean":
                array = mean
            factor = np.float32(2 if name == self.victim and self.how == "double" else 1)
            graph.replace_constant(weights[name].constant, array * factor)
            edits.append(Edit(site.subject, "times one", layers=site.layers))
        return edits
