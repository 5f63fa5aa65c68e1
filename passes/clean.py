"""Removing what cannot matter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Context, Edit, Invariant, Pass, Phase


@dataclass(frozen=True)
class Clean(Pass):
    """Remove dead and duplicate ops and constants.

    Always runs first, so that every later pass sees a weight once, whatever the exporter wrote.

    Rewrite:
        y = Identity(x); z = f(y)  -->  z = f(x)
        two equal constants        -->  one, read twice
        an op that nothing reads   -->  nothing

    Source: the optimisation passes of onnx_ir; torch.fx's dead code elimination.
    """

    phase: ClassVar[Phase] = Phase.CLEAN
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.FUNCTION,))

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Clean the graph."""
        return [Edit("graph", line) for line in graph.simplify()]
