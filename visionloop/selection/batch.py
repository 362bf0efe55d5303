"""The batch so far: what is too close to it, what it draws at random, and its quota of unknowns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.config import SelectionConfig
from visionloop.selection.greedy import greedy
from visionloop.selection.inputs import space_of
from visionloop.selection.lots import lots
from visionloop.selection.neighbours import copies_of, nearest, squared_distances
from visionloop.selection.objectives import Diversity, Objective
from visionloop.selection.pool import Pool, Reference
from visionloop.selection.request import Request
from visionloop.vectors.exact import Floats

Rows = NDArray[np.intp]


class Batch:
    """What was chosen in this batch, and what is too close to it or to what is labelled.

    Args:
        pool: What there is.
        config: How close is too close.
        labelled: What is labelled already, for the nearest of each pick.

    Attributes:
        space: Embedding space of the distances; "" without one.
        refused: How many were refused as near duplicates.
        nearest_before: By row: the nearest sample labelled or chosen before it, and its distance.
    """

    def __init__(self, pool: Pool, config: SelectionConfig, labelled: Reference) -> None:
        several = not config.space and len(pool.embeddings) != 1
        self.space = "" if several else space_of(pool, config.space)
        self._pool = pool
        self._copy_distance = config.copy_distance
        self._duplicate_distance = config.duplicate_distance
        self._rows: list[int] = []
        width = pool.embeddings[self.space].shape[1] if self.space else 0
        self._vectors: Floats = np.zeros((0, width), dtype=np.float32)
        self._labelled = labelled if self.space in labelled.embeddings else Reference()
        self.refused = 0
        self.nearest_before: dict[int, tuple[str | None, float]] = {}

    def accept(self, row: int) -> bool:
        """Take the row in unless it nearly equals one that is in already or labelled."""
        squared = self._squared(row)
        if self._is_copy(row):
            self.refused += 1
            return False
        who, apart = self._nearest(row, squared)
        # float32 leaves up to 1e-6 on the squared distance of equal vectors.
        if apart**2 <= self._duplicate_distance**2 + 1e-6:
            self.refused += 1
            return False
        self.nearest_before[row] = who, apart
        self._append(row)
        return True

    def take(self, row: int) -> None:
        """Take the row in, whatever it is close to."""
        self.nearest_before[row] = self._nearest(row, self._squared(row))
        self._append(row)

    def _append(self, row: int) -> None:
        if self.space:
            if len(self._vectors) == len(self._rows):  # twice the room, so that few are moved
                more = max(64, len(self._vectors))
                self._vectors = np.pad(self._vectors, ((0, more), (0, 0)))
            self._vectors[len(self._rows)] = self._pool.embeddings[self.space][row]
        self._rows.append(row)

    def _squared(self, row: int) -> Floats:
        """Return the squared distances to all that are in the batch."""
        if not self.space or not self._rows:
            return np.zeros(0, dtype=np.float32)
        x = self._pool.embeddings[self.space]
        among: Floats = squared_distances(x[row : row + 1], self._vectors[: len(self._rows)])[0]
        return among

    def _is_copy(self, row: int) -> bool:
        prints = self._pool.fingerprints
        if prints is None or not self._rows:
            return False
        who = copies_of(prints[row : row + 1], prints[self._rows], self._copy_distance)[0]
        return bool(who[0] >= 0)

    def _nearest(self, row: int, squared: Floats) -> tuple[str | None, float]:
        if not self.space:
            return None, float("nan")
        best: tuple[str | None, float] = (None, float("nan"))
        labelled = self._labelled.embeddings.get(self.space)
        if labelled is not None and len(labelled):
            who, apart = nearest(self._pool.embeddings[self.space][row : row + 1], labelled)
            best = (self._labelled.sample_ids[int(who[0])], float(np.sqrt(apart[0])))
        if len(squared):
            distance = float(np.sqrt(squared.min()))
            if best[0] is None or distance < best[1]:
                best = (self._pool.sample_ids[self._rows[int(squared.argmin())]], distance)
        return best


def draw_share(
    pool: Pool, config: SelectionConfig, rows: Rows, budget: int, batch: Batch, seed: int
) -> tuple[list[int], float]:
    """Draw the random share before anything is chosen, so that everyone has the same chance.

    It is a simple random sample of the eligible rows, near duplicates of each other among them:
    were the second of two passed over, nobody's chance would be `number / eligible` any more.

    Args:
        pool: What there is.
        config: Its strategy and random share.
        rows: The eligible rows.
        budget: How many the whole batch will have; the draw is a share of it, rounded.
        batch: Takes in who is drawn, so that nothing close to them is chosen.
        seed: Of the draw.

    Returns:
        The rows in the order of their ids, and each one's propensity.
    """
    trained = (
        pool.probabilities is not None
        or pool.detections is not None
        or any(
            not name.startswith("deployed_") and np.isfinite(v).any()
            for name, v in pool.scores.items()
        )
    )
    number = int(config.random_share * budget + 0.5) if trained else 0
    if config.strategy == "random":
        number = budget
    if not number:
        return [], 1.0
    drawn_first = np.argsort(lots([pool.sample_ids[row] for row in rows], seed, 1), kind="stable")
    drawn = rows[drawn_first][:number].tolist()
    for row in drawn:
        batch.take(row)
    return sorted(drawn), number / len(rows)


def pick_unknown(
    request: Request,
    objectives: Sequence[Objective],
    open_to: NDArray[np.bool_],
    chosen: Sequence[int],
    batch: Batch,
    budget: int,
) -> list[int]:
    """Fill the quota of images in which the detector found nothing.

    What it missed altogether has no uncertainty, so an objective of uncertainty would never ask for
    it. The quota is spread over them by k-center, from what is labelled and chosen already; without
    embeddings it is drawn. It is empty unless some objective knows of images with boxes, and of
    none without.

    Args:
        request: The selection.
        objectives: Its objectives.
        open_to: bool [m], who may be picked; not changed.
        chosen: Candidates that are in the batch already.
        batch: Takes in who is picked.
        budget: How many the whole batch will have; the quota is a share of it, rounded.

    Returns:
        Candidates in the order of their picks.
    """
    found = request.pool.detections
    if found is None:
        return []
    empty = found.without_boxes[request.rows] & open_to
    some = np.flatnonzero(empty)
    others = np.flatnonzero(found.predicted[request.rows] & open_to & ~empty)

    def knows(objective: Objective, candidates: Rows) -> bool:
        return any(objective.known(int(candidate)) for candidate in candidates)

    if not len(some) or not any(knows(o, others) and not knows(o, some) for o in objectives):
        return []
    quota = min(int(request.config.unknown_share * budget + 0.5), budget - len(chosen))

    def accept(candidate: int) -> bool:
        return batch.accept(int(request.rows[candidate]))

    if batch.space:
        x, already = request.candidates(batch.space)
        centres = np.concatenate([already, x[list(chosen)]])
        picked, _ = greedy([Diversity(x, centres)], empty, quota, accept=accept)
        return [pick.candidate for pick in picked]
    order = np.random.Generator(np.random.PCG64([request.seed, 6])).permutation(some)
    taken: list[int] = []
    for candidate in order:
        if len(taken) < quota and accept(int(candidate)):
            taken.append(int(candidate))
    return taken
