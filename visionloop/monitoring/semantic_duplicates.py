"""Flags of samples whose embedding lies much nearer to an earlier one's than others lie.

What two pictures of different things have for a cosine depends on the encoder and on what the
camera sees: digits lie at 0.95, clothes at 0.7. So a distance is held against what is usual in the
space, the median distance of a sample to its nearest neighbour (both as 1 less the cosine), and not
against a number. Where most of a collection are copies of one another, that is 0 and none is
flagged. Groups of semantic duplicates: Abbas et al., "SemDeDup", 2023.
"""

from __future__ import annotations

import numpy as np

from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.findings import Findings
from visionloop.monitoring.sample_flags import Population
from visionloop.monitoring.vector_parts import Part, ReadVectors, joined, parts_of
from visionloop.vectors.exact import nearest_exactly
from visionloop.vectors.knn import nearest_neighbours
from visionloop.vectors.thinning import thinned

# So many samples tell what is usual. Their ids are hashes: the smallest are any.
_SAMPLE = 1024
_SAME = {"near_duplicate", "pixel_duplicate"}


def flag_semantic_duplicates(
    population: Population,
    thresholds: MonitoringConfig,
    read_vectors: ReadVectors,
    findings: Findings,
) -> int | None:
    """Flag new samples whose embedding is nearly that of an earlier one.

    What `flag_near_duplicates` or equal pixels have flagged is left out. Of new samples that are
    near each other the first by URI stays. Memory holds the vectors of the new samples, twice.

    Args:
        population: All samples.
        thresholds: ``semantic_duplicate_share`` and ``min_population``.
        read_vectors: Reads the embeddings of all samples, twice.
        findings: Receives the flags.

    Returns:
        How many samples have an embedding; None where none was looked for.
    """
    share = thresholds.semantic_duplicate_share
    told = {flag["subject"] for flag in findings.flags if flag["kind"] in _SAME}
    uris = dict(zip(population.ids, population.uris, strict=True))
    new = {population.ids[row] for row in np.flatnonzero(population.is_new).tolist()}
    if not share or not new - told:
        return None
    n, sample, fresh = _first_pass(read_vectors, new - told)
    if n < thresholds.min_population or not len(fresh.names):
        return n
    fresh = fresh.take(np.array(sorted(range(len(fresh.names)), key=fresh.order(uris))))
    usual, earlier = _Nearest(sample), _Nearest(fresh)
    usual.squared = nearest_neighbours(sample.vectors, 1).distances[:, 0] ** 2
    for part in parts_of(read_vectors):
        usual.look(part.without(usual.places))
        earlier.look(part.without(new))
    middle = float(np.median(usual.squared))
    limit = share * middle
    if limit <= 0:
        return n
    rest = np.flatnonzero(earlier.squared > limit)
    stays = thinned(fresh.vectors[rest], _cosine(limit))
    kept, gone = rest[stays], rest[~stays]
    who, squared = nearest_exactly(fresh.vectors[gone], fresh.vectors[kept])
    earlier.squared[gone], earlier.names[gone] = squared, fresh.names[kept[who]]
    for row in np.setdiff1d(np.arange(len(fresh.names)), kept).tolist():
        original = earlier.names[row]
        findings.flag(
            fresh.names[row],
            "semantic_duplicate",
            score=_cosine(float(earlier.squared[row])),
            threshold=_cosine(limit),
            unit="cosine of the two embeddings",
            reference=f"the median cosine of {len(sample.names):,} samples to their nearest: the "
            f"limit lies at {share:.0%} of that distance",
            images=[fresh.names[row], original],
            original=original,
            original_uri=uris.get(original, ""),
            usual=_cosine(middle),
        )
    return n


def _cosine(squared: float) -> float:
    """Return the cosine of two vectors of length 1 by their squared distance."""
    return 1 - squared / 2


def _first_pass(read_vectors: ReadVectors, wanted: set[str]) -> tuple[int, Part, Part]:
    """Return how many vectors there are, a sample of them, and those of some samples."""
    sample, fresh, n = joined([]), [], 0
    for part in parts_of(read_vectors):
        n += len(part.names)
        fresh.append(part.among(wanted))
        sample = joined([sample, part])
        sample = sample.take(np.argsort(sample.names, kind="stable")[:_SAMPLE])
    return n, sample, joined(fresh)


class _Nearest:
    """The nearest of all others, for each of some samples.

    Attributes:
        names: Its id; of equals the smallest.
        squared: Its squared distance; infinite before any was looked at.
        places: The ids of those samples.
    """

    def __init__(self, held: Part) -> None:
        self._held = held
        self.places = frozenset(held.names)
        self.names = np.full(len(held.names), "", dtype=object)
        self.squared = np.full(len(held.names), np.inf, dtype=np.float32)

    def look(self, others: Part) -> None:
        """Compare with others, none of which is one of these samples."""
        if not len(others.names):
            return
        who, squared = nearest_exactly(self._held.vectors, np.ascontiguousarray(others.vectors))
        found = others.names[who]
        better = squared < self.squared
        better |= (squared == self.squared) & (found < self.names)
        self.squared[better], self.names[better] = squared[better], found[better]
