"""What was chosen so far, and how far other rows can be from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.vectors.exact import Floats, Rows, product_error, squared_between, squared_norms
from visionloop.vectors.gathered import Matrix

# The first centres are landmarks: more of them rule out more, and cost more to keep.
_LANDMARKS = 256
# Values of one block of products: it stays in the second cache.
_BLOCK = 1 << 18
# Values of the table of distances between landmarks and centres, at most.
_TABLE = 1 << 24
# Values of the rows that are copied for one.
_COPIED = 1 << 22
# Where fewer products than this are left, ruling out by landmark pays.
_WORTH_SORTING = 0.7


@dataclass
class Looked:
    """What is known of each row's distance to the centres.

    Attributes:
        squared: float32 [m], at least the squared distance to the nearest of the centres seen.
        seen: int32 [m], how many centres that accounts for.
        landmark: int16 [m], the nearest landmark among those; 0 before any.
        reach: float32 [m], at least the distance to it; infinite before any.
    """

    squared: Floats
    seen: NDArray[np.int32]
    landmark: NDArray[np.int16]
    reach: Floats

    @classmethod
    def nothing(cls, m: int) -> Looked:
        """Return what is known of m rows before any centre."""
        return cls(
            np.full(m, np.inf, dtype=np.float32),
            np.zeros(m, dtype=np.int32),
            np.zeros(m, dtype=np.int16),
            np.full(m, np.inf, dtype=np.float32),
        )


class Centres:
    """The chosen rows in their order, after what was chosen before.

    Args:
        x: float32 [m, d], the rows that are chosen from.
        norms: float32 [m], their squared lengths.
        already: float32 [L, d], the centres before the first.
        k: At most so many are added.

    Attributes:
        count: Centres so far.
        landmarks: How many of the first centres are landmarks.
        error: How far a squared distance from a product can be from the true one.
    """

    def __init__(self, x: Matrix, norms: Floats, already: Floats, k: int) -> None:
        total = len(already) + k
        self._x = x
        self._row_norms = norms
        self._points = np.empty((total, x.shape[1]), dtype=np.float32)
        self._norms = np.empty(total, dtype=np.float32)
        self.count = len(already)
        self.landmarks = min(_LANDMARKS, total, max(8, _TABLE // max(1, total)))
        self._points[: self.count] = already
        self._norms[: self.count] = squared_norms(already)
        largest = max(
            float(norms.max(initial=0.0)), float(self._norms[: self.count].max(initial=0))
        )
        self.error = product_error(x.shape[1], largest)
        # At most the distance of each landmark to each centre; one that is not there yet rules out
        # nothing.
        self._apart = np.zeros((self.landmarks, total), dtype=np.float32)
        if self.count:
            self._measure(0, self.count)

    def add(self, row: int) -> int:
        """Add a row of x and return its number."""
        number = self.count
        self._points[number] = self._x[row]
        self._norms[number] = self._row_norms[row]
        self.count += 1
        self._measure(number, number + 1)
        return number

    def from_landmarks(self, number: int) -> Floats:
        """Return at most the distance of one centre to each landmark, float32 [landmarks]."""
        return np.asarray(self._apart[:, number])

    def _measure(self, start: int, stop: int) -> None:
        there = min(self.landmarks, self.count)
        squared = self._points[:there] @ self._points[start:stop].T
        squared *= -2.0
        squared += self._norms[:there, None]
        squared += self._norms[start:stop]
        squared -= self.error
        # A little less than the root, which is rounded too.
        apart = np.sqrt(np.maximum(squared, 0.0)) * np.float32(1 - 1e-6)
        self._apart[:there, start:stop] = apart
        if start < self.landmarks:
            own = slice(start, min(stop, self.landmarks))
            self._apart[own, :there] = apart[:, : own.stop - start].T[:, :there]

    def exactly(
        self, x: Floats, norms: Floats, landmark: NDArray[np.int16], limit: Floats
    ) -> Floats:
        """Return the squared distances to the nearest centre, float32 [b].

        Args:
            x: float32 [b, d].
            norms: float32 [b], squared lengths.
            landmark: int16 [b], a landmark of each row.
            limit: float32 [b]; a centre farther than this from it is not the nearest.
        """
        result = np.full(len(x), np.inf, dtype=np.float32)
        if not self.count:
            return result
        for b in range(len(x)):
            near = np.flatnonzero(self._apart[landmark[b], : self.count] <= limit[b])
            few = len(near) < self.count // 3
            points = self._points[near] if few else self._points[: self.count]
            own = self._norms[near] if few else self._norms[: self.count]
            fresh = points @ x[b]
            fresh *= -2.0
            fresh += own
            close = np.flatnonzero(fresh <= fresh.min() + 2 * self.error)
            exact = squared_between(points[close], x[b])
            result[b] = exact.min()
        return result

    def look(self, looked: Looked, rows: Rows) -> None:
        """Bring what is known of some rows up to date with all centres.

        Args:
            looked: Is changed.
            rows: Ascending.
        """
        if self.count > 2 * self.landmarks:
            # Whoever knows the nearest landmark is spared most of the others.
            self._see(looked, rows[looked.seen[rows] < self.landmarks], self.landmarks)
        self._see(looked, rows, self.count)

    def _see(self, looked: Looked, rows: Rows, until: int) -> None:
        if not len(rows):
            return
        seen = looked.seen[rows]
        groups = self._by_landmark(looked, rows, seen, until)
        if groups is None:
            # A few products of rows of like age; those a little younger see some centres twice.
            order = np.argsort(seen, kind="stable")
            groups = [
                (part, np.arange(int(looked.seen[part[0]]), until))
                for part in np.array_split(rows[order], min(4, max(1, len(rows) // 4096)))
            ]
        for part, centres in groups:
            if len(centres):
                self._compare(looked, part, centres)
        looked.seen[rows] = until

    def _by_landmark(
        self, looked: Looked, rows: Rows, seen: NDArray[np.int32], until: int
    ) -> list[tuple[Rows, Rows]] | None:
        """Return groups of rows and the centres that each has to see; None if those are most."""
        landmark = looked.landmark[rows]
        order = np.argsort(landmark, kind="stable")
        sorted_landmark = landmark[order]
        starts = np.flatnonzero(np.diff(sorted_landmark, prepend=-1))
        limit = (looked.reach[rows] + np.sqrt(looked.squared[rows]))[order]
        farthest = np.maximum.reduceat(limit, starts)
        oldest = np.minimum.reduceat(seen[order], starts)
        first = int(oldest.min())
        sizes = np.diff(starts, append=len(rows))
        near = self._apart[sorted_landmark[starts], first:until] < farthest[:, None]
        near &= np.arange(first, until) >= oldest[:, None]
        left = float((near.sum(axis=1) * sizes).sum())
        if left > _WORTH_SORTING * float((until - seen.astype(np.int64)).sum()):
            return None
        ordered = rows[order]
        return [
            (ordered[start : start + size], first + np.flatnonzero(some))
            for start, size, some in zip(starts, sizes, near, strict=True)
        ]

    def _compare(self, looked: Looked, rows: Rows, centres: Rows) -> None:
        points, half = self._points[centres], self._norms[centres] / 2
        first_landmarks = int(np.searchsorted(centres, self.landmarks))
        step = max(64, min(_BLOCK // len(centres), _COPIED // self._x.shape[1]))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            likeness = self._x[some] @ points.T
            likeness -= half
            everyone = np.arange(len(some))
            best = likeness.argmax(axis=1)
            norms = self._row_norms[some] + np.float32(self.error)
            fresh = np.maximum(norms - 2 * likeness[everyone, best], 0.0)
            looked.squared[some] = np.minimum(looked.squared[some], fresh)
            if first_landmarks:
                if first_landmarks < len(centres):
                    best = likeness[:, :first_landmarks].argmax(axis=1)
                reach = np.sqrt(np.maximum(norms - 2 * likeness[everyone, best], 0.0))
                shorter = reach < looked.reach[some]
                looked.reach[some[shorter]] = reach[shorter]
                looked.landmark[some[shorter]] = centres[best[shorter]]
