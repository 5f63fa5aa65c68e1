"""Mixed radix: the same numbers as one by one, in fewer bits."""

import numpy as np
import pytest

import qcc
from qcc.compiler.plan.values import encoding_named
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.formats.composed.radix import DIGITS, Radix
from qcc.passes.rounding.gptq import output_error, round_columns
from tests.test_grid_formats import drawn, error, spelled

BITS = {3: 1.6, 5: 7 / 3, 6: 8 / 3, 11: 3.5}


@pytest.mark.parametrize("levels", DIGITS)
@pytest.mark.parametrize("group", [0, 30])
@pytest.mark.parametrize("inner", [60, 64])
def test_digits_are_the_weights_one_by_one(levels: int, group: int, inner: int) -> None:
    matrix, encoding = drawn(0, 24, inner), Radix(levels, group)
    stored = encode(matrix, encoding)
    np.testing.assert_array_equal(stored.decode(), encode(matrix, encoding.digits).decode())
    assert len(np.unique(np.round(stored.decode()[0, : group or inner], 6))) <= levels


@pytest.mark.parametrize("levels", DIGITS)
def test_it_takes_what_its_parts_take(levels: int) -> None:
    encoding = spelled(f"radix({levels})")
    assert encoding == Radix(levels) and encoding_named(encoding.text) == encoding
    assert encoding.size_bits((64, 120)) == pytest.approx(64 * 120 * BITS[levels] + 64 * 16)
    assert spelled(f"radix({levels}, group = 32)").text == f"radix({levels}, group = 32)"


@pytest.mark.parametrize("text", ["radix(4)", "radix(7)", "radix(2)", "radix(12)"])
def test_other_levels_are_none(text: str) -> None:
    with pytest.raises(qcc.QccError):
        spelled(text)


def test_more_levels_lose_less() -> None:
    matrix = drawn()
    errors = [error(f"radix({levels})", matrix) for levels in DIGITS]
    assert errors == sorted(errors, reverse=True)
    assert error("int1 channel", matrix) > errors[0] and errors[1] < error("int2 mid channel", matrix)


def test_errors_are_fed_on() -> None:
    random = np.random.default_rng(1)
    inputs = random.standard_normal((400, 64)) @ (random.standard_normal((64, 64)) / 6 + np.eye(64))
    gram, matrix = (inputs.T @ inputs / 400).astype(np.float32), drawn(1, 48, 64)
    nearest, fed = encode(matrix, Radix(3)), round_columns(matrix, Radix(3), gram, 0.01, "mse")
    assert output_error(matrix, fed, gram) < 0.9 * output_error(matrix, nearest, gram)
