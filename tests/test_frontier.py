"""The frontier is made of choices, and none of its sizes has a better one."""

import itertools

import numpy as np
import pytest

from qcc.compiler.allocate.frontier import MOST_POINTS, frontier

CLOSE = 1e-9  # sums of a few numbers of about 1


@pytest.mark.parametrize("seed", range(10))
def test_no_choice_of_its_size_loses_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [rng.uniform(1, 9, 4) for _ in range(4)]
    losses = [rng.uniform(0, 1, 4) for _ in range(4)]
    found = frontier(sizes, losses, 5.0)
    choices = [
        (
            5.0 + sum(s[at] for s, at in zip(sizes, one, strict=True)),
            sum(e[at] for e, at in zip(losses, one, strict=True)),
        )
        for one in itertools.product(range(4), repeat=4)
    ]
    assert found[0][0] == pytest.approx(min(size for size, _ in choices), abs=CLOSE)
    assert found[-1][1] == pytest.approx(min(loss for _, loss in choices), abs=CLOSE)
    for size, loss in found:
        assert min(abs(size - s) + abs(loss - e) for s, e in choices) < CLOSE
        assert all(e > loss - CLOSE for s, e in choices if s <= size + CLOSE)


def test_what_cannot_be_stored_is_left_out() -> None:
    assert frontier([np.array([1.0, 2.0])], [np.array([np.inf, 0.5])], 0.0) == ((2.0, 0.5),)
    assert frontier([np.array([1.0])], [np.array([np.nan])], 0.0) == ()


def test_many_points_are_thinned() -> None:
    sizes = [np.array([1.0, 2.0 + at]) for at in range(200)]
    found = frontier(sizes, [np.array([1.0, 0.0])] * 200, 0.0)
    assert len(found) == MOST_POINTS and (found[0][1], found[-1][1]) == (200.0, 0.0)
