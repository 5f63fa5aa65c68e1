"""Time the allocator's solver on synthetic problems: `python -m benchmarks.allocator [--skip-milp]`.

`correlated` is what compression looks like: losses c 2^(-2b) over log-normal layer sizes, a size row, and latency
and energy rows of random ratio. `uniform` draws everything independently: the hardest to prove.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
from scipy import optimize

from qcc.compiler.allocate.choice.solve import BudgetRow, Problem, solve

_BITS = np.array([2.25, 3.25, 4.25, 5.0, 6.0, 7.0, 8.25, 16.0])


def correlated(units: int, seed: int, rows: int = 3) -> Problem:
    """Return a problem shaped like mixed-precision quantisation."""
    random = np.random.default_rng(seed)
    shape = (units, len(_BITS))
    size, loss = np.exp(random.normal(11, 1.5, units)), np.exp(random.normal(0, 2, units))
    cost = loss[:, None] * 2.0 ** (-2 * _BITS) * np.exp(random.normal(0, 0.1, shape))
    weights = [size[:, None] * _BITS]
    for _ in range(rows - 1):
        fixed = 1 + _BITS * random.uniform(0.1, 0.4, (units, 1))
        weights.append(size[:, None] * fixed * random.uniform(0.7, 1.4, shape))
    return _problem(cost, weights, [float(weight[:, 2].sum()) for weight in weights])


def uniform(units: int, seed: int, rows: int = 3) -> Problem:
    """Return a problem in which nothing is related to anything."""
    random = np.random.default_rng(seed)
    cost = random.uniform(0, 1, (units, 8))
    return _problem(cost, [random.uniform(0, 1, (units, 8)) for _ in range(rows)], [0.35 * units] * rows)


def _problem(cost: np.ndarray, weights: list[np.ndarray], bounds: list[float]) -> Problem:
    rows = [
        BudgetRow(f"row{i}", tuple(weight), bound)
        for i, (weight, bound) in enumerate(zip(weights, bounds, strict=True))
    ]
    return Problem(tuple(cost), tuple(rows))


def plain_milp(problem: Problem, gap: float, limit_s: float) -> tuple[float, float]:
    """Return the seconds and the gap of `scipy.optimize.milp` on the whole problem."""
    units, choices = len(problem.cost), len(problem.cost[0])
    one = sparse.kron(sparse.eye(units), np.ones((1, choices)), format="csr")
    weigh = sparse.csr_matrix([np.concatenate(row.weight) / row.bound for row in problem.rows])
    started = time.perf_counter()
    result = optimize.milp(
        np.concatenate(problem.cost),
        constraints=[optimize.LinearConstraint(one, 1.0, 1.0), optimize.LinearConstraint(weigh, ub=1.0)],
        integrality=np.ones(units * choices),
        bounds=optimize.Bounds(0.0, 1.0),
        options={"mip_rel_gap": gap, "time_limit": limit_s},
    )
    seconds = time.perf_counter() - started
    return seconds, float("inf") if result.mip_gap is None else float(result.mip_gap)


def machine() -> str:
    """Return the processor's name and the cores at hand."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.allocator", description=__doc__)
    parser.add_argument("--skip-milp", action="store_true", help="do not time plain scipy.optimize.milp")
    parser.add_argument("--milp-seconds", type=float, default=60.0, help="its time limit")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    print(f"machine: {machine()}\ncommand: python -m benchmarks.allocator {' '.join(argv or sys.argv[1:])}")
    print(f"date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC\n")
    print("| units x candidates x rows | family | seed | target gap | seconds | gap | milp seconds | milp gap |")
    print("|---|---|---|---|---|---|---|---|")
    for (units, gap), family in [(size, make) for size in ((1_000, 0.0), (10_000, 1e-4)) for make in _FAMILIES]:
        for seed in range(options.seeds):
            problem = family(units, seed)
            started = time.perf_counter()
            solution = solve(problem, gap=gap)
            seconds = time.perf_counter() - started
            plain = "- | -"
            if not options.skip_milp:
                taken, left = plain_milp(problem, gap, options.milp_seconds)
                plain = f"{taken:.1f} | {left:.1e}"
            name = f"{units} x 8 x 3 | {family.__name__} | {seed} | {gap:g}"
            print(f"| {name} | {seconds:.2f} | {solution.gap:.1e} | {plain} |", flush=True)
    return 0


_FAMILIES = (correlated, uniform)


if __name__ == "__main__":
    sys.exit(main())
