"""The search for the best choice of a multiple-choice knapsack: narrow the distance between bound and best choice.

Every candidate whose reduced cost exceeds that distance is fixed, exactly; what is left is the core. While the core
is too large to search whole, the part of it that promises most is searched for better choices, which shrinks it.

Source: Kellerer, Pferschy and Pisinger, *Knapsack Problems* (Springer, 2004), sections 5.4 and 11.5.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcc.compiler.allocate.choice.bound import Dual, FloatArray, Ints, PaddedProblem, maximise, tabulate
from qcc.compiler.allocate.choice.search import Core, Outcome, core_of, milp, sweep

GapTick = Callable[[float, float], None]  # the best cost so far (infinite: none) and the proven bound

TOLERANCE = 1e-9  # what "optimal" means, relative to the cost
_WIDTHS = (300, 3_000, 20_000, 400_000)
_PROMISING = 100  # candidates per criterion in the first core that is not complete; each next one has four times more
_LARGEST = 3_000  # candidates in a complete core that lists search
_STATES = 60_000_000  # partial choices that one sweep may hold in all


class OutOfTimeError(Exception):
    """Time ran out with no choice within the rows found, nor proven that there is none."""


@dataclass(frozen=True)
class Best:
    """The best choice found and a bound of what any choice costs."""

    choice: Ints
    bound: float


def narrow(
    cost: FloatArray, weight: FloatArray, bound: FloatArray, gap: float, deadline: float, progress: GapTick | None
) -> Best | None:
    """Return the best choice, or None if there is none within the rows.

    Costs [units, candidates] may have any sign and are infinite where there is no candidate; weights are
    [units, candidates, rows].

    Raises:
        OutOfTimeError: no choice was found before the deadline.
    """
    least = cost.min(axis=1, initial=np.inf)
    finite = np.isfinite(bound)
    if not finite.any() or not len(cost):
        return Best(cost.argmin(axis=1), math.fsum(least)) if (bound[finite] >= 0).all() or len(cost) else None
    table = tabulate(cost, weight[:, :, finite], bound[finite])
    possible = np.isfinite(table.cost)
    if (table.bound < -table.slack).any() or not possible.any(axis=1).all():
        return None
    most = float(np.where(possible, table.cost, 0.0).max(axis=1).sum())
    dual = maximise(table, most)
    if dual.bound > most * (1 + TOLERANCE):
        return None
    return _Search(table, dual, math.fsum(least), most, gap, deadline, progress).run()


class _Search:
    """The state of a search; `above` and `proven` count from the Lagrangian bound, `floor`."""

    def __init__(
        self,
        table: PaddedProblem,
        dual: Dual,
        offset: float,
        most: float,
        gap: float,
        deadline: float,
        progress: GapTick | None,
    ) -> None:
        self.table, self.dual, self.deadline, self.progress = table, dual, deadline, progress
        self.floor = offset + dual.bound
        self.gap = max(gap, TOLERANCE / 4)
        self.choice: Ints | None = None
        self.above = most * (1 + TOLERANCE) - dual.bound + 1e-300  # no choice costs as much
        self.proven = 0.0
        self.promising = _PROMISING

    @property
    def tolerance(self) -> float:
        """The distance between best choice and bound that is good enough."""
        return 0.0 if self.choice is None else self.gap * abs(self.floor + self.above)

    @property
    def closed(self) -> bool:
        """Whether the distance is good enough, or it is proven that there is no choice."""
        return self.above - self.proven <= self.tolerance

    def run(self) -> Best | None:
        """Search ever wider until the distance is closed or the time is up."""
        for width in _WIDTHS:
            while not self.closed and time.monotonic() < self.deadline and self._sweep(width):
                pass
        if not self.closed and time.monotonic() < self.deadline:
            core = core_of(self.table, self.dual, self.dual.reduced <= self.above)
            self._learn(core, milp(core, self.above, self.deadline), complete=True)
        if self.choice is None and not self.closed:
            raise OutOfTimeError("no choice within the rows was found in the time allowed")
        return None if self.choice is None else Best(self.choice, self.floor + self.proven)

    def _sweep(self, width: int) -> bool:
        """Sweep the core, or its promising part; say whether that helped enough to do it again."""
        before, limit = self.above, self.above - 0.9 * self.tolerance
        wanted = self.dual.reduced < limit
        complete = int(wanted.sum()) - len(wanted) <= max(_LARGEST, self.promising)
        core = core_of(self.table, self.dual, wanted if complete else wanted & self._promising())
        width = min(width, _STATES // max(1, len(core.units)))
        self._learn(core, sweep(core, limit, width, self.deadline), complete=complete)
        better = self.above < 0.9 * before
        if not complete and not better:
            self.promising *= 4
        return better or not complete

    def _promising(self) -> npt.NDArray[np.bool_]:
        """Mark the candidates of least reduced cost, by itself and for what they move."""
        moved = self.table.weight - self.table.weight[np.arange(len(self.dual.base)), self.dual.base][:, None, :]
        prices = self.dual.multipliers + 1e-3 * self.dual.multipliers.mean() + 1e-300
        value = np.maximum((np.abs(moved) * prices).max(axis=2), 1e-300)
        reduced = np.where(self.dual.reduced > 0, self.dual.reduced, np.inf)
        found = self.dual.reduced <= 0
        for measure in (reduced, reduced / value):
            rank = min(self.promising, measure.size - 1)
            found |= measure <= np.partition(measure.ravel(), rank)[rank]
        return found

    def _learn(self, core: Core, found: Outcome, *, complete: bool) -> None:
        """Take over a better choice; take over the bound if the core held everything that could be better."""
        if found.picks is not None:
            choice = core.apply(self.dual.base, found.picks)
            above = max(0.0, self.table.total(choice) - self.dual.bound)
            if self.table.fits(choice) and (self.choice is None or above < self.above):
                self.choice, self.above = choice, above
        if complete and (self.choice is None or found.bound < np.inf):
            self.proven = max(self.proven, min(found.bound, self.above))
        if self.progress is not None:
            self.progress(math.inf if self.choice is None else self.floor + self.above, self.floor + self.proven)
