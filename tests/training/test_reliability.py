"""Calibration error and Brier score tell how sure they are themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from visionloop.training.reliability import (
    BINS,
    brier_score,
    calibration_error,
    calibration_interval,
    errors_by_chance,
    reliability_table,
    resampled_errors,
)


def answers(n: int, seed: int, cooled: float) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences, and which are right: as often as ``cooled`` times the confidence."""
    draw = np.random.Generator(np.random.PCG64(seed))
    sure = draw.beta(8, 2, n).astype(np.float32)
    return sure, draw.random(n) < cooled * sure


def test_confidence_that_is_right_as_often_as_it_says_has_no_calibration_error() -> None:
    right = np.array([True] * 8 + [False] * 2)
    assert calibration_error(np.full(10, 0.8, np.float32), right) == pytest.approx(0, abs=1e-6)
    assert calibration_error(np.full(10, 0.99, np.float32), right) == pytest.approx(0.19, abs=1e-6)
    assert calibration_error(np.zeros(0, np.float32), np.zeros(0, bool)) == 0


@pytest.mark.parametrize("cooled", [1.0, 0.97, 0.85])
def test_the_interval_of_the_calibration_error_covers_the_truth(cooled: float) -> None:
    many = answers(1_000_000, 0, cooled)[0].astype(np.float64)
    bins = np.minimum((many * BINS).astype(int), BINS - 1)
    truth = np.abs(np.bincount(bins, weights=(1 - cooled) * many)).sum() / len(many)
    found = [calibration_interval(*answers(500, seed, cooled)) for seed in range(1, 81)]
    covered = sum(one.low <= truth + 1e-9 and truth <= one.high for one in found)
    # 76 are meant; fewer than 71 come with a probability of 0.01.
    assert covered >= 71
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found)


def test_the_same_answers_have_the_same_interval_and_one_answer_has_none() -> None:
    assert calibration_interval(*answers(300, 3, 0.9)) == calibration_interval(
        *answers(300, 3, 0.9)
    )
    one = calibration_interval(np.array([0.9], np.float32), np.array([True]))
    assert (one.low, one.high, one.n) == (0, 1, 1)


def test_the_brier_score_is_the_squared_distance_to_the_truth() -> None:
    p = np.array([[0.7, 0.3], [0.2, 0.8], [1.0, 0.0]], np.float32)
    by_hand = [0.3**2 + 0.3**2, 0.8**2 + 0.8**2, 1 + 1]
    found = brier_score(p, ["cat", "cat", "owl"], ["cat", "dog"])
    assert found.value == pytest.approx(np.mean(by_hand), abs=1e-6)
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.Generator(np.random.PCG64(1))
    p = draw.dirichlet(np.ones(3), 50)
    truth = [str(i) for i in draw.integers(0, 3, 50)]
    peer = metrics.brier_score_loss(truth, p, labels=["0", "1", "2"])
    assert brier_score(p.astype(np.float32), truth, list("012")).value == pytest.approx(peer)


def test_the_table_of_reliability_has_every_sample_once() -> None:
    sure, right = answers(400, 2, 1.0)
    sure[0] = 1.0
    table = reliability_table(sure, right)
    assert [row["from"] for row in table] == pytest.approx([i / 10 for i in range(10)])
    assert sum(row["n"] for row in table) == 400
    held = [row for row in table if row["n"]]
    assert all(row["from"] - 1e-6 <= row["confidence"] <= row["to"] for row in held)
    hits = sum(row["n"] * row["right"] for row in held)
    assert hits == pytest.approx(right.sum())
    assert all(row["right"] is None for row in table if not row["n"])


@pytest.mark.parametrize(("n", "seed"), [(2, 0), (40, 1), (700, 2), (3000, 3)])
def test_errors_are_distributed_as_by_drawing_whole_samples(n: int, seed: int) -> None:
    sure, right = answers(n, seed, 0.9)
    draw = np.random.Generator(np.random.PCG64(seed))
    rows = draw.integers(0, n, (1500, n))
    plain = [calibration_error(sure[own], right[own]) for own in rows]
    ours = resampled_errors(sure, right, 1500, draw)
    assert stats.ks_2samp(plain, ours).pvalue > 0.001
    chance = [calibration_error(sure, draw.random(n) < sure) for _ in range(1500)]
    assert stats.ks_2samp(chance, errors_by_chance(sure, 1500, draw)).pvalue > 0.001
