"""Samples that lie far from all others in the space of embeddings.

Two measures of a sample are taken against a reference of other samples:

- its *distance*: that to its k-th nearest neighbour, which a few odd samples alike do not lower
  (Ramaswamy, Rastogi & Shim, "Efficient algorithms for mining outliers from large data sets",
  SIGMOD 2000; Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022);
- its *sparseness*: how much thinner the samples lie around it than around its neighbours (the
  local outlier factor: Breunig et al., "LOF: identifying density-based local outliers", SIGMOD
  2000), which is about 1 within a group, however thin that group is.

A sample is an outlier where its distance is beyond what the reference's own distances (each sample
against the rest) lead one to expect of one in so many, see `visionloop.monitoring.tails`, and its
sparseness is in the upper quarter of the reference's own: far from all, and not part of a group
that lies far out together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visionloop.monitoring.findings import Findings
from visionloop.monitoring.sample_config import SampleThresholds
from visionloop.monitoring.tails import upper_tail
from visionloop.monitoring.vector_parts import Part, ReadVectors, joined, parts_of
from visionloop.selection.alike import nearest_few
from visionloop.vectors.exact import Floats, Rows
from visionloop.vectors.knn import nearest_neighbours

Values = NDArray[np.float64]

NEIGHBOURS = 10
# All pairs of so many are compared within a minute; more hardly move the limit.
MOST = 20_000
# Sparseness above this quantile of the reference's own agrees with a large distance.
_AGREES = 0.75
# So many directions drawn at random tell whether the space can show an outlier at all.
_DRAWN = 200
_TINY = 1e-9
# What is wrong with such a picture is told already, and puts it far from the others, too.
_TOLD = {"blurred", "dark", "bright", "low_contrast", "low_information"}


@dataclass(frozen=True)
class Outlier:
    """A sample that lies far from all others.

    Attributes:
        sample_id: The sample.
        distance: To its k-th nearest neighbour, Euclidean, of vectors of length 1.
        ratio: The same in median distances of the reference.
        sparseness: Its local outlier factor.
        nearest: The id of its nearest neighbour.
    """

    sample_id: str
    distance: float
    ratio: float
    sparseness: float
    nearest: str


@dataclass(frozen=True)
class Outliers:
    """What the search for outliers found, or why nothing can be said.

    Attributes:
        n_judged: New samples that were judged.
        n_without: New samples that have no embedding, and were not.
        n_unjudged: New samples that have one, and were not either, for the reason in `why_not`.
        why_not: Why none was judged, in words; "" where some were.
        n_reference: Samples that they were compared with.
        earlier: Whether those are the samples known before; else all, the new ones among them.
        usual: The median distance of the reference.
        limit: The ratio from which on a sample is far.
        sparse: The sparseness from which on that counts.
        found: The outliers, the farthest first.
    """

    n_judged: int = 0
    n_without: int = 0
    n_unjudged: int = 0
    why_not: str = ""
    n_reference: int = 0
    earlier: bool = False
    usual: float = 0.0
    limit: float = 0.0
    sparse: float = 0.0
    found: list[Outlier] = field(default_factory=list)


def find_outliers(
    new: set[str], read_vectors: ReadVectors, thresholds: SampleThresholds
) -> Outliers:
    """Judge new samples by their distance to the reference.

    The reference is drawn from the samples known before, where there are enough of them, so that
    new ones of a kind do not vouch for each other; else from all. Ids are hashes: those that sort
    first are as good as drawn by lot, and the same in every run.

    Args:
        new: Samples to be judged.
        read_vectors: Reads the embeddings of all samples, up to three times.
        thresholds: ``outlier_share`` and ``outlier_min_reference``.

    Cost O((m + n)·n·d) for m new samples and n of the reference, at most 20,000; memory holds the
    reference and a part of the new ones.
    """
    ids = [name for part in parts_of(read_vectors) for name in part.names.tolist()]
    judged = new.intersection(ids)
    without = len(new) - len(judged)
    if not thresholds.outlier_share:
        return Outliers(n_without=without, why_not="the configuration asks for none")
    if not judged:
        return Outliers(n_without=without, why_not="no new sample has an embedding")
    before = [name for name in ids if name not in new]
    earlier = len(before) >= thresholds.outlier_min_reference
    chosen = frozenset(sorted(before if earlier else ids)[:MOST])
    del ids, before
    if len(chosen) < thresholds.outlier_min_reference:
        told = f"{len(chosen)} samples with an embedding are too few to tell what is usual"
        told += f": {thresholds.outlier_min_reference} are needed"
        return Outliers(0, without, len(judged), told, n_reference=len(chosen))
    reference = _Reference(joined([part.among(chosen) for part in parts_of(read_vectors)]))
    if not reference.usual > _TINY:
        return Outliers(0, without, len(judged), "most samples have the same embedding")
    limit = reference.limit(thresholds.outlier_share)
    if not _can_show(reference, limit):
        told = (
            "the samples lie so far apart that even a vector drawn at random is as near as they are"
        )
        return Outliers(0, without, len(judged), told, n_reference=len(chosen))
    found = list(reference.own(judged & chosen, limit))
    for part in parts_of(read_vectors):
        found += reference.others(part.among(judged - chosen), limit)
    found.sort(key=lambda one: (-one.ratio, one.sample_id))
    return Outliers(
        len(judged), without, 0, "", len(chosen), earlier, reference.usual, limit, reference.sparse,
        found,
    )  # fmt: skip


def flag_outliers(
    new: set[str], thresholds: SampleThresholds, read_vectors: ReadVectors, findings: Findings
) -> Outliers:
    """Flag the new samples that lie far from all others, and return what was judged.

    A sample whose quality is flagged already is left out: its cause has a name.

    Args:
        new: Samples to be judged.
        thresholds: ``outlier_share`` and ``outlier_min_reference``.
        read_vectors: Reads the embeddings of all samples.
        findings: Receives the flags, and holds those of quality.
    """
    told = {flag["subject"] for flag in findings.flags if flag["kind"] in _TOLD}
    outliers = find_outliers(new - told, read_vectors, thresholds)
    known = "samples known before" if outliers.earlier else "samples, the new ones among them"
    for one in outliers.found:
        findings.flag(
            one.sample_id,
            "outlier",
            score=one.ratio,
            threshold=outliers.limit,
            unit="times the usual distance",
            reference=f"{outliers.n_reference:,} {known}, which teach the limit: nominally "
            f"{thresholds.outlier_share:.2%} of sound ones pass it",
            images=[one.sample_id, one.nearest],
            distance=one.distance,
            usual_distance=outliers.usual,
            sparseness=one.sparseness,
            sparseness_threshold=outliers.sparse,
        )
    return outliers


def _can_show(reference: _Reference, limit: float) -> bool:
    """Return whether vectors that have nothing to do with the reference lie beyond the limit.

    Directions drawn at random are farther away than any picture: where most of them pass for
    usual, silence about the new samples would say nothing.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    drawn = rng.standard_normal((_DRAWN, reference.part.vectors.shape[1])).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    _, distances = nearest_few(drawn, reference.part.vectors, NEIGHBOURS)
    return bool(np.median(distances[:, -1] / reference.usual > limit))


