"""Verifying a model of tokens as it is used: token by token, with what each run returns fed to the next."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.sequence.drive import GreedyText, TokenDriver
from qcc.compiler.sequence.states import TokenModel, token_model
from qcc.ir.attention.find import cache_pairs
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.in_pieces import InPieces
from qcc.ir.graph.ops import Array, Feeds

TEXTS, STEPS = 4, 32


@dataclass(frozen=True)
class Driven:
    """What runs over tokens came to.

    Args:
        facts: for the lock: the state that is fed back, how many texts, tokens at once and steps, and what was found.
        line: for people.
    """

    facts: Mapping[str, Any]
    line: str


@dataclass(frozen=True, eq=False)
class TokenRuns:
    """Texts on which a model is driven, and what the original makes of them.

    Args:
        model: what it takes and gives.
        feeds: of all tokens of some texts.
        first: tokens that come at once.
        steps: tokens that come one by one behind them.
        wanted: the original's logits of those, ``[texts, 1 + steps, vocabulary]``.
        text: how it goes on by itself.
    """

    model: TokenModel
    feeds: Feeds
    first: int
    steps: int
    wanted: Array
    text: GreedyText

    @classmethod
    def of(cls, graph: Graph, original: Callable[[], Runner], samples: Samples) -> "TokenRuns | None":
        """The runs of a model of tokens with caches on the last samples given; None of another, or without data.

        Args:
            graph: of the original.
            original: makes what runs it.
            samples: texts.
        """
        if samples.generated or not cache_pairs(graph) or isinstance(runner := original(), InPieces):
            return None
        feeds = next(samples.last(TEXTS).parts(TEXTS))
        model = token_model(graph, runner, next(samples.last(1).parts(1)))
        if model is None or (count := model.count(feeds)) < 3:
            return None
        first = count // 2
        steps = min(STEPS, count - first - 1)
        driver = TokenDriver(model, runner)
        text = driver.greedy(feeds, first, steps)
        return cls(model, feeds, first, steps, driver.forced(feeds, first, steps), text)

    @property
    def output(self) -> str:
        """What verification calls what was compared."""
        return f"{self.model.logits}, token by token"

    def made(self, runner: Runner) -> tuple[Array, Driven]:
        """What a written model makes of the same texts: the logits, and what there is to say."""
        driver = TokenDriver(self.model, runner)
        logits = driver.forced(self.feeds, self.first, self.steps)
        return logits, self._told(logits, driver.greedy(self.feeds, self.first, self.steps))

    def _told(self, logits: Array, text: GreedyText) -> Driven:
        losses = [self._loss(one) for one in (self.wanted, logits)]
        differs = text.tokens != self.text.tokens
        parted = np.flatnonzero(differs.any(1))
        gaps = [self._gap(int(at), int(differs[at].argmax())) for at in parted]
        count = len(differs)
        facts = {
            "fed_back": len(self.model.caches),
            "texts": count,
            "at_once": self.first,
            "steps": self.steps,
            "decoding": "greedy",
            "seeds": [],
            "loss": losses,
            "equal_texts": count - len(parted),
            "parted_at": [int(differs[at].argmax()) for at in parted],
            "gaps": gaps,
        }
        before, after = np.exp(losses)
        line = f"token by token, {count} texts, {self.steps} tokens behind {self.first}: perplexity {before:.4g} -> "
        line += f"{after:.4g}, {after / before - 1:+.2%}; greedy texts equal on {count - len(parted)} of {count}"
        if gaps:
            line += f", parted where the original's best two logits are {max(gaps):.2g} apart or less"
        return Driven(facts, line)

    def _loss(self, logits: Array) -> float:
        """The cross entropy of the tokens that came."""
        tokens = self.feeds[self.model.tokens][:, self.first : self.first + self.steps + 1]
        numbers = logits.astype(np.float64)
        top = numbers.max(-1)
        likely = np.take_along_axis(numbers, tokens[..., None], -1)[..., 0]
        return float(np.mean(np.log(np.exp(numbers - top[..., None]).sum(-1)) + top - likely))

    def _gap(self, text: int, step: int) -> float:
        """How far the original was from another token where a text parts from its own."""
        best = np.sort(self.text.logits[text, step])[-2:]
        return float(best[1] - best[0])
