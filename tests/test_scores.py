"""What is lost of a score, and how sure that is."""

import numpy as np
import pytest

from qcc.compiler.scores.accuracy import Accuracy
from qcc.compiler.scores.cosine import CosineScore
from qcc.compiler.scores.find import scores
from qcc.compiler.scores.paired import CONFIDENCE, factor, margin_drop, mean_drop, resampled_drop
from qcc.compiler.scores.perplexity import Perplexity
from qcc.compiler.scores.score import OfLabels
from qcc.compiler.scores.spearman import Spearman
from qcc.compiler.scores.top_kl import TopKlScore

SETS = 200
LEAST = CONFIDENCE - 0.05  # three standard deviations of what 200 sets show of 95 %


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_names_of_scores_are_those_that_the_issue_spells() -> None:
    assert {"accuracy", "perplexity", "spearman", "cosine", "top_kl", "map", "f1", "score", "loss"} == set(scores())


@pytest.mark.parametrize("count", [2, 5, 20, 1000])
def test_the_factor_is_students(count: int) -> None:
    from scipy.stats import t

    assert factor(count) == pytest.approx(t.ppf(CONFIDENCE, count - 1), rel=1e-9)


@pytest.mark.parametrize(("rate", "lost"), [(0.01, 0.5), (0.01, 0.8), (0.05, 0.5), (0.05, 0.8)])
def test_a_counted_bound_covers(rate: float, lost: float) -> None:
    """Of many sets of samples, in as many as is said what is lost is below its bound."""
    true, covered = rate * (2 * lost - 1), 0
    for seed in range(SETS):
        draw = rng(seed)
        changed = draw.random(400) < rate
        moves = np.where(draw.random(400) < lost, 1.0, -1.0) * changed
        covered += mean_drop(moves, counted=True)[1] >= true  # type: ignore[operator]
    assert covered / SETS >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.1, 0.5])
def test_a_bound_by_margins_covers_and_is_closer_than_one_that_counts(size: float) -> None:
    draw = rng(1)
    margins = draw.gumbel(3, 2.2, 200_000) - draw.gumbel(0, 1, 200_000)
    moved = margins + draw.normal(-0.1, 1, 200_000) * size * (0.5 + 0.3 * np.abs(margins))
    true = np.mean((margins > 0).astype(float) - (moved > 0))
    covered, widths = 0, []
    for _ in range(60):
        at = draw.integers(0, 200_000, 400)
        _, upper = margin_drop(margins[at], moved[at])
        counted = mean_drop((margins[at] > 0).astype(float) - (moved[at] > 0), counted=True)[1]
        assert upper is not None and counted is not None
        covered += upper >= true - 1e-4  # a local average is off by as much
        widths.append((upper, counted))
    assert covered / 60 >= CONFIDENCE - 0.09  # three standard deviations of 60 sets
    assert np.mean(widths, axis=0)[0] < np.mean(widths, axis=0)[1]


def test_a_class_that_a_model_forgets_is_lost_by_margins_too() -> None:
    """What befalls few samples alone shows, though a move is taken for that of its neighbours."""
    margins = np.abs(rng().normal(2, 1, 600))
    forgotten = np.arange(600) % 10 == 0
    _, upper = margin_drop(margins, np.where(forgotten, -3.0, margins))
    assert upper is not None and upper >= 0.1


def test_samples_that_do_not_change_are_no_proof_where_they_are_counted() -> None:
    estimate, upper = mean_drop(np.zeros(100), counted=True)
    assert estimate == 0 and upper is not None and upper > 0.01
    assert mean_drop(np.zeros(100), counted=False) == (0, 0)


def test_one_number_has_no_bound() -> None:
    assert mean_drop(np.array([0.25]), counted=False) == (0.25, None)
    assert resampled_drop(lambda at: 0.5, 2) == (0.5, None)


def labelled(score: OfLabels, output: np.ndarray, known: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    return score.records(score.parts(output, known), known if labels is None else labels)


def test_accuracy_counts_what_is_right_and_leaves_out_what_has_no_label() -> None:
    output = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    records = labelled(Accuracy(), output, np.array([0, 1, 1, -100]))
    assert Accuracy().value(records) == pytest.approx(2 / 3)
    tokens = np.eye(3, dtype=np.float32)[np.array([[0, 1], [2, 2]])]
    assert Accuracy().value(labelled(Accuracy(), tokens, np.array([[0, -100], [2, 1]]))) == pytest.approx(2 / 3)
    assert Accuracy().value(labelled(Accuracy(), np.array([1, 2]), np.array([1, 1]))) == 0.5


@pytest.mark.parametrize(
    ("output", "known"),
    [(np.zeros((2, 1), np.float32), np.zeros(2)), (np.zeros((2, 3), np.float32), np.zeros((2, 2)))],
    ids=["no classes", "other places"],
)
def test_accuracy_reject(output: np.ndarray, known: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an output of"):
        Accuracy().parts(output, known)


def test_perplexity_is_of_the_next_tokens() -> None:
    tokens = rng().integers(0, 7, (5, 12))
    sure = np.full((5, 12, 7), -50.0, np.float32)
    sure[np.arange(5)[:, None], np.arange(11), tokens[:, 1:]] = 0
    assert Perplexity().value(labelled(Perplexity(), sure, tokens)) == pytest.approx(1, abs=1e-6)
    flat = np.zeros((5, 12, 7), np.float32)
    records = labelled(Perplexity(), flat, tokens)
    assert Perplexity().value(records) == pytest.approx(7, abs=1e-6)
    lost = Perplexity().drop(labelled(Perplexity(), sure, tokens), records, relative=True)
    assert lost.estimate == pytest.approx(6, abs=1e-5)


def test_perplexity_reject() -> None:
    with pytest.raises(ValueError, match="has no class 9"):
        Perplexity().parts(np.zeros((2, 3, 4), np.float32), np.full((2, 3), 9))


def test_spearman_is_that_of_scipy_and_takes_pairs() -> None:
    from scipy.stats import spearmanr

    labels, output = rng(1).integers(0, 6, 80).astype(float), rng(2).normal(size=(80, 1))
    want = spearmanr(output[:, 0], labels).statistic
    assert Spearman().value(labelled(Spearman(), output, labels)) == pytest.approx(want, abs=1e-9)
    vectors = rng(3).normal(size=(160, 5))
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(vectors[0::2], vectors[1::2], strict=True)]
    found = Spearman().value(labelled(Spearman(), vectors, np.zeros(160), labels))
    assert found == pytest.approx(spearmanr(cosines, labels).statistic, abs=1e-9)


def test_scores_that_are_held_to_the_original_lose_nothing_by_it() -> None:
    output = rng().normal(size=(6, 40)).astype(np.float32)
    assert CosineScore().value(labelled(CosineScore(), output, output)) == pytest.approx(1, abs=1e-12)
    assert TopKlScore().value(labelled(TopKlScore(), output, output)) == pytest.approx(0, abs=1e-12)
    worse = output + rng(1).normal(size=output.shape)
    assert TopKlScore().value(labelled(TopKlScore(), worse, output)) > 0.01


@pytest.mark.parametrize("name", sorted(name for name, one in scores().items() if one.better == "less"))
def test_where_less_is_better_more_is_a_loss(name: str) -> None:
    before, after = (np.stack([np.full(20, value), np.ones(20)], axis=1) for value in (2.0, 2.5))
    assert scores()[name].of_means(before, after, relative=False).estimate == pytest.approx(0.5)
    expected = 0.5 if scores()[name].share else 0.25
    assert scores()[name].of_means(before, after, relative=True).estimate == pytest.approx(expected)
