"""Storing keys and values of earlier runs in fewer bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from qcc.ir.attention.find import attentions
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.cached.fit import Channels, fitted
from qcc.ir.encoding.cached.kept import KeptRows
from qcc.ir.encoding.cached.rows import CachedRows, refusal
from qcc.ir.encoding.cached.stored import StoredCache
from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, Operand
from qcc.ir.graph.graph import Graph
from qcc.passes.contract.contract import Between, Context, Edit
from qcc.passes.contract.subject import SubjectPass

MOST_ROWS = 4096  # of a cache that steps are fitted to; the largest and least of all rows are among them
OPSETS = {"decoded": 18, "fused": 23, "kernel": 23}
Form = Literal["decoded", "fused", "kernel"]
Share = Literal["measured", "even"]
READERS = {"decoded": "standard ops", "fused": "the runtime's own op", "kernel": "an op of ours"}


@dataclass(frozen=True)
class Cache(SubjectPass):
    """Keep keys and values of earlier runs as codes: what is fed and returned in their place, and what is moved.

    Rewrite:
        k = Concat(past, new)  -->  codes = Concat(past codes, encode(new)), k = decode(codes)

    What is a cache is told by what an attention does with it (docs/caches.md). Integers by channel have one step a
    channel, found on calibration data: keys' steps go to the queries and values' to the result, so that codes become
    floats by a cast alone. Integers in groups of channels and block floating point find a scale as each row comes,
    which is kept beside the codes. `asym` takes a centre from each channel, which a softmax does not see.

    Args:
        keys: what keys are kept in: `int8 channel`, `int4 channel`, `int4 group 32`, `bfp 4 group 32`.
        values: the same of values.
        channels: of groups: `sorted` puts channels of like size side by side, as data shows them, and `balanced` makes
            all of like size; queries and results are moved alike. `mixed` multiplies each head's rows by a matrix, and
            queries and results by its inverse, so that all channels are alike and what queries see of errors is least:
            two small products more for each token and head.
        float_tokens: so many first rows stay floats, in a cache of their own.
        form: `decoded` computes in standard ops; `fused` lets the runtime's `GroupQueryAttention` read floats, or int8
            or int4 by channel, both of as many bits, where attentions see nothing that comes later. It takes several
            new rows behind earlier ones of one sample only. `kernel` is an op of ours, which reads floats or codes of
            any kind in registers where the target makes kernels, and computes in standard ops elsewhere.
        budget: so many rows of a cache stay behind a run, head by head: those with the largest scores, pooled over
            five neighbours. A score is the weight that queries gave a row, and fades with each token.
        share: `measured` divides the budget among the caches of a rule, which have it on average, so that the texts of
            the calibration data lose least; `even` gives each the same.
        window: so many last rows stay in any case; scores fade as fast.
        sinks: so many first rows stay in any case.

    Source: KIVI, Liu et al. 2024 (arXiv:2402.02750), for keys by channel; accurate block quantisation, Trukhanov and
    Soloveychik 2024 (arXiv:2403.20137), section 4, for keys in order; ScaleKV, Li et al. 2025 (arXiv:2505.19602), for
    budgets by layer and pooled scores.
    """

    subjects: ClassVar[tuple[str, ...]] = ("cache",)
    wants: ClassVar[str] = "keys = int8 channel` or `budget = 256"
    learned: ClassVar[str] = "caches"
    weighed: ClassVar[bool] = True
    uses_sample: ClassVar[bool] = True

    keys: Annotated[Encoding | None, "what keys of earlier runs are kept in"] = None
    values: Annotated[Encoding | None, "what values of earlier runs are kept in"] = None
    channels: Annotated[Channels, "how channels are moved before they are kept"] = "plain"
    float_tokens: Annotated[int, Between(0, 4096), "so many first rows stay floats"] = 0
    form: Annotated[Form, "who computes with codes: standard ops, the runtime's own or one of ours"] = "decoded"
    budget: Annotated[int, Between(0, 1 << 30), "rows that stay behind a run, on average; 0 for all"] = 0
    share: Annotated[Share, "who has how much of it: by what caches lose, or all the same"] = "measured"
    window: Annotated[int, Between(1, 1 << 20), "so many last rows stay in any case"] = 16
    sinks: Annotated[int, Between(0, 1 << 20), "so many first rows stay in any case"] = 4

    def __post_init__(self) -> None:
        """What goes together."""
        if not self.budget:
            return
        KeptRows(self.budget, self.window, self.sinks)
        if self.form != "decoded":
            raise ValueError("ops of the runtime and of ours tell no scores: a `budget` takes `form = decoded`")
        if self.float_tokens:
            raise ValueError("`budget` and `float_tokens` are not written together: `sinks` stay, too")

    @property
    def kept(self) -> KeptRows:
        """Which rows stay, where that is bounded."""
        return KeptRows(self.budget, self.window, self.sinks)

    @property
    def label(self) -> str:
        """What is kept in what."""
        pairs = (("keys", self.keys), ("values", self.values))
        found = [f"{name} {one.text}" for name, one in pairs if one is not None]
        found += [f"at most {self.budget} rows"] if self.budget else []
        return ", ".join(found) or f"floats, read by {READERS[self.form]}"

    @property
    def opset(self) -> int:
        """Of the ops that pack two codes in a byte, or of the rotary embedding before the runtime's op."""
        return OPSETS["fused" if self.budget else self.form]

    @property
    def nothing(self) -> bool:
        """It says of neither what it is kept in, bounds no rows, and leaves all ops as they are."""
        return self.keys is None and self.values is None and not self.budget and self.form == "decoded"

    @property
    def divides(self) -> bool:
        """What caches lose decides who has how many rows; until then it is no way to keep them."""
        return bool(self.budget) and self.share == "measured"

    @classmethod
    def refuses(cls, encoding: Encoding) -> str:
        """Rows are kept as integers of four or eight bits, by channel or in groups."""
        return refusal(encoding)

    @property
    def learns(self) -> bool:
        """Data decides what is kept."""
        if self.divides:
            return True
        static = any(isinstance(one, Blocked) and one.block == CHANNEL for one in (self.keys, self.values))
        return static or self.channels != "plain"

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Store the caches of some attentions, each named by the input that holds keys.

        A budget that is still to be divided is what each of them has.
        """
        before, found = _before(graph, context)
        wanted = [found[name] for name in targets if name in found and context.takes(name)]
        seen = self._seen(before, wanted, context)
        missing = [
            Edit(name, "no attention is told that takes it", refused=True) for name in targets if name not in found
        ]
        return [*missing, *(self._stored(graph, one, seen, context) for one in wanted)]

    def _stored(self, graph: Graph, one: Attention, seen: Mapping[str, np.ndarray], context: Context) -> Edit:
        name = one.keys.past
        context.progress(name)
        try:
            queries = self._queries(one)
            keys, values = (
                self._rows(operand, kept, seen, queries if operand is one.keys else None)
                for operand, kept in self._pairs(one)
            )
            graph.store_cache(one, keys, values, self.kept if self.budget else self.form)
        except Refused as refused:
            return Edit(name, refused.reason, refused=True)
        sizes = _row_bytes(one, keys, values)
        held = tuple(
            StoredCache(operand.past, operand.present, rows, self.kept if self.budget else None, operand is one.keys)
            for operand, rows in ((one.keys, keys), (one.values, values))
        )
        return Edit(name, self.label, what="cache", row_bytes=sizes, most_rows=self.budget, caches=held)

    def _pairs(self, one: Attention) -> tuple[tuple[Operand, Encoding | None], tuple[Operand, Encoding | None]]:
        return (one.keys, self.keys), (one.values, self.values)

    def _queries(self, one: Attention) -> str | None:
        """The value of queries, by heads, that decides how keys' channels are mixed; None where none does."""
        if self.channels != "mixed" or self.keys is None:
            return None
        if not one.queries.stands or not one.queries.way or one.queries.width != one.keys.width:
            raise Refused("how its queries lie where they meet keys is not told, by which channels are mixed")
        return one.queries.way[0]

    def _rows(
        self, operand: Operand, kept: Encoding | None, seen: Mapping[str, np.ndarray], queries: str | None
    ) -> CachedRows | None:
        if kept is None:
            return None
        assert isinstance(kept, Blocked)
        nothing = np.zeros((operand.heads, 0, operand.width), np.float32)
        rows = seen.get(operand.present, nothing)
        if not np.isfinite(rows).all():
            raise Refused(f"`{operand.present}` is not finite on the data", broken=True)
        try:
            power = None if queries is None else _power(seen.get(queries, nothing), operand.heads)
            return fitted(rows, kept, self.channels, self.float_tokens, self.form == "fused", power)
        except ValueError as error:
            raise Refused(str(error)) from error

    def _seen(self, graph: Graph, wanted: Sequence[Attention], context: Context) -> Mapping[str, np.ndarray]:
        """Rows of each cache, ``[heads, rows, channels]``, as far as what is kept depends on them; asked once."""
        operands = [operand for one in wanted for operand, kept in self._pairs(one) if kept is not None]
        names = [operand.present for operand in operands if operand.present]
        if self.channels == "mixed" and self.keys is not None:
            names += [one.queries.way[0] for one in wanted if one.queries.stands and one.queries.way]
        if not self.learns or context.watch is None or not names:
            return {}
        found = context.found.setdefault(("cache rows", self.float_tokens), {})
        assert isinstance(found, dict)
        missing = [name for name in dict.fromkeys(names) if name not in found]
        if missing:
            drawn = {name: _RowSample() for name in missing}
            for values in context.watch(graph, missing, False):
                for name, array in values.items():
                    drawn[name].add(array[:, :, self.float_tokens :])
            found |= {name: one.rows() for name, one in drawn.items()}
        return found


