"""Looking functions up in tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array
from qcc.ir.regions.functions import FUNCTIONS, NORM, SOFTMAX, FunctionSite, functions
from qcc.ir.vocabulary.tabled import TabledByCode, TabledFunction, TabledNorm, TabledSoftmax
from qcc.passes.contract.contract import Between, Context, Edit
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.contract.subject import SubjectPass
from qcc.passes.tables.entries import exponential_table, function_table, root_table

BYTE, OPSETS = 256, (18, 21)  # codes of more than eight bits take the second
ROWS = 4096  # of scores, by which the table of a softmax is chosen


@dataclass(frozen=True)
class Tabulate(SubjectPass):
    """Compute functions by looking them up: gelu, silu, sigmoid and their like, softmax and norms.

    Rewrite:
        gelu(x)     -->  table[codes of x]
        softmax(x)  -->  e / sum(e), e = table[codes of x - max(x)]
        norm(x)     -->  (x - mean) table[codes of m] 2^-n gain + shift, where m 4^n is the mean square

    What is such a function is told by what it computes, however it is spelled. Its codes are whole numbers by one step,
    from the least to the largest number that calibration data shows, zero among them; what lies beyond gets the end's
    entry. A softmax looks up its exponential below the largest score, as far as loses least on data; what hides scores
    becomes zero. A norm looks up its reciprocal root within a power of four, so that no range is needed. Where layers
    read what was looked up as whole numbers (`activations = static`), the table holds these, and nothing between is
    float.

    ONNX Runtime gathers number by number, which takes several times as long as its own functions. So a table is written
    only where it is faster, timed on this machine on a sample; `when = always` writes it for processors that have
    nothing but integers, or to see what they would compute.

    Args:
        table: how many entries.
        when: ``faster`` where timing says so, ``always`` without asking.

    Source: A block-wise computation of transformers, BCT, 2023 (arXiv:2304.01483), section 3, for functions by tables.
    """

    subjects: ClassVar[tuple[str, ...]] = FUNCTIONS
    wants: ClassVar[str] = "table = 256"
    learned: ClassVar[str] = "tables"
    uses_sample: ClassVar[bool] = True

    table: Annotated[int | None, Between(16, 4096), "entries of the table that a function is looked up in"] = None
    when: Annotated[Literal["faster", "always"], "whether a table has to be faster"] = "faster"

    @property
    def label(self) -> str:
        """What is done."""
        return f"looked up in {self.table} entries"

    @property
    def opset(self) -> int:
        """Of the ops that make codes."""
        return OPSETS[(self.table or 0) > BYTE]

    @property
    def nothing(self) -> bool:
        """It says no size."""
        return self.table is None

    @property
    def learns(self) -> bool:
        """Ranges come from data."""
        return True

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Write tables in the place of the functions of these names."""
        wanted = [one for one in functions(graph, self.subjects) if one.name in {*targets} and context.takes(one.name)]
        missing = {*targets} - {one.name for one in wanted}
        lost = "nothing else is left of it that could be looked up"
        edits = [Edit(name, lost, refused=True, what="function") for name in targets if name in missing]
        seen = _seen(graph, wanted, context)
        for site in wanted:
            context.progress(site.name)
            try:
                tabled = self._tabled(graph, site, seen)
                shape = seen[site.source].shape if site.source in seen else ()
                edits.append(self._written(graph, site, tabled, shape, context))
            except Refused as refused:
                if refused.broken:
                    raise
                edits.append(Edit(site.name, refused.reason, refused=True, what=site.what))
        return edits

    def _tabled(self, graph: Graph, site: FunctionSite, seen: Mapping[str, "_Seen"]) -> TabledByCode:
        """What a function becomes."""
        assert self.table is not None
        value = graph.value(site.source)
        if value.dtype != "float32" or value.container:
            raise Refused("only functions of float32 are looked up")
        if site.what == NORM:
            table = root_table(self.table)
            return TabledNorm(site.source, site.result, table, site.centred, site.epsilon, site.gain, site.shift)
        known = seen.get(site.source)
        if known is None:
            raise Refused("calibration did not see what it is of")
        if site.what == SOFTMAX:
            return TabledSoftmax(site.source, site.result, exponential_table(self.table, known.rows), site.axis)
        run, count = graph.runner([site.source], [site.result]), math.prod(known.shape)

        def computed(x: Array) -> Array:
            held = np.resize(x, (max(-(-x.size // max(count, 1)), 1), *known.shape)).astype(np.float32)
            made = [run({site.source: part})[site.result].reshape(-1) for part in held]
            return np.concatenate(made)[: x.size]

        return TabledFunction(site.source, site.result, function_table(self.table, known.magnitudes, computed))

    def _written(
        self, graph: Graph, site: FunctionSite, tabled: TabledByCode, shape: Sequence[int], context: Context
    ) -> Edit:
        """The table in the function's place, if that is asked for or faster."""
        text = f"looked up in {self.table} entries"
        if self.when == "faster":
            share = self._share(graph, site, tabled, shape, context)
            if share >= 1:
                times = f"takes {share:.2g}x its time" if share > 1 else "is no faster"
                told = f"looked up in {self.table} entries it {times} here"
                return Edit(site.name, told, refused=True, code="Q700", what=site.what)
            text += f", in {share:.2g}x its time here"
        graph.write_tabled(tabled)
        return Edit(site.name, text, what=site.what)

    def _share(
        self, graph: Graph, site: FunctionSite, tabled: TabledByCode, shape: Sequence[int], context: Context
    ) -> float:
        """The time of a table as a share of the function's, on a sample; asked once of those that are alike."""
        if context.race is None or not shape:
            raise Refused("nothing was timed: `when = always` writes a table without")
        key = "race", self.table, site.what, tuple(shape), site.axis, bool(site.gain), bool(site.shift)
        if key not in context.found:
            copy = graph.copy()
            copy.write_tabled(tabled)
            feeds = {site.source: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
            one, other = (each.runner([site.source], [site.result]) for each in (copy, graph))
            context.found[key] = context.race(one, other, feeds)
        found = context.found[key]
        assert isinstance(found, float)
        return found


@dataclass(frozen=True)
class _Seen:
    """What data shows of a value: how large its numbers are, the sizes of a sample, and rows of scores."""

    magnitudes: Magnitudes
    shape: tuple[int, ...]
    rows: Array


def _seen(graph: Graph, sites: Sequence[FunctionSite], context: Context) -> Mapping[str, _Seen]:
    """What data shows of what functions are of; asked once."""
    fed = {value.name for value in graph.inputs}
    axes = {one.source: one.axis if one.what == SOFTMAX else None for one in sites if one.source not in fed}
    if context.watch is None or not axes:
        return {}
    key = "tables", tuple(sorted(axes))
    if key not in context.found:
        found: dict[str, _Seen] = {}
        for values in context.watch(graph, sorted(axes), False):
            for name, array in values.items():
                sizes, before = Magnitudes.of(array), found.get(name)
                room = ROWS if before is None else ROWS - len(before.rows)
                rows = _rows(array, axes[name], room)
                if before is not None:
                    sizes, rows = before.magnitudes + sizes, _joined(before.rows, rows)
                found[name] = _Seen(sizes, before.shape if before else array.shape, rows)
        context.found[key] = found
    known = context.found[key]
    assert isinstance(known, Mapping)
    return known


def _rows(array: Array, axis: int | None, room: int) -> Array:
    """Some rows of scores along an axis, spread over all; none where there is no axis, or no room."""
    if axis is None or room <= 0:
        return np.zeros((0, 0), np.float32)
    moved = np.moveaxis(array, axis, -1)
    flat = moved.reshape(-1, moved.shape[-1])
    return np.array(flat[:: max(len(flat) // max(room // 8, 1), 1)][:room])


def _joined(rows: Array, more: Array) -> Array:
    """Both, those of fewer scores filled up with such as are hidden."""
    if not more.size or not rows.size:
        return rows if rows.size else more
    width = max(rows.shape[1], more.shape[1])
    filled = [np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=-np.inf) for one in (rows, more)]
    return np.concatenate(filled)
