"""Drift is flagged when a difference is large and real, and not otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.drift import (
    class_mix_drift,
    confidence_drift,
    embedding_drift,
    stability_p_value,
    values_drift,
)
from visionloop.monitoring.energy import farthest, permutation_p_value
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.looks import level_of_look

THRESHOLDS = MonitoringConfig()


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


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
    # 800 comparisons at less than 0.001.
    assert false_alarms <= 2


def alarms(streams: int, looks: int, thresholds: MonitoringConfig, *, from_look: int = 0) -> int:
    """Return how many models raise an alarm in their life: each is looked at again and again.

    All looks are at one reference, its holdout. From a look on, the confidences fall.
    """
    found = 0
    for seed in range(streams):
        draw = rng(seed)
        reference = draw.beta(8, 2, 200)
        for look in range(1, looks + 1):
            fallen = from_look and look >= from_look
            current = draw.beta(4, 3, 200) if fallen else draw.beta(8, 2, 200)
            drift = values_drift(
                "confidence_drift", "", reference, current, 1e-9, thresholds, look=look, tests=1
            )
            if drift.state == "drift":
                found += 1
                break
    return found


def test_looking_again_and_again_raises_no_more_alarms_than_the_level_says() -> None:
    """The level is that of all looks: 40 lives of 20 looks, whatever the size of the effect."""
    lax = THRESHOLDS.model_copy(update={"drift_significance": 0.1})
    # 4 of 40 are meant at most; 9 or more come with a probability of 0.016.
    assert alarms(40, 20, lax) <= 8
    # Tests at the same level that know of no earlier look cry wolf in most lives.
    naive = sum(
        any(
            values_drift(
                "", "", reference, draw.beta(8, 2, 200), 1e-9, lax, look=1, tests=1
            ).p_value < 0.1
            for _ in range(20)
        )
        for draw, reference in ((d, d.beta(8, 2, 200)) for d in map(rng, range(40)))
    )  # fmt: skip
    assert naive >= 25


def test_eight_hundred_looks_without_drift_stay_within_the_level() -> None:
    assert alarms(1, 800, THRESHOLDS) == 0


def test_drift_that_sets_in_late_is_found_at_once() -> None:
    for look in (1, 50, 800):
        draw = rng(look)
        drift = confidence_drift(draw.beta(8, 2, 200), draw.beta(4, 3, 200), THRESHOLDS, look=look)
        assert (drift.state, drift.look) == ("drift", look)
        assert drift.level == pytest.approx(level_of_look(look, 0.001) / 3)


def test_the_tail_beyond_all_shuffles_is_near_the_truth_and_not_below_it() -> None:
    """Sums of squares, as an energy distance is one: the tail is known."""
    from scipy.stats import chi2

    for degrees in (1, 3, 9):
        draw = rng(degrees)
        for p_value in (1e-5, 1e-7, 1e-9):
            found = permutation_p_value(
                lambda number, d=degrees, by=draw: by.chisquare(d, number),
                float(chi2.isf(p_value, degrees)),
                p_value,
            )
            assert 0.5 * p_value <= found <= 300 * p_value


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


def test_a_comparison_names_what_moved_and_from_where_to_where() -> None:
    sure = confidence_drift(np.full(100, 0.9), np.full(100, 0.6), THRESHOLDS)
    assert (sure.measure, sure.unit) == ("mean confidence", "Kolmogorov-Smirnov distance")
    assert (sure.before, sure.after) == pytest.approx((0.9, 0.6))
    mix = class_mix_drift(["a"] * 50 + ["b"] * 50, ["a"] * 95 + ["b"] * 5, THRESHOLDS)
    assert (mix.measure, mix.before, mix.after) == ("share of the class a", 0.5, 0.95)


def test_the_farthest_rows_are_those_that_lie_farthest_out() -> None:
    draw = rng(4)
    current = draw.normal(size=(1200, 3)).astype(np.float32)
    current[[700, 3]] += np.float32([[20], [40]])
    assert farthest(draw.normal(size=(900, 3)).astype(np.float32), current, 2) == [3, 700]
    assert farthest(current[:0], current, 2) == []


def test_embeddings_that_moved_are_drift() -> None:
    draw = rng(0)
    before = draw.normal(size=(300, 16)).astype(np.float32)
    after = (draw.normal(size=(300, 16)) + 0.5).astype(np.float32)
    drift = embedding_drift(before, after, THRESHOLDS)
    assert (drift.kind, drift.state) == ("embedding_drift", "drift")
    assert embedding_drift(before[:150], before[150:], THRESHOLDS).state == "stable"
    assert embedding_drift(before[:99], after, THRESHOLDS).state == "too few to say"
