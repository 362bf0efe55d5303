"""Objectives: what each candidate would add, a number in (0, 1], at every step of the greedy pick.

An objective's values multiply with those of the others (each to the power of its strength), as in
LightlyOne, so only ratios matter. What an objective does not know of a candidate is neutral: the
median of what it knows, never 0. The smallest value is `FLOOR`, so that one objective alone cannot
veto a candidate for good.
"""
# Over 400 lines: objectives with one protocol, and the measures that they are made of.

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.neighbours import (
    mean_neighbour_distances,
)
from visionloop.vectors.exact import (
    Floats,
    nearest_exactly,
    product_error,
    squared_between,
    squared_norms,
)
from visionloop.vectors.gathered import Matrix
from visionloop.vectors.knn import nearest_neighbours
from visionloop.vectors.phases import steps

FLOOR = 1e-6

Values = NDArray[np.float64]


class Objective(Protocol):
    """One objective over m candidates."""

    name: str
    strength: float

    def values(self) -> Values:
        """Return float64 [m] in (0, 1], as things stand now."""
        ...

    def known(self, candidate: int) -> bool:
        """Tell whether the candidate's value was known rather than neutral."""
        ...

    def choose(self, candidate: int) -> None:
        """Take note that the candidate was chosen."""
        ...


class Fixed:
    """Values that do not depend on what was chosen: scores, weights, typicality, similarity.

    `informed` tells whether any value is known; without one the objective has no say.

    Args:
        name: Shown in the explanation.
        values: float64 [m] from 0 to any positive number; NaN is unknown. Divided by the largest.
        strength: Multiplies the log-objective.
        scale: Divide by this instead of the largest; 1.0 for scores that are in [0, 1] already.

    Attributes:
        given: The values as they were given.
        scale: As it was given.
    """

    def __init__(
        self, name: str, values: Values, strength: float = 1.0, *, scale: float | None = None
    ) -> None:
        self.name = name
        self.strength = strength
        self.given = values
        self.scale = scale
        self._known: NDArray[np.bool_] = ~np.isnan(values)
        self.restate(*self.measure(values))

    @staticmethod
    def measure(values: Values) -> tuple[float, float]:
        """Return what counts where a value is unknown, and the largest; NaN where none is known."""
        some = values[~np.isnan(values)]
        if not len(some):
            return float("nan"), float("nan")
        return float(np.median(some)), float(some.max())

    def restate(self, neutral: float, top: float) -> None:
        """Take what was measured over more candidates than these.

        Args:
            neutral: As `measure` returns it.
            top: Likewise.
        """
        self.informed = not np.isnan(neutral)
        if not self.informed:
            self._values = np.ones(len(self.given))
            return
        scale = self.scale if self.scale is not None else max(top, FLOOR)
        filled = np.where(self._known, self.given, neutral) / scale
        self._values = np.clip(filled, FLOOR, 1.0)

    def values(self) -> Values:
        """Return float64 [m]."""
        return self._values

    def known(self, candidate: int) -> bool:
        """Tell whether the candidate had a value of its own."""
        return bool(self._known[candidate])

    def choose(self, candidate: int) -> None:
        """Nothing changes."""


class Lots(Fixed):
    """A number for each candidate that was drawn: who is picked is up to chance.

    Args:
        name: Shown in the explanation.
        values: float64 [m], in (0, 1].
        strength: Multiplies the log-objective.
    """

    def __init__(self, name: str, values: Values, strength: float = 1.0) -> None:
        super().__init__(name, values, strength, scale=1.0)


class Similarity(Fixed):
    """`exp(-d/c)`, d the distance to the nearest query, c its mean over all candidates.

    This is LightlyOne's similarity, in (0, 1].

    Args:
        distances: float64 [m].
        strength: Multiplies the log-objective.
    """

    def __init__(self, distances: Values, strength: float = 1.0) -> None:
        super().__init__("similarity", distances, strength)

    @staticmethod
    def measure(values: Values) -> tuple[float, float]:
        """Return the mean distance, twice."""
        mean = float(values.mean()) if len(values) else 0.0
        return mean, mean

    def restate(self, neutral: float, top: float) -> None:
        """Take the mean distance over more candidates than these."""
        self.informed = True
        similar = np.exp(-self.given / neutral) if neutral > 0 else np.ones(len(self.given))
        self._values = np.clip(similar, FLOOR, 1.0)


