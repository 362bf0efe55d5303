"""Whether a tried model may stay, from counts and confidences alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from visionloop.serving.config import CanaryConfig
from visionloop.serving.inference_service.metrics import Count
from visionloop.stages.canary_judgement import errors_are_worse, judge_canary, not_split

CONFIG = CanaryConfig()
NONE: NDArray[np.float64] = np.array([])


def confident(mean: float, n: int = 200) -> NDArray[np.float64]:
    return np.clip(np.random.default_rng(0).normal(mean, 0.05, n), 0, 1)


@pytest.mark.parametrize(
    ("candidate", "current", "worse"),
    [
        (Count(100, 0), Count(900, 0), False),
        (Count(100, 1), Count(900, 0), False),  # one percent is allowed
        (Count(100, 5), Count(900, 0), True),
        (Count(100, 5), Count(900, 45), False),  # no worse than what is there
        (Count(60, 2), Count(540, 12), False),  # chance
        (Count(1000, 60), Count(9000, 90), True),
        (Count(100, 30), Count(0, 0), True),  # nothing to compare with: its own rate counts
        (Count(100, 1), Count(0, 0), False),
        (Count(49, 49), Count(900, 0), False),  # too few for a rate; judged at the end
    ],
)
def test_errors_count_when_they_are_more_than_allowed_and_more_than_chance(
    candidate: Count, current: Count, worse: bool
) -> None:
    assert bool(errors_are_worse(candidate, current, CONFIG)) is worse


def test_a_mean_confidence_that_fell_too_far_rolls_back() -> None:
    counts = Count(200, 0), Count(200, 0)
    fell = judge_canary(*counts, confident(0.6), confident(0.9), CONFIG)
    assert not fell.promote and fell.reason.startswith("rolled back: mean confidence 0.6")
    little = judge_canary(*counts, confident(0.85), confident(0.9), CONFIG)
    assert little.promote and "mean confidence 0.8" in little.reason
    rose = judge_canary(*counts, confident(0.95), confident(0.7), CONFIG)
    assert rose.promote


def test_a_fall_that_chance_explains_does_not() -> None:
    config = CONFIG.model_copy(update={"min_requests": 5, "max_confidence_drop": 0.01})
    wide = np.array([0.1, 0.9, 0.2, 0.95, 0.5])
    judged = judge_canary(Count(10, 0), Count(10, 0), wide - 0.05, wide, config)
    assert judged.promote


def test_few_requests_are_forgiven_nothing_but_their_number() -> None:
    good = judge_canary(Count(49, 0), Count(900, 0), NONE, NONE, CONFIG)
    assert good.promote and "49 requests are too few" in good.reason
    bad = judge_canary(Count(49, 1), Count(900, 0), NONE, NONE, CONFIG)
    assert not bad.promote and "1 server errors; 49 requests are too few" in bad.reason
    strict = CONFIG.model_copy(update={"too_few": "roll_back"})
    assert not judge_canary(Count(49, 0), Count(900, 0), NONE, NONE, strict).promote


def test_confidences_that_are_too_few_are_told_and_decide_nothing() -> None:
    judged = judge_canary(Count(100, 0), Count(900, 0), confident(0.1, 10), NONE, CONFIG)
    assert judged.promote and "10 and 0 confidences are too few to compare" in judged.reason
    assert judged.figures["confidence"]["current"] is None


@pytest.mark.parametrize(
    ("candidate", "current", "percent", "split"),
    [
        (0, 0, 10, True),  # nobody asked either
        (0, 20, 10, True),  # one of eight times by chance
        (0, 60, 40, False),
        (0, 65, 10, True),
        (0, 66, 10, False),
        (3, 900, 10, False),
        (80, 920, 10, True),
        (60, 9000, 10, True),  # enough to be judged by, whatever its share
        (0, 10**7, 99, False),
    ],
)
def test_a_share_that_chance_does_not_explain_is_no_trial(
    candidate: int, current: int, percent: int, split: bool
) -> None:
    config = CONFIG.model_copy(update={"percent": percent})
    assert bool(not_split(Count(candidate), Count(current), config)) is not split


def test_a_model_that_got_no_share_is_promoted_only_where_that_is_configured() -> None:
    counts = Count(0, 0), Count(900, 0)
    unsplit = not_split(*counts, CONFIG)
    judged = judge_canary(*counts, NONE, NONE, CONFIG, unsplit=unsplit)
    assert not judged.promote
    assert judged.reason.startswith(
        "rolled back: this cluster does not split traffic: 0 of 900 requests reached it"
    )
    trusting = CONFIG.model_copy(update={"no_split": "promote"})
    judged = judge_canary(*counts, NONE, NONE, trusting, unsplit=unsplit)
    assert judged.promote and judged.reason.startswith("promoted untried")
    judged = judge_canary(Count(3, 1), Count(900, 0), NONE, NONE, trusting, unsplit="few")
    assert not judged.promote
