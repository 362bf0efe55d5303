"""The stated precision holds, however the model's confidences are off; and it is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from visionloop.labeling.auto.binomial import (
    at_least,
    least_trials,
    lower_bound,
    upper_always,
    upper_bound,
)
from visionloop.labeling.auto.proof import MISS, Judged, miss_of, prove

Floats = np.ndarray
DRAWS = 1000


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    from scipy.stats import beta, binom

    for right, n in ((0, 10), (1, 10), (9, 10), (10, 10), (57, 60), (950, 1000)):
        assert at_least(right, n, 0.93) == pytest.approx(binom.sf(right - 1, n, 0.93), abs=1e-10)
        low = beta.ppf(0.05, right, n - right + 1) if right else 0.0
        high = beta.ppf(0.95, right + 1, n - right) if right < n else 1.0
        assert lower_bound(right, n, 0.05) == pytest.approx(low, abs=1e-9)
        assert upper_bound(right, n, 0.05) == pytest.approx(high, abs=1e-9)
    assert least_trials(0.95, 0.05) == 59 and least_trials(0.99, 0.05) == 299


def drawn(
    seed: int, n: int, truth: Callable[[Floats], Floats], pool: int = 2000
) -> tuple[list[Judged], list[float]]:
    """Return a holdout and a pool whose answers of confidence c are right with truth(c)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    confidences = 1 - 0.6 * rng.beta(0.4, 2.0, n)
    right = rng.random(n) < truth(confidences)
    return (
        [Judged("cat", float(c), bool(r)) for c, r in zip(confidences, right, strict=True)],
        (1 - 0.6 * rng.beta(0.4, 2.0, pool)).tolist(),
    )


CONFIDENCES = 1 - 0.6 * np.random.Generator(np.random.PCG64(99)).beta(0.4, 2.0, 400_000)
# What answers of a confidence are worth: as they say, worse, better, best where it is least sure,
# and the worst case for a test, the stated precision missed by nearly nothing everywhere.
TRUTHS: dict[str, Callable[[Floats], Floats]] = {
    "calibrated": lambda c: c,
    "overconfident": lambda c: np.clip(c - 0.08, 0, 1),
    "underconfident": lambda c: np.clip(c + 0.05, 0, 1),
    "upside_down": lambda c: np.clip(1.35 - 0.45 * c, 0, 1),
    "just_below": lambda c: np.full_like(c, 0.9499),
    "spiked": lambda c: np.where(c > 0.995, 0.93, 0.97),
}


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("n", [100, 300])
def test_the_stated_precision_is_missed_in_at_most_one_of_twenty_draws(name: str, n: int) -> None:
    truth = TRUTHS[name]
    missed = shown = 0
    for seed in range(DRAWS):
        proof = prove(*drawn(seed, n, truth, pool=500), 0.95)
        if proof.threshold is not None:
            shown += 1
            above = CONFIDENCES[proof.threshold <= CONFIDENCES]
            missed += float(truth(above).mean()) < 0.95
    # One standard deviation of the share of 1,000 draws, which are the same each time.
    assert missed / DRAWS <= 0.05 + (0.05 * 0.95 / DRAWS) ** 0.5
    if name == "just_below":
        assert missed == shown > 0
    if name in ("calibrated", "underconfident") and n == 300:
        assert shown > DRAWS / 2


def test_a_loop_that_proves_many_models_misses_it_in_at_most_one_of_twenty_loops() -> None:
    """Of models that each fall just short, on one holdout, labelled again and again."""
    loops, rounds = 250, 8
    each = [0, 0]
    for seed in range(loops):
        passed = [False, False]
        for nth in range(1, rounds + 1):
            found = drawn(100 * seed + nth, 300, TRUTHS["just_below"], pool=300)
            for which, allowed in enumerate((miss_of(nth), MISS)):
                passed[which] |= prove(*found, 0.95, allowed).threshold is not None
        each = [n + p for n, p in zip(each, passed, strict=True)]
    spent, once = (n / loops for n in each)
    assert spent <= 0.05 + (0.05 * 0.95 / loops) ** 0.5
    assert once > 0.15  # as if each model were the loop's only one
    assert sum(miss_of(nth) for nth in range(1, 10_000)) <= MISS


def test_a_bound_of_audits_holds_however_often_it_is_looked_at() -> None:
    """A model exactly as good as stated is withdrawn in at most one of twenty loops."""
    below = at_once = 0
    for seed in range(DRAWS):
        rights = np.random.Generator(np.random.PCG64(seed)).random(400) < 0.95
        counts = [(int(rights[:n].sum()), n) for n in range(8, 401, 8)]
        below += any(upper_always(right, n, 0.05) < 0.95 for right, n in counts)
        at_once += any(upper_bound(right, n, 0.05) < 0.95 for right, n in counts[::5])
    assert below / DRAWS <= 0.05
    assert at_once / DRAWS > 0.08  # what holds at one number of answers does not at all of them
    # It is no excuse: 7 wrong of 30 are enough, and none is never.
    assert upper_always(23, 30, 0.05) < 0.95 and upper_always(30, 30, 0.05) == 1.0


def test_a_naive_threshold_misses_it_nearly_always_where_the_model_is_overconfident() -> None:
    above = CONFIDENCES[CONFIDENCES >= 0.95]
    assert float(TRUTHS["overconfident"](above).mean()) < 0.95


def test_a_small_holdout_proves_nothing_and_says_how_many_it_needs() -> None:
    holdout = [Judged("cat", 0.99, True)] * 58
    proof = prove(holdout, [0.99] * 10, 0.95)
    assert proof.threshold is None and not proof.admits("cat", 1.0)
    assert "too few to say: 58 samples" in proof.reason and "59 are needed" in proof.reason
    proof = prove([*holdout, Judged("cat", 0.99, True)], [0.99] * 10, 0.95)
    assert proof.threshold == 0.99 and proof.low == pytest.approx(0.95, abs=1e-3)
    assert prove(holdout, [], 0.9).reason == "there is nothing to label"


def test_a_model_that_is_wrong_too_often_labels_nothing() -> None:
    holdout = [Judged("cat", 0.99, number % 10 > 0) for number in range(300)]
    proof = prove(holdout, [0.5, 0.99], 0.95)
    assert proof.threshold is None and "is not shown" in proof.reason


def test_a_class_that_is_worse_than_stated_or_never_seen_is_not_labelled() -> None:
    holdout = [Judged("cat", 0.99, True)] * 400
    holdout += [Judged("fox", 0.99, number % 2 > 0) for number in range(8)]
    holdout += [Judged("elk", 0.99, number > 0) for number in range(5)]
    proof = prove(holdout, [0.99] * 50, 0.95)
    assert proof.admits("cat", 0.99) and not proof.admits("cat", 0.98)
    assert not proof.admits("fox", 0.99)  # 4 of 8: shown to be worse
    assert proof.admits("elk", 0.99)  # 4 of 5: not shown to be
    assert not proof.admits("owl", 0.99)
    assert proof.plain()["classes"]["fox"]["admitted"] is False


def test_more_of_a_better_model_is_labelled() -> None:
    """A large holdout of a good model lets nearly all through, of a bad one only the surest."""
    sure = prove(*drawn(1, 2000, lambda c: np.full_like(c, 0.99)), 0.95)
    unsure = prove(*drawn(1, 2000, lambda c: np.where(c > 0.97, 0.99, 0.7)), 0.95)
    assert sure.coverage == 1.0
    assert unsure.threshold is not None and 0.9 < unsure.threshold < 1
    assert 0.3 < unsure.coverage < 0.9
