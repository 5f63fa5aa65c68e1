"""The ways of papers that ours are measured beside do what the papers say."""

import numpy as np
import pytest

from benchmarks.sparse.rivals import staying, swept


def _drawn() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    inputs = draw.standard_normal((400, 64)) @ draw.standard_normal((64, 64)) / 8
    return draw.standard_normal((48, 64)), inputs.T @ inputs / 400


def _error(matrix: np.ndarray, left: np.ndarray, gram: np.ndarray) -> float:
    return float(np.vdot((matrix - left) @ gram, matrix - left))


@pytest.mark.parametrize("tile", [(1, 1), (16, 16)])
def test_what_columns_to_come_make_up_for_is_nearer_than_what_is_cut(tile: tuple[int, int]) -> None:
    matrix, gram = _drawn()
    cut = np.where(staying(matrix**2 * np.diag(gram), tile), matrix, 0)
    made_up = swept(matrix, gram, tile)
    assert (made_up != 0).sum() == (cut != 0).sum() == matrix.size // 2
    if tile == (1, 1):
        assert ((made_up != 0).reshape(48, -1, 4).sum(2) == 2).all()
    assert _error(matrix, made_up, gram) < _error(matrix, cut, gram)
