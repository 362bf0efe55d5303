"""Drift of what a deployed model says, without labels.

Every comparison asks two questions and flags only when both answers are yes: is the difference
*large* (a threshold on the size of the effect, which does not shrink as traffic grows) and is it
*real* (a significance level, which keeps small windows from crying wolf)?

Three tests are made of one pair of windows, each at a third of the level (Bonferroni), so that the
level is that of the pair, also where a test is left out. It is not of all pairs that there will
ever be: at 0.001 one comparison in a thousand flags by chance what is also large enough.

The tests take rows to be independent: an image that was asked about many times must be one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.energy import energy_test, sequential_p_value
from visionloop.vectors.exact import Floats

# Confidence, class mix, embeddings.
TESTS = 3


@dataclass(frozen=True)
class Drift:
    """What one comparison of two windows found.

    Attributes:
        kind: ``confidence_drift``, ``class_mix_drift`` or ``embedding_drift``.
        score: Size of the difference: a Kolmogorov-Smirnov distance, a stability index or an
            energy coefficient.
        threshold: The score above which the comparison counts as drift at these sample sizes.
        p_value: Probability of a score this large without drift.
        n_reference: Samples in the reference window.
        n_current: Samples in the current window.
        state: ``drift``, ``stable``, or ``too few to say``.
    """

    kind: str
    score: float
    threshold: float
    p_value: float
    n_reference: int
    n_current: int
    state: str


def ks_distance(reference: NDArray[np.floating], current: NDArray[np.floating]) -> float:
    """Return the two-sample Kolmogorov-Smirnov distance, in [0, 1].

    The largest vertical distance between the two empirical distribution functions. Costs
    O((n + m) log(n + m)).

    Args:
        reference: Values of the reference window, shape [n].
        current: Values of the current window, shape [m].
    """
    a, b = np.sort(reference), np.sort(current)
    if not len(a) or not len(b):
        return 0.0
    both = np.concatenate([a, b])
    cdf_a = np.searchsorted(a, both, side="right") / len(a)
    cdf_b = np.searchsorted(b, both, side="right") / len(b)
    return float(np.abs(cdf_a - cdf_b).max())


def ks_p_value(distance: float, n: int, m: int) -> float:
    """Return the asymptotic probability of a Kolmogorov-Smirnov distance this large.

    Kolmogorov's series with Stephens' correction for finite samples (Stephens, Use of the
    Kolmogorov-Smirnov, Cramer-von Mises and related statistics without extensive tables, 1970).

    Args:
        distance: The distance, in [0, 1].
        n: Size of one sample.
        m: Size of the other.
    """
    effective = math.sqrt(n * m / (n + m))
    x = (effective + 0.12 + 0.11 / effective) * distance
    if x < 0.2:  # the series converges slowly there, and its value is 1 to twelve digits
        return 1.0
    terms = (2.0 * (-1.0) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


def stability_index(
    reference: NDArray[np.integer], current: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the population stability index between two tables of counts, or many pairs of them.

    The symmetrised Kullback-Leibler divergence of the two mixes; 0 for equal mixes, by custom
    0.1 is moderate and 0.2 large. Half a count is added to every cell, so that a class that is
    absent on one side gives a large but finite value.

    Args:
        reference: Counts of each class in the reference window, shape [..., C].
        current: Counts of each class in the current window, likewise, in the same order.

    Returns:
        float64 [...].
    """
    p = (reference + 0.5) / (reference.sum(axis=-1, keepdims=True) + 0.5 * reference.shape[-1])
    q = (current + 0.5) / (current.sum(axis=-1, keepdims=True) + 0.5 * current.shape[-1])
    return np.asarray(np.sum((q - p) * np.log(q / p), axis=-1))


