"""What a model that is run token by token takes and gives: told by runs in one piece and in two."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from qcc.compiler.calibrate.draw import Role, purposes
from qcc.ir.attention.find import cache_pairs
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Array, Feeds

PROBED = 8  # tokens of the runs that tell
NEAR = 1e-2  # of the largest number: other paths of a runtime, and not another meaning of an input
ROWS = 2  # the axis of caches along which tokens lie
Part = Literal["rows", "all", "whole"]


@dataclass(frozen=True)
class TokenModel:
    """A model that goes on where an earlier run ended.

    Args:
        tokens: the input of whole numbers that stand for tokens, ``[batch, tokens]``.
        parts: of each input that is no cache, whether a run takes its ``rows`` for the new tokens, ``all`` up to the
            last of them, or the ``whole`` of it.
        caches: the output that each cache is fed back from.
        logits: the output that tells the next token, ``[batch, tokens, vocabulary]``.
    """

    tokens: str
    parts: Mapping[str, Part]
    caches: Mapping[str, str]
    logits: str

    def count(self, feeds: Feeds) -> int:
        """How many tokens some feeds have."""
        return int(feeds[self.tokens].shape[1])

    def cut(self, feeds: Feeds, begin: int, end: int, past: int) -> dict[str, Array]:
        """What a run of some tokens takes of feeds of all, caches left out.

        Args:
            feeds: of all tokens.
            begin: the first token of the run.
            end: behind the last.
            past: rows that caches held before all of them.
        """
        ways = {"rows": slice(begin, end), "all": slice(0, past + end), "whole": slice(None)}
        return {
            name: feeds[name][:, ways[part]] if part != "whole" else feeds[name] for name, part in self.parts.items()
        }


def token_model(graph: Graph, runner: Runner, feeds: Feeds) -> TokenModel | None:
    """What the model of a graph is, if it is one of tokens with caches.

    Args:
        graph: of the model.
        runner: runs it.
        feeds: for which it is asked; of few samples.
    """
    caches = cache_pairs(graph)
    if not caches:
        return None
    uses = purposes(graph, [value for value in graph.inputs if value.name not in caches])
    for tokens in (name for name, use in uses.items() if use.role is Role.INDEX and feeds[name].ndim == 2):
        found = _told(tokens, list(uses), caches, runner, feeds)
        if found is not None:
            return found
    return None


def _told(
    tokens: str, names: Sequence[str], caches: Mapping[str, str], runner: Runner, feeds: Feeds
) -> TokenModel | None:
    """The model, where runs in one piece and in two give the same."""
    count, past = feeds[tokens].shape[1], next(iter(feeds[name] for name in caches)).shape[ROWS]
    short = min(PROBED, count)
    if short < 2:
        return None
    ways = [_ways(name, tokens, feeds[name], count, past) for name in names]
    for chosen in product(*ways):
        model = TokenModel(tokens, dict(zip(names, chosen, strict=True)), caches, "")
        held = {name: feeds[name] for name in caches}
        try:
            whole = runner({**model.cut(feeds, 0, short, past), **held})
            logits = next(_logits(whole, caches, short), "")
            first = runner({**model.cut(feeds, 0, short // 2, past), **held})
            back = {name: first[present] for name, present in caches.items()}
            second = runner({**model.cut(feeds, short // 2, short, past), **back})
        except ModelError:
            continue
        if logits and _alike(whole[logits][:, short // 2 :], second[logits]):
            return TokenModel(tokens, model.parts, caches, logits)
    return None


def _ways(name: str, tokens: str, array: Array, count: int, past: int) -> tuple[Part, ...]:
    if name == tokens:
        return ("rows",)
    length = array.shape[1] if array.ndim > 1 else None
    found: tuple[Part, ...] = ("rows",) if length == count else ()
    found += ("all",) if length == count + past else ()
    return (*found, "whole")


def _logits(made: Mapping[str, Array], caches: Mapping[str, str], count: int) -> Iterator[str]:
    for name, array in made.items():
        if name not in caches.values() and array.dtype.kind == "f" and array.ndim == 3 and array.shape[1] == count:
            yield name


def _alike(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.abs(one - other).max(initial=0) <= NEAR * np.abs(one).max(initial=0))
