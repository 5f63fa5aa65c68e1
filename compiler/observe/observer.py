"""Asking statistics of a model's values; one pass over the data answers all that was asked."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.checkpoint import Checkpoint
from qcc.compiler.observe.executor import HERE, Executor
from qcc.compiler.observe.look import Look, LookStep, View
from qcc.compiler.observe.observed import Observed, S
from qcc.compiler.observe.tokens import EVERY_TOKEN, TokenWeights
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array

Tick = Callable[[int, int, str], None]
SHARDS = 4  # that each worker gets: what is kept of an interrupted pass are whole ones
LEAST_S = 2.0  # of work that an interruption would lose: less is not kept


def silent(_done: int, _total: int, _what: str) -> None:
    """Tell nothing."""


class Observer:
    """Runs a graph over samples and gathers what is asked of its values.

    Samples are run in chunks that fit in memory, a quarter of them is held out, positions that a mask hides do not
    count. A pass that is interrupted goes on where it was when the same is asked again.

    Args:
        graph: what is run.
        samples: the data.
        tick: told of samples done, of how many, and where they come from.
        beside: another graph with the same inputs, for pairs.
        tokens: what tokens count.
        executor: where it is run.
        resumes: a pass that is interrupted is kept, to go on with.
    """

    def __init__(
        self,
        graph: Graph,
        samples: Samples,
        tick: Tick = silent,
        *,
        beside: Graph | None = None,
        tokens: TokenWeights = EVERY_TOKEN,
        executor: Executor = HERE,
        resumes: bool = True,
    ) -> None:
        self._view = View(graph, samples, beside, tokens)
        self._tick, self._executor, self._resumes = tick, executor, resumes
        self._waiting: dict[tuple[str, str, str], Observed[Any]] = {}
        self._answered: dict[tuple[str, str, str], Observed[Any]] = {}

    def ask(self, value: str, statistic: S, beside: str = "") -> Observed[S]:
        """Ask a statistic of a value; `gather` answers. What was asked before is not asked again.

        Args:
            value: the value's name.
            statistic: of no rows yet.
            beside: the value of the other graph whose rows it is paired with.
        """
        key = value, beside, statistic.text
        known = self._answered.get(key) or self._waiting.get(key)
        if known is None:
            known = Observed(value, beside, copy.deepcopy(statistic), copy.deepcopy(statistic))
            self._waiting[key] = known
        return known

    def gather(self) -> None:
        """Answer what was asked since the last time, in one pass.

        Raises:
            ModelError: the model fails on the data.
        """
        asked = list(self._waiting.values())
        if asked:
            self._pass(asked)
        self._answered |= self._waiting
        self._waiting = {}

    def _pass(self, asked: Sequence[Observed[Any]]) -> None:
        look = Look(self._view, asked)
        checkpoint = Checkpoint(partial(_digest, self._view, asked)) if self._resumes else None
        steps = look.steps()
        done = _restored(asked, checkpoint.load(), steps) if checkpoint else 0
        total, origin = sum(len(step.chunk.members) for step in steps), self._view.samples.origin
        count = sum(len(step.chunk.members) for step in steps[:done])
        try:
            for after, number in self._run(look, steps, done):
                done, count = after, count + number
                self._tick(count, total, origin)
                if checkpoint and checkpoint.due and done < len(steps):
                    checkpoint.save(_state(asked, steps, done))
        except BaseException as error:
            if checkpoint and not isinstance(error, Exception) and checkpoint.unsaved_s > LEAST_S:
                checkpoint.save(_state(asked, steps, done))
            raise
        if checkpoint and self._executor.kept is None:
            checkpoint.remove()
        elif checkpoint and self._executor.kept is not None and checkpoint.name not in self._executor.kept:
            checkpoint.save(_state(asked, steps, len(steps)))
            self._executor.kept.add(checkpoint.name)

    def _run(self, look: Look, steps: Sequence[LookStep], done: int) -> Iterator[tuple[int, int]]:
        """Carry out the steps that are left; gives how many are done then, and of how many samples the last were."""
        if self._executor.workers == 1:
            for at in range(done, len(steps)):
                look.take(steps[at])
                yield at + 1, len(steps[at].chunk.members)
            return
        size = max(-(-(len(steps) - done) // (self._executor.workers * SHARDS)), 1)
        shards = [steps[at : at + size] for at in range(done, len(steps), size)]
        empty = [_emptied(one) for one in look.asked]
        for shard, found in zip(shards, self._executor.each(_Work(self._view, empty), shards), strict=True):
            for one, other in zip(look.asked, found, strict=True):
                one.merge(other)
            done += len(shard)
            yield done, sum(len(step.chunk.members) for step in shard)


@dataclass(frozen=True)
class _Work:
    """Makes what carries out steps in another process."""

    view: View
    asked: Sequence[Observed[Any]]

    def __call__(self) -> Callable[[Sequence[LookStep]], Sequence[Observed[Any]]]:
        look = Look(self.view, self.asked)

        def work(steps: Sequence[LookStep]) -> Sequence[Observed[Any]]:
            look.asked = [_emptied(one) for one in self.asked]
            for step in steps:
                look.take(step)
            return look.asked

        return work


def _emptied(one: Observed[Any]) -> Observed[Any]:
    """The same question, without an answer."""
    return Observed(one.value, one.beside, one.seen.empty(), one.held.empty())


def _digest(view: View, asked: Sequence[Observed[Any]]) -> str:
    """What tells a pass from all others."""
    graphs = [graph.digest() for graph in (view.graph, view.beside) if graph is not None]
    told = [
        version("qcc"),
        *graphs,
        view.samples.digest,
        repr(view.samples.axes),
        repr(view.tokens),
        *(one.text for one in asked),
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _state(asked: Sequence[Observed[Any]], steps: Sequence[LookStep], done: int) -> dict[str, Array]:
    state = {f"{at} {name}": array for at, one in enumerate(asked) for name, array in one.state().items()}
    return {**state, "done": np.array([done, len(steps)])}


def _restored(asked: Sequence[Observed[Any]], state: Mapping[str, Array], steps: Sequence[LookStep]) -> int:
    """How many steps were done when a state was kept, with what they gave; none if it is no good."""
    try:
        done, total = (int(count) for count in state["done"])
        if total != len(steps) or not 0 < done <= total:
            return 0
        fresh = [_emptied(one) for one in asked]
        for at, one in enumerate(fresh):
            one.restore({n.partition(" ")[2]: a for n, a in state.items() if n.startswith(f"{at} ")})
    except (KeyError, ValueError, TypeError, IndexError):
        return 0
    for one, other in zip(asked, fresh, strict=True):
        one.seen, one.held = other.seen, other.held
    return done
