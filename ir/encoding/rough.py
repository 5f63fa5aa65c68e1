"""Rounding in a hurry: what a matrix about becomes in an encoding, for searches that ask very often."""

import numpy as np

from qcc.ir.encoding.blocked import Blocked

CLIPS = {2: (0.5, 0.7), 3: (0.65, 0.85), 4: (0.8, 0.95)}  # of the largest weight, by the bits of a code


def roughly(matrix: np.ndarray, encoding: Blocked) -> np.ndarray:
    """A matrix rounded to nearest, the clipping range of each block being the best of very few."""
    grid = encoding.grid
    blocks, zero = encoding.block.split(matrix), None
    if encoding.symmetric:
        largest = np.abs(blocks).argmax(1, keepdims=True)
        step = np.take_along_axis(blocks, largest, 1) / np.float32(grid.lowest)
    else:
        least, most = (np.asarray(edge(blocks, 1))[:, None] for edge in (np.min, np.max))
        least, most = np.minimum(least, 0), np.maximum(most, 0)
        step = (most - least) / np.float32(grid.highest - grid.lowest)
        zero = -np.rint(least / np.where(step != 0, step, 1))
    best, smallest = np.zeros_like(blocks), np.full((len(blocks), 1), np.inf)
    for ratio in CLIPS.get(encoding.bits, (1.0,)):
        width = np.where(step != 0, step * np.float32(ratio), np.float32(1))
        got = blocks / width
        grid.round(got, zero, out=got)
        got *= width
        error = np.einsum("ij,ij->i", got - blocks, got - blocks)[:, None]
        np.copyto(best, got, where=error < smallest)
        smallest = np.minimum(error, smallest)
    return encoding.block.join(best, (matrix.shape[0], matrix.shape[1]))
