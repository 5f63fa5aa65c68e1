"""Encodings hold to their definition: whatever the matrix, grid, block, scale and clipping."""

import os
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir.encoding import fit, search
from qcc.ir.encoding.blocked import Blocked, Floats
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.packing import pack, packed_bytes, planes, unpack
from qcc.ir.encoding.search import Clip
from qcc.ir.errors import Refused

# a float32 product and its quotient by the scale are each off by an ulp; codes go up to 255
FLOAT_SLACK = 256 * float(np.finfo(np.float32).eps)
CLIPS: tuple[Clip, ...] = ("mse", "absmax")
SCALE_NAMES: tuple[str, ...] = ("fp16", "fp32")

sizes = st.integers(1, 40)
block_shapes = st.one_of(
    st.just(TENSOR),
    st.just(CHANNEL),
    st.integers(1, 48).map(group),
    st.builds(Block, st.integers(0, 9), st.integers(0, 9)),
)
encodings = st.builds(
    Blocked, st.builds(IntGrid, st.integers(2, 8), st.booleans()), block_shapes, st.sampled_from(SCALE_NAMES)
)


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Weights of all habits: normal, heavy-tailed, one-sided, constant, sparse, whole numbers."""
    shape = draw(sizes), draw(sizes)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    make: Callable[[], np.ndarray] = {
        "normal": lambda: random.standard_normal(shape),
        "heavy": lambda: random.standard_t(2, shape),
        "positive": lambda: random.random(shape) + 3,
        "negative": lambda: -random.random(shape),
        "constant": lambda: np.full(shape, random.standard_normal()),
        "sparse": lambda: random.standard_normal(shape) * (random.random(shape) < 0.1),
        "whole": lambda: random.integers(-9, 9, shape),
    }[draw(st.sampled_from(("normal", "heavy", "positive", "negative", "constant", "sparse", "whole")))]
    values = make().astype(np.float32)
    values += np.sign(values) / 2  # scales under 1e-5 are refused in fp16: see the tests of magnitudes
    return values * np.float32(draw(st.sampled_from((1.0, 0.02, 300.0))))


def scale_dtype(encoding: Blocked) -> type[np.floating]:
    assert isinstance(encoding.scales, Floats)
    return encoding.scales.dtype


def _per_weight(encoded: Encoded, values: np.ndarray) -> np.ndarray:
    """A value of each block, spread over the weights of the block."""
    assert isinstance(encoded.encoding, Blocked)
    rows, columns = encoded.encoding.block.of(encoded.shape)
    return values.repeat(rows, 0).repeat(columns, 1)[: encoded.shape[0], : encoded.shape[1]].astype(np.float64)


def _squared_error(matrix: np.ndarray, encoded: Encoded) -> float:
    return float(np.square(matrix.astype(np.float64) - encoded.decode()).sum())


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(matrices(), encodings, st.sampled_from(CLIPS))
def test_codes_are_the_nearest_in_range(matrix: np.ndarray, encoding: Blocked, clip: Clip) -> None:
    encoded = fit.encode(matrix, encoding, clip)
    scale = _per_weight(encoded, encoded.scales.scale)
    assert isinstance(encoding.grid, IntGrid)
    zero = np.full(matrix.shape, float(encoding.grid.middle))
    if encoded.scales.zero is not None:
        zero = _per_weight(encoded, encoded.scales.zero)
    ends = (0 - zero) * scale, (encoding.grid.levels - 1 - zero) * scale
    inside = np.clip(matrix, np.minimum(*ends), np.maximum(*ends))

    assert encoded.codes.dtype == np.uint8
    assert encoded.codes.max() < encoding.grid.levels
    assert encoded.scales.scale.dtype == scale_dtype(encoding)
    error = np.abs(encoded.decode() - inside)
    assert (error <= np.abs(scale) * (0.5 + FLOAT_SLACK)).all()


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(matrices(), encodings)
def test_decoding_is_the_formula(matrix: np.ndarray, encoding: Blocked) -> None:
    encoded = fit.encode(matrix, encoding)
    zeros = encoded.scales.zero
    rows, columns = encoding.block.of(encoded.shape)
    decoded = encoded.decode()
    for row, column in ((0, 0), (matrix.shape[0] - 1, matrix.shape[1] - 1)):
        place = row // rows, column // columns
        zero = -int(encoding.grid.lowest) if zeros is None else int(zeros[place])
        step = np.float32(encoded.scales.scale[place])
        assert decoded[row, column] == np.float32(int(encoded.codes[row, column]) - zero) * step


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(matrices(), encodings)
def test_searching_the_range_never_costs(matrix: np.ndarray, encoding: Blocked) -> None:
    searched, covered = (_squared_error(matrix, fit.encode(matrix, encoding, clip)) for clip in CLIPS)
    # a scale is off by an ulp of its type, at least a subnormal, and by float32 sums of 1600 terms
    scale = np.abs(fit.fit(matrix, encoding, "absmax").scale.astype(np.float64)).max()
    limit = np.finfo(scale_dtype(encoding))
    off = scale * (float(limit.eps) + 256 * float(np.finfo(np.float32).eps)) + float(limit.smallest_subnormal)
    assert np.sqrt(searched) <= np.sqrt(covered) + off * 2**encoding.bits * np.sqrt(matrix.size)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(matrices(), encodings)
def test_size_counts_what_is_stored(matrix: np.ndarray, encoding: Blocked) -> None:
    encoded = fit.encode(matrix, encoding)
    scales = encoded.scales
    bits = encoded.codes.size * encoding.bits + scales.scale.nbytes * 8
    bits += 0 if scales.zero is None else scales.zero.size * 8  # a byte each, as files have them
    assert encoding.size_bits(encoded.shape) == bits
    assert scales.scale.shape == encoding.block.grid(encoded.shape)
    assert encoding.bits_per_weight(encoded.shape) == bits / matrix.size


@settings(max_examples=120, deadline=None)
@given(st.integers(2, 8), st.lists(st.integers(0, 3), max_size=2), st.integers(0, 70), st.integers(0, 2**32 - 1))
def test_packing_is_lossless_and_dense(bits: int, leading: list[int], count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (*leading, count)).astype(np.uint8)
    packed = pack(codes, bits)
    assert len(packed) == len(planes(bits))
    assert sum(planes(bits)) == bits
    assert sum(plane.shape[-1] for plane in packed) == packed_bytes(count, bits)
    np.testing.assert_array_equal(unpack(packed, bits, count), codes)


@settings(max_examples=100, deadline=None)
@given(matrices(), block_shapes)
def test_blocks_split_and_join(matrix: np.ndarray, block: Block) -> None:
    shape = matrix.shape[0], matrix.shape[1]
    blocks = block.split(matrix)
    rows, columns = block.of(shape)
    assert blocks.shape == (np.prod(block.grid(shape)), rows * columns)
    np.testing.assert_array_equal(block.join(blocks, shape), matrix)


def _every(*blocks: Block) -> Iterator[Blocked]:
    for bits in range(2, 9):
        for symmetric in (True, False):
            for block in blocks:
                for scale in SCALE_NAMES:
                    yield Blocked(IntGrid(bits, symmetric), block, scale)


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (5, 24)])
@pytest.mark.parametrize("value", [0.0, -0.0, 0.75, -1.25])
def test_a_constant_matrix_is_kept(value: float, shape: tuple[int, int], clip: Clip) -> None:
    matrix = np.full(shape, value, np.float32)
    for encoding in _every(TENSOR, CHANNEL, group(8), Block(3, 5)):
        decoded = fit.encode(matrix, encoding, clip).decode()
        # the one level that is used lies within the rounding of the scale
        np.testing.assert_allclose(decoded, matrix, rtol=float(np.finfo(scale_dtype(encoding)).eps), atol=0)


@pytest.mark.sampled
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("size", [1e30, 1e36, 1e-30, 1e-36, 1e-40])
def test_magnitude_does_not_matter(size: float, clip: Clip) -> None:
    matrix = np.random.default_rng(0).uniform(-1, 1, (6, 33)).astype(np.float32)
    for encoding in _every(CHANNEL, group(16)):
        if encoding.scale == "fp16":
            with pytest.raises(Refused, match="use scale fp32"):
                fit.encode(matrix * np.float32(size), encoding, clip)
            continue
        scaled = matrix.astype(np.float64) * size
        decoded = fit.encode(scaled.astype(np.float32), encoding, clip).decode()
        plain = fit.encode(matrix, encoding, clip).decode()
        # denormal scales have few digits, so codes move; the error stays that of the grid
        worst = np.abs(plain - matrix).max() + 2 / 2**encoding.bits
        assert np.abs(decoded / size - matrix).max() <= worst


def test_a_block_too_small_for_its_scale_becomes_zero() -> None:
    matrix = np.ones((2, 32), np.float32)
    matrix[1] = 1e-30  # a dead channel among live ones is no reason to refuse the layer
    decoded = fit.encode(matrix, Blocked(IntGrid(4), CHANNEL)).decode()
    np.testing.assert_allclose(decoded[0], 1, rtol=1e-3)
    assert not decoded[1].any()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(bad: float, symmetric: bool) -> None:
    matrix = np.ones((4, 8), np.float32)
    matrix[2, 5] = bad
    with pytest.raises(Refused, match="row 2, column 5"):
        fit.encode(matrix, Blocked(IntGrid(4, symmetric), group(4)))


def test_opposite_infinities_are_refused() -> None:
    with pytest.raises(Refused, match="row 0, column 0"):
        fit.encode(np.array([[np.inf, -np.inf]], np.float32), Blocked(IntGrid(4), CHANNEL))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_nothing_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(Refused, match="empty"):
        fit.encode(np.zeros(shape, np.float32), Blocked(IntGrid(4), CHANNEL))


def test_the_largest_floats_are_refused_before_they_overflow() -> None:
    matrix = np.full((1, 8), np.finfo(np.float32).max, np.float32)
    matrix[0, 0] *= -1
    with pytest.raises(Refused, match="does not fit fp32"):
        fit.encode(matrix, Blocked(IntGrid(4), CHANNEL, "fp32"))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_encode_as_float32(dtype: type) -> None:
    matrix: np.ndarray = np.random.default_rng(0).standard_normal((8, 32)).astype(dtype)
    encoding = Blocked(IntGrid(4), group(16))
    expected = fit.encode(matrix.astype(np.float32), encoding)
    np.testing.assert_array_equal(fit.encode(matrix, encoding).codes, expected.codes)


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
def test_threads_do_not_show(symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(0).standard_normal((64, 8192)).astype(np.float32)
    found = []
    for count in (1, 2, 7):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        found.append(fit.encode(matrix, Blocked(IntGrid(3, symmetric), group(32))))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].codes, other.codes)
        np.testing.assert_array_equal(found[0].scales.scale, other.scales.scale)


def test_long_blocks_are_searched_as_well_as_short_ones() -> None:
    """A float32 sum over a million terms could not tell good ranges from bad ones."""
    matrix = np.random.default_rng(0).standard_normal((1, 1 << 20)).astype(np.float32)
    matrix[0, 0] = 30
    searched, covered = (
        _squared_error(matrix, fit.encode(matrix, Blocked(IntGrid(8), TENSOR, "fp32"), clip)) for clip in CLIPS
    )
    assert searched < covered


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        (Blocked(IntGrid(4), group(32)), "int4 group 32 sym scale fp16"),
        (Blocked(IntGrid(3, False), CHANNEL, "fp32"), "int3 channel asym scale fp32"),
        (Blocked(IntGrid(8), TENSOR), "int8 tensor sym scale fp16"),
        (Blocked(IntGrid(5), Block(4, 8)), "int5 tile 4x8 sym scale fp16"),
    ],
)
def test_text(encoding: Blocked, text: str) -> None:
    assert encoding.text == text


@given(matrices(), encodings, st.sampled_from(CLIPS), st.booleans())
@settings(max_examples=60)
def test_codes_do_not_follow_how_a_matrix_lies(matrix: np.ndarray, encoding: Blocked, clip: Clip, told: bool) -> None:
    cost = np.linspace(1, 2, matrix.shape[1], dtype=np.float32) if told else None
    try:
        scales = fit.fit(matrix, encoding, clip, cost)
    except Refused:
        return
    turned = np.asfortranarray(matrix)
    found = fit.fit(turned, encoding, clip, cost)
    np.testing.assert_array_equal(found.scale, scales.scale)
    np.testing.assert_array_equal(found.zero, scales.zero)
    np.testing.assert_array_equal(fit.quantize(turned, encoding, found), fit.quantize(matrix, encoding, scales))


def test_long_matrices_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(0).standard_normal((70, 96)).astype(np.float32)
    for block in (group(32), CHANNEL, Block(7, 8)):
        encoding = Blocked(IntGrid(4, symmetric=False), block)
        whole = fit.encode(matrix, encoding)
        with monkeypatch.context() as patch:
            patch.setattr(search, "CHUNK", 1024)
            for one in (matrix, np.asfortranarray(matrix)):
                found = fit.encode(one, encoding)
                for name, part in whole.parts.items():
                    np.testing.assert_array_equal(found.parts[name], part)
