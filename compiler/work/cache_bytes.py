"""The rows of the allocator that caches count in: their bytes, and what a token reads of them and of weights.

Source: Kinetics, Sadhukhan et al. 2025 (arXiv:2506.05333): what a token reads grows with the text before it; there the
parameters are left out, here they count, so that one bound trades their bits against those of caches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.plan.costs import CACHE, CONTEXT, TRAFFIC, Meter
from qcc.compiler.sequence.one_step import SEED, model_of_steps, step_feeds
from qcc.compiler.work.count import Count
from qcc.compiler.work.row import Row, meter_of
from qcc.compiler.work.sizes import ValueSizes
from qcc.dsl.policy.policy import Policy
from qcc.ir.attention.find import cache_sets
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.cached.rows import row_bytes
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Op, Weight
from qcc.passes.cache.cache import Cache
from qcc.passes.contract.contract import Pass
from qcc.passes.encode import Encode

TOLD_OF_ROW = np.dtype(np.int64).itemsize + np.dtype(np.float32).itemsize  # its place and its score
HEADS, WIDTH = 1, 3  # axes of a cache
CachesMeter = Callable[[Policy, Graph, Graph, Samples], Meter]


@dataclass(frozen=True)
class HeldFloats:
    """What a cache of floats holds: so many ``heads`` of ``width`` channels, each of ``number_bytes``."""

    heads: int
    width: int
    number_bytes: int

    def bytes_of(self, rows: int, first: int, encoding: Encoding | None) -> float:
        """Of so many rows, of which the first stay floats."""
        floats = float(self.width * self.number_bytes)
        kept = row_bytes(encoding, self.width) if isinstance(encoding, Blocked) else floats
        first = min(rows, first)
        return self.heads * (first * floats + (rows - first) * kept)


@dataclass(frozen=True)
class CacheBytes:
    """Counts behind a ``context`` of so many tokens, by the names of caches: what keys and what values hold."""

    context: int
    held: Mapping[str, tuple[HeldFloats, HeldFloats]]

    @classmethod
    def of_graph(cls, graph: Graph, samples: Samples, context: int | None) -> "CacheBytes":
        """The caches of a graph, as samples show their sizes; without a context behind as long a text as the first.

        Raises:
            ModelError: there are none, ``Q464``.
        """
        feeds = next(samples.first(1).parts(1))
        pairs = {name: (keys, values) for name, ((keys, _), (values, _)) in cache_sets(graph).items()}
        held = {name: (_held(feeds[keys]), _held(feeds[values])) for name, (keys, values) in pairs.items()}
        longest = max((array.shape[1] for array in feeds.values() if array.ndim == 2), default=1)
        if not held:
            help = "`qcc inspect --attention` tells what attentions are fed"
            raise ModelError("Q464", "the policy is about the bytes of caches, and the model has none", help=help)
        return cls(context or longest, held)

    def taken(self, name: str, action: Pass | None) -> float:
        """By one cache."""
        keys, values = self.held[name]
        if not isinstance(action, Cache):
            return keys.bytes_of(self.context, 0, None) + values.bytes_of(self.context, 0, None)
        rows = min(self.context, action.budget) if action.budget else self.context
        told = keys.heads * rows * TOLD_OF_ROW if action.budget else 0
        first = action.float_tokens
        return told + keys.bytes_of(rows, first, action.keys) + values.bytes_of(rows, first, action.values)

    @property
    def whole(self) -> float:
        """By all, as they are."""
        return sum(self.taken(name, None) for name in self.held)


def _held(array: Array) -> HeldFloats:
    return HeldFloats(int(array.shape[HEADS]), int(array.shape[WIDTH]), array.dtype.itemsize)


def cache_meter(policy: Policy, original: Graph, graph: Graph, samples: Samples) -> Meter:
    """The meter of a policy that bounds or minimises what caches take.

    Args:
        policy: says behind how many tokens.
        original: the graph as it came, of which percentages are.
        graph: of which formats are chosen.
        samples: whose first says how large caches are.

    Raises:
        ModelError: there are no caches, ``Q464``.
    """
    before, now = (CacheBytes.of_graph(one, samples, _context(policy, CACHE)) for one in (original, graph))
    note = f"of the caches of one text behind {now.context:,} tokens, counted from shapes"
    return Meter(CACHE, before.whole, 0.0, lambda _, __: 0.0, lambda _: note, None, tuple(now.held), now.taken)


def traffic_meter(policy: Policy, original: Graph, graph: Graph, samples: Samples) -> Meter:
    """The meter of a policy that bounds or minimises what a token reads; arguments as of `cache_meter`.

    Raises:
        ModelError: there are no caches, ``Q464``, or the model is none of tokens, ``Q774``.
    """
    before, now = (CacheBytes.of_graph(one, samples, _context(policy, TRAFFIC)) for one in (original, graph))
    model, feeds = model_of_steps(original, samples)
    step = load([step_feeds(model, feeds, 1)], original, None, SEED)
    rows = [
        _Read(Count(one, ValueSizes(one, step)), half)
        for one, half in ((original, False), (graph, bool(policy.floats)))
    ]
    weights = meter_of(*rows)
    note = f"of what a token behind {now.context:,} others reads of weights and caches, counted from shapes"
    whole, subjects = weights.whole + before.whole, tuple(now.held)
    return Meter(TRAFFIC, whole, 0.0, weights.of, lambda _: note, None, subjects, now.taken)


CACHES: Mapping[str, CachesMeter] = {CACHE: cache_meter, TRAFFIC: traffic_meter}
"""What makes the meter of each row that caches count in."""


class _Read(Row):
    """Bytes of weights that are read, as they lie in memory."""

    name = TRAFFIC

    def of(self, weight: Weight, action: Encode | None) -> float:
        """All of a weight, or the rows that are looked up."""
        return self.held(weight, action) * self.count.share_read(weight)

    def op(self, op: Op) -> float:
        """Nothing: values of one token are few."""
        return 0.0


def _context(policy: Policy, row: str) -> int | None:
    bound = next((one for one in policy.budget if one.metric == row), None)
    return None if bound is None else dict(bound.counts).get(CONTEXT)
