"""How many residual branches go."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from qcc.compiler.allocate.removals import lost_whole, removals
from qcc.compiler.build.rewrite import watching
from qcc.compiler.depth.ladder import Ladder, Stage, layer_names
from qcc.dsl.policy.policy import DepthPart
from qcc.ir.regions.residual import ResidualBranch, residual_branches
from qcc.passes.contract.contract import Context
from qcc.passes.structure.leave_out import LeaveOut


class Leaving(Ladder):
    """Branches go, and maps may take their place."""

    verb, word = "left out", "gone"

    @property
    def _action(self) -> LeaveOut:
        assert isinstance(self._step.action, LeaveOut)
        return self._step.action

    def stages(self) -> Iterator[Stage]:
        """None gone, one, two; of what stands in for them, only what it leaves is told here."""
        yield Stage((), 0.0)
        wanted = {site.subject for site in self._action.sites(self._graph, self._step.weights) if not site.refused}
        branches = [one for one in residual_branches(self._graph) if one.name in wanted]
        gone: list[ResidualBranch] = []
        with self._run.phases.phase("depth"):
            tick = partial(self._run.phases.tell, "depth")
            found = removals(self._graph, branches, self._action.at_most, self._samples, self._metric, tick)
            for removal in found:
                gone.append(removal.branch)
                loss = self._cured(gone) if self._action.uses_data() else removal.loss
                yield Stage(tuple(gone), loss, {name: None for one in gone for name in one.weights})

    def closed(self, part: DepthPart, stage: Stage) -> list[DepthPart]:
        """The branches that go, by the names of their layers."""
        names = [layer for one in stage.changed for layer in layer_names(self._graph, one)]
        return [replace(part, globs=tuple(names), method=replace(self._action, at_most=0))] if names else []

    def _cured(self, gone: Sequence[ResidualBranch]) -> float:
        """What is lost with maps in the place of branches."""
        weights = [name for one in gone for name in one.weights]
        context = Context(watch=watching(self._opened.data))
        after, _ = replace(self._action, at_most=0).apply(self._graph, weights, context)
        return lost_whole(self._graph, after, self._samples, self._metric)
