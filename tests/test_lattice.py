"""Tuples of a lattice: which there are, that the nearest is found, and what they lose; also test_tuples."""

import numpy as np
import pytest

from qcc.compiler.plan.values import encoding_named
from qcc.ir.encoding.fit import fitted
from qcc.ir.encoding.formats.composed.lattice import Lattice, nearest, tables
from qcc.ir.errors import Refused
from tests.test_grid_formats import error, spelled


def every() -> np.ndarray:
    """All tuples ``[65536, 8]``, as they are decoded."""
    known = tables()
    first, second = np.divmod(np.arange(1 << 16), 256)
    return np.asarray((known.first[first] * known.second[second]) @ known.added)


@pytest.mark.parametrize(("text", "bits"), [("lattice()", 16 * 64), ("lattice(group = 32)", 16 * 64 * 3)])
def test_it_reads_back_and_takes_what_its_parts_take(text: str, bits: int) -> None:
    found = spelled(text)
    assert found.text == text and encoding_named(text) == found
    assert found.size_bits((64, 96)) == 2 * 64 * 96 + bits


@pytest.mark.slow
def test_the_tuples_are_those_of_the_lattice() -> None:
    """Every one differs, and is half an odd number everywhere beside its shift, with an even sum."""
    found = every()
    assert len(np.unique(found, axis=0)) == 1 << 16
    shift = np.where(np.arange(1 << 16) % 256 < 128, 0.25, -0.25)[:, None]
    halves = found - shift
    assert (np.abs(halves) % 1 == 0.5).all() and (halves.sum(1) % 2 == 0).all()


def test_the_nearest_is_found() -> None:
    wanted = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    known, codes = every(), nearest(wanted)
    got = np.square(known[codes[0].astype(int) * 256 + codes[1]] - wanted).sum(1)
    best = np.array([np.square(known - one).sum(1).min() for one in wanted])
    assert (got >= best - 1e-4).all() and got.mean() < 1.001 * best.mean()  # the sign that turns may be another's


def test_a_tuple_comes_back() -> None:
    found = every()[:: 1 << 6].astype(np.float32)
    codes = nearest(found)
    np.testing.assert_array_equal(every()[codes[0].astype(int) * 256 + codes[1]], found)


@pytest.mark.slow
def test_it_loses_less_than_integers_of_more_bits() -> None:
    matrix = np.random.default_rng(0).standard_normal((64, 384)).astype(np.float32)
    assert error("lattice()", matrix) < 0.85 * error("int2 group 32", matrix)
    assert error("lattice(group = 64)", matrix) < error("lattice()", matrix)
    assert error("stack(lattice(), codebook(256, size = 8))", matrix) < 0.85 * error("int3 group 128", matrix)


def test_scales_that_data_raises_beyond_fp16_are_refused() -> None:
    """One weight is all that counts, and no scale that a search begins with reaches it."""
    matrix, power = np.zeros((2, 1024), np.float32), np.full(1024, 1e-3)
    matrix[:, 0], power[0] = 1.5e6, 1e6
    with pytest.raises(Refused, match="does not fit fp16"):
        fitted(matrix, Lattice(), power=power)
