"""Exact probabilities and bounds of shares, from the binomial distribution."""

from __future__ import annotations

import math

import numpy as np

_STEPS = 60


def at_least(right: int, n: int, share: float) -> float:
    """Return how probable at least so many right of n are, where each is with a given probability.

    Args:
        right: From 0 to ``n``.
        n: Number of trials.
        share: Probability of each, in [0, 1].
    """
    if right <= 0:
        return 1.0
    if share <= 0 or share >= 1:
        return float(share >= 1)
    k = np.arange(right, n + 1)
    logs = (
        math.lgamma(n + 1)
        - np.array([math.lgamma(i + 1) + math.lgamma(n - i + 1) for i in k.tolist()])
        + k * math.log(share)
        + (n - k) * math.log1p(-share)
    )
    return min(1.0, float(np.exp(logs).sum()))


def lower_bound(right: int, n: int, miss: float) -> float:
    """Return the share that is undercut with at most a given probability (Clopper and Pearson).

    Args:
        right: From 0 to ``n``.
        n: Number of trials; 0 gives 0.
        miss: Probability that the true share is lower, such as .05.
    """
    if right <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if at_least(right, n, middle) <= miss else (low, middle)
    return low


def upper_bound(right: int, n: int, miss: float) -> float:
    """Return the share that is exceeded with at most a given probability; see `lower_bound`."""
    return 1.0 - lower_bound(n - right, n, miss)


def upper_always(right: int, n: int, miss: float) -> float:
    """Return the share that is exceeded with at most a given probability, however often one looks.

    The upper end of Robbins' confidence sequence (1970), whose martingale mixes all shares evenly:
    it holds at all n at once, where `upper_bound` holds at one that was set before.

    Args:
        right: From 0 to ``n``.
        n: Number of trials so far.
        miss: Probability that the true share is ever higher.
    """
    wrong = n - right
    most = math.lgamma(right + 1) + math.lgamma(wrong + 1) - math.lgamma(n + 2) + math.log(miss)
    low, high = right / n if n else 1.0, 1.0
    for _ in range(_STEPS if wrong else 0):
        middle = (low + high) / 2
        held = right * math.log(middle) + wrong * math.log1p(-middle) > most
        low, high = (middle, high) if held else (low, middle)
    return high


def least_trials(share: float, miss: float) -> int:
    """Return how many trials, all of them right, show a share with a probability of error.

    Args:
        share: In (0, 1).
        miss: Probability of error.
    """
    return math.ceil(math.log(miss) / math.log(share) - 1e-9)
