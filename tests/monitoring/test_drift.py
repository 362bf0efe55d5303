"""Drift is flagged when a difference is large and real, and not otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.drift import (
    class_mix_drift,
    confidence_drift,
    embedding_drift,
    ks_distance,
    ks_p_value,
    stability_p_value,
)
from visionloop.monitoring.intervals import wilson

THRESHOLDS = MonitoringConfig()


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("seed", range(5))
def test_distance_and_its_probability_agree_with_scipy(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = rng(seed).beta(8, 2, 300), rng(seed + 100).beta(6, 2, 450)
    peer = stats.ks_2samp(a, b, method="asymp")
    assert ks_distance(a, b) == pytest.approx(peer.statistic, abs=1e-12)
    assert ks_p_value(ks_distance(a, b), 300, 450) == pytest.approx(peer.pvalue, rel=0.2, abs=1e-4)


def test_ties_count_once_in_the_distance() -> None:
    assert ks_distance(np.array([0.5, 0.5, 1.0]), np.array([0.5, 1.0, 1.0])) == pytest.approx(1 / 3)


def test_wilson_interval_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for right, n in [(0, 10), (10, 10), (7, 10), (556, 597)]:
        peer = stats.binomtest(right, n).proportion_ci(method="wilson")
        rate = wilson(right, n)
        assert (rate.low, rate.high) == pytest.approx((peer.low, peer.high), abs=1e-9)


def test_a_rate_of_nothing_says_nothing() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(3, 2)


def test_windows_alike_do_not_raise_alarm() -> None:
    false_alarms = 0
    for seed in range(400):
        draw = rng(seed)
        before, after = draw.beta(8, 2, 150), draw.beta(8, 2, 150)
        labels = draw.integers(0, 10, (2, 150)).astype(str)
        drifts = [
            confidence_drift(before, after, THRESHOLDS),
            class_mix_drift(list(labels[0]), list(labels[1]), THRESHOLDS),
        ]
        false_alarms += sum(drift.state == "drift" for drift in drifts)
    # 800 comparisons at a significance of 0.001.
    assert false_alarms <= 4


def test_falling_confidence_is_drift() -> None:
    drift = confidence_drift(rng(0).beta(8, 2, 400), rng(1).beta(4, 3, 400), THRESHOLDS)
    assert drift.state == "drift"
    assert drift.score > drift.threshold
    assert drift.p_value < THRESHOLDS.drift_significance


def test_a_real_but_small_difference_is_no_drift() -> None:
    drift = confidence_drift(rng(0).beta(8, 2, 20_000), rng(1).beta(7.6, 2, 20_000), THRESHOLDS)
    assert drift.p_value < THRESHOLDS.drift_significance
    assert drift.state == "stable"


def test_few_events_are_too_few_to_say() -> None:
    drift = confidence_drift(np.ones(99), np.zeros(500), THRESHOLDS)
    assert drift.state == "too few to say"
    assert class_mix_drift(["a"] * 500, [], THRESHOLDS).state == "too few to say"


def test_a_class_that_takes_over_is_drift_of_the_mix() -> None:
    before = ["a"] * 100 + ["b"] * 100
    after = ["a"] * 180 + ["b"] * 20
    assert class_mix_drift(before, after, THRESHOLDS).state == "drift"
    assert class_mix_drift(before, list(reversed(before)), THRESHOLDS).score == pytest.approx(0)


@pytest.mark.parametrize(("n_classes", "n", "m"), [(10, 600, 500), (100, 150, 120)])
def test_the_stability_index_holds_its_level_however_many_classes_there_are(
    n_classes: int, n: int, m: int
) -> None:
    alarms, runs = 0, 400
    for seed in range(runs):
        draw = rng(seed)
        p = draw.dirichlet(np.ones(n_classes))
        a, b = draw.multinomial(n, p), draw.multinomial(m, p)
        alarms += stability_p_value(a, b, significance=0.05) < 0.05
    # 20 are expected; 31 or more come with a probability of 0.01.
    assert alarms <= 30


def test_a_class_that_takes_over_among_a_hundred_is_seen() -> None:
    draw = rng(1)
    p = np.full(100, 0.01)
    q = 0.4 * p
    q[3] += 0.6
    before, after = draw.multinomial(150, p), draw.multinomial(120, q)
    assert stability_p_value(before, after, significance=0.001) < 0.001


def test_the_three_tests_of_two_windows_share_one_level() -> None:
    """Alike windows raise an alarm of any kind as often as the level says, large or not."""
    lax = THRESHOLDS.model_copy(
        update={
            "drift_significance": 0.05,
            "confidence_drift_above": 1e-9,
            "class_mix_drift_above": 1e-9,
            "embedding_drift_above": 1e-9,
        }
    )
    alarms, runs = 0, 150
    for seed in range(runs):
        draw = rng(seed)
        x, y = (draw.normal(size=(100, 4)).astype(np.float32) for _ in range(2))
        # All three are of one cause, as they are in a model's answers.
        drifts = [
            confidence_drift(_sure(x), _sure(y), lax),
            class_mix_drift(_classes(x), _classes(y), lax),
            embedding_drift(x, y, lax),
        ]
        alarms += any(drift.state == "drift" for drift in drifts)
    # 7.5 are expected at most; 15 or more come with a probability of 0.01.
    assert alarms <= 14


def _sure(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.abs(x).max(axis=1))))


def _classes(x: np.ndarray) -> list[str]:
    return [str(i) for i in x.argmax(axis=1)]


def test_embeddings_that_moved_are_drift() -> None:
    draw = rng(0)
    before = draw.normal(size=(300, 16)).astype(np.float32)
    after = (draw.normal(size=(300, 16)) + 0.5).astype(np.float32)
    drift = embedding_drift(before, after, THRESHOLDS)
    assert (drift.kind, drift.state) == ("embedding_drift", "drift")
    assert embedding_drift(before[:150], before[150:], THRESHOLDS).state == "stable"
    assert embedding_drift(before[:99], after, THRESHOLDS).state == "too few to say"
