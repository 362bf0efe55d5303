"""The greedy rule with diversity, exact, without looking at every candidate at every step.

A candidate's distance to the chosen ones only shrinks as more are chosen, so a distance computed
some picks ago is an upper bound of today's (Minoux, "Accelerated greedy algorithms", 1978). The
picks come from a small active set, whose distances are kept up to date; the others are looked at
again, in one matrix product, only when a bound of theirs beats the best of the active set.

On clustered embeddings this computes about a fifth of the n·k distances, and those as matrix
products, which run at several times the speed of the memory-bound product of a matrix and a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.neighbours import Floats, blocks

NEVER = -np.inf


@dataclass
class _Active:
    """The candidates that picks come from, in ascending order of their rows."""

    rows: NDArray[np.intp]
    x: Floats
    squared: Floats
    totals: NDArray[np.float64]


def lazy_greedy(
    x: Floats,
    squared: Floats,
    k: int,
    *,
    score: Callable[[NDArray[np.intp], Floats], NDArray[np.float64]],
    accept: Callable[[int], bool],
    active: int = 0,
) -> Iterator[tuple[int, float]]:
    """Pick up to k rows, each the one of the largest score given all picks before it.

    Args:
        x: float32 [m, d].
        squared: float32 [m], squared distance to the nearest of what was chosen before; infinite
            where nothing was. Not changed.
        k: How many.
        score: Maps rows and their squared distances to totals; must not grow when a distance
            shrinks. Rows that must not be picked get minus infinity. Equal totals go to the
            smallest row.
        accept: Asked at the moment of the pick; who is refused is not asked about again.
        active: Size of the active set; 0 chooses one.

    Yields:
        The row and its squared distance at the step of its pick (infinite when nothing was chosen).

    Cost: between O(m·d + k·active·d) and O(k·m·d).
    """
    state = _Lazy(x, squared.copy(), score, active or _active_size(len(x), k))
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


class _Lazy:
    def __init__(
        self,
        x: Floats,
        squared: Floats,
        score: Callable[[NDArray[np.intp], Floats], NDArray[np.float64]],
        size: int,
    ) -> None:
        m = len(x)
        self._x = x
        self._score = score
        self._size = size
        self._squared = squared
        self._norms = np.einsum("ij,ij->i", x, x)
        self._totals = score(np.arange(m), squared)  # bounds outside the active set
        self._applied = np.zeros(m, dtype=np.int32)  # picks that a row's distance accounts for
        self._chosen: list[int] = []
        self._open = np.ones(m, dtype=np.bool_)
        self._rebuild()

    def best(self) -> tuple[int, float] | None:
        """Return the row of the largest total and its squared distance; None when none is left."""
        while True:
            place = int(self._active.totals.argmax()) if len(self._active.rows) else -1
            total = self._active.totals[place] if place >= 0 else NEVER
            row = int(self._active.rows[place]) if place >= 0 else len(self._x)
            # Outside, an equal bound of a smaller row may be an equal total.
            if self._outside < total or (self._outside == total and self._outside_row > row):
                return None if total == NEVER else (row, float(self._active.squared[place]))
            if self._outside == NEVER:
                return None
            self._look_again(total)

    def remove(self, row: int) -> None:
        """Take a row out of the question."""
        self._open[row] = False
        place = int(np.searchsorted(self._active.rows, row))
        self._active.totals[place] = NEVER

    def choose(self, row: int) -> None:
        """Shorten the active set's distances to the chosen row's; the others' stay bounds."""
        active = self._active
        self._chosen.append(row)
        fresh = active.x @ self._x[row]
        fresh *= -2.0
        fresh += self._norms[active.rows]
        fresh += self._norms[row]
        np.maximum(fresh, 0.0, out=fresh)
        closer = np.flatnonzero((fresh < active.squared) & (active.totals > NEVER))
        active.squared[closer] = fresh[closer]
        active.totals[closer] = self._score(active.rows[closer], active.squared[closer])

    def _look_again(self, total: float) -> None:
        """Bring those up to date whose bound reaches `total`, and form the active set anew.

        At least as many as an active set holds are looked at, so that it lasts for some picks.
        """
        self._store()
        stale = np.flatnonzero((self._totals > NEVER) & (self._applied < len(self._chosen)))
        bounds = self._totals[stale]
        if len(stale) > self._size:
            total = min(total, float(np.partition(bounds, -self._size)[-self._size]))
        stale = stale[bounds >= total]
        # A few products of rows of like age; those a little younger see some picks twice.
        stale = stale[np.argsort(self._applied[stale], kind="stable")]
        for rows in np.array_split(stale, min(4, max(1, len(stale) // 256))):
            if len(rows):
                self._refresh(rows, int(self._applied[rows[0]]))
        self._rebuild()

    def _refresh(self, rows: NDArray[np.intp], applied: int) -> None:
        newer = self._chosen[applied:]
        centres, norms = self._x[newer], self._norms[newer]
        for part in blocks(len(rows), max(len(newer), self._x.shape[1])):
            some = rows[part]
            fresh = self._x[some] @ centres.T
            fresh *= -2.0
            fresh += norms[None, :]
            nearest = fresh.min(axis=1) + self._norms[some]
            self._squared[some] = np.minimum(self._squared[some], np.maximum(nearest, 0.0))
        self._applied[rows] = len(self._chosen)
        self._totals[rows] = self._score(rows, self._squared[rows])

    def _store(self) -> None:
        rows = self._active.rows
        self._squared[rows] = self._active.squared
        self._totals[rows] = self._active.totals
        self._applied[rows] = len(self._chosen)

    def _rebuild(self) -> None:
        self._totals[~self._open] = NEVER
        up_to_date = np.flatnonzero((self._applied == len(self._chosen)) & (self._totals > NEVER))
        if len(up_to_date) > self._size:
            totals = self._totals[up_to_date]
            least = np.partition(totals, -self._size)[-self._size]
            above = up_to_date[totals > least]
            # Of equals the smallest rows, or `best` would wait for them forever.
            equal = up_to_date[totals == least][: self._size - len(above)]
            up_to_date = np.sort(np.concatenate([above, equal]))
        self._active = _Active(
            up_to_date,
            self._x[up_to_date],
            self._squared[up_to_date].copy(),
            self._totals[up_to_date].copy(),
        )
        self._totals[up_to_date] = NEVER  # they are not outside
        self._outside_row = int(self._totals.argmax()) if len(self._totals) else 0
        self._outside = float(self._totals[self._outside_row]) if len(self._totals) else NEVER


def _active_size(m: int, k: int) -> int:
    # Large enough that a look outside is rare, small enough that a pick stays in the cache.
    return int(min(m, max(256, m // 64, 2 * k)))
