"""Several metrics at once: the choice under which the worst of them is least, beside what one metric for all gives.

Metrics have no common unit, so each is told in shares of what it loses where one metric decides for all layers. That
choice has the share 1 of each, so the best has no more of any: at equal bytes no metric is worse. How large a share is
needed is found by halving; each try is a problem with a bound for each metric, solved and proven like any other.

Source: MixDQ, Zhao et al. 2024 (arXiv:2405.17873), which searches the ratio of the mean bits of two groups of layers,
each solved by itself; a bound on both does the same without a grid, and for groups that overlap.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from qcc.compiler.allocate.choice.solve import BudgetRow, Infeasible, Problem, Solution, solve

NEAR = 0.005  # of the share: metrics are measured to a tenth
LIMIT_S = 10.0  # for each try

Rows = Sequence[np.ndarray]
Balance = dict[str, tuple[float, float]]


def balance_of(problem: Problem, alone: Solution, metrics: Mapping[str, Rows]) -> tuple[Solution, Balance]:
    """The choice of the least worst share, and what each metric loses under it and under one metric for all.

    Args:
        problem: whose cost is that one metric; its rows hold in any case.
        alone: its solution.
        metrics: the losses of each candidate of each unit in each metric; none for no question.
    """
    before = {name: _sum(rows, alone) for name, rows in metrics.items()}
    if not metrics:
        return alone, {}
    best, low, high = alone, 0.0, 1.0
    while high - low > NEAR:
        share = (low + high) / 2
        rows = tuple(BudgetRow(name, _finite(one), share * before[name]) for name, one in metrics.items())
        try:
            best = solve(replace(problem, rows=(*problem.rows, *rows)), time_limit_s=LIMIT_S)
        except Infeasible:
            low = share
            continue
        found = [_sum(one, best) / before[name] for name, one in metrics.items() if before[name]]
        high = min(share, max(found, default=0.0))
    return best, {name: (_sum(rows, best), before[name]) for name, rows in metrics.items()}


def _sum(rows: Rows, solution: Solution) -> float:
    return math.fsum(float(one[at]) for one, at in zip(rows, solution.choice, strict=True))


def _finite(rows: Rows) -> tuple[np.ndarray, ...]:
    """What cannot be chosen is so by its cost, and weighs nothing here."""
    return tuple(np.where(np.isfinite(one), one, 0.0) for one in rows)
