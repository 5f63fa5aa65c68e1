"""Solvers: how the next latent is made of this one and of estimates of the clean sample.

All solve the same equation between two steps. Written for the estimate ``c`` and with ``l`` the logarithm of alpha over
sigma, its solution is ``x' = sigma' / sigma * x + sigma' * integral of exp(l) c(l) dl``; solvers differ in what they
take ``c`` for between steps (DPM-Solver++, Lu et al. 2022, arXiv:2211.01095, section 4).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from qcc.compiler.sampler.noise import NoiseSchedule, log_ratio
from qcc.compiler.sampler.table import TableRow

Pair = tuple[float, float]
"""Alpha and sigma."""
MOST_ORDER = 3


def _of_v(alpha: float, sigma: float) -> Pair:
    whole = alpha**2 + sigma**2
    return alpha / whole, -sigma / whole


def _of_epsilon(alpha: float, sigma: float) -> Pair:
    if alpha <= 0:
        raise ValueError("where there is no signal, a prediction of the noise says nothing of it: begin later")
    return 1 / alpha, -sigma / alpha


def _of_sample(_alpha: float, _sigma: float) -> Pair:
    return 0.0, 1.0


def _of_flow(alpha: float, sigma: float) -> Pair:
    return 1 / (alpha + sigma), -sigma / (alpha + sigma)


PREDICTIONS: Mapping[str, Callable[[float, float], Pair]] = {
    "v": _of_v,
    "epsilon": _of_epsilon,
    "sample": _of_sample,
    "flow": _of_flow,
}
"""What a model predicts: ``alpha * noise - sigma * clean``, the noise, the clean sample, or ``noise - clean``. Each
gives the shares of latent and output in the clean sample."""


def first_order(now: Pair, then: Pair) -> tuple[float, tuple[float, ...]]:
    """The estimate stays what it is: DDIM, and Euler's method in noise over signal."""
    if now[1] <= 0:
        raise ValueError("a step begins where there is no noise")
    keep = then[1] / now[1]
    return keep, (then[0] - now[0] * keep,)


def of_order(order: int, path: Sequence[Pair], then: Pair) -> tuple[float, tuple[float, ...]]:
    """The estimate is the polynomial through the newest estimates; integrals are exact.

    Args:
        order: how many estimates it goes through, at most; fewer where there are no more of use.
        path: alpha and sigma of the steps so far, the newest first.
        then: of the next step.
    """
    now, end = path[0], log_ratio(*then)
    places = [log_ratio(*one) for one in path[:order]]
    known = [one for one in places if math.isfinite(one)]
    if len(known) < 2 or not math.isfinite(end) or not math.isfinite(places[0]):
        return first_order(now, then)
    span = end - known[0]
    moments = [_moment(power, span) for power in range(len(known))]
    matrix = np.vander(np.array(known) - known[0], increasing=True).T
    weights = then[0] * np.linalg.solve(matrix, moments)
    return then[1] / now[1], tuple(map(float, weights))


def _moment(power: int, span: float) -> float:
    """The integral of ``exp(u - span) u**power`` from 0 to ``span``."""
    if power == 0:
        return -math.expm1(-span)
    return float(span**power - power * _moment(power - 1, span))


def _second_multistep(path: Sequence[Pair], then: Pair) -> tuple[float, tuple[float, ...]]:
    """DPM-Solver++(2M), algorithm 2 of arXiv:2211.01095; of first order at the ends."""
    keep, (whole,) = first_order(path[0], then)
    places = [log_ratio(*one) for one in path[:2]]
    end = log_ratio(*then)
    if len(places) < 2 or not all(map(math.isfinite, (*places, end))):
        return keep, (whole,)
    half = (end - places[0]) / (places[0] - places[1]) / 2
    return keep, (whole * (1 + half), -whole * half)


Solver = Callable[[Sequence[Pair], Pair], tuple[float, tuple[float, ...]]]
SOLVERS: Mapping[str, Solver] = {
    "ddim": lambda path, then: first_order(path[0], then),
    "euler": lambda path, then: first_order(path[0], then),
    "dpmpp_2m": _second_multistep,
    "multistep_2": lambda path, then: of_order(2, path, then),
    "multistep_3": lambda path, then: of_order(3, path, then),
}
RENOISE = "renoise"
"""The estimate is taken for the sample, and new noise is added to it, as consistency models are sampled (Song et al.
2023, arXiv:2303.01469, algorithm 1)."""


def rows(
    schedule: NoiseSchedule, prediction: str, solver: str | Sequence[int], steps: Sequence[float], least: float = 0.0
) -> tuple[TableRow, ...]:
    """A loop over steps, the last of which is where it ends.

    Args:
        schedule: of the noise.
        prediction: of the model.
        solver: by name, or the order of each step.
        steps: from noise to the sample.
        least: noise that the model's samples still hold, where it is added anew.

    Raises:
        ValueError: a step cannot be made.
    """
    pairs = [schedule.at(step) for step in steps]
    found = []
    for at, (now, then) in enumerate(pairwise(pairs)):
        path = pairs[at::-1]
        weights: tuple[float, ...]
        noise = 0.0
        if solver == RENOISE:
            keep, weights, noise = 0.0, (then[0],), math.sqrt(max(then[1] ** 2 - least**2, 0.0))
        elif isinstance(solver, str):
            keep, weights = SOLVERS[solver](path, then)
        else:
            keep, weights = of_order(solver[at], path, then)
        found.append(TableRow(float(steps[at]), PREDICTIONS[prediction](*now), keep, weights, noise))
    return tuple(found)
