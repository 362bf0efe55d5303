"""Differences of two rates, means, and how many samples it takes to tell two rates apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.intervals import wilson


@dataclass(frozen=True)
class Interval:
    """A number with the interval that its sample size allows.

    Attributes:
        value: The observed number.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of samples behind it.
    """

    value: float
    low: float
    high: float
    n: int


def rate_difference(
    successes: int, n: int, other_successes: int, other_n: int, *, level: float = 0.95
) -> Interval:
    """Return the difference of the rates of two independent samples, first less second.

    Newcombe's hybrid of two Wilson intervals (Interval estimation for the difference between
    independent proportions, Statistics in Medicine 17, 1998, method 10).

    Args:
        successes: Successes of the first sample.
        n: Trials of the first sample; 0 gives the whole of [-1, 1].
        other_successes: Successes of the second.
        other_n: Trials of the second, likewise.
        level: Confidence level of the two-sided interval.

    Returns:
        The difference, with the smaller of the two numbers of trials.
    """
    a, b = wilson(successes, n, level=level), wilson(other_successes, other_n, level=level)
    if not n or not other_n:
        return Interval(math.nan, -1.0, 1.0, 0)
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, low, high, min(n, other_n))


def paired_difference(
    only_first: int, only_second: int, n: int, *, level: float = 0.95
) -> Interval:
    """Return the difference of two rates on the same samples, such as two models on one holdout.

    Tango's score interval, which stays honest where hardly any sample tells the two apart
    (Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design, Statistics in Medicine 17, 1998).

    Args:
        only_first: Samples on which only the first is right.
        only_second: Samples on which only the second is right.
        n: All samples; 0 gives the whole of [-1, 1].
        level: Confidence level of the two-sided interval.

    Raises:
        ValueError: The counts are negative, or more than n.
    """
    if min(only_first, only_second) < 0 or only_first + only_second > n:
        raise ValueError(f"{only_first} and {only_second} of {n}: must lie between 0 and n")
    if n == 0:
        return Interval(math.nan, -1.0, 1.0, 0)
    from scipy.optimize import brentq

    z = NormalDist().inv_cdf(0.5 + level / 2)
    value = (only_first - only_second) / n

    def beyond(difference: float) -> float:
        """The squared score statistic less its limit, times what it is divided by."""
        spread = difference * (1 - difference)
        b = (2 * n - only_first + only_second) * difference - only_first - only_second
        # The likeliest share of "only the second" where the difference is given.
        share = (math.sqrt(max(0.0, b * b + 8 * n * only_second * spread)) - b) / (4 * n)
        observed = only_first - only_second - n * difference
        return observed**2 - z * z * n * max(0.0, 2 * share + spread)

    def end(outermost: float) -> float:
        # Just beside the value, where the statistic is small but its variance is not yet 0.
        inner = value + math.copysign(1e-9, outermost)
        if abs(value - outermost) < 1e-9 or beyond(inner) >= 0:
            return outermost if abs(value - outermost) < 1e-9 else value
        return float(brentq(beyond, inner, outermost, xtol=1e-12))

    return Interval(value, end(-1.0), end(1.0), n)


def paired_p_value(only_first: int, only_second: int) -> float:
    """Return the probability of so unequal a pair of counts if both are as good, two-sided.

    McNemar's exact test.

    Args:
        only_first: Samples on which only the first is right.
        only_second: Samples on which only the second is right.
    """
    from scipy.stats import binomtest

    apart = only_first + only_second
    return float(binomtest(only_first, apart).pvalue) if apart else 1.0


def mean_interval(values: NDArray[np.floating], *, level: float = 0.95) -> Interval:
    """Return a mean with Student's t interval.

    Args:
        values: One a sample, shape [n]; fewer than two give no interval but the whole line.
        level: Confidence level of the two-sided interval.
    """
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()) if n else math.nan, -math.inf, math.inf, n)
    from scipy.special import stdtrit

    mean = float(values.mean())
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def samples_to_tell(
    rate: float, other: float, *, significance: float = 0.05, power: float = 0.8
) -> int:
    """Return how many samples of each kind it takes to tell two rates apart.

    Two independent samples of equal size, two-sided test of proportions (Fleiss, Levin and Paik,
    Statistical Methods for Rates and Proportions, 2003, formula 4.14).

    Args:
        rate: One rate, in [0, 1].
        other: The other; it must differ.
        significance: Probability to tell equal rates apart.
        power: Probability to tell these apart.

    Raises:
        ValueError: The rates are equal: no number of samples tells them apart.
    """
    if rate == other:
        raise ValueError(f"two rates of {rate} cannot be told apart")
    normal, mean = NormalDist(), (rate + other) / 2
    alike = normal.inv_cdf(1 - significance / 2) * math.sqrt(2 * mean * (1 - mean))
    apart = normal.inv_cdf(power) * math.sqrt(rate * (1 - rate) + other * (1 - other))
    return math.ceil(((alike + apart) / (rate - other)) ** 2)
