"""Drift between two windows, without labels.

Every comparison asks two questions and flags only when both answers are yes: is the difference
*large* (a threshold on the size of the effect, which does not shrink as traffic grows) and is it
*real* (a significance level, which keeps small windows from crying wolf)?

The level is that of all looks at one reference together (`visionloop.monitoring.looks`), and
within a look the tests that are made share it (Bonferroni), also where one is left out.

The tests take rows to be independent: an image that was asked about many times must be one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.energy import energy_test, permutation_p_value
from visionloop.monitoring.looks import level_of_look
from visionloop.vectors.exact import Floats

DRIFT, STABLE = "drift", "stable"
# No answer, and not to be taken for "stable".
TOO_FEW, NOTHING_TO_COMPARE = "too few to say", "nothing to compare"

# Of a deployed model: confidence, class mix, embeddings.
TESTS = 3

# What scores are measured in, by kind.
KOLMOGOROV, STABILITY, ENERGY = (
    "Kolmogorov-Smirnov distance",
    "population stability index",
    "energy coefficient",
)


@dataclass(frozen=True)
class Drift:
    """What one comparison of two windows found.

    Attributes:
        kind: The kind of the flag, such as ``confidence_drift``.
        score: Size of the difference: a Kolmogorov-Smirnov distance, a stability index or an
            energy coefficient.
        threshold: The score above which the difference counts as large.
        p_value: Probability of a score this large without drift; NaN where none was tested.
        n_reference: Samples in the reference window.
        n_current: Samples in the current window.
        state: ``drift``, ``stable``, ``too few to say`` or ``nothing to compare``.
        unit: What score and threshold are measured in.
        level: What the p value had to lie below in this look; NaN where none was tested.
        look: Which look at this reference it was, from 1 on.
        measure: What moved most, such as ``mean confidence``; empty where nothing can be named.
        before: That measure in the reference; None where there is none.
        after: The same in the current window.
        reason: Why nothing can be said, empty otherwise.
    """

    kind: str
    score: float
    threshold: float
    p_value: float
    n_reference: int
    n_current: int
    state: str
    unit: str = ""
    level: float = math.nan
    look: int = 1
    measure: str = ""
    before: float | None = None
    after: float | None = None
    reason: str = ""


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
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def stability_p_value(
    reference: NDArray[np.integer], current: NDArray[np.integer], *, significance: float
) -> float:
    """Return the probability of a stability index as large as this without drift.

    By permutation: events are dealt anew to windows of the same sizes. It holds for any number
    of classes, however few their events; the chi-square approximation does not, and sees nothing
    where there are as many classes as events. Shuffles end early where the answer is plain
    (`visionloop.monitoring.energy.permutation_p_value`).

    Args:
        reference: Counts of each class, shape [C].
        current: The same of the current window, in the same order.
        significance: The level at which the caller decides.
    """
    both, m = reference + current, int(current.sum())
    rng = np.random.Generator(np.random.PCG64(0))

    def values(number: int) -> NDArray[np.floating]:
        dealt = rng.multivariate_hypergeometric(both, m, size=number, method="marginals")
        return stability_index(both - dealt, dealt)

    return permutation_p_value(values, float(stability_index(reference, current)), significance)


def confidence_drift(
    reference: NDArray[np.floating],
    current: NDArray[np.floating],
    thresholds: MonitoringConfig,
    *,
    look: int = 1,
) -> Drift:
    """Compare the confidences of two windows of one model.

    Confidences of two models differ by training alone: compare windows of one model only.

    Args:
        reference: Largest probability of each image of the reference window, shape [n].
        current: The same of the current window, shape [m].
        thresholds: ``confidence_drift_above``, ``drift_significance``, ``drift_min_events``.
        look: Which look at this reference it is.
    """
    return values_drift(
        "confidence_drift",
        "mean confidence",
        reference,
        current,
        thresholds.confidence_drift_above,
        thresholds,
        look=look,
        tests=TESTS,
    )


def values_drift(
    kind: str,
    measure: str,
    reference: NDArray[np.floating],
    current: NDArray[np.floating],
    threshold: float,
    thresholds: MonitoringConfig,
    *,
    look: int,
    tests: int,
) -> Drift:
    """Compare the values of one measure in two windows by the Kolmogorov-Smirnov test.

    Args:
        kind: Kind of the flag.
        measure: Name of what the windows' means are told as.
        reference: Values of the reference window, shape [n], finite.
        current: Values of the current window, shape [m], finite.
        threshold: Distance above which the difference is large.
        thresholds: ``drift_significance``, ``drift_min_events``.
        look: Which look at this reference it is.
        tests: How many tests this look makes.
    """
    from scipy.stats import ks_2samp

    n, m = len(reference), len(current)
    found = Drift(kind, 0.0, threshold, math.nan, n, m, TOO_FEW, KOLMOGOROV, look=look)
    if not n or not m:
        return _too_few(found, thresholds)
    test = ks_2samp(reference, current, method="asymp")
    found = replace(
        found,
        score=float(test.statistic),
        measure=measure,
        before=float(np.mean(reference)),
        after=float(np.mean(current)),
    )
    if min(n, m) < thresholds.drift_min_events:
        return _too_few(found, thresholds)
    return _judged(found, float(test.pvalue), thresholds, tests)


def class_mix_drift(
    reference: Sequence[str],
    current: Sequence[str],
    thresholds: MonitoringConfig,
    *,
    kind: str = "class_mix_drift",
    look: int = 1,
    tests: int = TESTS,
) -> Drift:
    """Compare the mix of predicted classes of two windows of one model.

    Args:
        reference: Predicted class of each image of the reference window.
        current: The same of the current window.
        thresholds: ``class_mix_drift_above``, ``drift_significance``, ``drift_min_events``.
        kind: Kind of the flag.
        look: Which look at this reference it is.
        tests: How many tests this look makes.
    """
    n, m = len(reference), len(current)
    threshold = thresholds.class_mix_drift_above
    found = Drift(kind, 0.0, threshold, math.nan, n, m, TOO_FEW, STABILITY, look=look)
    if not n or not m:
        return _too_few(found, thresholds)
    classes = sorted(set(reference) | set(current))
    before, after = _counts(reference, classes), _counts(current, classes)
    # The one that grew has pictures to show.
    most = int((after / m - before / n).argmax())
    found = replace(
        found,
        score=float(stability_index(before, after)),
        measure=f"share of the class {classes[most]}",
        before=float(before[most] / n),
        after=float(after[most] / m),
    )
    if min(n, m) < thresholds.drift_min_events:
        return _too_few(found, thresholds)
    level = level_of_look(look, thresholds.drift_significance) / tests
    p_value = stability_p_value(before, after, significance=level)
    return _judged(found, p_value, thresholds, tests)


def embedding_drift(
    reference: Floats,
    current: Floats,
    thresholds: MonitoringConfig,
    *,
    kind: str = "embedding_drift",
    look: int = 1,
    tests: int = TESTS,
) -> Drift:
    """Compare the embeddings of two windows, in one space.

    Args:
        reference: float32 [n, d], one row an image of the reference window.
        current: float32 [m, d].
        thresholds: ``embedding_drift_above``, ``drift_significance``, ``drift_min_events``.
        kind: Kind of the flag.
        look: Which look at this reference it is.
        tests: How many tests this look makes.
    """
    n, m = len(reference), len(current)
    threshold = thresholds.embedding_drift_above
    found = Drift(
        kind, 0.0, threshold, math.nan, n, m, TOO_FEW, ENERGY, look=look, measure="embeddings"
    )
    if min(n, m) < thresholds.drift_min_events:
        return _too_few(found, thresholds)
    level = level_of_look(look, thresholds.drift_significance) / tests
    apart = energy_test(reference, current, significance=level)
    return _judged(replace(found, score=apart.coefficient), apart.p_value, thresholds, tests)


def _too_few(found: Drift, thresholds: MonitoringConfig) -> Drift:
    least = thresholds.drift_min_events
    told = f"{found.n_reference:,} and {found.n_current:,} images, {least:,} of each are needed"
    return replace(found, state=TOO_FEW, reason=told)


def _judged(found: Drift, p_value: float, thresholds: MonitoringConfig, tests: int) -> Drift:
    level = level_of_look(found.look, thresholds.drift_significance) / tests
    drifted = found.score > found.threshold and p_value < level
    return replace(found, p_value=p_value, level=level, state=DRIFT if drifted else STABLE)


def _counts(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    place: Mapping[str, int] = {name: i for i, name in enumerate(classes)}
    return np.bincount([place[label] for label in labels], minlength=len(classes)).astype(np.int64)
