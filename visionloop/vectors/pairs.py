"""Every pair of vectors that are nearly the same, without looking at every pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.vectors.cells import cells_of, within_reach
from visionloop.vectors.exact import Floats, Rows, product_error, squared_norms
from visionloop.vectors.phases import steps

# A block of products of a cell's members with so many other rows stays in the cache.
_COLUMNS = 2048
_BLOCK = 1 << 21  # nor is it larger where a cell holds many
_EXACT = 1 << 18  # values of the pairs that are computed anew at a time
# The head holds this share of the rows' energy; it is a multiple of 16 with the tail's column.
_HEAD_ENERGY = 0.7
_SAMPLE = 4096


class TooManyPairs(Exception):
    """There are more pairs than were to be listed."""


def near_pairs(x: Floats, cosine: float, *, seed: int = 0, most: int | None = None) -> Rows:
    """Return every pair of rows whose inner product reaches a threshold, exactly.

    Three bounds rule pairs out, each cheaper than the next. The rows are parted into cells, and
    only rows within a cell's radius and the threshold's distance of its centre are compared with
    its members (triangle inequality). They are compared in the first principal directions: the rest
    of an inner product is at most the product of the rests' lengths, and at least its negative
    (Cauchy-Schwarz). What that leaves open is computed anew in float64. The result depends on
    neither cells, directions nor the seed.

    Args:
        x: float32 [n, d], rows of length 1.
        cosine: The smallest inner product of a pair, above 0.
        seed: Of the cells and the sample that the directions are from.
        most: List no more pairs than these; None for all.

    Returns:
        intp [p, 2] with the smaller row first, in ascending order.

    Raises:
        TooManyPairs: There are more than `most`.

    Cost O(n^1.5·d) where near rows lie in few cells, O(n²·d) where they lie in all; memory: half of
    x or less, beside it.
    """
    if len(x) < 2:
        return np.zeros((0, 2), dtype=np.intp)
    keys, listed = [np.zeros(0, dtype=np.intp)], 0
    norms = squared_norms(x)
    largest = float(norms.max())
    error = product_error(x.shape[1], largest)
    # |a - b|² = |a|² + |b|² - 2ab.
    distance = float(np.sqrt(max(0.0, 2 * largest - 2 * cosine) + error))
    cells = cells_of(x, int(np.sqrt(len(x))), seed=seed)
    head, tail, slack = _head(x, norms, error, seed)
    for cell, others in steps("near pairs", within_reach(x, cells, distance), len(cells)):
        members = cells.rows(cell)
        left = head[members]
        columns = max(16, min(_COLUMNS, _BLOCK // len(members)))
        for start in range(0, len(others), columns):
            some = others[start : start + columns]
            products = left @ head[some].T
            likely = np.flatnonzero(products >= cosine - slack)
            a, b = members[likely // len(some)], some[likely % len(some)]
            # Within the cell every pair comes twice, and each row with itself.
            once = (cells.member[b] != cell) | (a < b)
            likely, a, b = likely[once], a[once], b[once]
            near = products.reshape(-1)[likely] - 2 * tail[a] * tail[b] >= cosine + slack
            open_still = np.flatnonzero(~near)
            near[open_still] = products_of(x, a[open_still], b[open_still]) >= cosine
            a, b = a[near], b[near]
            keys.append(np.minimum(a, b) * len(x) + np.maximum(a, b))
            listed += len(a)
            if most is not None and listed > most:
                raise TooManyPairs
    found = np.concatenate(keys)
    del keys
    found.sort()  # one number a pair sorts several times faster than two
    return np.stack(np.divmod(found, len(x)), axis=1)


def _head(x: Floats, norms: Floats, error: float, seed: int) -> tuple[Floats, Floats, float]:
    """Return rows whose inner products are at least those of x, but for the slack.

    Returns:
        float32 [n, h + 1], the coordinates in the first principal directions and the length of
        what is left, and that length, float32 [n]; x itself and zeros where few directions do not
        hold enough. Less twice the lengths' product the inner products are at most those of x.
    """
    n, d = x.shape
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    sample = x[np.sort(rng.permutation(n)[:_SAMPLE])].astype(np.float64)
    energy, directions = np.linalg.eigh(sample.T @ sample)
    held = np.cumsum(energy[::-1]) / max(float(energy.sum()), np.finfo(np.float64).tiny)
    wide = 16 * (int(np.searchsorted(held, _HEAD_ENERGY)) // 16 + 1) - 1
    if wide + 1 > d // 2:
        return x, np.zeros(n, dtype=np.float32), error
    first = np.ascontiguousarray(directions[:, ::-1][:, :wide], dtype=np.float32)
    head = np.empty((n, wide + 1), dtype=np.float32)
    # Each coordinate is off by a rounding error of its own.
    off = error * (2 + np.sqrt(wide))
    for start in range(0, n, 1 << 14):
        part = slice(start, start + (1 << 14))
        np.matmul(x[part], first, out=head[part, :wide])
        rest = norms[part] - squared_norms(head[part, :wide])
        head[part, wide] = np.sqrt(np.maximum(rest, 0.0) + np.float32(off))
    return head, np.ascontiguousarray(head[:, wide]), 2 * off


def products_of(x: Floats, a: Rows, b: Rows) -> NDArray[np.float64]:
    """Return the inner products of rows a with rows b, pair by pair, computed in float64.

    Args:
        x: float32 [n, d].
        a: intp [p].
        b: intp [p].
    """
    result = np.empty(len(a))
    step = max(1, _EXACT // x.shape[1])
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        one, other = x[a[part]].astype(np.float64), x[b[part]].astype(np.float64)
        one *= other
        result[part] = one.sum(axis=1)
    return result
