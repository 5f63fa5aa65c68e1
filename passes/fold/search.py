"""Searching the scales of some channels under which encoding the weights that read them costs least.

Channels are divided by ``t`` and the columns that read them multiplied: a column that is multiplied before it is
rounded, and divided again behind, keeps a smaller error, at the price of a wider step for its block. The error is that
of the layers' outputs on calibration data, ``tr(D H D')`` over ``tr(W H W')`` with ``D = Q(W t) / t - W`` and the Gram
matrix ``H`` of the inputs, added up over the weights.

What all inputs have in common is most of ``H`` in a language model. An error along it is a constant, which the network
bears better than what changes from token to token: its power is counted in part only.

Rows of a weight are independent, so some show what scales do. The search sees one part of them, and the inputs of one
part of the samples; of what it brings home, the weights themselves among it, others choose, by samples held out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.ir.graph.ops import Array
from qcc.passes.fold.terms import TINY, Term, column_sizes, derivatives, input_sizes, rough_error

SEARCHED, JUDGED = 128, 256  # rows of each weight to search on, and others to choose by
COMMON = 0.1  # of the power along what inputs have in common that is counted
NARROWEST, WIDEST = 1e-3, 1e3  # scales stay between
GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # exponents tried first
ROUNDS = 20  # of the descent on the estimated error
EAGER = 0.1  # of the estimated way to its bottom, in one round
STRIDES = (0.2, 0.1)  # of the last descent, in exponents
ITERATIONS = 30  # to find what inputs have in common


@dataclass(frozen=True)
class FoundScales:
    """Scales ``t [size]`` with the errors without and with them, on rows that the search did not see.

    ``tries`` counts how often some rows were rounded.
    """

    t: Array
    before: float
    after: float
    tries: int


def search(terms: Sequence[Term], size: int, seed: int = 0) -> FoundScales:
    """Search the scales of ``size`` channels; ones if nothing is better.

    First powers of the inputs' sizes over the weights'; from the best of them down an estimate whose gradient is known;
    then, by rounding again, along the directions of both. The best of these is chosen by the true error.
    """
    seen, others = _parted(terms, np.random.default_rng(seed))
    rough = _Rough([term for term in seen if term.energy(term.matrix) > 0])
    found = [np.ones(size)]
    if any(term.power > 0 for term in rough.terms):
        found += map(scales_of, _promising(rough, size))
    errors = [sum(term.error(t) for term in others) for t in found]
    best = int(np.argmin(errors))
    return FoundScales(found[best], errors[0], errors[best], rough.calls + len(found))


def scales_of(logarithm: Array) -> Array:
    """Scales that have these logarithms, but for a factor: their geometric mean is about 1."""
    centred = logarithm - logarithm.mean()
    return np.asarray(np.exp(np.clip(centred, np.log(NARROWEST), np.log(WIDEST))))


class _Rough:
    """The rough error as a function of the scales' logarithms."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = terms
        self.calls = 0
        self._signals = [term.energy(term.matrix) for term in terms]

    def __call__(self, logarithm: Array) -> float:
        self.calls += 1
        t = scales_of(logarithm)
        return sum(rough_error(term, t) / signal for term, signal in zip(self.terms, self._signals, strict=True))

    def downhill(self, logarithm: Array) -> Array:
        """Balance for every channel what a larger scale saves in its own columns with what it costs their blocks."""
        for _ in range(ROUNDS):
            saved, cost = np.full(len(logarithm) + 1, TINY), np.full(len(logarithm) + 1, TINY)
            for term, signal in zip(self.terms, self._signals, strict=True):
                own, shared = derivatives(term, scales_of(logarithm))
                gain, loss = (own, shared) if term.power > 0 else (shared, own)
                np.add.at(saved, term.channels, gain / signal)
                np.add.at(cost, term.channels, loss / signal)
            logarithm = logarithm + np.clip(EAGER * np.log(saved / cost)[:-1], -0.5, 0.5)
            logarithm -= logarithm.mean()
        return logarithm


def _parted(terms: Sequence[Term], rng: "np.random.Generator") -> tuple[list[Term], list[Term]]:
    """Each weight's rows, with the Gram matrix of one part of the data, to search on; others, with the other's, choose.

    They are the same if there is only one.
    """
    seen, others = [], []
    for term in terms:
        searched, judging = (term.gram, term.gram) if term.parts is None else term.parts
        by = [None if gram is None else _tempered(gram) for gram in (searched, judging)]
        order, count = rng.permutation(len(term.matrix)), min(SEARCHED, -(-len(term.matrix) // 2))
        seen.append(replace(term, gram=by[0]).part(order[:count]))
        others.append(replace(term, gram=by[1]).part(order[count : count + JUDGED] if len(order) > 1 else order))
    return seen, others


def _tempered(gram: Array) -> Array:
    """A Gram matrix with less of its first eigenvector, which is what its inputs have in common."""
    common = gram[:, int(np.argmax(np.diag(gram)))]
    for _ in range(ITERATIONS):
        common = gram @ common
        common = common / (np.linalg.norm(common) + gram.dtype.type(TINY))
    power = common @ gram @ common
    return np.asarray(gram - (1 - COMMON) * power * np.outer(common, common), gram.dtype)


def _promising(rough: _Rough, size: int) -> list[Array]:
    """Logarithms of scales to choose from."""
    readers = [term for term in rough.terms if term.power > 0]
    alike = [replace(term, matrix=term.matrix / np.sqrt(np.mean(term.matrix**2))) for term in readers]
    inputs, weights = _log(input_sizes(readers, size)), -_log(column_sizes(alike, size))
    powers = [(a, b) for a in GRID for b in sorted({0.0, a, round(1 - a, 3)})]
    _, (a, b) = min((rough(a * inputs + b * weights), (a, b)) for a, b in powers)
    start = a * inputs + b * weights
    slope = rough.downhill(start) - start
    basis, at = np.stack([inputs, weights, slope]), np.array([a, b, 0.75])
    value = rough(at @ basis)
    for stride in STRIDES:
        at, value = _stroll(lambda point: rough(point @ basis), at, value, stride)
    return [start, start + 0.75 * slope, at @ basis, 0.7 * (at @ basis)]


def _stroll(function: Callable[[Array], float], at: Array, value: float, stride: float) -> tuple[Array, float]:
    """Take a step along each axis, to whichever side is lower, if one is."""
    for axis in range(len(at)):
        for sign in (1.0, -1.0):
            moved = at.copy()
            moved[axis] += sign * stride
            got = function(moved)
            if got < value:
                at, value = moved, got
                break
    return at, value


def _log(sizes: Array) -> Array:
    """The logarithm; of nothing that of the least size."""
    least = sizes.min(where=sizes > 0, initial=np.inf)
    return np.asarray(np.log(np.maximum(sizes, least if np.isfinite(least) else 1.0)))
