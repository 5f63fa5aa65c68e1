"""Searching the scales of some channels under which encoding the weights that read them costs least.

Channels are divided by ``t`` and the columns that read them multiplied by it: a column that is multiplied before it is
rounded, and divided again behind, keeps a smaller error, at the price of a wider step for its block. The error is that
of the layer's output on calibration data, ``tr(D H D')`` over ``tr(W H W')`` with ``D = Q(W t) / t - W`` and the Gram
matrix ``H`` of the inputs, added up over all weights concerned.

Rows of a weight are independent, so a random part of them shows what scales do. The search sees one part; whether its
result is taken another part decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.ir.encoding import Encoding
from qcc.ir.errors import Refused
from qcc.ir.fit import encode

ROWS, JUDGED = 128, 256  # of each weight: to search on, and others to judge by
NARROWEST, WIDEST = 1e-3, 1e3  # scales stay between
GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # exponents that are tried first
NORM = 8  # of a block's weights: its step is about proportional to it
ROUNDS = 20  # of the descent on the estimated error
STRIDES = (0.2, 0.1)  # of the last descent, in exponents, on the error itself
CLIPS = {2: (0.5, 0.7), 3: (0.65, 0.85), 4: (0.8, 0.95)}  # of the largest weight, for a quick rounding
TINY = 1e-30


@dataclass(frozen=True)
class Term:
    """One encoded weight that the scales concern.

    Args:
        matrix: ``[out, in]``.
        encoding: what it will be stored in.
        gram: of its inputs ``[in, in]``; None where rows are looked up and all inputs count alike.
        channels: the channel of each column, or of each row; -1 where there is none.
        rowwise: channels lie on the rows.
        power: 1 where the matrix is multiplied by ``t``, -1 where it is divided.
    """

    matrix: np.ndarray
    encoding: Encoding
    gram: np.ndarray | None
    channels: np.ndarray
    rowwise: bool = False
    power: int = 1

    def factors(self, t: np.ndarray) -> np.ndarray:
        """What the matrix is multiplied by, ``[1, in]`` or ``[out, 1]``."""
        factors = np.asarray(np.append(t, 1.0)[self.channels] ** self.power, np.float32)
        return factors[:, None] if self.rowwise else factors[None]

    def power_of(self, matrix: np.ndarray) -> float:
        """What a matrix ``[out, in]`` gives on calibration data, squared and added up."""
        return float(np.vdot(matrix if self.gram is None else matrix @ self.gram, matrix))

    def error(self, t: np.ndarray) -> float:
        """Noise power over signal power of the output; infinite if the encoding cannot hold the weight."""
        factors = self.factors(t)
        try:
            decoded = encode(self.matrix * factors, self.encoding).decode()
        except Refused:
            return float("inf")
        signal = self.power_of(self.matrix)
        return self.power_of(decoded / factors - self.matrix) / signal if signal else 0.0

    def part(self, order: np.ndarray, rows: slice) -> "Term":
        """Some rows, if these are independent; else all."""
        if self.rowwise or self.encoding.block.rows != 1:
            return self
        return replace(self, matrix=np.ascontiguousarray(self.matrix[order[rows]]))


@dataclass(frozen=True)
class Found:
    """Scales ``t [channels]`` with the errors without and with them, on rows that the search did not see."""

    t: np.ndarray
    before: float
    after: float


def search(terms: Sequence[Term], size: int, seed: int = 0) -> Found:
    """Search the scales of ``size`` channels.

    First powers of the inputs' size over the weights' size; from the best of them down an estimate of the error whose
    gradient is known; then along the directions of both, by the error itself.

    Source: AWQ, Lin et al. 2023 (arXiv:2306.00978), section 3.2, for the first of the three.
    """
    rng = np.random.default_rng(seed)
    seen, other = [], []
    for term in terms:
        order, rows = rng.permutation(len(term.matrix)), min(ROWS, -(-len(term.matrix) // 2))
        seen.append(term.part(order, slice(rows)))
        other.append(term.part(order, slice(rows, rows + JUDGED) if len(order) > 1 else slice(None)))
    one = np.ones(size)
    found = [
        (total_error(other, t), number, t) for number, t in enumerate([one, *map(scales_of, _finalists(seen, size))])
    ]
    after, _, best = min(found)
    return Found(best, found[0][0], after)


def total_error(terms: Sequence[Term], t: np.ndarray) -> float:
    """The errors of all terms together."""
    return sum(term.error(t) for term in terms)


def scales_of(logarithm: np.ndarray) -> np.ndarray:
    """Scales whose logarithms these are, but for a factor; their geometric mean is 1."""
    centred = logarithm - logarithm.mean()
    return np.asarray(np.exp(np.clip(centred, np.log(NARROWEST), np.log(WIDEST))))


def input_sizes(terms: Sequence[Term], size: int) -> np.ndarray:
    """Root mean square of the channels as the terms read them; 1 where nothing flows."""
    total, count = np.zeros(size + 1), np.zeros(size + 1)
    for term in terms:
        if term.gram is not None and not term.rowwise:
            np.add.at(total, term.channels, np.diag(term.gram))
            np.add.at(count, term.channels, 1)
    mean = np.sqrt(total / np.maximum(count, 1))[:size]
    return np.where(mean > 0, mean, 1.0)


def column_sizes(terms: Sequence[Term], size: int) -> np.ndarray:
    """The largest weight of each channel over all columns that read it, in the weights' own units; 1 where none is."""
    largest = np.zeros(size + 1)
    for term in terms:
        if not term.rowwise:
            np.maximum.at(largest, term.channels, np.abs(term.matrix).max(0, initial=0))
    return np.where(largest > 0, largest, 1.0)[:size]


