"""Cells: rows that lie together, so that most pairs of rows need not be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionloop.vectors.exact import Floats, Rows, product_error, squared_norms
from visionloop.vectors.gathered import Matrix
from visionloop.vectors.phases import steps

_SAMPLE_PER_CELL = 40  # as faiss takes for its coarse cells: at least 39
_ROUNDS = 4
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Cells:
    """A partition of rows, each in the cell of the centre nearest to it.

    Attributes:
        centres: float32 [c, d].
        member: int32 [n], the cell of each row.
        order: intp [n], rows sorted by cell, ascending within one.
        starts: intp [c + 1], where each cell begins in `order`.
        radius: float32 [c], at least the largest distance of a member to the centre.
    """

    centres: Floats
    member: NDArray[np.int32]
    order: Rows
    starts: Rows
    radius: Floats

    def rows(self, cell: int) -> Rows:
        """Return the members of a cell, ascending."""
        return self.order[self.starts[cell] : self.starts[cell + 1]]

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.centres)


def cells_of(x: Floats, number: int, *, seed: int = 0) -> Cells:
    """Part rows into cells by a few rounds of Lloyd's algorithm on a sample.

    Args:
        x: float32 [n, d].
        number: At most so many cells; those that stay empty are left out.
        seed: Of the sample.

    Cost O(n·number·d). Memory: O(n + number·d), beside x.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    number = max(1, min(number, len(x)))
    sample = x[np.sort(rng.permutation(len(x))[: _SAMPLE_PER_CELL * number])]
    centres = sample[np.sort(rng.permutation(len(sample))[:number])]
    for _ in steps("cells", range(_ROUNDS)):
        member, squared = assign(sample, centres)
        centres = means(sample, member, squared, centres)
    member, _ = assign(x, centres)
    there, member = np.unique(member, return_inverse=True)
    centres = centres[there]
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], np.arange(len(centres) + 1))
    # The assignment's own distances are enough for choosing a cell; a radius has to be safe.
    squared = assign(x, centres)[1] + np.float32(_error(x, centres))
    radius = np.sqrt(np.maximum.reduceat(squared[order], starts[:-1]))
    return Cells(centres, member.astype(np.int32), order, starts, radius)


def assign(x: Matrix, centres: Floats) -> tuple[Rows, Floats]:
    """Return the nearest centre of each row and the squared distance to it, from products."""
    who = np.empty(len(x), dtype=np.intp)
    squared = np.empty(len(x), dtype=np.float32)
    half = squared_norms(centres) / 2
    step = max(256, _BLOCK // len(centres))
    for start in steps("nearest centres", range(0, len(x), step)):
        part = slice(start, start + step)
        some = x[part]
        likeness = some @ centres.T
        likeness -= half
        best = likeness.argmax(axis=1)
        who[part] = best
        squared[part] = squared_norms(some) - 2 * likeness[np.arange(len(best)), best]
    return who, np.maximum(squared, 0.0)


def means(x: Floats, member: Rows, squared: Floats, centres: Floats) -> Floats:
    """Return the mean of each centre's rows.

    A centre that lost its rows moves to one of the rows that fit worst.

    Args:
        x: float32 [n, d].
        member: intp [n], the centre of each row.
        squared: float32 [n], its squared distance.
        centres: float32 [c, d].
    """
    counts = np.bincount(member, minlength=len(centres))
    order = np.argsort(member, kind="stable")
    present = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])[present]
    result = centres.copy()
    result[present] = np.add.reduceat(x[order], starts, axis=0) / counts[present, None]
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        result[empty] = x[np.argsort(-squared, kind="stable")[: len(empty)]]
    return result


def within_reach(x: Floats, cells: Cells, distance: float) -> Iterator[tuple[int, Rows]]:
    """Yield each cell with all rows that can be within a distance of one of its members.

    By the triangle inequality those are at most the cell's radius and the distance away from its
    centre. Only rows of the same and of later cells are yielded: every pair comes once.

    Args:
        x: float32 [n, d].
        cells: Of these rows.
        distance: Euclidean.
    """
    norms = squared_norms(x)[cells.order]
    centre_norms = squared_norms(cells.centres)
    error = np.float32(_error(x, cells.centres))
    limits = (cells.radius + np.float32(distance)) ** 2 * np.float32(1 + 1e-6) + error
    step = max(1, (1 << 23) // max(1, len(x)))
    for first in range(0, len(cells), step):
        some = slice(first, min(first + step, len(cells)))
        begin = cells.starts[first]
        later = cells.order[begin:]
        squared = _products(x, later, cells.centres[some])
        squared *= -2.0
        squared += centre_norms[some, None]
        squared += norms[begin:]
        for i, cell in enumerate(range(some.start, some.stop)):
            from_here = int(cells.starts[cell] - begin)
            near = np.flatnonzero(squared[i, from_here:] <= limits[cell])
            yield cell, later[from_here + near]


def _products(x: Floats, rows: Rows, centres: Floats) -> Floats:
    result = np.empty((len(centres), len(rows)), dtype=np.float32)
    for start in range(0, len(rows), 1 << 14):
        part = slice(start, start + (1 << 14))
        result[:, part] = (x[rows[part]] @ centres.T).T
    return result


def _error(x: Floats, centres: Floats) -> float:
    largest = max(float(squared_norms(x).max(initial=0)), float(squared_norms(centres).max()))
    return product_error(x.shape[1], largest)
