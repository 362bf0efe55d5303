"""What similar images tell about one that nothing is known of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.selection.neighbours import Floats, blocks, squared_distances
from visionloop.vectors.exact import Rows, product_error, squared_between, squared_norms

# Images that tell about another one: more of them are farther away.
ALIKE = 5


def value_of_similar(x: Floats, known: Floats, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean value of the 5 nearest known rows, each weighted by `exp(-d/c)`.

    c is the mean of a row's own 5 distances, so that no value depends on who else is asked about.
    Nadaraya-Watson regression over nearest neighbours (1964). Cost O(n·m·d).

    Args:
        x: float32 [n, d].
        known: float32 [m, d], at least one row.
        values: float64 [m].

    Returns:
        float64 [n].
    """
    who, distance = nearest_few(x, known, min(ALIKE, len(known)))
    scale = distance.mean(axis=1, keepdims=True)
    # Where all distances are 0, the known rows are as near as each other.
    weight = np.exp(-distance / np.where(scale > 0, scale, 1.0))
    return np.asarray((weight * values[who]).sum(axis=1) / weight.sum(axis=1))


def nearest_few(a: Floats, b: Floats, k: int) -> tuple[Rows, NDArray[np.float64]]:
    """Return for each row of a its k nearest rows of b, equals by row, and the distances.

    Products only rule out; who is left is compared exactly, so neither threads nor block sizes
    change the result.

    Args:
        a: float32 [n, d].
        b: float32 [m, d].
        k: From 1 to m.

    Returns:
        intp [n, k] and float64 [n, k].
    """
    largest = max(float(squared_norms(a).max(initial=0.0)), float(squared_norms(b).max()))
    error = np.float32(2 * product_error(a.shape[1], largest))
    who = np.zeros((len(a), k), dtype=np.intp)
    squared = np.zeros((len(a), k))
    for part in blocks(len(a), len(b)):
        about = squared_distances(a[part], b)
        limit = np.partition(about, k - 1, axis=1)[:, k - 1] + error
        row, column = np.nonzero(about <= limit[:, None])
        exact = squared_between(a[part][row], b[column])
        order = np.lexsort((column, exact, row))
        place = np.searchsorted(row, np.arange(len(about)))[:, None] + np.arange(k)
        who[part] = column[order][place]
        squared[part] = exact[order][place]
    return who, np.sqrt(squared)
