"""Time the allocator's solver: `python -m benchmarks.allocator [--skip-milp] [--models MODEL...]`.

Of models the problems are real: their weights, ten formats each, a row of bytes and one of bits, and as the loss the
error in the weight, of its first rows. Others are synthetic.
`correlated` is what compression looks like: losses c 2^(-2b) over log-normal layer sizes, a size row, and latency
and energy rows of random ratio. `uniform` draws everything independently: the hardest to prove.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
from scipy import optimize

from qcc.compiler.allocate.choice.solve import BudgetRow, Problem, solve
from qcc.compiler.files.open_model import open_model
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import load_text
from qcc.ir.graph.ops import Weight
from qcc.ir.graph.view import MatrixView
from qcc.passes.contract.contract import Context
from qcc.passes.encode import Encode, relative_error

FORMATS = "int{2,3,4,5,6,8} group 32 | int{3,4,8} channel | bf16"
SHARES = (9, 12, 15, 20, 30)
"""Of the model's bytes, in percent; bits a weight are bounded alike."""
ROWS = 64
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


def of_model(path: Path, share: float) -> Problem:
    """Return what there is to decide of a model at a share of its size."""
    opened = open_model(path)
    text = f"qpolicy 1\nrule any {{ weights = {FORMATS} }}\nbudget {{ size <= {share:g}%, bits <= {share / 3:g} }}\n"
    plan = bind(load_text(text, schema()), opened.graph, opened.size_bytes, Diagnostics())
    assert plan.allocate is not None
    weights, cost, rows = {one.name: one for one in opened.graph.weights()}, [], list[list[np.ndarray]]()
    names = [limit.metric for limit in plan.allocate.limits]
    for option in plan.allocate.options:
        weight = weights[option.subject]
        matrix = np.ascontiguousarray(opened.graph.matrix(weight)[:ROWS])
        actions = [one.action for one in option.candidates]
        errors = [_error(matrix, one) if isinstance(one, Encode) else 0.0 for one in actions]
        cost.append(np.array(errors) * weight.params)
        rows.append([np.array([one.costs[name] for one in option.candidates]) for name in names])
    fixed = [plan.allocate.fixed.get(name, 0.0) for name in names]
    bounds = [limit.bound - used for limit, used in zip(plan.allocate.limits, fixed, strict=True)]
    columns = zip(names, zip(*rows, strict=True), bounds, strict=True)
    return Problem(tuple(cost), tuple(BudgetRow(name, tuple(column), bound) for name, column, bound in columns))


def _error(matrix: np.ndarray, action: Encode) -> float:
    shape = matrix.shape[0], matrix.shape[1]
    weight = Weight("w", "w", MatrixView(shape, (0,)), "float32", ())
    return relative_error(matrix, action.encoded(weight, matrix, Context())[0].decode())


def plain_milp(problem: Problem, gap: float, limit_s: float) -> tuple[float, float, float]:
    """Return the seconds, the gap and the cost of `scipy.optimize.milp` alone; it costs infinity if a row is broken."""
    sizes = [len(unit) for unit in problem.cost]
    one = sparse.block_diag([np.ones((1, size)) for size in sizes], format="csr")
    weigh = sparse.csr_matrix([np.concatenate(row.weight) / row.bound for row in problem.rows])
    cost = np.concatenate(problem.cost)
    started = time.perf_counter()
    result = optimize.milp(
        cost / max(cost.max(), 1e-300),
        constraints=[optimize.LinearConstraint(one, 1.0, 1.0), optimize.LinearConstraint(weigh, ub=1.0)],
        integrality=np.ones(len(cost)),
        bounds=optimize.Bounds(0.0, 1.0),
        options={"mip_rel_gap": gap, "time_limit": limit_s},
    )
    seconds = time.perf_counter() - started
    if result.x is None:
        return seconds, math.inf, math.inf
    picks = np.asarray(result.x) > 0.5
    holds = all(float(np.concatenate(row.weight)[picks].sum()) <= row.bound for row in problem.rows)
    found = float(cost[picks].sum()) if holds else math.inf
    return seconds, math.inf if result.mip_gap is None else float(result.mip_gap), found


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
    parser.add_argument("--models", type=Path, nargs="+", default=[], help="real problems of these, and no others")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    print(f"machine: {machine()}\ncommand: python -m benchmarks.allocator {' '.join(argv or sys.argv[1:])}")
    print(f"date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC\n")
    print("| problem | seed | target gap | seconds | gap | milp seconds | milp gap | milp cost over ours |")
    print("|---|---|---|---|---|---|---|---|")
    for (units, gap), family in [(size, make) for size in ((1_000, 0.0), (10_000, 1e-4)) for make in _FAMILIES]:
        for seed in () if options.models else range(options.seeds):
            _row(f"{units} x 8 x 3, {family.__name__} | {seed}", family(units, seed), gap, options)
    for path, share in [(path, share) for path in options.models for share in SHARES]:
        problem = of_model(path, share)
        _row(f"{path.stem} at {share:g}%: {len(problem.cost)} x 10 x 2 | -", problem, 0.0, options)
    return 0


def _row(name: str, problem: Problem, gap: float, options: argparse.Namespace) -> None:
    started = time.perf_counter()
    solution = solve(problem, gap=gap)
    seconds = time.perf_counter() - started
    plain = "- | - | -"
    if not options.skip_milp:
        taken, left, cost = plain_milp(problem, gap, options.milp_seconds)
        plain = f"{taken:.2f} | {left:.1e} | {cost / max(solution.cost, 1e-300) - 1:+.1e}"
    print(f"| {name} | {gap:g} | {seconds:.2f} | {solution.gap:.1e} | {plain} |", flush=True)


_FAMILIES = (correlated, uniform)


if __name__ == "__main__":
    sys.exit(main())
