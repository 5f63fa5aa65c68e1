"""Bands: which columns get how many bits."""

import numpy as np
import pytest

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.formats.composed.bands import Bands
from qcc.ir.encoding.formats.composed.nothing import Nothing
from qcc.ir.encoding.grid import IntGrid, TableGrid
from qcc.passes.contract.factor import inverse_factor
from qcc.passes.rounding.gptq import output_error, round_columns

INTS = {bits: Blocked(IntGrid(bits)) for bits in (2, 3, 4, 8)} | {1: Blocked(TableGrid("int1")), 0: Nothing()}
RNG = np.random.default_rng(3)
DAMPING = 0.01


def bands(*bits: int, average: float) -> Bands:
    return Bands(tuple(INTS[one] for one in bits), average=average)


def gram_of(inner: int, spread: float) -> np.ndarray:
    """Of inputs that lean on each other and whose powers differ."""
    inputs = RNG.standard_normal((20 * inner, inner)) @ (np.eye(inner) + 0.3 * RNG.standard_normal((inner, inner)))
    inputs *= np.exp(spread * RNG.standard_normal(inner))
    return np.asarray(inputs.T @ inputs / len(inputs), np.float32)


def bits_of(encoded: Encoded) -> np.ndarray:
    """Of the codes of each column."""
    settled = encoded.encoding
    assert isinstance(settled, Bands) and settled.columns is not None
    used = [one.order[0] for one, count in zip(settled.members, settled.columns, strict=True) if count]
    return np.asarray(used)[encoded.parts["band"]] if len(used) > 1 else np.full(encoded.shape[1], used[0])


@pytest.mark.parametrize("average", [1.0, 1.7, 2.0, 2.6])
def test_an_average_is_not_gone_beyond(average: float) -> None:
    matrix = RNG.standard_normal((16, 128)).astype(np.float32)
    bits = bits_of(round_columns(matrix, bands(4, 3, 2, 1, 0, average=average), gram_of(128, 1), DAMPING, "mse"))
    assert average - 8 * 4 / 128 <= bits.mean() <= average  # in units of 8 columns
    assert len(set(bits.tolist())) <= 3


def test_bits_follow_the_closed_form() -> None:
    """With all numbers of bits that are asked for within three bands, each column is a bit off at most."""
    gram = gram_of(256, 0.8)
    sensitivity = inverse_factor(gram, DAMPING).sensitivity
    matrix = RNG.standard_normal((16, 256)).astype(np.float32)
    bits = bits_of(round_columns(matrix, bands(3, 2, 1, average=2.0), gram, DAMPING, "mse"))
    wanted = np.log2(sensitivity) / 2
    shifts = np.linspace(-20, 20, 4001)
    means = [np.clip(np.rint(wanted + shift), 1, 3).mean() for shift in shifts]
    closed = np.clip(np.rint(wanted + shifts[np.searchsorted(means, 2.0)]), 1, 3)
    assert (bits != closed).mean() < 0.1 and np.abs(bits - closed).max() <= 1
    assert sorted(sensitivity[bits == 3])[0] >= sorted(sensitivity[bits == 1])[-1]


def test_layers_that_read_the_same_agree() -> None:
    gram, asked = gram_of(96, 1), bands(4, 2, 0, average=2.0)
    one, other = (
        round_columns(RNG.standard_normal((rows, 96)).astype(np.float32), asked, gram, DAMPING, "mse")
        for rows in (8, 40)
    )
    assert one.encoding == other.encoding
    assert np.array_equal(one.parts["band"], other.parts["band"])


def test_columns_that_never_count_are_left_out() -> None:
    matrix = RNG.standard_normal((24, 64)).astype(np.float32)
    power = np.where(np.arange(64) < 16, 1.0, 1e-9)
    found = round_columns(matrix, bands(4, 1, 0, average=1.0), np.diag(power).astype(np.float32), 0.0, "mse")
    assert (bits_of(found)[:16] == 4).all()
    assert not found.decode()[:, 16:].any()


def test_where_columns_are_alike_all_get_the_same() -> None:
    matrix = RNG.standard_normal((24, 64)).astype(np.float32)
    found = round_columns(matrix, bands(4, 2, 1, average=2.0), np.eye(64, dtype=np.float32), DAMPING, "mse")
    assert set(bits_of(found).tolist()) == {2} and "band" not in found.parts


def test_bits_by_input_lose_less_than_the_same_for_all() -> None:
    matrix, gram = RNG.standard_normal((64, 256)).astype(np.float32), gram_of(256, 1)
    errors = [
        output_error(matrix, round_columns(matrix, one, gram, DAMPING, "mse"), gram)
        for one in (bands(4, 3, 2, 1, 0, average=2.0), INTS[2])
    ]
    assert errors[0] < 0.7 * errors[1]


def test_without_data_large_weights_matter() -> None:
    matrix = RNG.standard_normal((24, 64)).astype(np.float32)
    matrix[:, ::4] *= 10
    found = encode(matrix, bands(8, 1, average=2.75))
    assert set(bits_of(found)[::4].tolist()) == {8} and set(bits_of(found)[1::4].tolist()) == {1}


@pytest.mark.slow
def test_what_is_settled_takes_about_what_was_told() -> None:
    """The allocator asks before a weight is fitted."""
    asked = bands(4, 3, 2, 1, 0, average=2.0)
    for shape in ((96, 256), (384, 128), (64, 100)):
        matrix = RNG.standard_normal(shape).astype(np.float32)
        found = round_columns(matrix, asked, gram_of(shape[1], 1), DAMPING, "mse")
        assert found.encoding.size_bits(shape) == pytest.approx(asked.size_bits(shape), rel=0.1)  # a band's scales