class Diversity:
    """Half the distance to the nearest chosen or labelled sample (k-center greedy).

    Alone it is the farthest-point heuristic of Gonzalez (1985), a 2-approximation of the k-center
    problem, as used by Sener & Savarese, "Core-set" (2018). Before anything is chosen or labelled
    every candidate is as good as any other. Cost O(m·d) a step, O(m·L·d) to start from L labelled;
    `visionloop.selection.lazy` needs neither.

    Args:
        x: float32 [m, d], length 1.
        already: float32 [L, d], what is labelled or chosen already.
        strength: Multiplies the log-objective.
        minimum_distance: Candidates nearer than this to a chosen one are out of the question.
        name: Shown in the explanation.

    Attributes:
        x: The candidates.
    """

    def __init__(
        self,
        x: Matrix,
        already: Floats,
        strength: float = 1.0,
        *,
        minimum_distance: float | None = None,
        name: str = "diversity",
    ) -> None:
        self.name = name
        self.strength = strength
        self.minimum_distance = minimum_distance
        self.x = x
        self._already = already
        self._chosen: list[int] = []
        self._squared: Floats | None = None
        self._norms = squared_norms(x)
        self._error = product_error(x.shape[1], float(self._norms.max(initial=0.0)))

    @property
    def squared(self) -> Floats:
        """float32 [m], exact squared distance to the nearest chosen one, infinite without one."""
        if self._squared is None:
            self._squared = nearest_exactly(self.x, self.centres())[1]
        return self._squared

    def centres(self) -> Floats:
        """Return what was labelled and then what was chosen, float32 [L + chosen, d]."""
        return np.concatenate([self._already, self.x[self._chosen]])

    @staticmethod
    def value_of(squared: Floats) -> Values:
        """Return the values of squared distances; 1 where nothing was chosen yet."""
        distance = np.sqrt(squared, dtype=np.float64) / 2.0
        values: Values = np.where(np.isinf(distance), 1.0, distance)
        return np.clip(values, FLOOR, 1.0)

    def values(self) -> Values:
        """Return float64 [m]."""
        return self.value_of(self.squared)

    def known(self, candidate: int) -> bool:
        """Tell whether there is anything to be far from."""
        return len(self._already) + len(self._chosen) > 0

    def choose(self, candidate: int) -> None:
        """Shorten the distances to the chosen sample's."""
        self._chosen.append(candidate)
        squared = self._squared
        if squared is None:  # nobody has asked yet
            return
        fresh = self.x @ self.x[candidate]
        fresh *= -2.0
        fresh += self._norms
        fresh += self._norms[candidate] - np.float32(self._error)
        # Of a product only what it cannot be wrong about is used, see `visionloop.vectors.exact`.
        closer = np.flatnonzero(fresh < squared)
        exact = squared_between(self.x[closer], self.x[candidate])
        squared[closer] = np.minimum(squared[closer], exact)

    def allowed(self) -> NDArray[np.bool_]:
        """Return bool [m]: who is not nearer than the minimum distance to a chosen sample."""
        if self.minimum_distance is None:
            return np.ones(len(self.x), dtype=np.bool_)
        return np.asarray(np.sqrt(self.squared) >= self.minimum_distance)


class Coverage:
    """The most typical sample of the largest cluster that has the fewest labels (TypiClust).

    Source: Hacohen, Dekel & Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High
    and Low Budgets" (2022), algorithm 1. The order there is lexicographic: fewest labels, then the
    size of the cluster, then typicality. Here the same order is one number,
    `2^-(labels - fewest) · (1 + size/largest)/2 · typicality/(its cluster's best that is left)`, so
    that it combines with other objectives; alone it picks the same samples. `fewest` is over the
    clusters with anybody left. Clusters of up to 5 samples are left for last: they count below
    whatever any other can come to. Its logarithm has no smallest number, as the number itself has.

    Args:
        cluster: intp [m], each candidate's cluster.
        sizes: Number of samples of each cluster, candidates or not.
        labels: Number of labelled samples of each cluster.
        typicality: float64 [m], positive.
        strength: Multiplies the log-objective.
    """

    def __init__(
        self,
        cluster: NDArray[np.intp],
        sizes: NDArray[np.intp],
        labels: NDArray[np.intp],
        typicality: Values,
        strength: float = 1.0,
    ) -> None:
        self.name = "coverage"
        self.strength = strength
        self._cluster = cluster
        self._labels = labels.astype(np.float64)
        self._typicality = typicality
        self._left = np.ones(len(cluster), dtype=np.bool_)
        share = sizes / max(1, int(sizes.max(initial=1)))
        self._small = sizes <= SMALLEST_CLUSTER
        self._weight = np.where(self._small, np.log(FLOOR), np.log((1.0 + share) / 2.0))
        self._best = np.zeros(len(sizes))
        np.maximum.at(self._best, cluster, typicality)

    def logs(self) -> Values:
        """Return float64 [m], the logarithms of the values; of no meaning for who is left out."""
        tier = self._weight - self._tiers() * np.log(2.0)
        best = np.where(self._best > 0, self._best, np.inf)
        relative = np.minimum(self._typicality / best[self._cluster], 1.0)
        logs: Values = np.log(np.maximum(relative, np.finfo(np.float64).tiny))
        logs += tier[self._cluster]
        return logs

    def values(self) -> Values:
        """Return float64 [m]; where it matters which of two is larger, take `logs`."""
        return np.clip(np.exp(self.logs()), np.finfo(np.float64).tiny, 1.0)

    def known(self, candidate: int) -> bool:
        """Tell that every candidate lies in some cluster."""
        return True

    def choose(self, candidate: int) -> None:
        """Count one more label in the cluster; its next best candidate becomes the best."""
        self._labels[self._cluster[candidate]] += 1
        self.leave_out(np.array([candidate]))

    def leave_out(self, candidates: NDArray[np.intp]) -> None:
        """Take note of who cannot be chosen; the next best of its cluster becomes the best."""
        self._left[candidates] = False
        for group in np.unique(self._cluster[candidates]):
            left = np.flatnonzero(self._left & (self._cluster == group))
            self._best[group] = self._typicality[left].max(initial=0.0)

    def _tiers(self) -> Values:
        """Return float64 [clusters]: labels beyond the fewest, of the small beyond all others'."""
        tiers, start = np.zeros(len(self._labels)), 0.0
        for group in (~self._small, self._small):
            there = self._labels[group & (self._best > 0)]
            fewest = there.min() if len(there) else 0.0
            tiers[group] = np.maximum(self._labels[group] - fewest, 0.0) + start
            start = there.max() - fewest + 1.0 if len(there) else 0.0
        return tiers


