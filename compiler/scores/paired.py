"""What is lost between two runs over the same samples, and how sure that is.

Samples are paired: what counts is how each of them changes, so that all on which both runs agree adds nothing to the
doubt.

Where samples are right or wrong by a margin, most of what a model does to them shows in no change at all. So what is
lost is not counted but expected: a sample's margin moves as that of any sample with a like margin does (a local
average), and it is the share of those moves that would cross zero that counts. Few samples then tell what otherwise
takes thousands; what is counted is told beside, and must not contradict it.

Sources: where there is no margin, Agresti and Min, Simple improved confidence intervals for comparing matched
proportions, 2005; else the normal bound of the mean of the differences, with Student's factor; for what is no mean, the
standard error by drawing samples again, Efron 1979.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
"""That what is lost is not above its bound."""
DRAWS = 400  # of the samples, with repetition: the standard error of what is no mean is known to 4 %
SEED = 0
ALIKE = 16  # samples to each side, in the order of margins, that a sample's margin may move like


@dataclass(frozen=True)
class Drop:
    """What is lost.

    Args:
        estimate: on the samples.
        upper: what it is not above, in all but one of twenty sets of samples (see ``by_margins``); None where nothing
            tells, since there is one number for all samples.
        samples: how many there are.
        lost: samples that got worse; None where nothing tells.
        gained: samples that got better.
        by_margins: both numbers are expected of margins, not counted: an approximation, which in bad cases holds in 80
            to 88 of 100 sets (decision 156).
    """

    estimate: float
    upper: float | None
    samples: int
    lost: int | None = None
    gained: int | None = None
    by_margins: bool = False

    @property
    def judged(self) -> float:
        """What is held to a bound."""
        return self.estimate if self.upper is None else self.upper


def mean_drop(differences: np.ndarray, counted: bool) -> tuple[float, float | None]:
    """The mean of differences, positive ones being losses, and what it is not above.

    Args:
        differences: sample by sample.
        counted: they are whole: a sample is right or wrong. Then one loss and one gain of half a sample are added, or
            a few samples without any would seem to prove that there are none.
    """
    count = len(differences)
    estimate = float(differences.mean())
    if count < 2:
        return estimate, None
    squares = float(np.square(differences - (0 if counted else estimate)).sum())
    if counted:
        count, squares = count + 2, squares + 1 - count * estimate**2
        deviation = np.sqrt(max(squares, 1.0)) / count
    else:
        deviation = np.sqrt(squares / (count - 1) / count)
    return estimate, estimate + factor(count) * float(deviation)


def resampled_drop(of: Callable[[np.ndarray], float], count: int) -> tuple[float, float | None]:
    """What is lost by a score that is no mean, by drawing the samples again, and what it is not above.

    Args:
        of: what is lost on some samples, by their numbers.
        count: of samples.
    """
    estimate = of(np.arange(count))
    if count < 3:  # of two samples ranks tell nothing
        return estimate, None
    rng = np.random.default_rng(SEED)
    drawn = [of(rng.integers(0, count, count)) for _ in range(DRAWS)]
    return estimate, estimate + factor(count) * float(np.std(drawn))


def margins_tell(count: int) -> bool:
    """So many samples are enough for their margins to tell how they move."""
    return count > 4 * ALIKE


def margin_drop(before: np.ndarray, after: np.ndarray) -> tuple[float, float | None]:
    """What share of samples is expected to turn wrong, less that which turns right, and what it is not above.

    Where there are too few for that (`margins_tell`), they are counted.

    Args:
        before: margins of the original, above zero where it is right.
        after: of the other.
    """
    order = np.argsort(before, kind="stable")
    margins, moves = before[order], (after - before)[order]
    counted = mean_drop((before > 0).astype(np.float64) - (after > 0), counted=True)

    def expected(at: np.ndarray) -> float:
        chosen = np.sort(at)  # in the order of margins
        wide = np.pad(moves[chosen], ALIKE, mode="reflect") if len(chosen) > ALIKE else None
        if wide is None:
            return float(np.mean((margins > 0).astype(float) - (margins + moves > 0)))
        near = np.lib.stride_tricks.sliding_window_view(wide, 2 * ALIKE + 1)
        held = margins[chosen][:, None]
        return float(np.mean((held > 0).astype(np.float32) - (held + near > 0)))

    if not margins_tell(len(before)):
        return counted
    estimate, upper = resampled_drop(expected, len(before))
    assert upper is not None and counted[1] is not None
    contradicted = 2 * counted[0] - counted[1]  # as far below what is counted as its bound is above
    return estimate, max(upper, contradicted)


def factor(count: int) -> float:
    """How many standard errors above an estimate its bound is: Student's quantile."""
    from scipy.special import stdtrit  # who checks a policy needs none of it

    return float(stdtrit(max(count - 1, 1), CONFIDENCE))


def samples_needed(limit: float) -> int:
    """How many samples without margins show that no more than a share is lost, if none of them changes."""
    return int(np.ceil(NormalDist().inv_cdf(CONFIDENCE) / limit)) if limit > 0 else 0
