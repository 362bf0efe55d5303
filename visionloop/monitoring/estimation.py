"""The accuracy of a deployed model without labels, or why it cannot be told.

Confidence-based performance estimation (CBPE): the accuracy of a window is expected to be the mean
of its calibrated confidences (NannyML, Estimating model performance without ground truth, 2022;
Guillory et al., Predicting with confidence on unseen distributions, ICCV 2021, call it the average
confidence). It holds where the calibration holds, which shifted traffic breaks unnoticed: a window
that lies elsewhere than the holdout gets no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.calibrating import fit_calibration
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.region import Placement, place_embeddings, place_probabilities
from visionloop.vectors.exact import Floats

ANSWERED, REFUSED = "answered", "refused"
# Predictions of a class below which its own accuracy is not told.
MIN_OF_CLASS = 20
_BINS = 10
_Z = 1.959963984540054
# Share of a window whose embeddings must be known for these to place it.
_EMBEDDED = 0.5


@dataclass(frozen=True)
class Estimate:
    """One estimated share of right answers.

    Attributes:
        value: The estimate, NaN where it is refused.
        low: Lower end of the 95% interval, NaN where it is refused.
        high: Upper end.
        n: Inferences, or labels, behind it.
        state: ``answered`` or ``refused``.
        reason: Why it is refused, in words.
        evidence: What it was decided by.
    """

    value: float
    low: float
    high: float
    n: int
    state: str = ANSWERED
    reason: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """What one model answered to a set of images.

    Attributes:
        probabilities: [n, C] in the order of the model's classes.
        vectors: float32 [n, d] in one embedding space, NaN where unknown; None without any.
    """

    probabilities: NDArray[np.floating]
    vectors: Floats | None = None


def refusal(reason: str, n: int, **evidence: Any) -> Estimate:
    """Return that nothing can be said, and why."""
    return Estimate(math.nan, math.nan, math.nan, n, REFUSED, reason, evidence)


def estimate_accuracy(
    holdout: Answers,
    truth: NDArray[np.integer],
    window: Answers,
    classes: Sequence[str],
    thresholds: MonitoringConfig,
) -> dict[str, Estimate]:
    """Estimate how many answers of a window are right, over all and by predicted class.

    The interval covers two things: which of the window's answers are right by chance, and that the
    calibration was learnt on a finite holdout. The second is the binomial variance of the
    holdout's accuracy in ten ranges of confidence, weighted to the window's shares of them.

    Args:
        holdout: The same model's answers to its labelled holdout.
        truth: Class of each sample of the holdout, int [n]; -1 where the model does not know it.
        window: Its answers in production.
        classes: The C names.
        thresholds: ``estimation_…``, ``drift_min_events``, ``drift_significance``.

    Returns:
        The estimate over all under ``""``, and under each predicted class's name the share of the
        answers of this class that are right; one that cannot be given says why.
    """
    n, known = len(window.probabilities), len(truth)
    if n < thresholds.drift_min_events:
        return {"": refusal(f"{n} inferences, {thresholds.drift_min_events} are needed", n)}
    if known < thresholds.estimation_min_holdout:
        why = (
            f"{known} labelled samples of the holdout with a prediction of this model, "
            f"{thresholds.estimation_min_holdout} are needed"
        )
        return {"": refusal(why, n)}
    placed = _place(holdout, window, thresholds)
    evidence = {
        "judged_by": placed.judged_by,
        "outside" if placed.judged_by == "embeddings" else "apart": placed.score,
        "limit": placed.limit,
        "n_judged": placed.n,
        "n_holdout": known,
        "uncalibrated": float(window.probabilities.max(axis=1).mean()),
    }
    if not placed.inside:
        return {"": refusal(_told(placed), n, **evidence)}
    fitted = fit_calibration(holdout.probabilities, truth)
    right = holdout.probabilities.argmax(axis=1) == truth
    evidence |= {"calibration": fitted.method, "brier": fitted.brier}
    if fitted.method == "temperature":
        evidence["temperature"] = fitted.temperature
    confidences = fitted.confidences(window.probabilities)
    spread = _CalibrationSpread(holdout.probabilities.max(axis=1), right)
    top = window.probabilities.max(axis=1)
    found = {"": _mean(confidences, top, spread, evidence)}
    predicted = window.probabilities.argmax(axis=1)
    for number, name in enumerate(classes):
        mine = predicted == number
        if mine.sum() < MIN_OF_CLASS:
            why = f"predicted {mine.sum()} times, {MIN_OF_CLASS} are needed"
            found[name] = refusal(why, int(mine.sum()))
        else:
            found[name] = _mean(confidences[mine], top[mine], spread, {})
    return found


def _place(holdout: Answers, window: Answers, thresholds: MonitoringConfig) -> Placement:
    if holdout.vectors is not None and window.vectors is not None:
        own = holdout.vectors[np.isfinite(holdout.vectors).all(axis=1)]
        asked = window.vectors[np.isfinite(window.vectors).all(axis=1)]
        enough = len(asked) >= max(thresholds.drift_min_events, _EMBEDDED * len(window.vectors))
        if enough and len(own) >= thresholds.estimation_min_holdout:
            by_embeddings = place_embeddings(own, asked, thresholds)
            if not by_embeddings.inside or len(asked) == len(window.vectors):
                return by_embeddings
            # The rest is placed by what is known of it.
            rest = ~np.isfinite(window.vectors).all(axis=1)
            others = place_probabilities(
                holdout.probabilities, window.probabilities[rest], thresholds
            )
            return by_embeddings if others.inside else others
    return place_probabilities(holdout.probabilities, window.probabilities, thresholds)


def _told(placed: Placement) -> str:
    if placed.judged_by == "embeddings":
        return (
            f"{placed.score:.0%} of the images lie outside of what the model was calibrated on "
            f"(limit {placed.limit:.0%})"
        )
    return (
        "no embeddings are known, and the probabilities are not those of the holdout: they lie "
        f"{placed.score:.3f} apart (limit {placed.limit:.3f}), the class given"
    )


class _CalibrationSpread:
    """Variance that a finite holdout leaves in the mean of calibrated confidences."""

    def __init__(self, top: NDArray[np.floating], right: NDArray[np.bool_]) -> None:
        inner = np.quantile(top, np.linspace(0, 1, _BINS + 1)[1:-1])
        self._edges = np.unique(inner)
        place = np.searchsorted(self._edges, top, side="left")
        number = len(self._edges) + 1
        n = np.bincount(place, minlength=number)
        # Laplace's rule: a range where all were right is not known without error.
        rate = (np.bincount(place, weights=right, minlength=number) + 1) / (n + 2)
        self._variance = rate * (1 - rate) / np.maximum(n, 1)

    def of(self, top: NDArray[np.floating]) -> float:
        place = np.searchsorted(self._edges, top, side="left")
        share = np.bincount(place, minlength=len(self._variance)) / len(top)
        return float((share**2 * self._variance).sum())


def _mean(
    confidences: NDArray[np.float64],
    top: NDArray[np.floating],
    spread: _CalibrationSpread,
    evidence: dict[str, Any],
) -> Estimate:
    n, value = len(confidences), float(confidences.mean())
    by_chance = float((confidences * (1 - confidences)).sum()) / n**2
    half = _Z * math.sqrt(by_chance + spread.of(top))
    return Estimate(
        value, max(0.0, value - half), min(1.0, value + half), n, evidence=dict(evidence)
    )
