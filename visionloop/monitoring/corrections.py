"""Many tests and many intervals at once.

Holm's correction and simultaneous intervals guard against any false statement among all; where a
share of false ones may be borne, `scipy.stats.false_discovery_control` is Benjamini and Hochberg's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values that are corrected for their number, in the same order.

    A test is significant when its corrected value is below the level; then any of all tests is
    wrongly so with at most that probability, however they depend on each other (Holm, A Simple
    Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: One a test, each in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(value) for value in corrected]


def simultaneous_level(level: float, intervals: int) -> float:
    """Return the level of each of many intervals that hold together at a level.

    Sidak's: `level ** (1 / intervals)` (Sidak, Rectangular Confidence Regions for the Means of
    Multivariate Normal Distributions, Journal of the American Statistical Association 62, 1967).

    Args:
        level: Level at which all of them hold, in (0, 1).
        intervals: Their number; fewer than one counts as one.
    """
    return float(level ** (1.0 / max(1, intervals)))
