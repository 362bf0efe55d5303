"""What more labels would bring: a learning curve through the accuracies so far, and its doubt.

The curve is the inverse power law `a - b·n^-c`, with 0 ≤ a ≤ 1, b ≥ 0, that fits most learning
curves best (Figueroa, Zeng-Treitler, Kandula & Ngo, "Predicting sample size required for
classification performance", 2012; Viering & Loog, "The Shape of Learning Curves: a Review", 2023),
fitted by least squares weighted with the accuracies' standard errors. The doubt is a parametric
bootstrap: the holdout's right answers are drawn anew, binomially, and the curve is fitted to each
draw. All models answer the same holdout, so that the real doubt is rather smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Three parameters leave nothing to check with three points.
LEAST_POINTS = 4
LEVEL = 0.90
_DRAWS = 1000
_RATES = np.geomspace(0.02, 5.0, 80)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One model that was measured.

    Attributes:
        labels: Labels that it was trained on, at least 1.
        accuracy: On the holdout, 0 to 1.
        n: Size of the holdout.
    """

    labels: int
    accuracy: float
    n: int


@dataclass(frozen=True)
class Gain:
    """Accuracy that more labels are expected to bring.

    Attributes:
        labels: From so many labels.
        to: To so many.
        expected: Accuracy gained, from 0 to 1.
        low: Lower end of the interval of `LEVEL`.
        high: Upper end.
    """

    labels: int
    to: int
    expected: float
    low: float
    high: float


def expected_gain(points: Sequence[Point], to: int, *, seed: int = 0) -> Gain | None:
    """Return what the step from the most labels so far to `to` labels is expected to bring.

    Args:
        points: Measured models in any order.
        to: Number of labels.
        seed: Of the bootstrap.

    Returns:
        The gain; None where fewer than four numbers of labels were measured: too few to say.
    """
    points = [point for point in points if point.labels > 0 and point.n > 0]
    if len({point.labels for point in points}) < LEAST_POINTS:
        return None
    labels = np.array([point.labels for point in points], dtype=np.float64)
    accuracy = np.array([point.accuracy for point in points])
    n = np.array([point.n for point in points])
    # Agresti and Coull's estimate: no accuracy of 1 has a standard error of 0.
    smooth = (accuracy * n + 2.0) / (n + 4.0)
    weight = n / (smooth * (1.0 - smooth))
    rng = np.random.Generator(np.random.PCG64([seed, 7]))
    drawn = rng.binomial(n, smooth, size=(_DRAWS, len(n))) / n
    start = float(labels.max())
    gains = _gains(labels, np.vstack([accuracy, drawn]), weight, start, float(to))
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(gains[1:], [tail, 1.0 - tail])
    return Gain(int(start), to, float(gains[0]), float(low), float(high))


def _gains(labels: Values, accuracy: Values, weight: Values, start: float, end: float) -> Values:
    """Return the gain of the best curve through each row of accuracies, float64 [rows]."""
    best = np.full(len(accuracy), np.inf)
    gains = np.zeros(len(accuracy))
    scale = labels.max()
    share = weight / weight.sum()
    for rate in _RATES:
        # b·scale^-c is fitted: 1 at the most labels, whatever the rate.
        x = (labels / scale) ** -rate
        centre = float(share @ x)
        mean = accuracy @ share
        spread = float(share @ (x - centre) ** 2)
        slope = np.maximum(-(accuracy - mean[:, None]) @ (share * (x - centre)) / spread, 0.0)
        top = mean + slope * centre
        # No curve ends above 1: then it is the slope alone that is fitted.
        steep = (1.0 - accuracy) @ (share * x) / float(share @ x**2)
        slope = np.where(top > 1.0, steep, slope)
        top = np.minimum(top, 1.0)
        error = ((accuracy - top[:, None] + slope[:, None] * x) ** 2) @ share
        better = error < best
        best[better] = error[better]
        gain = slope * ((start / scale) ** -rate - (end / scale) ** -rate)
        gains[better] = gain[better]
    return gains
