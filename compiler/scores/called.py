"""Scores that only the user's own function knows."""

from typing import ClassVar, Literal

from qcc.compiler.scores.score import Score


class FScore(Score):
    """F1, by a function that is given."""

    keyword: ClassVar[str] = "f1"


class MeanAveragePrecision(Score):
    """Mean average precision, by a function that is given."""

    keyword: ClassVar[str] = "map"


class GivenScore(Score):
    """Any number of which more is better, by a function that is given."""

    keyword: ClassVar[str] = "score"
    share: ClassVar[bool] = False


class GivenLoss(Score):
    """Any number of which less is better, by a function that is given."""

    keyword: ClassVar[str] = "loss"
    better: ClassVar[Literal["more", "less"]] = "less"
    share: ClassVar[bool] = False
