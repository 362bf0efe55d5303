"""Where the tail of a population ends: a limit that few sound values pass, learned robustly.

The values beyond a high quantile follow a generalized Pareto distribution, whatever the whole
follows (Pickands, "Statistical inference using extreme order statistics", 1975; Coles, "An
Introduction to Statistical Modeling of Extreme Values", 2001, chapter 4). The few largest may be
the very oddities that the limit is to find, so of them it is only used that they are large: they
are censored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# Share of the values that make the tail, and of those that count as large and no more.
TAIL, CENSORED = 0.2, 0.03
# A shape below -0.35 puts the end of the distribution right behind the last value seen, and the
# likelihood has no maximum below -0.5. What is measured here is bounded, so that its tail is not
# heavier than an exponential one; that it looks so is the work of oddities.
SHAPES = (-0.35, 0.0)


@dataclass(frozen=True)
class Tail:
    """The upper tail of a population.

    Attributes:
        start: The value that it starts at.
        shape: Of the generalized Pareto distribution; below 0 it has an end.
        scale: Of the same.
    """

    start: float
    shape: float
    scale: float

    def limit(self, share: float) -> float:
        """Return the value that this share of the population is expected to pass.

        Args:
            share: Above 0 and below `TAIL`.
        """
        from scipy import stats

        beyond = stats.genpareto.isf(share / TAIL, self.shape, scale=self.scale)
        return self.start + float(beyond)


def upper_tail(values: Values) -> Tail:
    """Fit the tail of a population by censored maximum likelihood.

    Args:
        values: Finite, at least 50 of them, shape [n].
    """
    from scipy import optimize, stats

    ordered = np.sort(values)
    start = float(np.quantile(ordered, 1 - TAIL))
    excess = ordered[ordered > start] - start
    censored = min(int(np.ceil(CENSORED * len(ordered))), len(excess) - 1)
    if censored < 0 or excess[0] == excess[-1]:
        return Tail(start, 0.0, max(float(excess[-1]) if len(excess) else 0.0, 1e-12))
    seen, top = excess[: len(excess) - censored], excess[len(excess) - censored - 1]
    unit = float(seen.mean())

    def surprise(shape: float, log_scale: float) -> float:
        scale = math.exp(log_scale)
        one = stats.genpareto.logpdf(seen / unit, shape, scale=scale).sum()
        return -float(one + censored * stats.genpareto.logsf(top / unit, shape, scale=scale))

    def best_scale(shape: float) -> tuple[float, float]:
        # With a shape below 0 the distribution ends at -scale/shape, which no value may pass.
        least = max(-5.0, math.log(-shape * top / unit) + 1e-6) if shape < 0 else -5.0
        found = optimize.minimize_scalar(
            lambda log_scale: surprise(shape, log_scale), bounds=(least, 5.0), method="bounded"
        )
        return float(found.fun), float(found.x)

    profile = optimize.minimize_scalar(
        lambda shape: best_scale(shape)[0], bounds=SHAPES, method="bounded", options={"xatol": 1e-3}
    )
    shape = float(profile.x)
    return Tail(start, shape, unit * math.exp(best_scale(shape)[1]))
