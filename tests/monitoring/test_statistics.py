"""Intervals, corrections and levels are those of SciPy and statsmodels, and keep their word."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
    proportion_effectsize,
)

from visionloop.monitoring.corrections import holm, simultaneous_level
from visionloop.monitoring.differences import (
    mean_interval,
    paired_difference,
    paired_p_value,
    rate_difference,
    samples_to_tell,
)
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.looks import level_of_look


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (556, 597), (1, 1)])
def test_a_rate_has_the_wilson_interval_of_scipy_and_statsmodels(right: int, n: int) -> None:
    rate = wilson(right, n)
    peer = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert (rate.low, rate.high) == pytest.approx((peer.low, peer.high), abs=1e-9)
    assert (rate.low, rate.high) == pytest.approx(
        proportion_confint(right, n, method="wilson"), abs=1e-9
    )


@pytest.mark.parametrize(
    "counts", [(56, 70, 48, 80), (9, 10, 3, 10), (0, 10, 0, 20), (10, 10, 0, 20), (900, 1000, 3, 4)]
)
def test_the_difference_of_two_rates_has_newcombes_interval(counts: tuple[int, ...]) -> None:
    a, n, b, m = counts
    found = rate_difference(a, n, b, m)
    peer = confint_proportions_2indep(a, n, b, m, compare="diff", method="newcomb")
    assert (found.low, found.high) == pytest.approx(peer, abs=1e-9)
    assert found.value == pytest.approx(a / n - b / m)


def test_newcombes_worked_example_comes_out() -> None:
    # Newcombe 1998, table II, row (a), method 10: 56/70 and 48/80.
    found = rate_difference(56, 70, 48, 80)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_difference_to_nothing_may_be_any() -> None:
    found = rate_difference(0, 0, 3, 4)
    assert (found.low, found.high, found.n) == (-1, 1, 0) and math.isnan(found.value)
    assert (paired_difference(0, 0, 0).low, paired_difference(0, 0, 0).high) == (-1, 1)


def _score(b: int, c: int, n: int, difference: float) -> float:
    """The score statistic, the likelihood maximised by search in place of its closed form."""

    def unlikely(p21: float) -> float:
        p12 = p21 + difference
        terms = [(b, p12), (c, p21), (n - b - c, 1 - p12 - p21)]
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    p21 = optimize.minimize_scalar(unlikely, bounds=(low, high), options={"xatol": 1e-12}).x
    return (b - c - n * difference) / math.sqrt(n * (2 * p21 + difference * (1 - difference)))


@pytest.mark.parametrize("counts", [(12, 2, 50), (0, 6, 40), (30, 31, 600), (5, 5, 10)])
def test_the_ends_of_a_paired_difference_are_where_the_score_test_begins_to_reject(
    counts: tuple[int, int, int],
) -> None:
    found = paired_difference(*counts)
    z = stats.norm.ppf(0.975)
    assert _score(*counts, found.low) == pytest.approx(z, abs=1e-3)
    assert _score(*counts, found.high) == pytest.approx(-z, abs=1e-3)


@given(b=st.integers(0, 60), c=st.integers(0, 60), rest=st.integers(0, 500))
@settings(max_examples=60, deadline=None)
def test_a_paired_difference_lies_in_its_interval_and_turns_with_its_sides(
    b: int, c: int, rest: int
) -> None:
    n = b + c + rest
    if not n:
        return
    found, turned = paired_difference(b, c, n), paired_difference(c, b, n)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-7)
    assert found.low < found.high


def test_the_interval_of_a_paired_difference_covers_as_often_as_it_says() -> None:
    draw, covered = np.random.default_rng(1), 0
    for b, c, _ in draw.multinomial(200, [0.08, 0.03, 0.89], size=600):
        found = paired_difference(int(b), int(c), 200)
        covered += found.low <= 0.05 <= found.high
    # 570 are meant; fewer than 555 come with a probability of 0.004.
    assert covered >= 555


def test_the_paired_test_is_mcnemars() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    for b, c in ((12, 2), (0, 6), (5, 5), (40, 22)):
        assert paired_p_value(b, c) == pytest.approx(mcnemar([[9, b], [c, 9]]).pvalue)
    assert paired_p_value(0, 0) == 1


def test_a_mean_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, 25)
    peer = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high))
    assert mean_interval(values[:1]).high == math.inf


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_holms_correction_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_intervals_hold_together_at_their_level() -> None:
    draw, n = np.random.default_rng(2), 12
    level = simultaneous_level(0.95, n)
    held = 0
    for right in draw.binomial(80, 0.7, size=(500, n)):
        rates = [wilson(int(x), 80, level=level) for x in right]
        held += all(rate.low <= 0.7 <= rate.high for rate in rates)
    # 475 are meant; fewer than 462 come with a probability of 0.006.
    assert held >= 462
    assert simultaneous_level(0.95, 0) == 0.95


def test_the_number_of_samples_tells_two_rates_apart_as_often_as_it_says() -> None:
    n = samples_to_tell(0.9, 0.8)
    peer = NormalIndPower().solve_power(proportion_effectsize(0.9, 0.8), power=0.8, alpha=0.05)
    assert n == pytest.approx(peer, rel=0.03)
    draw = np.random.default_rng(3)
    a, b = draw.binomial(n, 0.9, 2000), draw.binomial(n, 0.8, 2000)
    pooled = (a + b) / (2 * n)
    told = np.abs(a - b) / n > 1.96 * np.sqrt(2 * pooled * (1 - pooled) / n)
    assert told.mean() == pytest.approx(0.8, abs=0.04)
    with pytest.raises(ValueError, match="cannot be told apart"):
        samples_to_tell(0.5, 0.5)


def test_the_levels_of_all_looks_add_up_to_the_level() -> None:
    levels = [level_of_look(k, 0.01) for k in range(1, 200_000)]
    # What is left of the series is between the integrals of its bounds.
    left = 0.01 / 2.109742801236892 / math.log(200_000)
    assert sum(levels) + left == pytest.approx(0.01, rel=1e-5)
    assert levels == sorted(levels, reverse=True)
    with pytest.raises(ValueError, match="counted from 1"):
        level_of_look(0, 0.01)
