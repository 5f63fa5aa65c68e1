"""How many residual branches take the weights of a neighbour."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from qcc.compiler.allocate.removals import in_turn
from qcc.compiler.depth.ladder import Ladder, Stage, layer_names
from qcc.compiler.depth.pairs import Pair, Pairs, Tick, roots
from qcc.dsl.policy.policy import DepthPart
from qcc.ir.regions.residual import ResidualBranch
from qcc.passes.structure.share import Share, alike


class Sharing(Ladder):
    """Branches keep their place, and lose their weights."""

    verb, word = "sharing weights", "shared"

    @property
    def _action(self) -> Share:
        assert isinstance(self._step.action, Share)
        return self._step.action

    def stages(self) -> Iterator[Stage]:
        """None sharing, one, two."""
        yield Stage((), 0.0)
        pairs = self._pairs = Pairs(self._graph, alike(self._graph, self._step.weights), self._samples, self._metric)
        with self._run.phases.phase("depth"):
            tell = partial(self._run.phases.tell, "depth")
            made: list[Pair] = []
            for pair, loss in self._ranked(pairs, lambda at, of, one: tell(at, of, one.taker.name)):
                made.append(pair)
                yield Stage(tuple(one.taker for one in made), loss, pairs.stored(made))

    def _ranked(self, pairs: Pairs, tick: Tick) -> Iterator[tuple[Pair, float]]:
        """The pairs in the order in which they share, with what is lost by then."""
        if self._action.by == "loss":
            yield from in_turn(pairs.all, [pairs.saved(one) for one in pairs.all], self._action.pairs, pairs.loss, tick)
            return
        agreements = pairs.agreements(tick)
        order = sorted(pairs.all, key=lambda one: -agreements[one])[: self._action.pairs]
        for count in range(1, len(order) + 1):
            yield order[count - 1], pairs.loss(order[:count])

    def closed(self, part: DepthPart, stage: Stage) -> list[DepthPart]:
        """A part for each group that shares."""
        groups: dict[str, list[ResidualBranch]] = {}
        pairs = [one for one in self._pairs.all if one.taker in stage.changed]
        for taker, giver in roots(pairs):
            groups.setdefault(giver.name, [giver]).append(taker)
        method = replace(self._action, pairs=0)
        return [
            replace(part, globs=tuple(layer for one in group for layer in layer_names(self._graph, one)), method=method)
            for group in groups.values()
        ]
