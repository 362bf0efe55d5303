"""The greedy rule with diversity, exact, without looking at every candidate at every step.

A candidate's distance to the chosen ones only shrinks as more are chosen, so a distance computed
some picks ago is an upper bound of today's (Minoux, "Accelerated greedy algorithms", 1978). Three
kinds of bound are tightened only where they could decide:

- The picks come from a small active set, whose bounds account for every pick. The others are
  looked at again, in matrix products, only when a bound of theirs reaches the best of the active
  set.
- Who is looked at again is compared only with picks that can be nearer than its bound: the first
  picks are landmarks, and a pick farther from a row's landmark than the row's distance to it plus
  the row's bound is not (triangle inequality; Elkan, "Using the triangle inequality to accelerate
  k-means", 2003).
- A bound from a product is off by its rounding. It is replaced by the exact distance
  (`visionloop.vectors.exact`) before its row is picked. So picks depend neither on block sizes nor
  on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.centres import Centres, Looked
from visionloop.vectors.exact import Floats, Rows, squared_between, squared_norms
from visionloop.vectors.gathered import Matrix

NEVER = -np.inf

Score = Callable[[Rows, Floats], NDArray[np.float64]]

# Bounds of the active set that are made exact one at a time before a batch of them is.
_SINGLES = 3


def lazy_greedy(
    x: Matrix,
    already: Floats,
    k: int,
    *,
    score: Score,
    accept: Callable[[int], bool],
    active: int = 0,
) -> Iterator[tuple[int, float]]:
    """Pick up to k rows, each the one of the largest score given all picks before it.

    Between two picks the whole state is in the rows yielded and refused so far: a call that has the
    former in `already` and gives both no score goes on with the same picks.

    Args:
        x: float32 [m, d].
        already: float32 [L, d], what was chosen before.
        k: How many.
        score: Maps rows and their squared distances to the nearest of what was chosen (infinite
            where nothing was) to totals; must not grow when a distance shrinks. Rows that must not
            be picked get minus infinity. Equal totals go to the smallest row.
        accept: Asked at the moment of the pick; who is refused is not asked about again.
        active: Size of the active set; 0 chooses one. Of no influence on the picks.

    Yields:
        The row and its squared distance at the step of its pick (infinite when nothing was chosen).

    Cost: between O(m·d + k·active·d) and O(k·m·d). Memory: the active set's rows, the centres'
    rows and about 40 bytes a candidate, beside x.
    """
    state = _Lazy(x, already, score, k, active or _active_size(len(x), k))
    picked = 0
    while picked < k:
        best = state.best()
        if best is None:
            return
        row, distance = best
        state.remove(row)
        if accept(row):
            yield row, distance
            picked += 1
            if picked < k:
                state.choose(row)


def radius(x: Floats, centres: Floats) -> float:
    """Return the largest distance of a row to its nearest centre; infinite without a centre.

    That is the distance of the next pick of k-center, so most rows are compared with few centres.

    Args:
        x: float32 [m, d].
        centres: float32 [c, d].
    """
    if not len(centres):
        return float("inf")

    def score(_rows: Rows, squared: Floats) -> NDArray[np.float64]:
        return squared.astype(np.float64)

    found = next(lazy_greedy(x, centres, 1, score=score, accept=lambda _: True), None)
    return 0.0 if found is None else float(np.sqrt(np.float32(found[1])))


@dataclass
class _Active:
    """The candidates that picks come from, in ascending order of their rows."""

    rows: Rows
    x: Floats
    norms: Floats
    squared: Floats  # upper bounds; the distances themselves where exact
    exact: NDArray[np.bool_]
    totals: NDArray[np.float64]
    landmark: NDArray[np.int16]
    reach: Floats  # distance to the landmark, from above
    limit: Floats  # a pick farther than this from the landmark is not nearer than `squared`


class _Lazy:
    def __init__(self, x: Matrix, already: Floats, score: Score, k: int, size: int) -> None:
        m = len(x)
        self._x = x
        self._score = score
        self._size = size
        self._norms = squared_norms(x)
        self._centres = Centres(x, self._norms, already, k)
        self._looked = Looked.nothing(m)
        self._exact = np.ones(m, dtype=np.bool_)  # infinity is exact while nothing was chosen
        self._totals = score(np.arange(m), self._looked.squared)  # bounds outside the active set
        self._open = np.ones(m, dtype=np.bool_)
        self._active = _nothing(x)
        self._rebuild()

    def best(self) -> tuple[int, float] | None:
        """Return the row of the largest total and its squared distance; None when none is left."""
        tries = 0
        while True:
            active = self._active
            place = int(active.totals.argmax()) if len(active.rows) else -1
            total = active.totals[place] if place >= 0 else NEVER
            row = int(active.rows[place]) if place >= 0 else len(self._x)
            # Outside, an equal bound of a smaller row may be an equal total.
            if self._outside < total or (self._outside == total and self._outside_row > row):
                if total == NEVER:
                    return None
                if active.exact[place]:
                    return row, float(active.squared[place])
                self._make_exact(place, tries)
                tries += 1
            elif self._outside == NEVER:
                return None
            else:
                self._look_again(total)

    def remove(self, row: int) -> None:
        """Take a row out of the question."""
        self._open[row] = False
        place = int(np.searchsorted(self._active.rows, row))
        self._active.totals[place] = NEVER

    def choose(self, row: int) -> None:
        """Shorten the active set's bounds to the distance to the row; the others' stay bounds."""
        active, centres = self._active, self._centres
        number = centres.add(row)
        near = np.flatnonzero(centres.from_landmarks(number)[active.landmark] < active.limit)
        few = len(near) < len(active.rows) // 3
        fresh = (active.x[near] if few else active.x) @ self._x[row]
        if not few:
            fresh = fresh[near]
        fresh *= -2.0
        fresh += active.norms[near]
        fresh += self._norms[row]
        self._landmark(number, near, fresh)
        error = centres.error
        maybe = (active.totals[near] > NEVER) & (fresh - error < active.squared[near])
        near, fresh = near[maybe], fresh[maybe]
        exact = active.exact[near]
        fresh[exact] = squared_between(active.x[near[exact]], self._x[row])
        fresh[~exact] += error
        closer = fresh < active.squared[near]
        near, fresh = near[closer], np.maximum(fresh[closer], 0.0)
        active.squared[near] = fresh
        active.limit[near] = active.reach[near] + np.sqrt(fresh)
        active.totals[near] = self._score(active.rows[near], fresh)

    def _landmark(self, number: int, near: Rows, fresh: Floats) -> None:
        if number >= self._centres.landmarks:
            return
        active = self._active
        reach = np.sqrt(np.maximum(fresh + self._centres.error, 0.0))
        shorter = reach < active.reach[near]
        near, reach = near[shorter], reach[shorter]
        active.landmark[near] = number
        active.reach[near] = reach
        active.limit[near] = reach + np.sqrt(active.squared[near])

    def _make_exact(self, place: int, tries: int) -> None:
        """Replace bounds by distances: that of one candidate, after some tries of more and more."""
        active = self._active
        places = np.array([place])
        if tries >= _SINGLES:
            open_places = np.flatnonzero(~active.exact & (active.totals > NEVER))
            batch = min(len(open_places), 8 << min(tries, 10))
            largest = np.argpartition(active.totals[open_places], -batch)[-batch:]
            places = open_places[largest]
        active.squared[places] = self._centres.exactly(
            active.x[places],
            active.norms[places],
            active.landmark[places],
            active.limit[places],
        )
        active.exact[places] = True
        active.totals[places] = self._score(active.rows[places], active.squared[places])

    def _look_again(self, total: float) -> None:
        """Bring those up to date whose bound reaches `total`, and form the active set anew.

        More than an active set holds are looked at, so that it lasts for some picks.
        """
        self._store()
        stale = np.flatnonzero((self._totals > NEVER) & (self._looked.seen < self._centres.count))
        wanted = 4 * self._size
        bounds = self._totals[stale]
        if len(stale) > wanted:
            total = min(total, float(np.partition(bounds, -wanted)[-wanted]))
        else:
            total = NEVER
        stale = stale[bounds >= total]
        self._centres.look(self._looked, stale)
        self._exact[stale] = False
        self._totals[stale] = self._score(stale, self._looked.squared[stale])
        self._rebuild()

    def _store(self) -> None:
        active = self._active
        rows = active.rows
        self._looked.squared[rows] = active.squared
        self._looked.landmark[rows] = active.landmark
        self._looked.reach[rows] = active.reach
        self._looked.seen[rows] = self._centres.count
        self._exact[rows] = active.exact
        self._totals[rows] = active.totals

    def _rebuild(self) -> None:
        self._totals[~self._open] = NEVER
        up_to_date = np.flatnonzero(
            (self._looked.seen == self._centres.count) & (self._totals > NEVER)
        )
        if len(up_to_date) > self._size:
            totals = self._totals[up_to_date]
            least = np.partition(totals, -self._size)[-self._size]
            above = up_to_date[totals > least]
            # Of equals the smallest rows, or `best` would wait for them forever.
            equal = up_to_date[totals == least][: self._size - len(above)]
            up_to_date = np.sort(np.concatenate([above, equal]))
        del self._active  # its rows are freed before the next ones are copied
        squared, reach = self._looked.squared[up_to_date], self._looked.reach[up_to_date]
        self._active = _Active(
            up_to_date,
            self._x[up_to_date],
            self._norms[up_to_date],
            squared,
            self._exact[up_to_date],
            self._totals[up_to_date],
            self._looked.landmark[up_to_date],
            reach,
            reach + np.sqrt(squared),
        )
        self._totals[up_to_date] = NEVER  # they are not outside
        self._find_outside()

    def _find_outside(self) -> None:
        self._outside_row = int(self._totals.argmax()) if len(self._totals) else 0
        self._outside = float(self._totals[self._outside_row]) if len(self._totals) else NEVER


def _nothing(x: Matrix) -> _Active:
    rows = np.zeros(0, dtype=np.intp)
    floats = np.zeros(0, dtype=np.float32)
    return _Active(
        rows,
        x[:0],
        floats,
        floats,
        floats > 0,
        floats.astype(np.float64),
        rows.astype(np.int16),
        floats,
        floats,
    )


def _active_size(m: int, k: int) -> int:
    # Large enough that a look outside is rare, small enough that a pick stays cheap.
    return int(min(m, max(256, m // 32, 2 * k)))
