"""What GPTQ takes from data: never what samples held out do not confirm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.fit import encoded, fitted
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph.ops import Weight
from qcc.ir.graph.view import MatrixView
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import Moments
from qcc.passes.rounding.gptq import Gptq, output_error, round_columns, sweep
from qcc.passes.rounding.nearest import Nearest

INT3 = Blocked(IntGrid(3), group(16))
OUT, IN = 24, 48
WEIGHT = Weight("w", "w", MatrixView((OUT, IN), (0,)), "float32", ())


def moments(rows: int, seed: int, common: float = 1.0) -> Moments:
    rng = np.random.default_rng(seed)
    mix = np.eye(IN) + common * rng.standard_normal((IN, IN)) / IN**0.5
    x = (rng.standard_normal((rows, IN)) @ mix).astype(np.float32)
    held = x[: max(rows // 4, 1)]
    return Moments(x.T @ x / len(x), len(x), held.T @ held / len(held), len(held))


@pytest.mark.slow
@given(st.integers(2, 400), st.integers(0, 99), st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_on_samples_held_out_it_is_never_worse_than_nearest(rows: int, seed: int, common: float) -> None:
    matrix = np.random.default_rng(seed).standard_normal((OUT, IN)).astype(np.float32)
    one = moments(rows, seed, common)
    known = Context(grams={"w": one.seen}, moments={"w": one})
    chosen, why = Gptq().advised(WEIGHT, matrix, INT3, known)
    nearest = output_error(matrix, Nearest().encode(WEIGHT, matrix, INT3, known), one.held)
    assert output_error(matrix, chosen.encode(WEIGHT, matrix, INT3, known), one.held) <= nearest
    assert why


def test_much_data_is_trusted() -> None:
    matrix = np.random.default_rng(0).standard_normal((OUT, IN)).astype(np.float32)
    one = moments(20000, 1)
    chosen, _ = Gptq().advised(WEIGHT, matrix, INT3, Context(grams={"w": one.gram}, moments={"w": one}))
    assert isinstance(chosen, Gptq) and chosen.damping <= 0.1


def test_little_data_is_not_reject() -> None:
    """Inputs that have nothing in common: what eight rows show of it is chance."""
    matrix = np.random.default_rng(0).standard_normal((OUT, IN)).astype(np.float32)
    one = moments(8, 1, common=0)
    chosen, why = Gptq().advised(WEIGHT, matrix, INT3, Context(grams={"w": one.gram}, moments={"w": one}))
    assert chosen == Nearest() or (isinstance(chosen, Gptq) and chosen.damping >= 0.1)
    assert why


@pytest.mark.parametrize("rows", [1, 3, 12, 24, 48, 200])
@pytest.mark.parametrize("seed", range(3))
def test_what_few_rows_show_by_chance_is_not_followed(rows: int, seed: int) -> None:
    """Inputs that have nothing in common, of which nothing is to be learned; 1.1 for what is left of chance."""
    matrix = np.random.default_rng(0).standard_normal((OUT, IN)).astype(np.float32)
    one, true = moments(rows, seed, common=0), np.eye(IN, dtype=np.float32)
    nearest = output_error(matrix, Nearest().encode(WEIGHT, matrix, INT3, Context()), true)
    known = Context(grams={"w": one.gram}, moments={"w": one})
    assert output_error(matrix, Gptq().encode(WEIGHT, matrix, INT3, known), true) <= 1.1 * nearest


def test_rows_that_are_not_counted_are_followed_reject() -> None:
    matrix = np.random.default_rng(0).standard_normal((OUT, IN)).astype(np.float32)
    one, true = moments(24, 0, common=0), np.eye(IN, dtype=np.float32)
    nearest = output_error(matrix, Nearest().encode(WEIGHT, matrix, INT3, Context()), true)
    assert output_error(matrix, Gptq().encode(WEIGHT, matrix, INT3, Context(grams={"w": one.gram})), true) > 2 * nearest


def test_what_many_rows_show_is_followed() -> None:
    matrix = np.random.default_rng(0).standard_normal((OUT, IN)).astype(np.float32)
    one, other = moments(2000, 3, common=3), moments(2001, 3, common=3)
    assert one.chance < 0.4
    nearest = output_error(matrix, Nearest().encode(WEIGHT, matrix, INT3, Context()), other.gram)
    known = Context(grams={"w": one.gram}, moments={"w": one})
    assert output_error(matrix, Gptq().encode(WEIGHT, matrix, INT3, known), other.gram) < 0.8 * nearest


def test_without_samples_held_out_it_stays_what_was_asked_for() -> None:
    matrix = np.random.default_rng(0).standard_normal((OUT, IN)).astype(np.float32)
    assert Gptq().advised(WEIGHT, matrix, INT3, Context(grams={"w": np.eye(IN)})) == (Gptq(), "")


@pytest.mark.slow
@pytest.mark.parametrize("rows", [150, 400])
def test_data_of_one_kind_does_not_ruin_what_others_need(rows: int) -> None:
    """Samples held out are of the kind that was seen, and do not show what is lost on another."""
    rng = np.random.default_rng(rows)
    mixed = np.eye(192) + rng.standard_normal((192, 192)) / np.sqrt(192)
    directions = np.linalg.qr(rng.standard_normal((192, 192)))[0]
    few = np.exp(-np.arange(192) / 40)[:, None] * directions.T @ mixed
    matrix = rng.standard_normal((96, 192)).astype(np.float32)
    seen, held, other = rng.standard_normal((rows, 192)), rng.standard_normal((rows // 3, 192)), mixed.T @ mixed
    both = np.concatenate([seen, held]) @ few
    gram = np.asarray(both.T @ both / len(both), np.float32)
    judged = held @ few
    found = Moments(gram, len(both), np.asarray(judged.T @ judged / len(held), np.float32), len(held))
    weight = Weight("w", "w", MatrixView(matrix.shape, (0,)), "float32", ())
    context = Context(grams={"w": gram}, moments={"w": found})
    chosen, _ = Gptq().advised(weight, matrix, INT3, context)
    lost, nearest = (
        output_error(matrix, one.encode(weight, matrix, INT3, context), other) for one in (chosen, Nearest())
    )
    assert lost < 1.05 * nearest  # 1.1 and more where little data is believed because like data does well by it


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_count_errors_by_what_they_cost(symmetric: bool) -> None:
    """Where inputs are of very different power, scales fit those whose errors no other column makes up for."""
    rng = np.random.default_rng(5)
    matrix, power = rng.standard_normal((64, 96)).astype(np.float32), np.exp(2 * rng.standard_normal(96))
    inputs = rng.standard_normal((4000, 96)).astype(np.float32) * np.sqrt(power).astype(np.float32)
    seen, held = (half.T @ half / len(half) for half in (inputs[:2000], inputs[2000:]))
    encoding = Blocked(IntGrid(3, symmetric), group(16))
    blind = fitted(matrix, encoding)
    sweep(matrix, blind, seen, 0.01)
    weighed = output_error(matrix, round_columns(matrix, encoding, seen, 0.01, "mse"), held)
    assert weighed < 0.8 * output_error(matrix, encoded(matrix, encoding, blind), held)


def test_nearest_counts_errors_by_the_power_of_inputs_that_was_seen() -> None:
    rng = np.random.default_rng(6)
    matrix, power = rng.standard_normal((64, 96)).astype(np.float32), np.exp(2 * rng.standard_normal(96))
    inputs = rng.standard_normal((4000, 96)).astype(np.float32) * np.sqrt(power).astype(np.float32)
    seen, held = (half.T @ half / len(half) for half in (inputs[:2000], inputs[2000:]))
    weight = Weight("w", "w", MatrixView(matrix.shape, (0,)), "float32", ())
    encoding = Blocked(IntGrid(2), group(32))
    blind, weighed = (Nearest().encode(weight, matrix, encoding, Context(grams=g)) for g in ({}, {"w": seen}))
    assert output_error(matrix, weighed, held) < 0.9 * output_error(matrix, blind, held)
