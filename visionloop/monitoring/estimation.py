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
        images: Number of the image of each answer, the same where it is asked again, int [n]; None
            where each is another.
    """

    probabilities: NDArray[np.floating]
    vectors: Floats | None = None
    images: NDArray[np.intp] | None = None

    def once(self) -> tuple[Answers, NDArray[np.intp], NDArray[np.intp]]:
        """Return one answer an image, each answer's place among these, and how many each has."""
        images = np.arange(len(self.probabilities)) if self.images is None else self.images
        _, rows, places, times = np.unique(
            images, return_index=True, return_inverse=True, return_counts=True
        )
        vectors = None if self.vectors is None else self.vectors[rows]
        return Answers(self.probabilities[rows], vectors), places, times


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
    calibration was learnt on a finite holdout. The first is of images: answers to one image are
    right or wrong together. The second is the binomial variance of the holdout's accuracy in ten
    ranges of confidence, weighted to the window's shares of them.

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
    once, images, times = window.once()
    if len(times) < thresholds.drift_min_events:
        asked = _asked(n, len(times))
        return {"": refusal(f"{asked}, {thresholds.drift_min_events} are needed", n)}
    if known < thresholds.estimation_min_holdout:
        why = (
            f"{known} labelled samples of the holdout with a prediction of this model, "
            f"{thresholds.estimation_min_holdout} are needed"
        )
        return {"": refusal(why, n)}
    placed = _place(holdout, once, times, thresholds)
    evidence = {
        "n_images": len(times),
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
    found = {"": _mean(confidences, top, images, spread, evidence)}
    predicted = window.probabilities.argmax(axis=1)
    for number, name in enumerate(classes):
        mine = predicted == number
        n_mine, n_images = int(mine.sum()), len(np.unique(images[mine]))
        if n_images < MIN_OF_CLASS:
            why = f"predicted for {_asked(n_mine, n_images)}, {MIN_OF_CLASS} are needed"
            found[name] = refusal(why, n_mine)
        else:
            found[name] = _mean(confidences[mine], top[mine], images[mine], spread, {})
    return found


def _asked(n: int, n_images: int) -> str:
    return f"{n} inferences" if n == n_images else f"{n_images} images in {n} inferences"


def _place(
    holdout: Answers, window: Answers, times: NDArray[np.intp], thresholds: MonitoringConfig
) -> Placement:
    if holdout.vectors is not None and window.vectors is not None:
        own = holdout.vectors[np.isfinite(holdout.vectors).all(axis=1)]
        known = np.isfinite(window.vectors).all(axis=1)
        enough = times[known].sum() >= _EMBEDDED * times.sum()
        if (
            enough
            and known.sum() >= thresholds.drift_min_events
            and len(own) >= thresholds.estimation_min_holdout
        ):
            by_embeddings = place_embeddings(own, window.vectors[known], times[known], thresholds)
            if not by_embeddings.inside or known.all():
                return by_embeddings
            # The rest is placed by what is known of it.
            others = place_probabilities(
                holdout.probabilities, window.probabilities[~known], times[~known], thresholds
            )
            return by_embeddings if others.inside else others
    return place_probabilities(holdout.probabilities, window.probabilities, times, thresholds)


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
    images: NDArray[np.intp],
    spread: _CalibrationSpread,
    evidence: dict[str, Any],
) -> Estimate:
    n, value = len(confidences), float(confidences.mean())
    of_images = np.bincount(images, weights=np.sqrt(confidences * (1 - confidences)))
    by_chance = float((of_images**2).sum()) / n**2
    half = _Z * math.sqrt(by_chance + spread.of(top))
    return Estimate(
        value, max(0.0, value - half), min(1.0, value + half), n, evidence=dict(evidence)
    )
