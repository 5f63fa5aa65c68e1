"""Running a model of tokens one by one, what it returns fed back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.compiler.sequence.states import ROWS, TokenModel
from qcc.ir.encoding.cached.stored import coded
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Array, Feeds
from qcc.ir.model.in_floats import InFloats


@dataclass(frozen=True)
class GreedyText:
    """Text that a model went on with: ``tokens [batch, steps]``, and the ``logits`` of each step."""

    tokens: Array
    logits: Array


class TokenDriver:
    """Runs a model.

    Args:
        model: what it takes and gives.
        runner: runs it; where its caches hold codes, those are fed back as they come.
    """

    def __init__(self, model: TokenModel, runner: Runner) -> None:
        self._model, self._runner = model, runner
        self._back: dict[str, str] = dict(model.caches)
        if isinstance(runner, InFloats):
            self._runner = runner.coded
            for one in runner.caches:
                del self._back[one.past]
                fed, given = one.part_names(one.past), one.part_names(one.present)
                self._back |= {name: given[part] for part, name in fed.items()}
        self._caches = runner.caches if isinstance(runner, InFloats) else ()

    def in_runs(self, feeds: Feeds, ends: Sequence[int]) -> Array:
        """The logits of all tokens up to the last of some ends, one run up to each."""
        held, past = self._begun(feeds)
        found = list[Array]()
        for begin, end in zip((0, *ends), ends, strict=False):
            logits, held = self._run(feeds, held, begin, end, past)
            found.append(logits)
        return np.concatenate(found, 1)

    def forced(self, feeds: Feeds, first: int, steps: int) -> Array:
        """The logits of tokens that come one by one behind some that come at once: ``[batch, 1 + steps, vocabulary]``.

        The first are those of the last token of the first run.
        """
        begun, past = self._begun(feeds)
        logits, held = self._run(feeds, begun, 0, first, past)
        found = [logits[:, -1]]
        for at in range(first, first + steps):
            logits, held = self._run(feeds, held, at, at + 1, past)
            found.append(logits[:, -1])
        return np.stack(found, 1)

    def greedy(self, feeds: Feeds, first: int, steps: int) -> GreedyText:
        """The likeliest tokens behind the first ones."""
        begun, past = self._begun(feeds)
        tokens = np.array(feeds[self._model.tokens])
        logits, held = self._run(feeds, begun, 0, first, past)
        kept = list[Array]()
        for at in range(first, first + steps):
            kept.append(logits[:, -1])
            tokens[:, at] = logits[:, -1].argmax(-1)
            if at + 1 < first + steps:
                logits, held = self._run({**feeds, self._model.tokens: tokens}, held, at, at + 1, past)
        return GreedyText(tokens[:, first : first + steps], np.stack(kept, 1))

    def _begun(self, feeds: Feeds) -> tuple[dict[str, Array], int]:
        """The caches before the first run, and how many rows they hold."""
        held = {name: feeds[name] for name in self._model.caches}
        return coded(self._caches, held), int(next(iter(held.values())).shape[ROWS])

    def _run(
        self, feeds: Feeds, held: Mapping[str, Array], begin: int, end: int, past: int
    ) -> tuple[Array, dict[str, Array]]:
        made = self._runner({**self._model.cut(feeds, begin, end, past), **held})
        return made[self._model.logits], {name: made[given] for name, given in self._back.items()}
