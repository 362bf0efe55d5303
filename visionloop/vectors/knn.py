"""The nearest neighbours of every row among the others, with the recall that was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.vectors.cells import Cells, cells_of
from visionloop.vectors.exact import Floats, Rows, squared_norms
from visionloop.vectors.phases import steps

# Up to so many rows all pairs are compared: cells would hardly be faster.
_ALL_PAIRS = 20_000
_TILE = 2048
_BLOCK = 1 << 20
# Queries whose true neighbours tell the recall; twice as many tell how many cells to search.
_QUERIES = 1024
# By so many standard errors their recall has to pass what is asked for.
_ERRORS = 2.0


@dataclass(frozen=True)
class Neighbours:
    """The k nearest other rows of each row.

    Attributes:
        rows: intp [n, k], nearest first.
        distances: float32 [n, k], Euclidean, computed from differences.
        recall: Share of the true neighbours that was found, measured on a sample of rows that had
            no say in the choice of the cells; 1 where all pairs were compared.
        compared: Share of all pairs that was compared.
    """

    rows: Rows
    distances: Floats
    recall: float
    compared: float


def nearest_neighbours(x: Floats, k: int, *, recall: float = 0.99, seed: int = 0) -> Neighbours:
    """Find the k nearest other rows of every row.

    Up to 20,000 rows all pairs are compared. Beyond, rows are parted into √n cells, and a row is
    compared with the rows of the cells nearest to it: as many as a sample of rows needs to find the
    wanted share of their true neighbours (an inverted file; Jégou, Douze & Schmid, "Product
    Quantization for Nearest Neighbor Search", 2011, with the number of probes measured instead of
    set). Where that takes most cells, all pairs are compared.

    Args:
        x: float32 [n, d].
        k: How many; n - 1 where there are fewer.
        recall: Share of the true neighbours to find, above 0 and up to 1.
        seed: Of the cells and the sample.

    Cost O(n·p·d) for p rows in the cells searched, n of them at worst. Memory O(n·(k + cells
    searched)), beside x.
    """
    n = len(x)
    k = min(k, n - 1)
    if k < 1:
        return Neighbours(np.zeros((n, 0), dtype=np.intp), np.zeros((n, 0), np.float32), 1.0, 0.0)
    half = np.float32(0.5) * squared_norms(x)
    best = _Best(x, half, np.arange(n), k)
    if n > _ALL_PAIRS and recall < 1.0:
        cells = cells_of(x, int(np.sqrt(n)), seed=seed)
        probes, measured = _probes(x, half, cells, k, recall, seed)
        if probes <= len(cells) // 2:
            compared = _search(best, cells, _nearest_cells(x, cells, probes))
            return Neighbours(*best.ordered(), measured, compared)
    _compare_all(best)
    return Neighbours(*best.ordered(), 1.0, 1.0)


def smallest(values: Floats, k: int) -> Rows:
    """Return the columns of the k smallest values of each row, in no order, intp [m, k].

    The k-th smallest of the minima of a row's groups is at least its k-th smallest value, so most
    values are ruled out by one comparison. Several times faster than a partition of whole rows.

    Args:
        values: float32 [m, n], n at least k.
        k: How many, at least 1.
    """
    m, n = values.shape
    groups = 4 * k
    size = n // groups
    if size < 4:
        return np.asarray(np.argpartition(values, k - 1, axis=1)[:, :k])
    minima = values[:, : groups * size].reshape(m, size, groups).min(axis=1)
    limit = np.partition(minima, k - 1, axis=1)[:, k - 1]
    flat = np.flatnonzero(values <= limit[:, None])
    row, column = flat // n, flat % n
    counts = np.bincount(row, minlength=m)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    left = np.full((m, int(counts.max())), np.inf, dtype=np.float32)
    left[row, place] = values.reshape(-1)[flat]
    columns = np.zeros(left.shape, dtype=np.intp)
    columns[row, place] = column
    best = np.argpartition(left, k - 1, axis=1)[:, :k]
    return np.take_along_axis(columns, best, axis=1)


class _Best:
    """The nearest rows that some queries have met so far.

    Args:
        x: float32 [n, d].
        half: float32 [n], half of the squared lengths.
        queries: The rows that look for neighbours.
        k: How many each keeps.
    """

    def __init__(self, x: Floats, half: Floats, queries: Rows, k: int) -> None:
        self._x = x
        self._half = half
        self.queries = queries
        self.k = k
        # Half the squared distance, less half the query's squared length.
        self._values = np.full((len(queries), k), np.inf, dtype=np.float32)
        self._limit = np.full(len(queries), np.inf, dtype=np.float32)
        self.rows = np.full((len(queries), k), -1, dtype=np.intp)

    def look(self, places: Rows, others: Rows) -> None:
        """Compare the queries at some places with some rows, ascending, but not with themselves."""
        for start in range(0, len(others), _TILE):
            self._look(places, others[start : start + _TILE])

    def _look(self, places: Rows, others: Rows) -> None:
        points, half = self._x[others], self._half[others]
        step = max(16, _BLOCK // len(others))
        for start in range(0, len(places), step):
            some = places[start : start + step]
            rows = self.queries[some]
            block = half - self._x[rows] @ points.T
            own = np.minimum(np.searchsorted(others, rows), len(others) - 1)
            itself = np.flatnonzero(others[own] == rows)
            block[itself, own[itself]] = np.inf
            hit = np.flatnonzero((block < self._limit[some, None]).any(axis=1))
            if not len(hit):
                continue
            some = some[hit]
            values = np.concatenate([self._values[some], block[hit]], axis=1)
            columns = smallest(values, self.k)
            kept = np.take_along_axis(values, columns, axis=1)
            before = np.take_along_axis(self.rows[some], np.minimum(columns, self.k - 1), axis=1)
            fresh = others[np.maximum(columns - self.k, 0)]
            self.rows[some] = np.where(columns < self.k, before, fresh)
            self._values[some] = kept
            self._limit[some] = kept.max(axis=1)

    def incomplete(self) -> Rows:
        """Return the places of the queries that have met fewer than k rows, and forget those."""
        places = np.flatnonzero(np.isinf(self._limit))
        self._values[places] = np.inf
        return places

    def ordered(self) -> tuple[Rows, Floats]:
        """Return the neighbours by distance, equals by row, and the distances, from differences."""
        found = self.rows
        squared = np.empty(found.shape, dtype=np.float32)
        step = max(1, _BLOCK // (found.shape[1] * self._x.shape[1]))
        for start in range(0, len(found), step):
            part = slice(start, start + step)
            difference = self._x[found[part]]
            difference -= self._x[self.queries[part], None]
            squared[part] = np.einsum("ijk,ijk->ij", difference, difference)
        order = np.lexsort((found, squared), axis=1)
        found = np.take_along_axis(found, order, axis=1)
        return found, np.sqrt(np.take_along_axis(squared, order, axis=1))


def _compare_all(best: _Best) -> None:
    n = len(best.queries)
    for left in steps("neighbours", range(0, n, _TILE)):
        places = np.arange(left, min(n, left + _TILE))
        # Its own tile first: near rows often lie near in order, and a low limit rules out more.
        for right in [left, *range(0, left, _TILE), *range(left + _TILE, n, _TILE)]:
            best.look(places, np.arange(right, min(n, right + _TILE)))


def _search(best: _Best, cells: Cells, nearest: NDArray[np.int32]) -> float:
    """Compare each row with those of its nearest cells; return the share of all pairs."""
    n = len(best.queries)
    sizes = np.diff(cells.starts)
    compared = 0
    # The nearest cells first: with good neighbours at hand few rows of the others are looked at.
    for first, last in ((0, 1), (1, 4), (4, nearest.shape[1])):
        asked = nearest[:, first:last]
        order = np.argsort(asked, axis=None, kind="stable")
        bounds = np.searchsorted(asked.reshape(-1)[order], np.arange(len(cells) + 1))
        for cell in steps("neighbours", range(len(cells))):
            places = order[bounds[cell] : bounds[cell + 1]] // max(1, asked.shape[1])
            if len(places):
                best.look(places, cells.rows(cell))
                compared += len(places) * int(sizes[cell])
    # In small cells a row may have met fewer than k others.
    alone = best.incomplete()
    if len(alone):
        best.look(alone, np.arange(n))
    return compared / n**2 + len(alone) / n


def _apart(x: Floats, cells: Cells) -> Floats:
    """Return squared distances to the cells' centres, less the rows' squared lengths."""
    apart = x @ cells.centres.T
    apart *= -2.0
    apart += squared_norms(cells.centres)
    return apart


def _nearest_cells(x: Floats, cells: Cells, probes: int) -> NDArray[np.int32]:
    """Return the nearest cells of each row, nearest first, int32 [n, probes]."""
    result = np.empty((len(x), probes), dtype=np.int32)
    step = max(16, _BLOCK // len(cells))
    for start in range(0, len(x), step):
        apart = _apart(x[start : start + step], cells)
        found = smallest(apart, probes)
        order = np.argsort(np.take_along_axis(apart, found, axis=1), axis=1, kind="stable")
        result[start : start + step] = np.take_along_axis(found, order, axis=1)
    return result


def _probes(
    x: Floats, half: Floats, cells: Cells, k: int, recall: float, seed: int
) -> tuple[int, float]:
    """Return how many cells to search, and the recall that this has on other queries."""
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    queries = rng.permutation(len(x))[: 3 * _QUERIES]
    truth = _Best(x, half, queries, k)
    truth.look(np.arange(len(queries)), np.arange(len(x)))
    nearest = _nearest_cells(x[queries], cells, len(cells))
    rank = np.empty_like(nearest)
    np.put_along_axis(rank, nearest, np.arange(len(cells), dtype=np.int32)[None, :], axis=1)
    # How many cells have to be searched until each true neighbour is found.
    needed = np.take_along_axis(rank, cells.member[truth.rows], axis=1) + 1
    probes = _enough(needed[:-_QUERIES], recall, len(cells))
    judging = needed[-_QUERIES:]
    while float((judging <= probes).mean()) < recall:
        probes += 1
    return probes, float((judging <= probes).mean())


def _enough(needed: NDArray[np.int32], recall: float, cells: int) -> int:
    """Return the fewest cells whose recall is as wanted for all rows, as far as a sample tells.

    The neighbours of one row are found or missed together, so rows are what is drawn: their mean
    recall has to pass by `_ERRORS` standard errors.
    """
    low, high = 1, cells
    while low < high:
        probes = (low + high) // 2
        found = (needed <= probes).mean(axis=1)
        error = float(found.std()) / np.sqrt(len(found))
        if float(found.mean()) - _ERRORS * error >= recall:
            high = probes
        else:
            low = probes + 1
    return low
