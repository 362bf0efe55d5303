"""Intervals of rates, so that a figure on few samples looks like what it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Rate:
    """A rate with the interval that its sample size allows.

    Attributes:
        value: The observed rate, in [0, 1].
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of samples behind it.
    """

    value: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int, *, level: float = 0.95) -> Rate:
    """Return a rate with its Wilson score interval.

    Unlike the normal interval it stays within [0, 1] and is honest at 0 of n and n of n.
    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
    Journal of the American Statistical Association 22 (1927).

    Args:
        successes: Number of successes, from 0 to ``n``.
        n: Number of trials; 0 gives the whole of [0, 1].
        level: Confidence level of the two-sided interval.

    Raises:
        ValueError: ``successes`` does not lie between 0 and ``n``.
    """
    if not 0 <= successes <= max(n, 0):
        raise ValueError(f"{successes} successes of {n}: must lie between 0 and n")
    if n == 0:
        return Rate(math.nan, 0.0, 1.0, 0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / n
    scale = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At the ends the closed form is exact but floating point leaves 1e-17 beside 0 and 1.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Rate(rate, low, high, n)
