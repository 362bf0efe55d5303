"""ProbCover: cover as much of the data as possible with balls of one radius."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection.clusters import kmeans
from visionloop.selection.neighbours import Floats, blocks, squared_distances
from visionloop.selection.objectives import FLOOR, Values
from visionloop.vectors.pairs import near_pairs

Rows = NDArray[np.intp]

# Rows whose nearest row of another cluster is looked for; 2,000 give the purity to a percent.
_SAMPLE = 2000
# Pairs in memory take 16 bytes each, and three times that while they are sorted.
MOST_PAIRS = 100_000_000
# Unit vectors that are farther apart than this have nothing in common; near_pairs needs less.
_LARGEST = 1.4


def radius_of_purity(x: Floats, k: int, purity: float, *, seed: int = 0) -> float:
    """Return the largest radius at which balls around the samples are pure.

    A ball is pure when all samples in it are of the cluster of its centre, k-means with as many
    clusters as there are classes standing in for the labels. A ball of radius δ is pure while δ is
    less than the distance to the nearest sample of another cluster, so the radius is a quantile of
    these distances: no search over radii.

    Source: Yehuda, Dekel, Hacohen & Weinshall, "Active Learning Through a Covering Lens" (2022),
    section 3.2; there the purity is .95. Cost O(min(n, 2000)·n·d) and that of k-means.

    Args:
        x: float32 [n, d], L2-normalised.
        k: Number of classes.
        purity: Share of pure balls, in (0, 1).
        seed: Of the clusters and the sample.

    Returns:
        The radius; the largest useful one when there is one cluster.
    """
    member = kmeans(x, max(1, min(k, len(x))), seed=seed)
    rng = np.random.Generator(np.random.PCG64([seed, 5]))
    sample = np.sort(rng.permutation(len(x))[:_SAMPLE])
    nearest = np.full(len(sample), np.inf)
    for part in blocks(len(sample), len(x)):
        squared = squared_distances(x[sample[part]], x)
        squared[member[sample[part], None] == member[None, :]] = np.inf
        nearest[part] = np.sqrt(squared.min(axis=1))
    nearest.sort()
    impure = min(int((1.0 - purity) * len(nearest)), len(nearest) - 1)
    # A little less than the distance: at the distance itself the other sample would be inside.
    return min(float(nearest[impure]) * (1.0 - 1e-6), _LARGEST)


def _refuse_too_many(x: Floats, radius: float) -> None:
    """Estimate the pairs of a sample of rows before all of them are looked for."""
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), 200)).astype(np.intp))
    near = 0
    for part in blocks(len(rows), len(x)):
        near += int((squared_distances(x[rows[part]], x) <= radius**2).sum())
    pairs = near / max(1, len(rows)) * len(x) / 2
    if pairs > MOST_PAIRS:
        raise InputError(
            f"within a radius of {radius:.3g} lie about {pairs:,.0f} pairs of {len(x):,} samples; "
            f"ProbCover keeps up to {MOST_PAIRS:,}",
            where="selection.strategies",
            remedy="Give a smaller `radius`, filter the pool, or use COVERAGE",
        )


class ProbCover:
    """How many samples that nothing covers yet a candidate would cover.

    A sample is covered when a labelled or chosen one lies within the radius. The greedy rule is a
    (1 - 1/e)-approximation of the largest cover. When everything is covered, all candidates are
    alike, and the smallest id comes first.

    Source: Yehuda et al. (2022), algorithm 1. Cost: `near_pairs` once, then O(pairs) for all steps
    together. Memory 16 bytes a pair.

    Args:
        x: float32 [m, d], the candidates, L2-normalised.
        already: float32 [L, d], what is labelled; it covers and is covered, and is not picked.
        radius: Of the balls, in (0, 1.4].
        strength: Multiplies the log-objective.

    Raises:
        InputError: The balls hold more pairs of samples than memory should.
    """

    def __init__(self, x: Floats, already: Floats, radius: float, strength: float = 1.0) -> None:
        self.name = "probcover"
        self.strength = strength
        self.radius = radius
        m, n = len(x), len(x) + len(already)
        everything = np.concatenate([x, already]) if len(already) else x
        _refuse_too_many(everything, radius)
        pairs = near_pairs(everything, max(1.0 - radius**2 / 2.0, 1e-6))
        one, other = pairs[:, 0], pairs[:, 1]
        itself = np.arange(n)
        source = np.concatenate([one, other, itself])
        order = np.argsort(source, kind="stable")
        self._near = np.concatenate([other, one, itself])[order]
        self._starts = np.searchsorted(source[order], np.arange(n + 1))
        self._covered = np.zeros(n, dtype=np.bool_)
        self._gain = np.diff(self._starts)
        self._m = m
        for row in range(m, n):
            self._cover(row)

    @property
    def covered(self) -> float:
        """Share of all samples that lies within the radius of a labelled or chosen one."""
        return float(self._covered.mean()) if len(self._covered) else 1.0

    def values(self) -> Values:
        """Return float64 [m]: samples newly covered over the most that any candidate covers."""
        gain = self._gain[: self._m].astype(np.float64)
        return np.clip(gain / max(1.0, float(gain.max(initial=0.0))), FLOOR, 1.0)

    def known(self, candidate: int) -> bool:
        """Tell that every candidate has an embedding."""
        return True

    def choose(self, candidate: int) -> None:
        """Count what lies in the candidate's ball as covered."""
        self._cover(candidate)

    def _cover(self, row: int) -> None:
        near = self._near[self._starts[row] : self._starts[row + 1]]
        fresh = near[~self._covered[near]]
        self._covered[fresh] = True
        for one in fresh:
            # Whoever is near a sample that is covered now would cover one less.
            self._gain[self._near[self._starts[one] : self._starts[one + 1]]] -= 1
