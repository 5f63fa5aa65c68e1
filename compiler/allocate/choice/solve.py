"""The multiple-choice knapsack that decides formats: one candidate per unit, least cost, within every row.

The Lagrangian dual bounds the cost from below (`multiple_choice_bound`); candidates whose reduced cost exceeds the
distance to the best choice known cannot be in a better one and are fixed; the few that remain are searched by
lists, then by HiGHS (`multiple_choice_search`, driven by `multiple_choice_narrow`). The bound reported is the
largest that any of these proved.

Source: Kellerer, Pferschy and Pisinger, *Knapsack Problems* (Springer, 2004), chapter 11; Pisinger, *A minimal
algorithm for the multiple-choice knapsack problem* (EJOR 83, 1995), for the core and its enlargement.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qcc.compiler.allocate.choice.bound import FloatArray
from qcc.compiler.allocate.choice.narrow import TOLERANCE, GapTick, OutOfTimeError, narrow

__all__ = ["BudgetRow", "GapTick", "Infeasible", "OutOfTimeError", "Problem", "Solution", "smallest_feasible", "solve"]


@dataclass(frozen=True)
class BudgetRow:
    """A budget: the sum of the chosen weights is at most `bound`."""

    name: str
    weight: tuple[npt.NDArray[np.float64], ...]  # per unit, [candidates], of any sign
    bound: float


@dataclass(frozen=True)
class Problem:
    """Units, each with its candidates' costs, and the rows that bound what is chosen.

    A cost is nonnegative; an infinite one forbids its candidate.
    """

    cost: tuple[npt.NDArray[np.float64], ...]  # per unit, [candidates]
    rows: tuple[BudgetRow, ...] = ()


@dataclass(frozen=True)
class Solution:
    """A choice within every row, and how far from the best one it can be at most."""

    choice: tuple[int, ...]
    cost: float
    bound: float  # no choice within the rows costs less
    gap: float  # (cost - bound) / cost


class Infeasible(Exception):  # noqa: N818  (the name of the result, as the solvers call it)
    """No choice satisfies the rows.

    `rows` are those that bind. `smallest` is, per row of these, the smallest bound that the other rows allow;
    infinite if they already contradict each other. `alone` is the smallest bound when it is the only row.
    """

    def __init__(self, smallest: dict[str, float], alone: dict[str, float]) -> None:
        self.rows = tuple(smallest)
        self.smallest = smallest
        self.alone = alone
        super().__init__(
            "no choice satisfies " + ", ".join(f"{name} (at least {smallest[name]:g})" for name in smallest)
        )


def solve(
    problem: Problem, *, gap: float = 0.0, time_limit_s: float = 60.0, progress: GapTick | None = None
) -> Solution:
    """Return a choice of least cost within every row, proven to the relative `gap`.

    The same problem gives the same choice, unless the time limit ends the search.

    Raises:
        Infeasible: no choice satisfies the rows.
        OutOfTimeError: no choice was found in time.
        ValueError: a cost or a weight is not a number, or a unit has no candidate.
    """
    cost, weight, bound = _arrays(problem)
    deadline = time.monotonic() + time_limit_s
    best = narrow(cost, weight, bound, gap, deadline, progress)
    if best is None:
        raise _explain(problem, cost, weight, bound, deadline + time_limit_s)
    value = math.fsum(cost[np.arange(len(cost)), best.choice])
    proven = value if value - best.bound <= TOLERANCE * abs(value) else best.bound
    return Solution(tuple(best.choice.tolist()), value, proven, (value - proven) / max(value, 1e-300))


def smallest_feasible(problem: Problem, row_name: str, *, time_limit_s: float = 60.0) -> float:
    """Return the smallest bound of one row that the other rows allow; infinite if they allow no choice.

    Raises:
        KeyError: there is no row of that name.
    """
    names = [row.name for row in problem.rows]
    if row_name not in names:
        raise KeyError(row_name)
    cost, weight, bound = _arrays(problem)
    return _smallest(cost, weight, bound, names.index(row_name), time.monotonic() + time_limit_s)


def _arrays(problem: Problem) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Check a problem and return it as [units, candidates], [units, candidates, rows] and [rows]."""
    sizes = [len(unit) for unit in problem.cost]
    cost = np.full((len(sizes), max(sizes, default=1)), np.inf)
    weight = np.zeros((*cost.shape, len(problem.rows)))
    for unit, size in enumerate(sizes):
        values = np.asarray(problem.cost[unit], dtype=np.float64)
        if np.isnan(values).any() or (values < 0).any():
            raise ValueError(f"unit {unit}: a cost is negative or not a number")
        if not np.isfinite(values).any():
            raise ValueError(f"unit {unit}: no candidate is allowed")
        cost[unit, :size] = values
    for index, row in enumerate(problem.rows):
        if not row.bound > -math.inf or len(row.weight) != len(sizes):
            raise ValueError(f"row {row.name}: its bound is not a number or its units are not the problem's")
        for unit, each in enumerate(row.weight):
            if len(each) != sizes[unit] or not np.isfinite(each).all():
                raise ValueError(f"row {row.name}, unit {unit}: a weight is missing or not finite")
            weight[unit, : sizes[unit], index] = each
    return cost, weight, np.array([row.bound for row in problem.rows], dtype=np.float64)


def _smallest(cost: FloatArray, weight: FloatArray, bound: FloatArray, row: int, deadline: float) -> float:
    """Return the least sum of one row's weights within the other rows."""
    target = np.where(np.isfinite(cost), weight[:, :, row], np.inf)
    others = np.arange(len(bound)) != row
    best = narrow(target, weight[:, :, others], bound[others], 0.0, deadline, None)
    return math.inf if best is None else math.fsum(target[np.arange(len(target)), best.choice])


def _explain(problem: Problem, cost: FloatArray, weight: FloatArray, bound: FloatArray, deadline: float) -> Infeasible:
    """Return which rows bind and what each would need."""
    lightest = np.where(np.isfinite(cost)[:, :, None], weight, np.inf).min(axis=1, initial=np.inf)
    alone = np.array([math.fsum(column) for column in lightest.T])
    names = [row.name for row in problem.rows]
    culprits = np.flatnonzero(alone > bound) if (alone > bound).any() else np.arange(len(bound))
    smallest = {names[row]: _smallest(cost, weight, bound, int(row), deadline) for row in culprits}
    binding = {name: least for name, least in smallest.items() if least > bound[names.index(name)]}
    return Infeasible(binding or smallest, {names[row]: float(alone[row]) for row in culprits})
