"""How much of a latent is signal and how much is noise at each step, and grids of steps.

A latent at a step is ``alpha * clean + sigma * noise``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FINE = 20_001  # steps between which a grid is looked up
MOST_LOG_RATIO = 4.0  # of alpha over sigma, between the ends of a grid that is even in it: there it may be infinite
KARRAS_POWER = 7.0
BETAS = (1e-4, 0.02)
TRAINED = 1000

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class NoiseSchedule:
    """Alpha and sigma by step.

    Args:
        alpha: of the signal.
        sigma: of the noise.
        begin: the step of pure noise.
        end: the step of the sample.
    """

    alpha: Curve
    sigma: Curve
    begin: float
    end: float

    def at(self, step: float) -> tuple[float, float]:
        """Alpha and sigma of one step; what is zero but for rounding is zero."""
        steps = np.array([step], np.float64)
        found = float(self.alpha(steps)[0]), float(self.sigma(steps)[0])
        near = 1e-12 * max(map(abs, found))
        return (0.0 if abs(found[0]) < near else found[0]), (0.0 if abs(found[1]) < near else found[1])


def _cosine() -> NoiseSchedule:
    return NoiseSchedule(lambda t: np.cos(t * math.pi / 2), lambda t: np.sin(t * math.pi / 2), 1.0, 0.0)


def _linear() -> NoiseSchedule:
    return NoiseSchedule(lambda t: 1 - t, lambda t: t, 1.0, 0.0)


def _sigma() -> NoiseSchedule:
    return NoiseSchedule(np.ones_like, lambda t: t, 80.0, 0.0)


def _ddpm() -> NoiseSchedule:
    kept = np.cumprod(1 - np.linspace(*BETAS, TRAINED))
    steps = np.arange(-1, TRAINED, dtype=np.float64)  # before the first step all is signal
    return from_table(steps, np.sqrt([1, *kept]), np.sqrt([0, *(1 - kept)]))


NAMED: Mapping[str, Callable[[], NoiseSchedule]] = {
    "cosine": _cosine,
    "linear": _linear,
    "sigma": _sigma,
    "ddpm": _ddpm,
}
"""``cosine``: cos and sin of a quarter turn, steps in [0, 1]. ``linear``: 1 - t and t, as of flows. ``sigma``: 1 and
the step itself. ``ddpm``: a thousand steps of betas that rise evenly from 0.0001 to 0.02."""


def from_table(steps: Sequence[float] | np.ndarray, alpha: np.ndarray, sigma: np.ndarray) -> NoiseSchedule:
    """A schedule between whose entries lines are drawn.

    Raises:
        ValueError: the entries are no schedule: too few, not finite, or the signal's share does not go one way.
    """
    at, alphas, sigmas = (np.asarray(one, np.float64) for one in (steps, alpha, sigma))
    if at.ndim != 1 or at.size < 2 or at.shape != alphas.shape or at.shape != sigmas.shape:
        raise ValueError("`step`, `alpha` and `sigma` are lists of one length, of two entries or more")
    if not all(np.isfinite(one).all() for one in (at, alphas, sigmas)) or (alphas < 0).any() or (sigmas < 0).any():
        raise ValueError("`alpha` and `sigma` are finite and not below 0")
    order = np.argsort(at)
    at, alphas, sigmas = at[order], alphas[order], sigmas[order]
    share = np.arctan2(alphas, sigmas)
    if (np.diff(at) <= 0).any() or not ((np.diff(share) > 0).all() or (np.diff(share) < 0).all()):
        raise ValueError("the share of the signal rises or falls from step to step, all the way")
    begin, end = (at[-1], at[0]) if share[0] > share[-1] else (at[0], at[-1])
    return NoiseSchedule(
        lambda t: np.interp(t, at, alphas), lambda t: np.interp(t, at, sigmas), float(begin), float(end)
    )


def log_ratio(alpha: float, sigma: float) -> float:
    """The logarithm of signal over noise, infinite where one of them is none."""
    if alpha <= 0:
        return -math.inf
    return math.inf if sigma <= 0 else math.log(alpha) - math.log(sigma)


def _uniform(_: NoiseSchedule, begin: float, end: float, count: int) -> np.ndarray:
    return np.linspace(begin, end, count + 1)


def _quadratic(_: NoiseSchedule, begin: float, end: float, count: int) -> np.ndarray:
    return end + (begin - end) * np.linspace(1, 0, count + 1) ** 2


def _log_ratio(schedule: NoiseSchedule, begin: float, end: float, count: int) -> np.ndarray:
    steps, found = _ratios(schedule, begin, end)
    inner = np.interp(np.linspace(found[0], found[-1], count + 1), found, steps)
    return np.array([begin, *inner[1:-1], end])


def _karras(schedule: NoiseSchedule, begin: float, end: float, count: int) -> np.ndarray:
    steps, found = _ratios(schedule, begin, end)
    most, least = (math.exp(-found[at] / KARRAS_POWER) for at in (0, -1))
    wanted = -KARRAS_POWER * np.log(np.linspace(most, least, count))
    return np.array([begin, *np.interp(wanted, found, steps)[1:], end])


def _ratios(schedule: NoiseSchedule, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Steps with their rising logarithms of signal over noise, as far as those are no larger than `MOST_LOG_RATIO`."""
    steps = np.linspace(begin, end, FINE)
    with np.errstate(divide="ignore"):
        found = np.log(schedule.alpha(steps)) - np.log(schedule.sigma(steps))
    kept = np.isfinite(found) & (np.abs(found) <= max(MOST_LOG_RATIO, float(np.abs(found[FINE // 2]))))
    return steps[kept], found[kept]


GRIDS: Mapping[str, Callable[[NoiseSchedule, float, float, int], np.ndarray]] = {
    "uniform": _uniform,
    "quadratic": _quadratic,
    "log_ratio": _log_ratio,
    "karras": _karras,
}
"""How steps lie between the first and the last: evenly; as squares; evenly in the logarithm of signal over noise;
evenly in the seventh root of noise over signal (Karras et al. 2022, arXiv:2206.00364, equation 5)."""
