"""Stochastic rounding's own law: over many draws the decoded weights average to the weights."""

import numpy as np
from qcc.passes.stochastic import Stochastic

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph.ops import Weight
from qcc.ir.graph.view import MatrixView
from qcc.passes.contract.contract import Context

DRAWS = 400
TOLERANCE = 0.25  # of a step: ten standard deviations of the mean of 400 draws


def test_errors_average_out() -> None:
    matrix = np.random.default_rng(0).uniform(-1, 1, (8, 64)).astype(np.float32)
    weight = Weight("w", "w", MatrixView(matrix.shape, (0,)), "float32", ())
    encoding = Blocked(IntGrid(4), group(32))
    draws = [Stochastic(seed).encode(weight, matrix, encoding, Context()) for seed in range(DRAWS)]
    step = float(np.abs(draws[0].scales.scale).max())
    mean = np.mean([draw.decode() for draw in draws], axis=0)
    assert np.abs(mean - matrix).max() < TOLERANCE * step