def _directions(terms: Sequence[Term], size: int) -> list[np.ndarray]:
    """Logarithms of the scales that are powers of the inputs, and of the weights' inverses, all terms counted alike."""
    readers = [term for term in terms if not term.rowwise and term.power > 0]
    alike = [replace(term, matrix=term.matrix / (np.sqrt(np.mean(term.matrix**2)) + TINY)) for term in readers]
    return [np.log(input_sizes(readers, size)), -np.log(column_sizes(alike, size))]


class _Roughly:
    """The error as a function of the scales' logarithms, by a quick rounding and with errors that do not correlate.

    Errors of single weights add up in an output by chance, more so the fewer rows are looked at: the diagonal of the
    Gram matrix shows better than the whole what scales do.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = [(term, term.power_of(term.matrix)) for term in terms]

    def __call__(self, logarithm: np.ndarray) -> float:
        t = scales_of(logarithm)
        return sum(self._error(term, term.factors(t)) / signal for term, signal in self.terms if signal)

    def _error(self, term: Term, factors: np.ndarray) -> float:
        scaled = term.matrix * factors
        error = (_rounded(scaled, term.encoding) - scaled) / factors
        columns = np.einsum("ij,ij->j", error, error)
        return float(columns.sum() if term.gram is None else columns @ np.diag(term.gram))


def _rounded(matrix: np.ndarray, encoding: Encoding) -> np.ndarray:
    """A matrix rounded to nearest, the clipping range of each block being the best of very few."""
    blocks, levels = encoding.block.split(matrix), encoding.grid.levels
    if encoding.symmetric:
        at = np.abs(blocks).argmax(1, keepdims=True)
        step = np.take_along_axis(blocks, at, 1) / (-levels // 2)
        low: np.ndarray | float = -(levels // 2)
    else:
        least, most = np.minimum(blocks.min(1, keepdims=True), 0), np.maximum(blocks.max(1, keepdims=True), 0)
        step = (most - least) / (levels - 1)
        low = np.rint(least / np.where(step != 0, step, 1))
    best, least_error = blocks, np.full((len(blocks), 1), np.inf)
    for ratio in CLIPS.get(encoding.bits, (1.0,)):
        width = np.where(step != 0, step * np.float32(ratio), 1)
        got = np.clip(np.rint(blocks / width), low, low + levels - 1) * width
        difference = got - blocks
        error = np.einsum("ij,ij->i", difference, difference)[:, None]
        best = np.where(error < least_error, got, best)
        least_error = np.minimum(error, least_error)
    return encoding.block.join(best, (matrix.shape[0], matrix.shape[1]))


def _finalists(terms: Sequence[Term], size: int) -> list[np.ndarray]:
    """Logarithms of promising scales."""
    objective, (inputs, weights) = _Roughly(terms), _directions(terms, size)
    powers = [(a, b) for a in GRID for b in sorted({0.0, a, round(1 - a, 3)})]
    _, (a, b) = min((objective(a * inputs + b * weights), (a, b)) for a, b in powers)
    start = a * inputs + b * weights
    slope = _estimated_descent(terms, start) - start
    basis, at = np.stack([inputs, weights, slope]), np.array([a, b, 0.75])
    value = objective(at @ basis)
    for stride in STRIDES:
        at, value = _pattern(lambda point: objective(point @ basis), at, value, stride)
    return [start, start + 0.75 * slope, at @ basis, 0.7 * (at @ basis)]


def _pattern(
    function: Callable[[np.ndarray], float], at: np.ndarray, value: float, stride: float
) -> tuple[np.ndarray, float]:
    """Go along each axis as long as it goes down, once."""
    for axis in range(len(at)):
        for sign in (1.0, -1.0):
            moved = at.copy()
            moved[axis] += sign * stride
            got = function(moved)
            if got < value:
                at, value = moved, got
                break
    return at, value


def _estimated_descent(terms: Sequence[Term], logarithm: np.ndarray) -> np.ndarray:
    """Balance, for every channel, what a larger scale saves in its own columns with what it costs its blocks.

    A block's step is about a norm of its weights, and its error about ``sum of h / f^2`` over its weights times the
    step squared, where ``h`` is the diagonal of the Gram matrix and ``f`` what the weight is multiplied by. Where the
    two derivatives of the logarithm of a scale are equal, the estimated error is least.
    """
    for _ in range(ROUNDS):
        saved, cost = np.full(len(logarithm) + 1, TINY), np.full(len(logarithm) + 1, TINY)
        for term in terms:
            own, shared = _derivatives(term, scales_of(logarithm))
            gain, loss = (own, shared) if term.power > 0 else (shared, own)
            np.add.at(saved, term.channels, gain)
            np.add.at(cost, term.channels, loss)
        ratio = np.log(saved / cost)[:-1] / (2 + NORM)
        logarithm = logarithm + np.clip(ratio, -0.5, 0.5)
        logarithm -= logarithm.mean()
    return logarithm


def _derivatives(term: Term, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the estimated error falls and grows with the logarithm of each column's factor, or each row's."""
    block, shape = term.encoding.block, (term.matrix.shape[0], term.matrix.shape[1])
    factors = term.factors(t)
    gram = np.ones(shape[1], np.float32) if term.gram is None else np.diag(term.gram)
    weight = block.split(np.broadcast_to(gram / factors**2, shape))
    scaled = np.abs(block.split(term.matrix * factors))
    scaled /= scaled.max(1, keepdims=True, initial=0) + TINY
    largest = np.abs(block.split(term.matrix * factors)).max(1, keepdims=True, initial=0)
    share = _power(scaled)
    total = share.sum(1, keepdims=True) + TINY
    step = (largest * total ** (1 / NORM)) ** 2
    own = block.join(weight * step, shape)
    shared = block.join(share * (step * weight.sum(1, keepdims=True) / total), shape)
    axis, signal = (1 if term.rowwise else 0), term.power_of(term.matrix) + TINY
    return own.sum(axis) / signal, shared.sum(axis) / signal


def _power(values: np.ndarray) -> np.ndarray:
    """To the power `NORM`, by squaring."""
    for _ in range(NORM.bit_length() - 1):
        values = values * values
    return values
