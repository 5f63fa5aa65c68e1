"""Leaving residual branches out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, cast

import numpy as np

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.names import DOWN
from qcc.ir.regions.residual import ResidualBranch, residual_branches
from qcc.passes.contract.contract import Between, Context, Edit, Invariant, Restructure, Site, Watch
from qcc.passes.structure.stream_fit import Cure, StreamMap, StreamSums, fitted
from qcc.passes.structure.stream_refit import Refit, put, refits

Run = tuple[ResidualBranch, ...]


@dataclass(frozen=True)
class LeaveOut(Restructure):
    """Leave residual branches out: what is computed of a value and added to it, so that the value alone goes on.

    A branch goes if all its layers are named. Layers that are named and lie in no such branch are an error: without
    them the model would not be one. The loss is what the policy's ``verify`` allows.

    Rewrite:
        y = x + f(x)  -->  y = x
        y = x + f(x)  -->  y = x A + b, where that is asked for and helps

    With a ``cure`` a map takes the place of branches that follow each other: fitted by least squares on calibration
    data to what they made of the stream, and judged by data held out, first by what is left of its change, then by
    the model's outputs. Where none lowers their error there is none, which the report tells.

    With ``behind`` as many branches that come next get a last layer fitted anew, so that the stream behind each is
    what it was: from hidden channels and from what attention has gathered, of which a map of the stream knows nothing.
    That too stays only where it lowers the error of outputs on data held out.

    With ``at_most`` some of the branches that are named go, as many as pay within the budget: the allocator decides it
    together with bits. Whichever costs the outputs least for its weights goes first, then whichever does beside it, and
    each number of them is measured as a whole, with its cure. Bits are decided anew on what stays.

    Args:
        at_most: how many branches go; all that are named by default.
        cure: `gain` a factor and a shift for each channel, `linear` any map, whose matrix rules may encode as any
            other, `low_rank` one of two matrices with a quarter of the channels between, `best` the best of these.
        behind: how many branches behind are fitted anew.

    Source: FoldGPT, 2024 (arXiv:2407.00928), which trains what is left where here a map is fitted; Residual networks
        behave like ensembles of relatively shallow networks, Veit et al. 2016 (arXiv:1605.06431), section 4.
    """

    property: ClassVar[str] = "leave_out"
    statement: ClassVar[str] = "depth"
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.SHAPES,))
    after: ClassVar[tuple[str, ...]] = ("clean",)
    asks: ClassVar[str] = "be left out"
    opens: ClassVar[str] = "at_most"

    cure: Cure = "off"
    at_most: Annotated[int, Between(0, 1000)] = 0
    behind: Annotated[int, Between(0, 1000)] = 0

    def uses_data(self) -> bool:
        """A cure is fitted."""
        return self.cure != "off" or self.behind > 0

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The outermost branches all of whose layers are targets, and the targets that lie in none."""
        found = _chosen(graph, targets)
        inside = {name for branch in found for name in branch.weights}
        why = "not all of a residual branch"
        rest = [Site(name, (name,), why) for name in targets if name not in inside]
        return [*(Site(branch.name, branch.weights) for branch in found), *rest]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Leave out, one after the other: the sum of one may be the stream of the next; then cure what is left."""
        edits = [site.refusal for site in self.sites(graph, targets) if site.refused and context.takes(site.subject)]
        whole = graph.copy()
        going = tuple(one for one in _chosen(graph, targets) if context.takes(one.name))
        for run in _runs(going):
            cure, told = self._cure(whole, graph, run, context)
            edits += _replaced(graph, run, cure, told)
            edits += self._refitted(whole, graph, run, going, context)
        return edits

    def _refitted(self, whole: Graph, graph: Graph, run: Run, going: Run, context: Context) -> list[Edit]:
        """Fit layers behind anew; asked once."""
        if not self.behind or context.watch is None:
            return []
        key = "behind", *(one.name for one in run)
        if key not in context.found:
            work, gone = graph.copy(), {one.name for one in going}
            found = refits(whole, work, run[-1].sum, gone, self.behind, context.watch)
            without, error = _output_errors(whole, (graph, work), context.watch) if found else (0.0, 0.0)
            context.found[key] = tuple(found if error < without else ()), without, error
        kept, without, error = cast(tuple[tuple[Refit, ...], float, float], context.found[key])
        put(graph, kept)
        if not kept:
            return []
        told = f"outputs held out are off by {error:.3g} in place of {without:.3g}"
        left = ", ".join(f"{one.error:.0%}" for one in kept)
        text = f"{len(kept)} layers behind fitted anew leave {left} of what the stream lacks; {told}"
        return [Edit(run[-1].name, text, layers=run[-1].weights)]

    def _cure(self, whole: Graph, graph: Graph, run: Run, context: Context) -> tuple[StreamMap | None, str]:
        """What is to stand in for some branches, and what is told of it; asked once."""
        if self.cure == "off" or context.watch is None:
            return None, ""
        key = "cure", *(one.name for one in run)
        if key not in context.found:
            context.found[key] = _found(whole, graph, run, self.cure, context.watch)
        found = context.found[key]
        assert isinstance(found, tuple)
        return found

    def silence(self, graph: Graph, targets: Sequence[str], context: Context) -> None:
        """Multiply the branches by zero; what a map stands in for gives way to it here, too."""
        whole = graph.copy()
        going = tuple(one for one in _chosen(graph, targets) if context.takes(one.name))
        for run in _runs(going):
            cure, _ = self._cure(whole, graph, run, context)
            if cure is not None:
                _replaced(graph, run, cure, "")
            else:
                _silenced(graph, run)
            self._refitted(whole, graph, run, going, context)


def _silenced(graph: Graph, run: Run) -> None:
    """Multiply branches by zero."""
    for branch in map(partial(_now, graph), run):
        zero = np.zeros((1,), np.dtype(graph.value(branch.end).dtype))
        graph.insert("mul", branch.end, zero, [(branch.op, branch.position)])


def _chosen(graph: Graph, targets: Sequence[str]) -> Run:
    found = [branch for branch in residual_branches(graph) if set(branch.weights) <= set(targets)]
    return tuple(one for one in found if not any(one.ops < other.ops for other in found))


def _now(graph: Graph, branch: ResidualBranch) -> ResidualBranch:
    """A branch as it is once others have changed: its values have other names, its sum is still the same op.

    Others may have the same weights.
    """
    return next(one for one in residual_branches(graph) if one.op == branch.op)


def _runs(branches: Sequence[ResidualBranch]) -> list[Run]:
    """Branches of which each adds to what the one before made."""
    runs: list[Run] = []
    for one in branches:
        if runs and runs[-1][-1].sum == one.stream:
            runs[-1] = (*runs[-1], one)
        else:
            runs.append((one,))
    return runs


def _replaced(graph: Graph, run: Run, cure: StreamMap | None, told: str) -> list[Edit]:
    """Take branches out, and put a map in their place."""
    first, last = _now(graph, run[0]), _now(graph, run[-1])
    dtype = np.dtype(graph.value(last.sum).dtype)
    gone = [Edit(one.name, f"left out, {len(one.ops)} ops{told}", layers=one.weights) for one in run]
    try:
        if cure is not None and cure.kind == "gain":
            scaled = graph.insert("mul", last.sum, np.diag(cure.matrix).astype(dtype))
            graph.insert("add", scaled, cure.shift.astype(dtype))
        elif cure is not None and cure.between is not None:
            _narrowed(graph, first.stream, last, cure)
            run = run[:-1]
        elif cure is not None:
            graph.replace_region(last.sum, first.stream, cure.matrix.astype(dtype), cure.shift.astype(dtype))
            return gone
        for one in (_now(graph, branch) for branch in run):
            graph.remove(one.sum, one.stream)
    except Refused as refused:
        return [Edit(one.name, refused.reason, refused=True, layers=one.weights) for one in run]
    return gone


def _narrowed(graph: Graph, stream: str, last: ResidualBranch, cure: StreamMap) -> None:
    """Let the last branch be two products of the stream, with few channels between."""
    assert cure.between is not None
    dtype = np.dtype(graph.value(last.sum).dtype)
    between = graph.insert("linear", stream, (cure.change @ cure.between).astype(dtype), (), f"{last.end}{DOWN}")
    graph.replace_region(last.end, between, cure.between.T.astype(dtype), cure.shift.astype(dtype))


def _found(whole: Graph, graph: Graph, run: Run, cure: Cure, watch: Watch) -> tuple[StreamMap | None, str]:
    """The map that stands in best for branches of the whole model on what comes before them now; None if none helps."""
    stream, sum_ = _now(graph, run[0]).stream, run[-1].sum
    seen, judged = (StreamSums() for _ in range(2))
    for sums, held in ((seen, False), (judged, True)):
        for before, behind in zip(watch(graph, (stream,), held), watch(whole, (sum_,), held), strict=True):
            sums.add(before[stream], behind[sum_])
    if not judged.size:
        return None, "; not cured: a cure is judged by data held out, and there is none"
    made = fitted(seen, judged, cure)
    if made is None:
        return None, "; not cured: no map is nearer than none on data held out"
    bare, cured = (graph.copy() for _ in range(2))
    _replaced(bare, run, None, ""), _replaced(cured, run, made, "")
    without, error = _output_errors(whole, (bare, cured), watch)
    told = f"outputs held out are off by {error:.3g} in place of {without:.3g}"
    if error >= without:
        return None, f"; not cured: {told}"
    return made, f"; a map ({made.kind}, ridge {made.ridge:g}) leaves {made.error:.0%} of what they did, {told}"


def _output_errors(whole: Graph, others: Sequence[Graph], watch: Watch) -> list[float]:
    """Noise power over signal power at the outputs, of each other graph, on data held out."""
    names = [value.name for value in whole.outputs]
    noise, signal = np.zeros((len(others), len(names))), np.zeros(len(names))
    for wanted, *got in zip(watch(whole, names, True), *(watch(other, names, True) for other in others), strict=True):
        for at, name in enumerate(names):
            if np.asarray(wanted[name]).dtype.kind != "f":
                continue
            right = wanted[name].astype(np.float64)
            signal[at] += np.square(right).sum()
            noise[:, at] += [np.square(one[name] - right).sum() for one in got]
    shares = np.divide(noise, signal, out=np.zeros_like(noise), where=signal > 0)
    return [float(one) for one in shares.mean(1)]