def _before(graph: Graph, context: Context) -> tuple[Graph, Mapping[str, Attention]]:
    """The graph as it was before the first caches of it were stored, and its attentions by what they are fed of keys.

    What is fed and returned changes with each step that stores some, and no attention that others are about.
    """
    key = "attentions of caches"
    if key not in context.found:
        told = attentions(graph, context.sample)
        own = {one.keys.past: one for one in told if isinstance(one, Attention)}
        context.found[key] = graph.copy(), own
    held = context.found[key]
    assert isinstance(held, tuple)
    return held[0], held[1]


class _RowSample:
    """Some rows of many, and the largest and least of each channel."""

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []
        self._ends: list[np.ndarray] = []
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        """More rows ``[batch, heads, rows, channels]``."""
        flat = np.moveaxis(rows, 1, 0).reshape(rows.shape[1], -1, rows.shape[3]).astype(np.float32)
        if not flat.shape[1]:
            return
        self._ends += [flat.min(1, keepdims=True), flat.max(1, keepdims=True)]
        room = MOST_ROWS - self._count
        if room > 0:
            taken = flat[:, :: max(flat.shape[1] // room, 1)][:, :room]
            self._kept.append(np.array(taken))
            self._count += taken.shape[1]

    def rows(self) -> np.ndarray:
        """All that is kept."""
        ends = np.concatenate(self._ends, 1)
        return np.concatenate([*self._kept, ends.min(1, keepdims=True), ends.max(1, keepdims=True)], 1)


def _power(queries: np.ndarray, heads: int) -> np.ndarray | None:
    """Mean products of what queries ``[heads, rows, channels]`` hold, together of those that share keys."""
    if not queries.shape[1]:
        return None
    shared = queries.reshape(heads, -1, queries.shape[2]).astype(np.float64)
    return np.asarray(shared.swapaxes(1, 2) @ shared / shared.shape[1])


def _row_bytes(one: Attention, *kept: CachedRows | None) -> tuple[float, float]:
    """What both caches took of a row, and what they take."""
    pairs = list(zip((one.keys, one.values), kept, strict=True))
    floats = [4.0 * operand.heads * operand.width for operand, _ in pairs]
    codes = [
        was if rows is None else operand.heads * rows.row_bytes
        for was, (operand, rows) in zip(floats, pairs, strict=True)
    ]
    return sum(floats), sum(codes)
