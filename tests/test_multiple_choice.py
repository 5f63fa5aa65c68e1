"""The multiple-choice knapsack against brute force, a greedy solver and a closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.compiler.allocate.choice.bound import maximise, tabulate
from qcc.compiler.allocate.choice.search import core_of, milp
from qcc.compiler.allocate.choice.solve import BudgetRow, Infeasible, Problem, smallest_feasible, solve

# Costs and weights are multiples of 1/8, so that sums are exact and ties are real ties.
_EIGHTHS = st.integers(0, 40).map(lambda value: value / 8)
_SIGNED = st.integers(-16, 40).map(lambda value: value / 8)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    scale = draw(st.sampled_from([1e-9, 1.0, 1e3]))
    cost = tuple(np.array([scale * draw(_EIGHTHS) for _ in range(size)]) for size in sizes)
    for unit in cost:
        if len(unit) > 1 and draw(st.booleans()) and draw(st.booleans()):
            unit[draw(st.integers(0, len(unit) - 1))] = np.inf
    rows = []
    for index in range(draw(st.integers(0, 3))):
        weight = tuple(np.array([draw(_SIGNED) for _ in range(size)]) for size in sizes)
        low, high = sum(w.min() for w in weight), sum(w.max() for w in weight)
        bound = low + draw(st.integers(-1, 8)) / 8 * max(high - low, 1.0)
        rows.append(BudgetRow(f"row{index}", weight, float(bound)))
    return Problem(cost, tuple(rows))


def brute_force(problem: Problem, rows: tuple[BudgetRow, ...]) -> tuple[float, list[tuple[int, ...]]]:
    choices = [
        choice
        for choice in itertools.product(*(range(len(unit)) for unit in problem.cost))
        if all(math.isfinite(unit[pick]) for unit, pick in zip(problem.cost, choice, strict=True))
        and all(used(row, choice) <= row.bound for row in rows)
    ]
    costs = [math.fsum(unit[pick] for unit, pick in zip(problem.cost, choice, strict=True)) for choice in choices]
    return min(costs, default=math.inf), choices


def used(row: BudgetRow, choice: tuple[int, ...]) -> float:
    return math.fsum(unit[pick] for unit, pick in zip(row.weight, choice, strict=True))


def greedy(problem: Problem) -> tuple[int, ...] | None:
    """Start at the lightest candidates of the first row, then take the exchange of best ratio while it fits."""
    row = problem.rows[0]
    choice = [int(np.lexsort((cost, weight))[0]) for cost, weight in zip(problem.cost, row.weight, strict=True)]
    if any(used(each, tuple(choice)) > each.bound for each in problem.rows):
        return None
    while True:
        best: tuple[float, int, int] | None = None
        for unit, cost in enumerate(problem.cost):
            for pick in range(len(cost)):
                saved = cost[choice[unit]] - cost[pick]
                trial = (*choice[:unit], pick, *choice[unit + 1 :])
                if saved <= 0 or any(used(each, trial) > each.bound for each in problem.rows):
                    continue
                ratio = saved / max(1e-12, row.weight[unit][pick] - row.weight[unit][choice[unit]])
                if best is None or ratio > best[0]:
                    best = (ratio, unit, pick)
        if best is None:
            return tuple(choice)
        choice[best[1]] = best[2]


def realistic(units: int, seed: int, rows: int = 3, bits: tuple[float, ...] = (2, 3, 4, 5, 6, 7, 8, 16)) -> Problem:
    random = np.random.default_rng(seed)
    width = np.array(bits)
    size, loss = np.exp(random.normal(11, 1.5, units)), np.exp(random.normal(0, 2, units))
    cost = loss[:, None] * 2.0 ** (-2 * width)
    weights = [size[:, None] * width]
    weights += [weights[0] * random.uniform(0.7, 1.4, cost.shape) for _ in range(rows - 1)]
    return Problem(
        tuple(cost), tuple(BudgetRow(f"row{i}", tuple(w), float(w[:, 2].sum())) for i, w in enumerate(weights))
    )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(problems())
def test_solve_equals_brute_force(problem: Problem) -> None:
    best, _ = brute_force(problem, problem.rows)
    if math.isinf(best):
        with pytest.raises(Infeasible):
            solve(problem)
        return
    solution = solve(problem)
    # 1e-9 relative is the tolerance that "optimal" promises.
    assert solution.cost == pytest.approx(best, rel=1e-9, abs=1e-300)
    assert solution.gap <= 1e-9
    assert solution.bound <= solution.cost
    assert all(used(row, solution.choice) <= row.bound for row in problem.rows)
    assert solve(problem) == solution


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(problems())
def test_infeasible_rows_name_the_smallest_bound(problem: Problem) -> None:
    for row in problem.rows:
        others = tuple(each for each in problem.rows if each is not row)
        _, choices = brute_force(problem, others)
        exact = min((used(row, choice) for choice in choices), default=math.inf)
        assert smallest_feasible(problem, row.name) == exact
    if math.isinf(brute_force(problem, problem.rows)[0]):
        with pytest.raises(Infeasible) as caught:
            solve(problem)
        assert caught.value.rows
        for name, least in caught.value.smallest.items():
            assert least == smallest_feasible(problem, name)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(problems())
def test_greedy_is_never_better(problem: Problem) -> None:
    finite = Problem(tuple(np.where(np.isfinite(unit), unit, 1e6) for unit in problem.cost), problem.rows)
    choice = greedy(finite) if finite.rows else None
    if choice is None:
        return
    cost = math.fsum(unit[pick] for unit, pick in zip(finite.cost, choice, strict=True))
    # Both sums round; 1e-9 relative is the solver's own tolerance.
    assert solve(finite).cost <= cost * (1 + 1e-9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(problems())
def test_highs_agrees_on_the_core(problem: Problem) -> None:
    best, _ = brute_force(problem, problem.rows)
    if math.isinf(best) or not problem.rows:
        return
    width = max(len(unit) for unit in problem.cost)
    cost = np.array([np.pad(unit, (0, width - len(unit)), constant_values=np.inf) for unit in problem.cost])
    weight = np.array(
        [[np.pad(row.weight[i], (0, width - len(problem.cost[i]))) for row in problem.rows] for i in range(len(cost))]
    ).transpose(0, 2, 1)
    table = tabulate(cost, weight, np.array([row.bound for row in problem.rows]))
    most = float(np.where(np.isfinite(table.cost), table.cost, 0).max(axis=1).sum())
    dual = maximise(table, most)
    core = core_of(table, dual, np.isfinite(table.cost))
    if not len(core.units):
        return
    found = milp(core, max(most, 1e-300), math.inf)
    assert found.picks is not None
    total = table.total(core.apply(dual.base, found.picks)) + cost.min(axis=1).sum()
    # HiGHS's absolute gap of 1e-6 on an objective scaled to 1e4 is 1e-10 of the largest cost.
    assert total == pytest.approx(best, rel=1e-9, abs=1e-9 * most + 1e-300)


@pytest.mark.slow
def test_a_looser_bound_never_costs_more() -> None:
    problem = realistic(60, 0)
    costs = []
    for factor in (0.8, 0.9, 0.95, 1.0, 1.05, 1.2, 2.0):
        rows = tuple(BudgetRow(row.name, row.weight, row.bound * factor) for row in problem.rows)
        costs.append(solve(Problem(problem.cost, rows)).cost)
    assert costs == sorted(costs, reverse=True)


def test_continuous_bits_are_a_lower_bound() -> None:
    # BAQ (2025): with cost c_i 2^(-2b) and equal sizes, the real-valued optimum is b_i = mean + log2(c_i / gm) / 2.
    random = np.random.default_rng(1)
    loss, bits, mean = np.exp(random.normal(0, 1, 200)), np.arange(1.0, 9.0), 4.0
    problem = Problem(
        tuple(loss[:, None] * 2.0 ** (-2 * bits)), (BudgetRow("size", tuple(np.tile(bits, (200, 1))), 200 * mean),)
    )
    geometric = np.exp(np.log(loss).mean())
    ideal = mean + 0.5 * np.log2(loss / geometric)
    continuous = float((loss * 2.0 ** (-2 * ideal)).sum())
    solution = solve(problem)
    assert continuous == pytest.approx(200 * geometric * 2.0 ** (-2 * mean))
    assert continuous <= solution.cost <= 1.2 * continuous  # rounding b to integers costs about 8 % here


@pytest.mark.slow
def test_a_thousand_units_to_gap_zero() -> None:
    problem = realistic(1000, 3)
    solution = solve(problem)
    assert solution.gap == 0.0
    for row in problem.rows:
        assert used(row, solution.choice) <= row.bound * (1 + 1e-9)
    assert solve(problem).choice == solution.choice


@pytest.mark.slow
def test_ten_thousand_units_to_a_small_gap() -> None:
    assert solve(realistic(10_000, 0), gap=1e-4).gap <= 1e-4


def test_a_bound_exactly_met() -> None:
    problem = realistic(300, 5, rows=2)
    least = smallest_feasible(problem, "row1")
    first, second = problem.rows
    solution = solve(Problem(problem.cost, (first, BudgetRow("row1", second.weight, least))))
    assert used(second, solution.choice) <= least * (1 + 1e-9)
    with pytest.raises(Infeasible) as caught:
        solve(Problem(problem.cost, (first, BudgetRow("row1", second.weight, least * 0.999))))
    assert caught.value.smallest["row1"] == pytest.approx(least, rel=1e-9)


def test_costs_over_twelve_orders_of_magnitude() -> None:
    cost = (np.array([1e3, 1e-9]), np.array([5e-9, 2e-9]), np.array([1e-9, 7e-9]))
    weight = (np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    solution = solve(Problem(cost, (BudgetRow("size", weight, 2.0),)))
    assert solution.choice == (1, 0, 0)
    assert solution.cost == pytest.approx(7e-9)


def test_equal_shapes_and_zero_costs() -> None:
    units = 64
    cost = tuple(np.array([3.0, 1.0, 0.0]) for _ in range(units))
    weight = tuple(np.array([1.0, 2.0, 4.0]) for _ in range(units))
    solution = solve(Problem(cost, (BudgetRow("size", weight, 2.0 * units + 1),)))
    assert (solution.cost, solution.gap) == (64.0, 0.0)
    free = solve(Problem(tuple(np.zeros(3) for _ in range(units)), (BudgetRow("size", weight, 4.0 * units),)))
    assert (free.cost, free.gap) == (0.0, 0.0)


@pytest.mark.slow
def test_progress_brackets_the_cost() -> None:
    seen: list[tuple[float, float]] = []
    solution = solve(realistic(200, 2), progress=lambda cost, bound: seen.append((cost, bound)))
    # The bracket is counted from the Lagrangian bound: rounding of the sums, 1e-9 relative.
    assert all(bound <= solution.cost * (1 + 1e-9) and cost >= solution.cost * (1 - 1e-9) for cost, bound in seen)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (Problem((np.ones(2), np.array([1.0, np.nan]))), "unit 1: a cost"),
        (Problem((np.array([-1.0]),)), "unit 0: a cost"),
        (Problem((np.array([np.inf]),)), "unit 0: no candidate"),
        (Problem((np.ones(2),), (BudgetRow("size", (np.ones(3),), 1.0),)), "row size, unit 0"),
        (Problem((np.ones(2),), (BudgetRow("size", (np.ones(2),), math.nan),)), "row size: its bound"),
    ],
)
def test_bad_problems_are_named(problem: Problem, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        solve(problem)


def test_nothing_to_choose() -> None:
    assert solve(Problem(())).choice == ()
    assert solve(Problem((np.array([2.0, 1.0]),))).choice == (1,)
    assert solve(Problem((np.array([2.0, 1.0]),), (BudgetRow("size", (np.ones(2),), math.inf),))).choice == (1,)
    with pytest.raises(KeyError):
        smallest_feasible(Problem((np.ones(1),)), "size")
