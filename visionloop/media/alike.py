"""Which fingerprints hang together through near duplicates: what a holdout must not divide.

Of photographs few are near, and a list of all near pairs tells. Of the frames of a camera that
stands still nearly every pair is near, and there are too many to list: such crowds are found first,
from a sample, and each is gathered whole. One of its members takes in all that are near it, and of
these only those can have another neighbour that lies within twice the distance of that member. A
crowd is gathered from few such members, and what is in it already is compared no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from visionloop.media.fingerprint import NEAR_DUPLICATE_BITS, distinct, less_one
from visionloop.media.near_duplicates import near_pairs

Words = NDArray[np.uint64]
Rows = NDArray[np.intp]

# Of so many one list of pairs is short enough.
_FEW = 1000
# A crowd is looked for around so many that are drawn, where so many are near.
_DRAWN, _CROWD = 500, 50
# One block of distances fits in a core's cache.
_MEMBERS, _WIDE = 32, 4096
# So many pairs are joined at a time.
_PAIRS = 1 << 20


def alike(words: Words, within: int = NEAR_DUPLICATE_BITS) -> Rows:
    """Return which fingerprints hang together, directly or through others, exactly.

    Args:
        words: uint64 [n, 4], see `visionloop.media.fingerprint.as_words`.
        within: Largest distance of two that hang together directly, in bits.

    Returns:
        The first row of what each hangs together with, intp [n]. Memory is O(n).
    """
    first, place = distinct(words)
    label = _labels(words[first], within)
    return first[label[place]]


def joined(*firsts: Rows) -> Rows:
    """Return the first row of what each row is together with, where several things tie rows.

    Args:
        firsts: For each of these, the first row that each row is tied to, intp [n].
    """
    root = np.arange(len(firsts[0]))
    for first in firsts:
        _join(root, np.arange(len(root)), first)
    return root


def _labels(words: Words, within: int) -> Rows:
    """Return the first row of what each of some distinct fingerprints hangs together with."""
    label = np.arange(len(words))
    rest = np.arange(len(words))
    waiting = np.ones(len(words), bool)
    rng = np.random.Generator(np.random.PCG64(0))
    for row in rng.permutation(len(words))[:_DRAWN].tolist() if len(words) > _FEW else ():
        if waiting[row] and np.count_nonzero(_less_one(words[row], words[rest]) < within) > _CROWD:
            crowd = _crowd(words, row, rest, within)
            label[crowd] = crowd.min()
            waiting[crowd] = False
            rest = np.flatnonzero(waiting)
    root = np.arange(len(rest))
    for later, earlier in _some_at_a_time(near_pairs(words[rest], within)):
        _join(root, later, earlier)
    label[rest] = rest[root]
    return label


def _crowd(words: Words, start: int, rows: Rows, within: int) -> Rows:
    """Return the rows that hang together with one of them."""
    outside = rows[rows != start]
    # Members whose neighbours have not been looked for.
    waiting = np.array([start])
    found = [waiting]
    while len(waiting) and len(outside):
        centre = words[waiting[0]]
        apart = _less_one(centre, words[outside])
        is_near = apart < within
        shell = np.flatnonzero((apart >= within) & (apart < 2 * within))
        # One's distance to itself is not below the distance.
        covered = _less_one(centre, words[waiting]) < within
        covered[0] = True
        members = np.concatenate([waiting[covered], outside[is_near]])
        met = shell[_met(words, members, outside[shell], within)]
        waiting = np.concatenate([waiting[~covered], outside[met]])
        is_near[met] = True
        found.append(outside[is_near])
        outside = outside[~is_near]
    return np.concatenate(found)


def _met(words: Words, members: Rows, shell: Rows, within: int) -> NDArray[np.bool_]:
    """Return which of a shell are near any of some members, bool [n]."""
    met = np.zeros(len(shell), bool)
    for begin in range(0, len(members), _MEMBERS):
        left = np.flatnonzero(~met)
        if not len(left):
            break
        some = words[members[begin : begin + _MEMBERS]]
        for start in range(0, len(left), _WIDE):
            columns = left[start : start + _WIDE]
            met[columns] = (less_one(some, words[shell[columns]]) < within).any(axis=0)
    return met


def _less_one(one: Words, others: Words) -> NDArray[np.uint8]:
    """Return one less than the distance of a fingerprint to each of others, uint8 [n]."""
    row: NDArray[np.uint8] = less_one(one[None, :], others)[0]
    return row


def _some_at_a_time(pairs: Iterable[tuple[Rows, Rows]]) -> Iterator[tuple[Rows, Rows]]:
    """Yield pairs in larger blocks: joining takes the time of all rows each time."""
    held: list[tuple[Rows, Rows]] = []
    n = 0
    for pair in pairs:
        held.append(pair)
        n += len(pair[0])
        if n > _PAIRS:
            yield _whole(held)
            held, n = [], 0
    if held:
        yield _whole(held)


def _whole(held: list[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    return np.concatenate([a for a, _ in held]), np.concatenate([b for _, b in held])


def _join(root: Rows, left: Rows, right: Rows) -> None:
    """Tie pairs of rows together; the root of a row is the first one that it is tied to.

    Args:
        root: Where each row leads to, intp [n], changed.
        left: One row of each pair.
        right: The other.
    """
    while True:
        a, b = root[left], root[right]
        apart = np.flatnonzero(a != b)
        if not len(apart):
            return
        left, right, a, b = left[apart], right[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root[root] != root).any():
            root[:] = root[root]
