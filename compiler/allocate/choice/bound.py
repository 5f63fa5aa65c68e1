"""Lower bounds of the multiple-choice knapsack: dominated candidates, the Lagrangian dual, reduced costs.

The Lagrangian dual of a multiple-choice knapsack equals its LP relaxation, but lives in as many dimensions as there
are rows (three or four), whatever the number of units; one evaluation is one pass over the cost table. Any
multipliers give a valid bound, so the bound does not lean on a solver's tolerances.

Source: Kellerer, Pferschy and Pisinger, *Knapsack Problems* (Springer, 2004), sections 11.2 (dominance, relaxations)
and 3.2 (Lagrange); Kelley, *The cutting-plane method for solving convex programs* (J. SIAM 8, 1960).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CUTS = 400


@dataclass(frozen=True)
class PaddedProblem:
    """A problem as rectangular arrays, every unit shifted to a minimum of zero in its cost and in each row.

    A forbidden or absent candidate has infinite cost. After the shift nothing is negative, so `bound` is the room
    that is left above the lightest choice.
    """

    cost: FloatArray  # [units, candidates]
    weight: FloatArray  # [units, candidates, rows], each row scaled
    bound: FloatArray  # [rows], scaled alike
    slack: FloatArray  # [rows], what counts as rounding, scaled alike

    def total(self, choice: Ints) -> float:
        """Return the cost of a choice, above every unit's minimum."""
        return float(self.cost[np.arange(len(choice)), choice].sum())

    def room(self, choice: Ints) -> FloatArray:
        """Return what a choice leaves of each row's bound."""
        used: FloatArray = self.weight[np.arange(len(choice)), choice].sum(axis=0)
        return self.bound - used

    def fits(self, choice: Ints) -> bool:
        """Say whether a choice satisfies every row, up to rounding."""
        return bool((self.room(choice) >= -self.slack).all())


def tabulate(cost: FloatArray, weight: FloatArray, bound: FloatArray) -> PaddedProblem:
    """Return the shifted and scaled table; `cost` is infinite where a candidate does not exist."""
    allowed = np.isfinite(cost)
    masked = np.where(allowed[:, :, None], weight, np.inf)
    light = masked.min(axis=1, initial=np.inf)
    moved = np.where(allowed[:, :, None], weight - light[:, None, :], 0.0)
    magnitude = np.abs(np.where(allowed[:, :, None], weight, 0.0)).max(axis=1, initial=0.0).sum(axis=0)
    room = bound - light.sum(axis=0)
    scale = np.where(room > 0, room, moved.max(axis=(0, 1), initial=0.0))
    scale = np.where(scale > 0, scale, 1.0)
    slack = 1e-12 * np.maximum(magnitude, np.abs(bound)) / scale
    least = cost.min(axis=1, initial=np.inf)
    table = PaddedProblem(cost - least[:, None], moved / scale, room / scale, slack)
    return without_dominated(without_impossible(table))


def without_impossible(table: PaddedProblem) -> PaddedProblem:
    """Forbid every candidate that breaks a row even beside the lightest candidates of all other units."""
    over = (table.weight > table.bound + table.slack).any(axis=2)
    return PaddedProblem(np.where(over, np.inf, table.cost), table.weight, table.bound, table.slack)


def without_dominated(table: PaddedProblem) -> PaddedProblem:
    """Forbid every candidate that another one of its unit equals or beats in cost and in every row."""
    cost = table.cost.copy()
    index = np.arange(cost.shape[1])
    for winner in index:
        there = np.isfinite(cost[:, winner, None])
        no_worse = (cost[:, winner, None] <= cost) & (table.weight[:, winner, None, :] <= table.weight).all(axis=2)
        equal = (cost[:, winner, None] == cost) & (table.weight[:, winner, None, :] == table.weight).all(axis=2)
        beaten = there & no_worse & ~(equal & (index <= winner)) & (index != winner)
        cost[beaten] = np.inf
    return PaddedProblem(cost, table.weight, table.bound, table.slack)


@dataclass(frozen=True)
class Dual:
    """Multipliers of the rows, the bound they prove, and every candidate's reduced cost.

    For every choice within the rows, its cost is `bound` plus the sum of its reduced costs plus `multipliers` times
    the room it leaves; all terms are nonnegative, which is what makes fixing by reduced cost exact.
    """

    multipliers: FloatArray  # [rows]
    bound: float
    reduced: FloatArray  # [units, candidates], minimum zero per unit
    base: Ints  # [units], a candidate of reduced cost zero


def evaluate(table: PaddedProblem, multipliers: FloatArray) -> Dual:
    """Return the Lagrangian bound at some multipliers."""
    priced = table.cost + table.weight @ multipliers
    base = priced.argmin(axis=1)
    least = priced[np.arange(len(base)), base]
    bound = float(least.sum() - multipliers @ table.bound)
    return Dual(multipliers, bound, priced - least[:, None], base)


def maximise(table: PaddedProblem, hopeless: float) -> Dual:
    """Return the best multipliers, by cutting planes; stop early once the bound passes `hopeless`.

    Each master problem is centred on the best point and scaled to the gap that is left, because costs span many
    orders of magnitude and HiGHS's tolerances are absolute.
    """
    rows = len(table.bound)
    best = last = evaluate(table, np.zeros(rows))
    box = np.full(rows, 10.0 * max(hopeless, 1e-300))
    points: list[FloatArray] = []
    slopes: list[FloatArray] = []
    values: list[float] = []
    unit, gap = box.copy(), max(hopeless, 1e-300)
    for _ in range(_CUTS if rows else 0):
        points.append(last.multipliers)
        slopes.append(-table.room(last.base))
        values.append(last.bound)
        step = _master(np.array(points), np.array(slopes), np.array(values), best, box, unit, gap)
        if step is None:
            break
        target, promise = step
        gap = promise - best.bound
        if gap <= 1e-13 * max(abs(best.bound), 1e-300):
            break
        box = np.where(target >= 0.999 * box, box * 100.0, box)
        unit = np.maximum(np.abs(target - best.multipliers), 1e-9 * best.multipliers + 1e-15 * box)
        last = evaluate(table, target)
        best = last if last.bound > best.bound else best
        if best.bound > hopeless * (1 + 1e-9):
            break
    return best


def _master(
    points: FloatArray,
    slopes: FloatArray,
    values: FloatArray,
    best: Dual,
    box: FloatArray,
    unit: FloatArray,
    gap: float,
) -> tuple[FloatArray, float] | None:
    """Maximise the cutting-plane model; return the multipliers and the model's value there."""
    from scipy.optimize import linprog  # who has nothing to choose needs none of it

    centre = best.multipliers
    right = values - best.bound + ((centre - points) * slopes).sum(axis=1)
    left = np.column_stack([-slopes * unit, np.full(len(values), gap)])
    size = np.abs(left).max(axis=1)
    limits = [*zip(-centre / unit, (box - centre) / unit, strict=True), (0.0, None)]
    target = np.zeros(len(limits))
    target[-1] = -1.0
    found = linprog(target, A_ub=left / size[:, None], b_ub=right / size, bounds=limits, method="highs-ds")
    if found.status != 0:
        return None
    move = np.asarray(found.x)
    return np.clip(centre + move[:-1] * unit, 0.0, box), best.bound + float(move[-1]) * gap
