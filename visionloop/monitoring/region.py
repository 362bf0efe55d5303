"""Does a window of traffic lie where the model was calibrated, on its holdout?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.energy import ROWS, energy_test
from visionloop.monitoring.intervals import wilson
from visionloop.selection.alike import nearest_few
from visionloop.vectors.exact import Floats

NEIGHBOURS = 5
# Share of the holdout itself that lies outside of its own region.
OWN_SHARE = 0.01
# Rows of a class on either side that make it a stratum of its own.
_OF_CLASS = 10
# Sorted probabilities of digits lie up to .04 apart where the calibration holds (label shift, mild
# noise), and .06 to .33 where it does not.
_SORTED = 5
# More rows place no boundary any better.
_MOST = 5_000


@dataclass(frozen=True)
class Placement:
    """Where a window lies.

    Attributes:
        judged_by: ``embeddings`` or ``probabilities``.
        score: Share of the inferences outside of the holdout's region; of probabilities the energy
            coefficient between window and holdout, given the predicted class.
        limit: Above it the window is outside.
        n: Different images that were judged.
        inside: Whether calibration on the holdout says something about the window.
    """

    judged_by: str
    score: float
    limit: float
    n: int
    inside: bool


def place_embeddings(
    holdout: Floats, window: Floats, times: NDArray[np.intp], thresholds: MonitoringConfig
) -> Placement:
    """Compare each image's distance to the holdout with the holdout's own.

    The distance is the mean to the 5 nearest embeddings of the holdout (k-nearest-neighbour
    detection: Sun et al., Out-of-distribution detection with deep nearest neighbors, ICML 2022).
    Outside is what lies farther than 99% of the holdout from the rest of it. A window is outside
    where more than ``estimation_outside_above`` of its inferences are, and more than chance puts
    there at the effective number of images (Kish, 1965).

    Args:
        holdout: float32 [n, d], at least 7 rows.
        window: float32 [m, d], one row a different image, m at least 1.
        times: How often each was asked about, int [m].
        thresholds: ``estimation_outside_above``, ``drift_significance``.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    near, rows = holdout[_some(len(holdout), rng)], _some(len(window), rng)
    own = nearest_few(near, near, NEIGHBOURS + 1)[1][:, 1:].mean(axis=1)
    edge = float(np.quantile(own, 1 - OWN_SHARE, method="higher"))
    beyond = nearest_few(window[rows], near, NEIGHBOURS)[1].mean(axis=1) > edge
    weights = times[rows] / times[rows].sum()
    share, effective = float(weights[beyond].sum()), int(1 / (weights**2).sum() + 1e-6)
    low = wilson(
        min(1.0, share) * effective, effective, level=1 - 2 * thresholds.drift_significance
    ).low
    limit = thresholds.estimation_outside_above
    outside = share > limit and low > OWN_SHARE
    return Placement("embeddings", share, limit, len(rows), not outside)


def place_probabilities(
    holdout: NDArray[np.floating],
    window: NDArray[np.floating],
    times: NDArray[np.intp],
    thresholds: MonitoringConfig,
) -> Placement:
    """Compare the probability vectors of a window with the holdout's, class by class.

    Without embeddings. Compared are square roots of probabilities, whose distance is Hellinger's,
    by `visionloop.monitoring.energy`, given the predicted class: another mix of classes alone is
    no reason to refuse. Where most classes are too rare for that, sorted probabilities are compared
    over all; harder traffic moves these too, so the limit is five times as far. Each image counts
    once, but for the share of inferences whose class the holdout has never. What a model answers
    wrongly and as surely as on its holdout is not seen.

    Args:
        holdout: [n, C].
        window: [m, C], one row a different image.
        times: How often each was asked about, int [m].
        thresholds: ``estimation_apart_above``, ``estimation_outside_above``,
            ``drift_significance``.
    """
    said, asked = holdout.argmax(axis=1), window.argmax(axis=1)
    common = np.minimum(
        _drawn_of_each(said, holdout.shape[1]), _drawn_of_each(asked, holdout.shape[1])
    )
    by_class = bool((common[asked] >= _OF_CLASS).mean() >= 0.5)
    # Rare classes are one stratum.
    strata = tuple(np.where(common[of] >= _OF_CLASS, of, holdout.shape[1]) for of in (said, asked))
    x, y = (np.sqrt(p if by_class else np.sort(p, axis=1)) for p in (holdout, window))
    apart = energy_test(
        x.astype(np.float32),
        y.astype(np.float32),
        significance=thresholds.drift_significance,
        strata=(strata[0], strata[1]) if by_class else None,
    )
    limit = thresholds.estimation_apart_above * (1 if by_class else _SORTED)
    never_seen = float(times[~np.isin(asked, said)].sum() / times.sum())
    outside = (
        apart.coefficient > limit and apart.p_value < thresholds.drift_significance
    ) or never_seen > thresholds.estimation_outside_above
    return Placement("probabilities", apart.coefficient, limit, len(window), not outside)


def _drawn_of_each(classes: NDArray[np.intp], number: int) -> NDArray[np.float64]:
    """Return how many rows of each class the energy test will draw, about."""
    counts = np.bincount(classes, minlength=number)
    return np.asarray(counts * min(1.0, ROWS / max(1, len(classes))))


def _some(n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return np.arange(n) if n <= _MOST else rng.choice(n, _MOST, replace=False)
