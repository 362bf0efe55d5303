"""Models doubt labels where they know enough; how many are wrong is told by an interval."""

from __future__ import annotations

import numpy as np
import pytest

from visionloop.demo.pictures import load_digits
from visionloop.labeling.trust.doubting import Doubt, doubt
from visionloop.labeling.trust.out_of_sample import cross_validate
from visionloop.labeling.trust.suspects import find_suspects


def judged(components: int, rate: float, n: int = 260) -> tuple[Doubt, np.ndarray, np.ndarray]:
    """Return the doubt, what is flagged and what is wrong, of digits of few components."""
    pixels, truth = load_digits()
    rng = np.random.default_rng([components, int(rate * 100)])
    rows = rng.permutation(len(truth))[:n]
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    x = (flat @ np.linalg.svd(flat, full_matrices=False)[2][:components].T)[rows]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    given = truth[rows].astype(np.int64)
    wrong = rng.random(n) < rate
    given[wrong] = (given[wrong] + rng.integers(1, 10, wrong.sum())) % 10
    told = cross_validate(x, given, 10)
    found = find_suspects(given, told.probabilities)
    return doubt(given, told.probabilities, found), found.flagged, wrong


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_models_that_see_little_doubt_nothing(rate: float) -> None:
    held, flagged, wrong = judged(2, rate)
    assert not held.enough
    # What they would have flagged: mostly labels that are right.
    assert (flagged & wrong).sum() < 0.5 * flagged.sum()


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.25])
def test_models_that_see_enough_flag_mostly_wrong_labels(rate: float) -> None:
    held, flagged, wrong = judged(40, rate)
    assert held.enough
    assert (flagged & wrong).sum() > 0.7 * flagged.sum()
    assert held.wrong_low <= wrong.mean() <= held.wrong_high
    assert held.wrong_high - held.wrong_low < 0.15


def test_where_no_label_is_wrong_the_interval_says_that_it_may_be_none() -> None:
    held, flagged, _ = judged(40, 0.0)
    assert held.enough and held.wrong_low <= 0.01 and held.wrong_high < 0.05
    assert flagged.sum() <= 5


def test_who_names_the_commonest_class_alone_knows_nothing() -> None:
    labels = np.array([0] * 95 + [1] * 5)
    p = np.tile([0.95, 0.05], (100, 1))
    held = doubt(labels, p, find_suspects(labels, p))
    assert held.agreement.value == 0.95 and held.chance == 0.95 and not held.enough