SMALLEST_CLUSTER = 5


class Balance:
    """How much a candidate's value is missing from what was chosen, against wanted shares.

    A value's need is `share wanted / (count so far + 1)`, the highest-averages rule of
    apportionment: alone it fills the shares in exact proportion. A candidate with a distribution
    over the values (a prediction) needs their mean.

    Args:
        name: Shown in the explanation.
        membership: float64 [m, V], rows that sum to 1; NaN rows are unknown.
        target: float64 [V], wanted shares.
        counts: float64 [V], what is labelled already.
        strength: Multiplies the log-objective.
        absent: Wanted values that no candidate has, for the selection's flags.

    Attributes:
        informed: Whether any candidate's value is known.
    """

    def __init__(
        self,
        name: str,
        membership: Values,
        target: Values,
        counts: Values,
        strength: float = 1.0,
        *,
        absent: Collection[str] = (),
    ) -> None:
        self.name = name
        self.strength = strength
        self.absent = absent
        self._known: NDArray[np.bool_] = np.asarray(np.isfinite(membership).all(axis=1))
        self.informed = bool(self._known.any())
        self._membership = np.where(self._known[:, None], membership, 0.0)
        self._target = target
        self._counts = counts.astype(np.float64).copy()

    def values(self) -> Values:
        """Return float64 [m]."""
        need = self._target / (self._counts + 1.0)
        top = float(need.max(initial=0.0))
        if top <= 0 or not self._known.any():
            return np.ones(len(self._membership))
        values: Values = self._membership @ (need / top)
        neutral = float(np.median(values[self._known]))
        filled: Values = np.where(self._known, values, neutral)
        return np.clip(filled, FLOOR, 1.0)

    def known(self, candidate: int) -> bool:
        """Tell whether the candidate's value is known."""
        return bool(self._known[candidate])

    def choose(self, candidate: int) -> None:
        """Count the chosen sample's value."""
        self._counts += self._membership[candidate]


def local_typicality(x: Matrix, cluster: NDArray[np.intp], clusters: int) -> Values:
    """Return TypiClust's typicality `1 / (mean distance to K neighbours in its cluster + 1e-5)`.

    K is min(20, half the cluster). Cost O(Σ cluster²·d).

    Args:
        x: float32 ``[n, d]``, L2-normalised.
        cluster: int ``[n]``: the cluster of each row, from 0.
        clusters: Number of clusters.
    """
    values = np.ones(len(x))
    order = np.argsort(cluster, kind="stable")
    bounds = np.searchsorted(cluster[order], np.arange(clusters + 1))
    for start, end in steps("typicality", list(pairwise(bounds))):
        rows = order[start:end]
        if len(rows) > 1:
            k = max(1, min(20, len(rows) // 2))
            values[rows] = 1.0 / (mean_neighbour_distances(x[rows], k) + 1e-5)
    return values


def density_typicality(x: Floats, k: int = 20, *, recall: float = 0.99, seed: int = 0) -> Values:
    """Return `mean over k neighbours of exp(-d/c)`, c being the mean of all those distances.

    This is LightlyOne's typicality, in (0, 1]. Up to 20,000 rows the neighbours are exact; beyond,
    `visionloop.vectors.knn.nearest_neighbours` finds the wanted share of them, O(n²·d) at worst.

    Args:
        x: float32 ``[n, d]``, L2-normalised.
        k: Neighbours.
        recall: Share of the true neighbours to find.
        seed: Of the search.
    """
    if len(x) < 2:
        return np.ones(len(x))
    distances = nearest_neighbours(x, k, recall=recall, seed=seed).distances.astype(np.float64)
    scale = float(distances.mean())
    if scale <= 0:
        return np.ones(len(x))
    return np.asarray(np.exp(-distances / scale).mean(axis=1))


def query_distances(x: Floats, query: Floats) -> Values:
    """Return the distance of each row to the nearest query, float64 [n]. Cost O(n·q·d)."""
    return np.sqrt(nearest_exactly(x, query)[1], dtype=np.float64)
