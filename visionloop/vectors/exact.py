"""Distances that do not depend on how they were computed.

A matrix product rounds differently with every block size, thread count and processor, by a last bit
that must not decide between two samples. So a product only says how large a distance can be at
most, and wherever that could decide, the distance is computed anew: the sum of squared differences
in float64, rounded to float32. Two distances that are equal then are a tie.
"""

from __future__ import annotations

import numpy as np

from visionloop.vectors.gathered import Floats as Floats
from visionloop.vectors.gathered import Gathered, Matrix
from visionloop.vectors.gathered import Rows as Rows
from visionloop.vectors.phases import steps

_PAIRS = 1 << 12  # differences are formed for so many pairs at a time, to stay in the cache


def squared_norms(x: Matrix) -> Floats:
    """Return the squared lengths of the rows, float32 [n]. Cost O(n·d)."""
    if isinstance(x, Gathered):
        return x.squared_norms()
    return np.asarray(np.einsum("ij,ij->i", x, x), dtype=np.float32)


def product_error(dimension: int, largest_norm: float) -> float:
    """Return how far a squared distance from a float32 product can be from the true one.

    `|a|² + |b|² - 2ab` has three sums of d products, each off by at most g = d·u/(1 - d·u) times
    the lengths (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1), in
    whatever order they are summed.

    Args:
        dimension: d.
        largest_norm: The largest squared length among the vectors.
    """
    unit = float(np.finfo(np.float32).eps) / 2
    gamma = (dimension + 3) * unit / (1 - (dimension + 3) * unit)
    return 4 * gamma * largest_norm


def squared_between(a: Floats, b: Floats) -> Floats:
    """Return the squared distance of each row of a to the same row of b, float32 [m].

    Args:
        a: float32 [m, d].
        b: float32 [m, d], or one row [d] for all.

    Cost O(m·d), a few times that of a product.
    """
    result = np.empty(len(a), dtype=np.float32)
    for start in range(0, len(a), _PAIRS):
        part = slice(start, start + _PAIRS)
        difference = a[part].astype(np.float64)
        difference -= b if b.ndim == 1 else b[part]
        difference *= difference
        result[part] = difference.sum(axis=1)
    return result


def nearest_exactly(a: Matrix, b: Floats) -> tuple[Rows, Floats]:
    """Return for each row of a the nearest row of b and its squared distance, exactly.

    Equals go to the smaller index. Without rows in b the index is -1 and the distance infinite.

    Args:
        a: float32 [n, d].
        b: float32 [m, d].

    Cost O(n·m·d).
    """
    who = np.full(len(a), -1, dtype=np.intp)
    squared = np.full(len(a), np.inf, dtype=np.float32)
    if not len(a) or not len(b):
        return who, squared
    half = squared_norms(b) / 2
    norms = squared_norms(a)
    slack = 2 * product_error(a.shape[1], max(float(norms.max()), 2 * float(half.max())))
    step = max(1, min(4096, (1 << 22) // len(b)))
    for start in steps("distances", range(0, len(a), step)):
        rows = slice(start, start + step)
        own = a[rows]
        likeness = own @ b.T
        likeness -= half
        best = likeness[np.arange(len(likeness)), likeness.argmax(axis=1)]
        # `slack` is on squared distances, of which this is minus half, plus a constant.
        i, j = np.nonzero(likeness >= (best - slack)[:, None])
        exact = squared_between(own[i], b[j])
        order = np.lexsort((j, exact, i))
        first = order[np.unique(i[order], return_index=True)[1]]
        who[rows], squared[rows] = j[first], exact[first]
    return who, squared
