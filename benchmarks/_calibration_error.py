"""How often the interval of the expected calibration error covers the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks._rows import Row
from visionloop.training.reliability import BINS, calibration_error, calibration_interval

SIZES = (100, 300, 1000, 3000)
# A model is right as often as it is sure, times this.
COOLED = (1.0, 0.97, 0.85)
TRUTH, RESAMPLES = 1_000_000, 500


def calibration_rows(runs: int) -> list[Row]:
    """Return the share of holdouts whose interval covers, beside the plain bootstrap's percentiles.

    Confidences are drawn from a beta distribution of mean .8, the truth is the error of a million.
    """
    rows = []
    for cooled in COOLED:
        sure = _drawn(TRUTH, 0, cooled)[0].astype(np.float64)
        bins = np.minimum((sure * BINS).astype(int), BINS - 1)
        gaps = np.bincount(bins, weights=(1 - cooled) * sure, minlength=BINS)
        truth = float(np.abs(gaps).sum() / TRUTH)
        for n in SIZES:
            covered = np.zeros(2)
            for seed in range(1, runs + 1):
                answers = _drawn(n, seed, cooled)
                interval = calibration_interval(*answers)
                low, high = _percentiles(*answers, seed)
                covered += (
                    interval.low - 1e-9 <= truth <= interval.high + 1e-9,
                    low - 1e-9 <= truth <= high + 1e-9,
                )
            case = f"calibration error {truth:.3f}, {n:,} samples, {runs} runs: 95% interval covers"
            ours, theirs = (covered / runs).tolist()
            rows.append(
                Row(case, ours, "the bootstrap's percentiles", theirs, "share", None, False)
            )
    return rows


def _drawn(n: int, seed: int, cooled: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return confidences and which are right."""
    draw = np.random.Generator(np.random.PCG64(seed))
    sure = draw.beta(8, 2, n).astype(np.float32)
    return sure, draw.random(n) < cooled * sure


def _percentiles(
    sure: NDArray[np.float32], right: NDArray[np.bool_], seed: int
) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles of the error over samples drawn with replacement."""
    draw = np.random.Generator(np.random.PCG64([seed, 1]))
    errors = []
    for _ in range(RESAMPLES):
        rows = draw.integers(len(sure), size=len(sure))
        errors.append(calibration_error(sure[rows], right[rows]))
    low, high = np.quantile(errors, [0.025, 0.975])
    return float(low), float(high)
