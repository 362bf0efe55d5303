"""Some rows of matrices, one below the other, without a second copy of them in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

_BLOCK = 1 << 20  # values that are gathered at a time


class Gathered:
    """Rows that lie in other matrices, copied only where they are asked for.

    What it offers is what exact k-center and k-means ask of a matrix: its rows by number, list or
    slice, and products of all rows with one vector.

    Args:
        parts: Each a float32 [n, d] and those of its rows that belong here, or None for all.

    Attributes:
        shape: (m, d).
    """

    def __init__(self, *parts: tuple[Floats, Rows | None]) -> None:
        self._parts = [(x, rows) for x, rows in parts if len(x if rows is None else rows)]
        counts = [len(x if rows is None else rows) for x, rows in self._parts]
        self._starts = np.cumsum([0, *counts])
        self.shape = (int(self._starts[-1]), parts[0][0].shape[1])

    def above(self, x: Floats) -> Gathered:
        """Return these rows and below them those of another matrix."""
        return Gathered(*self._parts, (x, None)) if self._parts else Gathered((x, None))

    def __len__(self) -> int:
        """Return m."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> Floats:
        """Return a copy of the rows that a number, a slice or an array of numbers names."""
        if isinstance(key, slice):
            key = np.arange(*key.indices(len(self)))
        where = np.asarray(key, dtype=np.intp)
        if len(self._parts) == 1:
            return self._take(0, where)
        result = np.empty((*where.shape, self.shape[1]), dtype=np.float32)
        part = np.searchsorted(self._starts, where, side="right") - 1
        for number in range(len(self._parts)):
            mine = part == number
            result[mine] = self._take(number, where[mine] - self._starts[number])
        return result

    def _take(self, number: int, where: Rows) -> Floats:
        x, rows = self._parts[number]
        taken: Floats = x[where] if rows is None else x[rows[where]]
        return taken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all rows, copied."""
        return np.asarray(self[:], dtype=dtype)

    def __matmul__(self, vector: Floats) -> Floats:
        """Return the products of all rows with one vector, float32 [m]."""
        found = [x @ vector if rows is None else (x @ vector)[rows] for x, rows in self._parts]
        return np.concatenate(found)

    def dots(self, vector: Floats) -> Floats:
        """Return the same, each added up in one order whatever the number of threads."""
        found = []
        for x, rows in self._parts:
            products = np.einsum("ij,j->i", x, vector)
            found.append(products if rows is None else products[rows])
        return np.concatenate(found)

    def squared_norms(self) -> Floats:
        """Return the squared lengths of the rows, float32 [m]."""
        result = np.empty(len(self), dtype=np.float32)
        step = max(1, _BLOCK // max(1, self.shape[1]))
        for start in range(0, len(self), step):
            some = self[start : start + step]
            result[start : start + step] = np.einsum("ij,ij->i", some, some)
        return result


Matrix = Floats | Gathered


def below(x: Matrix, y: Floats) -> Matrix:
    """Return the rows of one matrix and below them those of another, without a copy."""
    if not len(y):
        return x
    return x.above(y) if isinstance(x, Gathered) else Gathered((x, None), (y, None))


def dots(x: Matrix, vector: Floats) -> Floats:
    """Return the products of rows with a vector, added up in one order whatever the threads."""
    if isinstance(x, Gathered):
        return x.dots(vector)
    return np.asarray(np.einsum("ij,j->i", x, vector))
