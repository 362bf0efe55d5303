"""Distances between embeddings and between fingerprints, in blocks that fit the cache and memory.

Embeddings have length 1, so the Euclidean distance is `√(2 - 2·cos)` and a block of distances is
one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from visionloop.vectors.exact import Floats as Floats
from visionloop.vectors.knn import nearest_neighbours
from visionloop.vectors.phases import steps

_IN_CACHE = 1 << 17  # pairs of 64 bits that are compared at a time
_BLOCK_VALUES = 1 << 24  # 64 MiB of float32 a block


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Return the squared distances of every row of a to every row of b, float32 [n, m].

    Rows need not have length 1 (a zero vector is allowed). Cost O(n·m·d).
    """
    result: Floats = a @ b.T
    result *= -2.0
    result += np.einsum("ij,ij->i", a, a)[:, None]
    result += np.einsum("ij,ij->i", b, b)[None, :]
    return np.maximum(result, 0.0, out=result)


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of rows such that a block of `rows x columns` values fits the memory limit."""
    step = max(1, _BLOCK_VALUES // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def nearest(a: Floats, b: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return for each row of a the nearest row of b: its index and its squared distance.

    Equals go to the smaller index. Without rows in b the index is -1 and the distance infinite.
    Cost O(n·m·d).
    """
    who = np.full(len(a), -1, dtype=np.intp)
    distance = np.full(len(a), np.inf, dtype=np.float32)
    if len(b):
        for rows in blocks(len(a), len(b)):
            block = squared_distances(a[rows], b)
            who[rows] = block.argmin(axis=1)
            distance[rows] = block[np.arange(len(block)), who[rows]]
    return who, distance


def mean_neighbour_distances(x: Floats, k: int) -> NDArray[np.float64]:
    """Return each row's mean distance to its k nearest other rows, float64 [n].

    With fewer than k other rows all of them count; a row alone has distance 0. Cost O(n²·d).
    """
    if len(x) < 2:
        return np.zeros(len(x))
    distances = nearest_neighbours(x, k, recall=1.0).distances
    return np.asarray(distances.mean(axis=1, dtype=np.float64))


def copies_of(
    a: NDArray[np.uint64], b: NDArray[np.uint64], distance: int
) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Return for each fingerprint of a the closest of b within `distance` bits.

    Args:
        a: uint64 ``[n, w]``: fingerprints of 64·w bits.
        b: uint64 ``[m, w]``.
        distance: Differing bits that a copy may have; below 0 there are no copies.

    Returns:
        Its index, equals to the smaller, and the number of differing bits; -1 and the number of all
        bits where none is that close. Cost O(n·m).
    """
    who = np.full(len(a), -1, dtype=np.intp)
    bits = np.full(len(a), 64 * a.shape[1], dtype=np.int32)
    if not len(b) or distance < 0:
        return who, bits
    of_a, of_b = np.flatnonzero(a.any(axis=1)), np.flatnonzero(b.any(axis=1))
    first = b[of_b, 0]
    step = max(1, _IN_CACHE // max(1, len(of_b)))
    for start in steps("copies", range(0, len(of_a), step)):
        some = of_a[start : start + step]
        # The first 64 bits rule out most pairs.
        row, column = np.nonzero(np.bitwise_count(a[some, 0, None] ^ first) <= distance)
        row, column = some[row], of_b[column]
        exact = np.bitwise_count(a[row] ^ b[column]).sum(axis=1, dtype=np.int32)
        near = exact <= distance
        row, column, exact = row[near], column[near], exact[near]
        order = np.lexsort((column, exact, row))
        best = order[np.unique(row[order], return_index=True)[1]]
        who[row[best]], bits[row[best]] = column[best], exact[best]
    return who, bits