def stability_p_value(
    reference: NDArray[np.integer], current: NDArray[np.integer], *, significance: float
) -> float:
    """Return the probability of a stability index as large as this without drift.

    By permutation: events are dealt anew to windows of the same sizes. It is exact for any number
    of classes, however few their events; the chi-square approximation is not, and sees nothing
    where there are as many classes as events. Shuffles end early where the answer is plain
    (`visionloop.monitoring.energy.sequential_p_value`).

    Args:
        reference: Counts of each class, shape [C].
        current: The same of the current window, in the same order.
        significance: The level at which the caller decides.
    """
    both, m = reference + current, int(current.sum())
    observed = float(stability_index(reference, current))
    rng = np.random.Generator(np.random.PCG64(0))

    def reached(number: int) -> NDArray[np.bool_]:
        dealt = rng.multivariate_hypergeometric(both, m, size=number, method="marginals")
        return np.asarray(stability_index(both - dealt, dealt) >= observed * (1 - 1e-9))

    return sequential_p_value(reached, significance)


def confidence_drift(
    reference: NDArray[np.floating], current: NDArray[np.floating], thresholds: MonitoringConfig
) -> Drift:
    """Compare the confidences of two windows of one model.

    Confidences of two models differ by training alone: compare windows of one model only.

    Args:
        reference: Largest probability of each image of the reference window, shape [n].
        current: The same of the current window, shape [m].
        thresholds: ``confidence_drift_above``, ``drift_significance``, ``drift_min_events``.
    """
    n, m = len(reference), len(current)
    threshold = thresholds.confidence_drift_above
    score = ks_distance(reference, current)
    if min(n, m) < thresholds.drift_min_events:
        return Drift("confidence_drift", score, threshold, 1.0, n, m, "too few to say")
    return _judged("confidence_drift", score, threshold, ks_p_value(score, n, m), n, m, thresholds)


def class_mix_drift(
    reference: Sequence[str], current: Sequence[str], thresholds: MonitoringConfig
) -> Drift:
    """Compare the mix of predicted classes of two windows of one model.

    Args:
        reference: Predicted class of each image of the reference window.
        current: The same of the current window.
        thresholds: ``class_mix_drift_above``, ``drift_significance``, ``drift_min_events``.
    """
    n, m = len(reference), len(current)
    threshold = thresholds.class_mix_drift_above
    classes = sorted(set(reference) | set(current))
    before, after = _counts(reference, classes), _counts(current, classes)
    score = float(stability_index(before, after)) if classes else 0.0
    if min(n, m) < thresholds.drift_min_events:
        return Drift("class_mix_drift", score, threshold, 1.0, n, m, "too few to say")
    p_value = stability_p_value(before, after, significance=thresholds.drift_significance / TESTS)
    return _judged("class_mix_drift", score, threshold, p_value, n, m, thresholds)


def embedding_drift(reference: Floats, current: Floats, thresholds: MonitoringConfig) -> Drift:
    """Compare the embeddings of two windows, in one space.

    Args:
        reference: float32 [n, d], one row an image of the reference window.
        current: float32 [m, d].
        thresholds: ``embedding_drift_above``, ``drift_significance``, ``drift_min_events``.
    """
    n, m = len(reference), len(current)
    threshold = thresholds.embedding_drift_above
    if min(n, m) < thresholds.drift_min_events:
        return Drift("embedding_drift", 0.0, threshold, 1.0, n, m, "too few to say")
    apart = energy_test(reference, current, significance=thresholds.drift_significance / TESTS)
    return _judged("embedding_drift", apart.coefficient, threshold, apart.p_value, n, m, thresholds)


def _judged(
    kind: str,
    score: float,
    threshold: float,
    p_value: float,
    n: int,
    m: int,
    thresholds: MonitoringConfig,
) -> Drift:
    drifted = score > threshold and p_value < thresholds.drift_significance / TESTS
    return Drift(kind, score, threshold, p_value, n, m, "drift" if drifted else "stable")


def _counts(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    place: Mapping[str, int] = {name: i for i, name in enumerate(classes)}
    return np.bincount([place[label] for label in labels], minlength=len(classes)).astype(np.int64)
