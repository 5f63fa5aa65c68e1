"""Structured products' law: a matrix that is one comes back, and of another the nearest one is found."""

import numpy as np
import pytest

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.fit import encode, fitted
from qcc.ir.encoding.formats.composed.structured import BlockProducts
from qcc.ir.encoding.grid import FLOATS
from qcc.ir.encoding.reference import NUMPY
from tests import onnx_models

EXACT = Blocked(FLOATS["bf16"], scale=None)
NEAR = 2.0**-7  # of a number, in bf16: two factors, each off by half a last digit
SHAPE = (24, 36)


def monarch(blocks: int) -> np.ndarray:
    """Two block-diagonal matrices with a shuffle between them, multiplied out."""
    rows, columns = SHAPE
    left = onnx_models.random(blocks, rows // blocks, blocks, seed=1)  # [block of outputs, within, block of inputs]
    right = onnx_models.random(blocks, blocks, columns // blocks, seed=2)
    second = np.zeros((rows, blocks * blocks), np.float32)
    first = np.zeros((blocks * blocks, columns), np.float32)
    for j in range(blocks):
        second[j * (rows // blocks) : (j + 1) * (rows // blocks), j * blocks : (j + 1) * blocks] = left[j]
        for k in range(blocks):
            first[k * blocks + j, k * (columns // blocks) : (k + 1) * (columns // blocks)] = right[j, k]
    shuffle = np.arange(blocks * blocks).reshape(blocks, blocks).T.reshape(-1)
    product: np.ndarray = second @ first[shuffle]
    woven = product.reshape(blocks, rows // blocks, columns).transpose(1, 0, 2)
    return np.ascontiguousarray(woven.reshape(SHAPE))


@pytest.mark.parametrize("blocks", [2, 3, 4, 6])
def test_a_monarch_matrix_comes_back(blocks: int) -> None:
    matrix = monarch(blocks)
    found = encode(matrix, BlockProducts(blocks, blocks, 1, True, EXACT), "absmax")
    assert np.abs(found.decode() - matrix).max() <= NEAR * np.abs(matrix).max()
    assert found.encoding.size_bits(SHAPE) == 16 * blocks * sum(SHAPE)


def test_rows_of_blocks_that_are_narrow_come_back() -> None:
    parts = [onnx_models.random(6, 2, seed=at) @ onnx_models.random(2, 36, seed=9 + at) for at in range(4)]
    matrix = np.concatenate(parts)
    found = encode(matrix, BlockProducts(4, 1, 2, False, EXACT), "absmax")
    assert np.abs(found.decode() - matrix).max() <= NEAR * np.abs(matrix).max()


def test_more_rank_is_never_worse_and_all_of_it_is_all() -> None:
    matrix = onnx_models.random(*SHAPE, seed=4)
    for woven in (False, True):
        errors = []
        for rank in (1, 2, 4, 8):
            found = encode(matrix, BlockProducts(3, 3, rank, woven, EXACT), "absmax").decode()
            errors.append(float(((found - matrix) ** 2).sum()))
        assert errors == sorted(errors, reverse=True) and errors[-1] <= NEAR**2 * float((matrix**2).sum())


def test_data_tells_which_directions_matter() -> None:
    rng = np.random.default_rng(0)
    matrix = onnx_models.random(*SHAPE, seed=5)
    seen = rng.standard_normal((500, SHAPE[1])) @ rng.standard_normal((SHAPE[1], SHAPE[1])) * np.linspace(3, 0.1, 36)
    gram = (seen.T @ seen / len(seen)).astype(np.float32)
    encoding = BlockProducts(3, 3, 2, True, EXACT)

    def lost(found: np.ndarray) -> float:
        noise = found - matrix
        return float(np.vdot(noise @ gram, noise))

    told = fitted(matrix, encoding, "absmax", None, None, gram)
    known = encoding.decode(NUMPY, told.parts().__getitem__, SHAPE)
    assert lost(known) < lost(encode(matrix, encoding, "absmax").decode())


def test_blocks_reach_beyond_a_matrix_that_they_do_not_fill() -> None:
    matrix = onnx_models.random(*SHAPE, seed=6)
    for woven in (False, True):
        found = encode(matrix, BlockProducts(5, 5, 8, woven, EXACT), "absmax")
        assert np.abs(found.decode() - matrix).max() <= NEAR * np.abs(matrix).max()
        assert found.encoding.size_bits(SHAPE) == 16 * 5 * 8 * (25 + 40)