class _Reference:
    """Samples that others are compared with, and what is usual among them.

    Attributes:
        part: Their ids and vectors.
        usual: Median distance of one to the k-th nearest of the rest.
        sparse: The sparseness that agrees with a large distance.
    """

    def __init__(self, part: Part) -> None:
        self.part = part.take(np.argsort(part.names, kind="stable"))
        around = nearest_neighbours(self.part.vectors, NEIGHBOURS, recall=1.0)
        self._rows = around.rows
        self._near = np.maximum(around.distances.astype(np.float64), _TINY)
        self.usual = float(np.median(self._near[:, -1]))
        # Breunig's local reachability density: of each sample among its neighbours.
        reach = np.maximum(self._near, self._near[self._rows, -1])
        self._density = 1 / reach.mean(axis=1)
        self._sparseness = self._density[self._rows].mean(axis=1) / self._density
        self.sparse = float(np.quantile(self._sparseness, _AGREES))

    def limit(self, share: float) -> float:
        """Return the ratio of distances that this share of sound samples is expected to pass."""
        logs = np.log(self._near[:, -1] / self.usual)
        return float(np.exp(upper_tail(logs).limit(share)))

    def own(self, wanted: frozenset[str] | set[str], limit: float) -> list[Outlier]:
        """Return the outliers among some samples of the reference itself."""
        rows = np.flatnonzero([name in wanted for name in self.part.names])
        return self._beyond(
            self.part.names[rows], self._rows[rows], self._near[rows], self._sparseness[rows], limit
        )

    def others(self, part: Part, limit: float) -> list[Outlier]:
        """Return the outliers among samples that are not of the reference."""
        if not len(part.names):
            return []
        vectors: Floats = np.ascontiguousarray(part.vectors)
        rows, distances = nearest_few(vectors, self.part.vectors, NEIGHBOURS)
        near = np.maximum(distances, _TINY)
        reach = np.maximum(near, self._near[rows, -1])
        sparseness = self._density[rows].mean(axis=1) * reach.mean(axis=1)
        return self._beyond(part.names, rows, near, sparseness, limit)

    def _beyond(
        self, names: NDArray[np.object_], rows: Rows, near: Values, sparseness: Values, limit: float
    ) -> list[Outlier]:
        ratio = near[:, -1] / self.usual
        return [
            Outlier(
                names[i],
                float(near[i, -1]),
                float(ratio[i]),
                float(sparseness[i]),
                str(self.part.names[rows[i, 0]]),
            )
            for i in np.flatnonzero((ratio > limit) & (sparseness > self.sparse)).tolist()
        ]
