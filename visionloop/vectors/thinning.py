"""Rows of which no two are near each other: the first of those that are stays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from visionloop.vectors.exact import Floats, product_error, squared_norms
from visionloop.vectors.pairs import TooManyPairs, near_pairs, products_of
from visionloop.vectors.phases import steps

# Pairs are listed up to so many, or so many a row: some 32 bytes each.
_PAIRS, _PAIRS_A_ROW = 1 << 22, 8
_BLOCK = 1024


def thinned(x: Floats, cosine: float, *, always: int = 0) -> NDArray[np.bool_]:
    """Return which rows stay where each goes that is near an earlier one that stays.

    Args:
        x: float32 [n, d], rows of length 1.
        cosine: The inner product from which on two rows are near, above 0.
        always: So many of the first rows stay, whatever is near them.

    Returns:
        bool [n].

    Cost: that of `near_pairs`; where there are too many pairs to list, O(n·s·d) for the s rows that
    stay. Memory: 32 bytes a pair, of at most 2²² or 8 a row; or a copy of the rows that stay.
    """
    try:
        pairs = near_pairs(x, cosine, most=max(_PAIRS, _PAIRS_A_ROW * len(x)))
    except TooManyPairs:
        return _one_block_after_another(x, cosine, always)
    return _kept(pairs, len(x), always)


def _kept(pairs: NDArray[np.intp], n: int, always: int) -> NDArray[np.bool_]:
    stays = np.ones(n, dtype=np.bool_)
    # Pairs come in ascending order, so it is settled of the first whether it stays.
    begins = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    for begin, end in pairwise([*begins, len(pairs)]):
        if stays[pairs[begin, 0]]:
            near = pairs[begin:end, 1]
            stays[near[near >= always]] = False
    return stays


def _one_block_after_another(x: Floats, cosine: float, always: int) -> NDArray[np.bool_]:
    """Compare each row with those before it that stay: few, where many rows lie close together."""
    stays = np.zeros(len(x), dtype=np.bool_)
    stays[:always] = True
    error = product_error(x.shape[1], float(squared_norms(x).max()))
    for start in steps("near duplicates", range(always, len(x), _BLOCK)):
        rows = np.arange(start, min(len(x), start + _BLOCK))
        before = np.flatnonzero(stays[:start])
        for first in range(0, len(before), _BLOCK):
            others = before[first : first + _BLOCK]
            products = x[rows] @ x[others].T
            near = np.any(products >= cosine + error, axis=1)
            row, column = np.nonzero((products >= cosine - error) & ~near[:, None])
            row = row[products_of(x, rows[row], others[column]) >= cosine]
            near[row] = True
            rows = rows[~near]
        stays[rows[_kept(near_pairs(x[rows], cosine), len(rows), 0)]] = True
    return stays
