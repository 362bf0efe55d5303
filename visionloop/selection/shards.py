"""k-center over more embeddings than one machine holds: greedy in every shard, then over the picks.

Each shard gives its k farthest-first picks as candidates, and greedy over the candidates of all
shards gives the batch. That is the two-round scheme of Malkomes, Kusner, Chen, Weinberger &
Moseley, "Fast Distributed k-Center Clustering with Outliers on Massive Data" (2015), whose radius
is at most four times that of the best k centres. What it is in the case at hand is told by
`Merged`: at most the largest radius of a shard plus that of the last stage. More candidates a shard
than picks shrink the first term (Ceccarello, Pietracaprina & Pucci, "Solving k-center Clustering
(with Outliers) in MapReduce and Streaming, almost as Accurately as Sequentially", 2019).

Neither the order of shards nor that of rows in a shard changes the picks; how rows are spread over
the shards does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from visionloop.errors import InputError
from visionloop.selection.greedy import Course, greedy
from visionloop.selection.objectives import Diversity
from visionloop.selection.pool import named
from visionloop.vectors.exact import Floats


@dataclass(frozen=True)
class Candidates:
    """What one shard proposes.

    Attributes:
        sample_ids: In the order in which they were picked.
        x: float32 [c, d], their embeddings.
        radius: No row of the shard is farther than this from a candidate or from what was chosen
            already; 0 where every row is a candidate.
        rows: Number of rows of the shard.
    """

    sample_ids: tuple[str, ...]
    x: Floats
    radius: float
    rows: int


@dataclass(frozen=True)
class Merged:
    """The batch.

    Attributes:
        sample_ids: In the order in which they were picked.
        distances: float64 [k], each one's distance to the nearest of what was chosen before it;
            infinite for the first where nothing was.
        radius: No candidate is farther than this from a pick or from what was chosen already.
        bound: No row of any shard is: the largest radius of a shard plus `radius`.
        least: The radius of any k centres, the best ones too, is at least this.
    """

    sample_ids: tuple[str, ...]
    distances: NDArray[np.float64]
    radius: float
    bound: float
    least: float


def select_shard(
    sample_ids: Sequence[str],
    x: Floats,
    k: int,
    *,
    already: Floats | None = None,
    device: str = "",
) -> Candidates:
    """Pick the candidates of one shard.

    Args:
        sample_ids: n ids, each once, in any order.
        x: float32 [n, d], rows of length 1.
        k: How many; all where there are fewer.
        already: float32 [L, d], what was chosen before, the same for every shard.
        device: Accelerator to compute on; empty for the processor.

    Raises:
        InputError: An id comes twice, or the numbers do not fit.

    Cost and memory as of `visionloop.selection.lazy.lazy_greedy` with n rows.
    """
    ids, x = _by_id(sample_ids, x)
    picks, _, radius = _k_center(x, k, _none(x) if already is None else already, device)
    return Candidates(tuple(ids[p] for p in picks), x[picks], radius, len(ids))


def merge(
    shards: Sequence[Candidates], k: int, *, already: Floats | None = None, device: str = ""
) -> Merged:
    """Pick the batch among the candidates of all shards.

    Args:
        shards: In any order.
        k: How many; all where there are fewer.
        already: As the shards had it.
        device: Accelerator to compute on; empty for the processor.

    Raises:
        InputError: There are no shards, one sample is in two of them, or a shard gave fewer than k
            candidates and had more rows: then nothing bounds the radius.

    Memory: the candidates, k a shard.
    """
    if not shards:
        raise InputError("there are no shards to merge", where="selection")
    for shard in shards:
        if len(shard.sample_ids) < min(k, shard.rows):
            raise InputError(
                f"a shard of {shard.rows} samples gave {len(shard.sample_ids)} candidates for "
                f"{k} picks",
                where="selection",
                remedy="Ask every shard for at least as many as are to be picked",
            )
    ids, x = _by_id(
        [sample for shard in shards for sample in shard.sample_ids],
        np.concatenate([shard.x for shard in shards]),
    )
    picks, distances, radius = _k_center(x, k, _none(x) if already is None else already, device)
    of_shards = max(shard.radius for shard in shards)
    # Where k + 1 rows are r apart from each other and from what was chosen, two of them share a
    # centre, or one has none nearer than r: any k centres leave a radius of r/2.
    apart = max(radius, of_shards)
    return Merged(tuple(ids[p] for p in picks), distances, radius, of_shards + radius, apart / 2)


def farthest(x: Floats, centres: Floats, *, device: str = "") -> float:
    """Return the distance of the row that is farthest from all centres: the radius of these.

    Args:
        x: float32 [n, d].
        centres: float32 [m, d], at least one.
        device: Accelerator to compute on; empty for the processor.
    """
    return _k_center(x, 0, centres, device)[2]


def _k_center(
    x: Floats, k: int, already: Floats, device: str
) -> tuple[list[int], NDArray[np.float64], float]:
    """Return k picks, their distances, and the radius: the distance of the next pick."""
    course = Course()
    greedy(
        [Diversity(x, already)],
        np.ones(len(x), dtype=np.bool_),
        min(k + 1, len(x)),
        accept=lambda _: True,
        course=course,
        device=device,
    )
    values = [pick.values["diversity"] for pick in course.picked]
    distances = np.array([np.inf if v is None else 2 * v for v in values])
    radius = float(distances[k]) if len(distances) > k else 0.0
    return [pick.candidate for pick in course.picked[:k]], distances[:k], radius


def _by_id(sample_ids: Sequence[str], x: Floats) -> tuple[Sequence[str], Floats]:
    if len(sample_ids) != len(x):
        raise InputError(f"{len(sample_ids)} samples came with {len(x)} embeddings")
    if any(a >= b for a, b in pairwise(sample_ids)):  # a shard in order is not copied
        order = sorted(range(len(sample_ids)), key=sample_ids.__getitem__)
        sample_ids, x = [sample_ids[i] for i in order], x[order]
    twice = [a for a, b in pairwise(sample_ids) if a == b]
    if twice:
        raise InputError(f"{len(twice)} samples come twice: {named(twice)}", where="selection")
    return sample_ids, x


def _none(x: Floats) -> Floats:
    return np.zeros((0, x.shape[1]), dtype=np.float32)
