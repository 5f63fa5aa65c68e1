"""Float grids are the floats of numpy and ml_dtypes, code by code, and weights in them are those casts."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir.encoding import fit
from qcc.ir.encoding.blocked import FLOAT_ENCODINGS, Blocked
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.grid import FloatGrid, IntGrid
from qcc.ir.encoding.search import Clip
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Weight
from qcc.ir.graph.view import MatrixView
from qcc.passes.contract.contract import Context
from qcc.passes.rounding.gptq import Gptq, round_columns
from qcc.passes.rounding.nearest import Nearest

TYPES = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp16": np.dtype(np.float16),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3),
    "e3m4": np.dtype(ml_dtypes.float8_e3m4),
}
GRIDS = {
    "bf16": FloatGrid(8, 7),
    "fp16": FloatGrid(5, 10),
    "e5m2": FloatGrid(5, 2),
    "e4m3": FloatGrid(4, 3),
    "e3m4": FloatGrid(3, 4),
}
every = pytest.mark.parametrize("name", TYPES)


def _all_codes(grid: FloatGrid) -> np.ndarray:
    return np.arange(1 << grid.bits).astype(grid.dtype)


@every
def test_every_code_stands_for_its_float(name: str) -> None:
    grid, dtype = GRIDS[name], TYPES[name]
    codes = _all_codes(grid)
    assert (grid.text, grid.bits, np.dtype(grid.dtype).itemsize) == (name, 8 * dtype.itemsize, dtype.itemsize)
    numbers, wanted = grid.numbers(codes), codes.view(dtype).astype(np.float32)
    assert numbers.dtype == np.float32
    np.testing.assert_array_equal(numbers, wanted)
    np.testing.assert_array_equal(np.signbit(numbers[~np.isnan(wanted)]), np.signbit(wanted[~np.isnan(wanted)]))
    assert grid.highest == -grid.lowest == numbers[np.isfinite(numbers)].max()


@every
def test_a_number_of_the_grid_keeps_its_code(name: str) -> None:
    grid = GRIDS[name]
    codes = _all_codes(grid)
    numbers = grid.numbers(codes)
    finite = np.isfinite(numbers)
    np.testing.assert_array_equal(grid.codes(numbers[finite]), codes[finite])


@every
def test_ties_go_to_even_and_what_is_near_them_to_the_nearer(name: str) -> None:
    grid, dtype = GRIDS[name], TYPES[name]
    numbers = grid.numbers(_all_codes(grid)).astype(np.float64)
    ordered = np.unique(numbers[np.isfinite(numbers)])
    middles = ((ordered[1:] + ordered[:-1]) / 2).astype(np.float32)
    for values in (middles, np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf))):
        wanted = values.astype(dtype)
        np.testing.assert_array_equal(grid.codes(values), wanted.view(grid.dtype))
        np.testing.assert_array_equal(grid.round(values), wanted.astype(np.float32))


@pytest.mark.slow
@every
@settings(max_examples=200, deadline=None)
@given(numbers=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_rounding_is_the_cast_up_to_the_end_of_the_range(name: str, numbers: list[float]) -> None:
    grid, values = GRIDS[name], np.array(numbers, np.float32)
    inside = np.clip(values, grid.lowest, grid.highest).astype(np.float32)
    np.testing.assert_array_equal(grid.codes(values), inside.astype(TYPES[name]).view(grid.dtype))


@pytest.mark.parametrize("scale", range(-45, 39, 3))
@pytest.mark.parametrize("name", FLOAT_ENCODINGS)
def test_a_weight_in_a_float_format_is_its_cast(name: str, scale: int) -> None:
    random = np.random.default_rng(0)
    matrix = (random.standard_normal((19, 23)) * 10.0**scale).astype(np.float32)
    encoding, dtype = FLOAT_ENCODINGS[name], TYPES[name]
    largest = np.abs(matrix).max()
    if largest > encoding.grid.highest or not largest.astype(dtype):
        with pytest.raises(Refused, match=f"does not fit {name}|lost in {name}"):
            fit.encode(matrix, encoding)
        return
    encoded = fit.encode(matrix, encoding)
    np.testing.assert_array_equal(encoded.codes, matrix.astype(dtype).view(np.uint16))
    np.testing.assert_array_equal(encoded.decode(), matrix.astype(dtype).astype(np.float32))
    again = fit.encode(encoded.decode(), encoding)
    np.testing.assert_array_equal(again.codes, encoded.codes)


@pytest.mark.parametrize("name", FLOAT_ENCODINGS)
def test_a_float_format_is_its_codes_alone(name: str) -> None:
    encoding = FLOAT_ENCODINGS[name]
    assert (encoding.text, encoding.bits, encoding.symmetric) == (name, 16, True)
    assert encoding.size_bits((7, 13)) == 16 * 7 * 13
    assert encoding.bits_per_weight((7, 13)) == 16


@pytest.mark.parametrize("clip", ["mse", "absmax"])
@pytest.mark.parametrize("name", FLOAT_ENCODINGS)
def test_zeros_stay_zeros(name: str, clip: Clip) -> None:
    np.testing.assert_array_equal(
        fit.encode(np.zeros((3, 4), np.float32), FLOAT_ENCODINGS[name], clip).decode(), np.zeros((3, 4))
    )


def test_what_fp16_cannot_hold_is_refused() -> None:
    matrix = np.array([[1.0, -65504.0], [0.5, 0.25]], np.float32)
    np.testing.assert_array_equal(fit.encode(matrix, FLOAT_ENCODINGS["fp16"]).decode(), matrix)
    with pytest.raises(Refused, match="a weight of 65536 does not fit fp16, which ends at 65504"):
        fit.encode(np.array([[1.0, -65536.0]], np.float32), FLOAT_ENCODINGS["fp16"])
    fit.encode(np.array([[1.0, -65536.0]], np.float32), FLOAT_ENCODINGS["bf16"])
    for name, bad in itertools.product(FLOAT_ENCODINGS, (np.nan, np.inf)):
        with pytest.raises(Refused) as refused:
            fit.encode(np.array([[1.0, bad]], np.float32), FLOAT_ENCODINGS[name])
        assert refused.value.broken
    with pytest.raises(Refused, match="empty"):
        fit.encode(np.zeros((0, 4), np.float32), FLOAT_ENCODINGS["bf16"])


@pytest.mark.parametrize("name", FLOAT_ENCODINGS)
def test_both_roundings_take_floats(name: str) -> None:
    random = np.random.default_rng(0)
    matrix = random.standard_normal((16, 48)).astype(np.float32)
    weight = Weight("w", "w", MatrixView(matrix.shape, (0,)), "float32", ())
    inputs = (random.standard_normal((96, 48)) @ random.standard_normal((48, 48))).astype(np.float32)
    plain = Nearest().encode(weight, matrix, FLOAT_ENCODINGS[name], Context())
    swept = Gptq().encode(weight, matrix, FLOAT_ENCODINGS[name], Context(grams={"w": inputs.T @ inputs}))
    errors = [np.square(inputs @ (one.decode() - matrix).T).sum() for one in (plain, swept)]
    assert errors[1] < errors[0]
    assert swept.codes.dtype == np.uint16


@pytest.mark.parametrize("block", [TENSOR, CHANNEL, group(8)])
@pytest.mark.parametrize("grid", [FloatGrid(5, 2), FloatGrid(4, 3), FloatGrid(3, 4)], ids=lambda grid: grid.text)
def test_short_floats_are_fitted_with_scales(grid: FloatGrid, block: Block) -> None:
    random = np.random.default_rng(0)
    matrix = random.standard_normal((16, 48)).astype(np.float32)
    encoding = Blocked(grid, block)
    assert encoding.text == f"{grid.text} {block.text} scale fp16"
    searched, covered = (fit.encode(matrix, encoding, clip) for clip in ("mse", "absmax"))
    rows, columns = block.of(searched.shape)
    step = searched.scales.scale.astype(np.float32).repeat(rows, 0).repeat(columns, 1)
    wanted = np.clip(matrix / step, grid.lowest, grid.highest).astype(TYPES[grid.text]).astype(np.float32) * step
    # a quotient next to a tie may fall on either side
    assert np.mean(searched.decode() != wanted) < 0.01
    errors = [float(np.square(one.decode() - matrix).sum()) for one in (searched, covered)]
    assert errors[0] <= errors[1] < 0.01 * float(np.square(matrix).sum())
    swept = round_columns(matrix, encoding, np.eye(48, dtype=np.float32), 0.01, "mse")
    np.testing.assert_array_equal(swept.codes, searched.codes)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.integers(2, 8), st.booleans(), st.integers(0, 2**32 - 1))
def test_integers_round_as_their_codes(bits: int, symmetric: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    grid = IntGrid(bits, symmetric)
    values = (random.standard_normal((5, 8)) * 2**bits).astype(np.float32)
    zero = None if symmetric else random.integers(0, grid.levels, (5, 1)).astype(np.uint8)
    codes = grid.codes(values, zero)
    assert codes.dtype == grid.dtype
    assert codes.max() < grid.levels
    numbers = grid.numbers(codes, zero)
    np.testing.assert_array_equal(grid.round(values, zero), numbers)
    assert grid.round(values, zero, out=values) is values
    if symmetric:
        assert grid.lowest <= numbers.min() <= numbers.max() <= grid.highest
