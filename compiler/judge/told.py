"""What is lost of the user's scores, in words and as plain data."""

from typing import Any

from qcc.compiler.console.percent import percent
from qcc.compiler.scores.check import ScoreCheck
from qcc.compiler.scores.find import scores
from qcc.compiler.scores.paired import CONFIDENCE
from qcc.compiler.verify.outputs import Verification


def score_lines(verification: Verification) -> list[str]:
    """A line for each score: before and after, what is lost, and how sure that is."""
    return [score_text(one) for one in verification.scores]


def score_text(one: ScoreCheck) -> str:
    """What became of a score."""
    count = f"{one.drop.samples:,} samples" if one.drop.samples > 1 else "one number for all samples"
    text = f"{one.bound.argument} {_value(one.before)} -> {_value(one.after)}, {lost_text(one, one.drop.estimate)} lost"
    if one.drop.upper is not None:
        how = " asked for, approximated by margins" if one.drop.by_margins else ""
        text += f", at most {lost_text(one, one.drop.upper)} with {CONFIDENCE:.0%} confidence{how}"
    text += f"; {count}"
    if one.drop.lost is not None:
        text += f", {one.drop.lost:,} worse and {one.drop.gained:,} better"
    return text


def lost_text(one: ScoreCheck, value: float) -> str:
    """What is lost, in the unit of its bound: points of a share are told as such."""
    if one.bound.quantity.unit != "%":
        return f"{value:.3g}"
    if scores()[str(one.bound.argument)].share:
        return f"{100 * value:.3g} points"
    return percent(value)


def _value(value: float) -> str:
    return f"{value:.5g}"


def scores_json(verification: Verification) -> list[dict[str, Any]]:
    """Every score."""
    return [
        {
            "score": one.bound.argument,
            "bound": one.bound.text,
            "before": one.before,
            "after": one.after,
            "drop": one.drop.estimate,
            "drop_at_most": one.drop.upper,
            "confidence": CONFIDENCE,
            "by_margins": one.drop.by_margins,
            "samples": one.drop.samples,
            "worse": one.drop.lost,
            "better": one.drop.gained,
            "passed": one.passed,
        }
        for one in verification.scores
    ]
