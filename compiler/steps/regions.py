"""Where a model can be cut so that a part of it is kept from step to step.

A *residual* region lies between two values of one shape through which all goes that the latent tells the output: what
is kept is by how much they differ (Delta-DiT, Chen et al. 2024, arXiv:2406.01125, section 4.1). A *feature* is a value
of which much is computed for it alone, while the latent has other ways to the output, as in a U-Net (DeepCache, Ma et
al. 2023, arXiv:2312.00858).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op
from qcc.ir.model.carried import Carried

LEAST_SHARE = 0.8  # of the model's work, that a region of `auto` keeps
MOST_SHARE = 0.98  # what keeps more sees next to nothing of the latent
MOST_REGIONS = 3
LONGEST_BLOCK = 4  # of bottlenecks
FLOATS = ("float32", "float16", "bfloat16")
CARRIED = "qcc.carried"
MERGED = (Kind.CONCAT, Kind.BINARY)


@dataclass(frozen=True)
class CutRegion:
    """A part of a model that may be kept.

    Args:
        carried: the value, and what it is a sum of.
        share: of the model's work that is spared.
        text: as a policy would name it.
    """

    carried: Carried
    share: float
    text: str


class Cuts:
    """The regions of a model.

    Args:
        graph: the model.
        latent: its input that changes from step to step.
        output: what the loop goes by.
    """

    def __init__(self, graph: Graph, latent: str, output: str) -> None:
        self._graph, self._latent, self._output = graph, latent, output
        self._ops = graph.ops()
        self._fed = [one.name for one in graph.inputs]

    def of(self, asked: Sequence[tuple[str, tuple[int | str, ...]]]) -> tuple[CutRegion, ...]:
        """The regions that a policy names; they are numbered as they come.

        Raises:
            ModelError: there is no such region.
        """
        found: dict[tuple[str, str], CutRegion] = {}
        for word, arguments in asked:
            for region in self._named(word, arguments):
                found.setdefault((region.carried.value, region.carried.source), region)
        kept = list(found.values())
        return tuple(
            CutRegion(Carried(one.carried.value, one.carried.source, f"{CARRIED}.{at}"), one.share, one.text)
            for at, one in enumerate(kept)
        )

    def _named(self, word: str, arguments: Sequence[int | str]) -> Iterator[CutRegion]:
        if word == "auto":
            yield from self._auto()
        elif word == "feature":
            yield self._feature(str(arguments[0]))
        else:
            first, last = (int(one) for one in arguments)
            count = len(self.blocks) - 1
            if last >= count:
                message = f"the model has {max(count, 0)} blocks, and no `blocks({first}, {last})`"
                help = "blocks are counted from 0" if count > 0 else 'name a value: `feature("...")`, or `auto`'
                raise ModelError("Q574", message, help=help)
            yield self._range(first, last + 1)

    def _auto(self) -> Iterator[CutRegion]:
        """Of blocks, the ranges that spare enough; else the features that do, those first that are alike in work."""
        ends = range(len(self.blocks))
        ranges = [self._range(begin, end) for begin in ends for end in ends[begin + 1 :]]
        spared = [one for one in ranges if LEAST_SHARE <= one.share <= MOST_SHARE]
        if not spared:
            found = map(self._feature, dict.fromkeys(self._merged()))
            spared = [one for one in found if LEAST_SHARE <= one.share <= MOST_SHARE]
        if not spared:
            help = 'name one that holds less: `blocks(FIRST, LAST)` or `feature("VALUE")`'
            raise ModelError("Q574", f"no region of the model holds {LEAST_SHARE:.0%} of its work", help=help)
        yield from sorted(spared, key=lambda one: one.share)[:MOST_REGIONS]

    def _range(self, begin: int, end: int) -> CutRegion:
        source, value = self.blocks[begin], self.blocks[end]
        text = f"blocks({begin}, {end - 1})"
        return CutRegion(Carried(value, source, ""), self._spared(value, source), text)

    def _feature(self, name: str) -> CutRegion:
        if name not in self._makers or name not in self._told or self._graph.value(name).dtype not in FLOATS:
            raise ModelError("Q574", f"the model computes no float `{name}` of its latent")
        return CutRegion(Carried(name, "", ""), self._spared(name, ""), f'feature("{name}")')

    def _merged(self) -> Iterator[str]:
        """Values of the latent that meet others of it: what an upsampled feature meets the skipped one at."""
        for op in self._ops:
            told = [name for name in op.inputs if name in self._told]
            if op.kind in MERGED and len(told) > 1:
                yield from (name for name in told if name not in self._fed and self._graph.value(name).shape)

    @cached_property
    def _told(self) -> frozenset[str]:
        """All values that depend on the latent."""
        found = {self._latent}
        for op in self._ops:
            if any(name in found for name in op.inputs):
                found.update(op.outputs)
        return frozenset(found)

    @cached_property
    def bottlenecks(self) -> tuple[str, ...]:
        """Values through which all goes that the latent tells the output, in order, one at each place."""
        last = {name: at for at, op in enumerate(self._ops) for name in op.inputs if name in self._told}
        last[self._output] = len(self._ops)
        live, found = {self._latent}, list[str]()
        for at, op in enumerate(self._ops):
            live |= {name for name in op.outputs if name in self._told and name in last}
            live = {name for name in live if last[name] > at}
            if len(live) == 1 and (name := next(iter(live))) not in (self._latent, self._output):
                found += [name] if name not in found else []
        return tuple(name for name in found if self._graph.value(name).dtype in FLOATS)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The ends of the blocks that the model repeats: a run of bottlenecks of one shape, by their period."""
        runs: list[list[str]] = [[]]
        for name in self.bottlenecks:
            shape = self._graph.value(name).shape
            if runs[-1] and self._graph.value(runs[-1][-1]).shape != shape:
                runs.append([])
            runs[-1].append(name)
        best: tuple[str, ...] = ()
        for run in runs:
            spelled = [self._between(one, other) for one, other in pairwise(run)]
            for period in range(1, LONGEST_BLOCK + 1):
                best = max(best, _repeated(run, spelled, period), key=len)
                if len(best) > 2:
                    break
        return best if len(best) > 2 else ()

    def _between(self, begin: str, end: str) -> tuple[str, ...]:
        """What is done from one value to another."""
        inside = self._needed([end], begin) - self._needed([begin])
        return tuple(
            op.function for op in self._ops if op.outputs and op.outputs[0] in inside and op.outputs[0] in self._told
        )

    def _spared(self, value: str, source: str) -> float:
        """The share of the model's work that is not done where a value is carried."""
        left = self._needed([self._output, *([source] if source else [])], value)
        rest = sum(work for op, work in zip(self._ops, self._works, strict=True) if left.intersection(op.outputs))
        return 1 - rest / max(sum(self._works), 1)

    def _needed(self, ends: Sequence[str], known: str = "") -> set[str]:
        """All values that some depend on, themselves among them, where one is known."""
        found, todo = set[str](), list(ends)
        while todo:
            name = todo.pop()
            if name and name not in found:
                found.add(name)
                todo += self._makers[name].inputs if name in self._makers and name != known else ()
        return found

    @cached_property
    def _makers(self) -> dict[str, Op]:
        return {name: op for op in self._ops for name in op.outputs}

    @cached_property
    def _works(self) -> list[float]:
        return [self._work(op) for op in self._ops]

    def _work(self, op: Op) -> float:
        """Products of an op, or what it writes, at one sample."""
        made = sum(math.prod(self._sizes(name)) for name in op.outputs)
        arrays = [self._sizes(name) for name in op.inputs]
        if op.kind in (Kind.LINEAR, Kind.MATMUL) and arrays and arrays[0]:
            return float(made * arrays[0][-1])
        if op.kind == Kind.CONV and len(arrays) > 1:
            return float(made * math.prod(arrays[1][1:]))
        if op.kind == Kind.ATTENTION and arrays and len(arrays[0]) > 1:
            return float(2 * made * arrays[0][-2])
        return float(made)

    def _sizes(self, name: str) -> tuple[int, ...]:
        """A value's sizes; what is free counts as one."""
        shape = self._graph.value(name).shape if name else ()
        return tuple(size if isinstance(size, int) else 1 for size in shape or ())


def _repeated(run: Sequence[str], spelled: Sequence[tuple[str, ...]], period: int) -> tuple[str, ...]:
    """Every so many of a run, from where on what is done between them repeats to where it no longer does."""
    best: tuple[str, ...] = ()
    for begin in range(len(spelled)):
        end = begin
        pattern = spelled[begin : begin + period]
        while len(pattern) == period and list(spelled[end : end + period]) == list(pattern):
            end += period
        best = max(best, tuple(run[begin : end + 1 : period]) if end > begin else (), key=len)
    return best
