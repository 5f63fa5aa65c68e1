"""Codebooks: what they store, and what they lose; see test_tuples, too."""

import numpy as np
import pytest

import qcc
from qcc.compiler.plan.values import encoding_named
from qcc.ir.encoding.fit import encode, encoded, fitted
from qcc.ir.encoding.formats.composed.codebook import Codebook
from tests.test_grid_formats import error, spelled


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("codebook(16)", 4 * 64 * 96 + 16 * 16 + 16 * 64),
        ("codebook(256, size = 4)", 8 * 64 * 24 + 16 * 256 * 4 + 16 * 64),
        ("codebook(4, size = 8, group = 32)", 2 * 64 * 12 + 16 * 4 * 8 + 16 * 64 * 3),
    ],
)
def test_it_reads_back_and_takes_what_its_parts_take(text: str, bits: int) -> None:
    found = spelled(text)
    assert found.text == text and encoding_named(text) == found
    assert found.size_bits((64, 96)) == bits


@pytest.mark.parametrize("text", ["codebook(5)", "codebook(16, size = 3)", "codebook(2)", "codebook(512)"])
def test_other_tables_are_none(text: str) -> None:
    with pytest.raises(qcc.QccError):
        spelled(text)


def test_a_table_of_what_there_is_loses_nothing() -> None:
    """Rows of four numbers and a size of their own come back, up to fp16."""
    random = np.random.default_rng(0)
    rows = np.tile(np.linspace(-1, 1, 4), (32, 16)) * np.linspace(0.5, 1, 32)[:, None]
    matrix = random.permuted(rows, axis=1).astype(np.float32)
    stored = encode(matrix, Codebook(4))
    assert np.abs(stored.decode() - matrix).max() < 2e-3  # fp16's digits, of numbers up to one
    again = encode(matrix, Codebook(4))
    assert all((again.parts[name] == part).all() for name, part in stored.parts.items())


@pytest.mark.slow
def test_learned_numbers_lose_less_and_tuples_still_less() -> None:
    matrix = np.random.default_rng(0).standard_normal((192, 192)).astype(np.float32)
    even, one, pairs, fours = (
        error(text, matrix)
        for text in ("int2 mid channel", "codebook(4)", "codebook(16, size = 2)", "codebook(256, size = 4)")
    )
    assert fours < 0.9 * one and pairs < 0.98 * one and one < even
    assert error("codebook(16)", matrix) < error("int4 channel", matrix)


def test_inputs_with_power_are_learned_better() -> None:
    random = np.random.default_rng(0)
    matrix = np.concatenate([random.standard_normal((64, 32)), random.uniform(-2, 2, (64, 32))], 1).astype(np.float32)
    power = np.repeat([100.0, 1.0], 32)
    plain, weighted = (encoded(matrix, Codebook(8), fitted(matrix, Codebook(8), power=one)) for one in (None, power))
    lost = [float((np.square(one.decode() - matrix).sum(0) * power).sum()) for one in (plain, weighted)]
    assert lost[1] < lost[0]
