"""Calibration of a deployed model's confidences on the frozen holdout, chosen by cross-validation.

A confidence is calibrated when of the answers given with .8 eight in ten are right. Three ways are
tried: as they are; one temperature on the logarithms of the probabilities (Guo et al., On
Calibration of Modern Neural Networks, ICML 2017); a monotone step of the largest probability
(isotonic regression; Zadrozny and Elkan, KDD 2002). The one with the smallest cross-validated Brier
score (Brier, 1950) of "this answer is right" is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visionloop.training.calibration import fit_temperature

METHODS = ("none", "temperature", "isotonic")
FOLDS = 5
# Numbers of the holdout's probabilities that a temperature is fitted on: it is one parameter.
_FIT_NUMBERS = 300_000
_TINY = 1e-7

Probabilities = NDArray[np.floating]


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration.

    Attributes:
        method: One of `METHODS`.
        temperature: What the logarithms are divided by; 1 without.
        knots: Confidences of the monotone step, ascending, float64 [k]; empty without.
        values: Calibrated values at the knots, float64 [k].
        brier: Cross-validated Brier score of each method tried.
    """

    method: str
    temperature: float = 1.0
    knots: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    brier: dict[str, float] = field(default_factory=dict)

    def confidences(self, probabilities: Probabilities) -> NDArray[np.float64]:
        """Return the calibrated chance that each row's most probable class is right.

        Args:
            probabilities: [n, C], as the model answered.
        """
        p = np.asarray(probabilities, dtype=np.float64)
        if self.method == "temperature":
            z = _logs(p) / self.temperature
            z -= z.max(axis=1, keepdims=True)
            return np.asarray(1 / np.exp(z).sum(axis=1))
        top = p.max(axis=1)
        if self.method == "isotonic":
            return np.asarray(np.interp(top, self.knots, self.values))
        return np.asarray(top)


def fit_calibration(
    probabilities: Probabilities, truth: NDArray[np.integer], *, seed: int = 0
) -> Calibration:
    """Fit the calibration whose cross-validated Brier score is smallest.

    Args:
        probabilities: [n, C] of the holdout, n at least 1.
        truth: Class of each row, int [n]; -1 for one that the model does not know.
        seed: Of the folds.

    Cost O(401·n·C) for each of six fits.
    """
    p, right = np.asarray(probabilities), probabilities.argmax(axis=1) == truth
    folds = np.random.Generator(np.random.PCG64(seed)).permutation(len(p)) % FOLDS
    brier = {}
    for method in METHODS:
        held_out = np.empty(len(p))
        for fold in range(FOLDS):
            inside = folds == fold
            if inside.any():
                fitted = _fit(method, p[~inside], truth[~inside])
                held_out[inside] = fitted.confidences(p[inside])
        brier[method] = float(np.mean((held_out - right) ** 2))
    best = min(METHODS, key=lambda name: brier[name])
    fitted = _fit(best, p, truth)
    return Calibration(best, fitted.temperature, fitted.knots, fitted.values, brier)


def _fit(method: str, p: Probabilities, truth: NDArray[np.integer]) -> Calibration:
    if method == "temperature":
        rows = np.flatnonzero(truth >= 0)
        step = max(1, -(-len(rows) * p.shape[1] // _FIT_NUMBERS))
        rows = rows[::step]
        logs = _logs(p[rows]).astype(np.float32)
        return Calibration(method, fit_temperature(logs, truth[rows].astype(np.int64)))
    if method == "isotonic" and len(p):
        return Calibration(method, 1.0, *isotonic(p.max(axis=1), p.argmax(axis=1) == truth))
    return Calibration("none")


def isotonic(
    x: NDArray[np.floating], y: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ascending curve nearest to y in squares: its knots and their values.

    Pooled adjacent violators (Ayer et al., 1955). A pool has a knot at either end, so that the
    curve is level within it and a straight line between it and the next.

    Args:
        x: [n], n at least 1.
        y: [n].
    """
    order = np.argsort(x, kind="stable")
    levels, first = np.unique(np.asarray(x, np.float64)[order], return_index=True)
    counts = np.diff(np.append(first, len(x)))
    sums = np.add.reduceat(np.asarray(y, np.float64)[order], first)
    pools: list[tuple[float, int, int, int]] = []  # sum, count, first level, last level
    for level in range(len(levels)):
        total, n, start = float(sums[level]), int(counts[level]), level
        while pools and pools[-1][0] * n >= total * pools[-1][1]:
            before = pools.pop()
            total, n, start = total + before[0], n + before[1], before[2]
        pools.append((total, n, start, level))
    knots = [levels[place] for pool in pools for place in dict.fromkeys(pool[2:])]
    values = [pool[0] / pool[1] for pool in pools for _ in dict.fromkeys(pool[2:])]
    return np.array(knots), np.array(values)


def _logs(p: Probabilities) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(np.asarray(p, dtype=np.float64), _TINY)))
