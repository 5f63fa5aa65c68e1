"""Descent: what single changes of codes gain, and how soon."""

import numpy as np
import pytest

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.fit import encoded, fitted
from qcc.ir.encoding.formats.composed.bands import Bands
from qcc.ir.encoding.formats.composed.low_rank import LowRank
from qcc.ir.encoding.formats.composed.stack import Stack
from qcc.ir.encoding.grid import IntGrid, TableGrid
from qcc.ir.graph.ops import Weight
from qcc.ir.graph.view import MatrixView
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import Moments
from qcc.passes.rounding import descent
from qcc.passes.rounding.descent import Descent, Rule, descend
from qcc.passes.rounding.gptq import Gptq, fitted_to, output_error, round_columns, sweep
from qcc.passes.rounding.nearest import Nearest

INT3, INT2, BINARY = Blocked(IntGrid(3), group(32)), Blocked(IntGrid(2, False), group(16)), Blocked(TableGrid("int1"))
ENCODINGS = [INT3, INT2, Blocked(TableGrid("nf4")), Bands((INT3, BINARY), 0.25), Stack((INT2, BINARY))]
RNG = np.random.default_rng(7)
SHAPE = (40, 96)
MATRIX = RNG.standard_normal(SHAPE).astype(np.float32)
RULES: list[Rule] = ["cyclic", "random", "southwell", "lipschitz"]


def inputs(count: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    mixed = np.eye(96) + 0.5 * rng.standard_normal((96, 96))
    return RNG.standard_normal((count, 96)) @ (mixed * np.exp(rng.standard_normal(96)))


def gram_of(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows.T @ rows / len(rows), np.float32)


GRAM = gram_of(inputs(2000))


def descended(encoding: Encoding, rule: Rule, sweeps: float, free: float = 1.0) -> tuple[float, int, int]:
    """What is lost, from nearest on, the codes that were looked at for it, and those that changed."""
    found = fitted(MATRIX, encoding)
    values = encoded(MATRIX, encoding, found).decode().copy()
    looked, changed = descend(MATRIX, found, values, GRAM, rule, sweeps, free)
    stored = encoded(MATRIX, encoding, found)
    assert np.abs(stored.decode() - values).max() <= 1e-5  # sums of levels in another order
    return output_error(MATRIX, stored, GRAM), looked, changed


@pytest.mark.sampled
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda one: one.text.replace(" ", "_"))
def test_no_rule_loses(encoding: Encoding, rule: Rule) -> None:
    before = descended(encoding, rule, 50, free=0.01)[0]
    after, _, moves = descended(encoding, rule, 50)
    assert moves and after < 0.9 * before


def test_where_it_ends_no_single_change_gains() -> None:
    found = fitted(MATRIX, INT3)
    values = encoded(MATRIX, INT3, found).decode().copy()
    descend(MATRIX, found, values, GRAM, "lipschitz", 100)
    assert descend(MATRIX, found, values, GRAM, "cyclic", 1)[1] <= 2  # ties, in float32


@pytest.mark.slow
def test_the_bound_on_the_gain_finds_the_codes_that_pay() -> None:
    """It reaches what taking turns does by a third of the codes looked at, and by fewer changes."""
    goal, looked, changed = descended(INT3, "cyclic", 100)
    tried = (descended(INT3, "lipschitz", share) for share in np.linspace(0.1, 1, 19))
    reached = next(one for one in tried if one[0] <= goal)
    assert reached[1] <= looked / 3
    assert reached[2] <= 0.7 * changed


@pytest.mark.parametrize("encoding", ENCODINGS[:4], ids=lambda one: one.text.replace(" ", "_"))
@pytest.mark.parametrize("rule", ["southwell", "lipschitz"])
def test_leaving_confident_weights_alone_changes_nothing(
    encoding: Encoding, rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if of every weight it were asked how far it may be pulled: the same loss by the same changes."""
    found = descended(encoding, rule, 3)
    monkeypatch.setattr(descent, "SURE", 1e6)
    whole = descended(encoding, rule, 3)
    assert (found[0], found[2]) == (whole[0], whole[2]) and found[1] >= whole[1]


def test_frozen_weights_stay() -> None:
    found = fitted(MATRIX, INT3)
    start = encoded(MATRIX, INT3, found).decode()
    values = start.copy()
    descend(MATRIX, found, values, GRAM, "lipschitz", 10, 0.1)
    changed = (values != start).sum(1)
    assert changed.any() and changed.max() <= round(0.1 * 96)
    assert np.abs(start - MATRIX)[values != start].min() >= np.median(np.abs(start - MATRIX))


def context(rows: int, held: np.ndarray) -> tuple[Weight, Context]:
    seen = inputs(rows)
    both = np.concatenate([seen, held])
    moments = Moments(gram_of(both), len(both), gram_of(held), len(held))
    return Weight("w", "w", MatrixView(SHAPE, (0,)), "float32", ()), Context(
        grams={"w": moments.gram}, moments={"w": moments}
    )


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda one: one.text.replace(" ", "_"))
def test_after_gptq_it_is_never_worse_on_samples_held_out(encoding: Encoding) -> None:
    held = inputs(400)
    weight, seen = context(300, held)
    advised, why = Descent().advised(weight, MATRIX, encoding, seen)
    first, _ = Gptq().advised(weight, MATRIX, encoding, seen)
    assert why
    errors = [
        output_error(MATRIX, one.encode(weight, MATRIX, encoding, seen), gram_of(held)) for one in (advised, first)
    ]
    assert errors[0] <= errors[1]


def test_where_it_is_worse_it_is_not_done() -> None:
    """What is held out has nothing to do with what was seen."""
    weight, seen = context(300, np.random.default_rng(1).standard_normal((400, 96)))
    advised, why = Descent(start="nearest").advised(weight, MATRIX, INT3, seen)
    assert isinstance(advised, Nearest) and "no better" in why


def test_it_starts_where_gptq_ends() -> None:
    damped = GRAM + 0.01 * np.mean(np.diag(GRAM)) * np.eye(96, dtype=np.float32)
    found = fitted_to(MATRIX, INT3, GRAM, 0.01, "mse")
    sweep(MATRIX, found, GRAM, 0.01)
    before = output_error(MATRIX, round_columns(MATRIX, INT3, GRAM, 0.01, "mse"), damped)
    values = encoded(MATRIX, INT3, found).decode().copy()
    descend(MATRIX, found, values, damped, "lipschitz", 3)
    assert output_error(MATRIX, encoded(MATRIX, INT3, found), damped) < before


def test_what_no_weight_chooses_alone_stays() -> None:
    weight, seen = context(300, inputs(100))
    encoding = LowRank(8, 0.0, Blocked(IntGrid(8)))
    found = Descent().encode(weight, MATRIX, encoding, seen)
    assert np.array_equal(found.decode(), Gptq().encode(weight, MATRIX, encoding, seen).decode())
