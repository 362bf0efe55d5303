"""Every pair of fingerprints within a distance, without comparing every pair.

A fingerprint is a thermometer of five levels for each of 51 coefficients, so the bits in which two
differ are the sum of how many levels each coefficient differs by. The coefficients are dealt to
groups; of two fingerprints within t bits at least one group differs by no more than its share of t
(the pigeonhole principle; Norouzi, Punjani and Fleet, Fast Exact Search in Hamming Space with
Multi-Index Hashing, 2014). For each group the fingerprints are sorted into buckets of equal levels,
and only buckets within the share are compared: first by the 64 bits that vary most, what is left by
all. How many groups there are is chosen by what a sample says that it costs; one group of no
coefficient, which compares everything, is among the choices. Results depend on none of this.

The frames of a camera that stands still share all their buckets, and nearly every pair of them is
near: there the first 64 bits tell nothing, all 256 are compared at once, and where one neighbour is
asked for, no pairs are listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from visionloop.media.fingerprint import (
    COEFFICIENTS,
    LEVELS,
    NEAR_DUPLICATE_BITS,
    distinct,
    less_one,
)

Words = NDArray[np.uint64]
Rows = NDArray[np.intp]
Found = tuple[Rows, Rows, NDArray[np.int64]]

# Farther than any two fingerprints of 256 bits can be.
NEVER = 257
# One block of distances fits in a core's cache.
_BLOCK = 1 << 17
_WIDE = 4096
# Share of pairs near by their first 64 bits from which on all bits are compared at once.
_MANY = 0.02
# With fewer pairs than this the choice of groups costs more than it saves.
FEW_PAIRS = 1 << 27
_SAMPLE = 1500
# Nanoseconds a pair of which 64 bits are compared, and a pair of buckets that are looked up.
_A_PAIR, _A_BUCKET = 1.2, 200.0
_A_CALL = 60_000.0
_MOST_OFFSETS = 2000
# Their levels make one number of 63 bits; a group that leaves some out only lets more through.
_MOST_COLUMNS = 24


def near_duplicates(words: Words, within: int = NEAR_DUPLICATE_BITS) -> tuple[Rows, Rows]:
    """Return every pair of fingerprints within a distance, exactly.

    Args:
        words: uint64 [n, 4], see `visionloop.media.fingerprint.as_words`.
        within: Largest distance of a pair, in bits.

    Returns:
        Pairs intp [m, 2] with i < j, in ascending order, and their distances int64 [m]. Memory is
        O(n + pairs).
    """
    keys, bits = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for later, earlier, distance in _pairs(words, 0, within):
        keys.append(earlier * len(words) + later)
        bits.append(distance)
    # Several groups may find the same pair.
    key, first = np.unique(np.concatenate(keys), return_index=True)
    return np.stack(np.divmod(key, max(1, len(words))), axis=1), np.concatenate(bits)[first]


def nearest_earlier(words: Words, start: int, within: int) -> tuple[Rows, NDArray[np.int64]]:
    """Return, for each row from ``start`` on, the closest earlier row within a distance, exactly.

    Args:
        words: Fingerprints in the order of arrival, uint64 [n, 4].
        start: First row to look for an earlier one; the rows before it are known already.
        within: Largest distance, in bits.

    Returns:
        Row of the closest earlier fingerprint (the earliest among equals; -1 where none is within
        the distance), and the distance to it in bits (`NEVER` where there is none), each
        [n - start]. Memory is O(n).
    """
    row, bits = np.full(len(words) - start, -1, np.intp), np.full(len(words) - start, NEVER)
    first, same_as = distinct(words)
    again = first[same_as] < np.arange(len(words))
    row[again[start:]], bits[again[start:]] = first[same_as][start:][again[start:]], 0
    # An equal one came earlier, or none did; of equals the earliest is meant anyway.
    begin, n = int(np.searchsorted(first, start)), len(first)
    best = np.full(n - begin, NEVER * n, np.int64)
    for later, earlier, distance in _pairs(words[first], begin, within, closest=True):
        np.minimum.at(best, later - begin, distance * n + earlier)
    found = np.flatnonzero(best < NEVER * n)
    if len(found):
        distance, other = np.divmod(best[found], n)
        mine = first[begin + found] - start
        row[mine], bits[mine] = first[other], distance
    return row, bits


def near_pairs(words: Words, within: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield every pair within a distance once or several times, in blocks and in no order.

    Args:
        words: uint64 [n, 4].
        within: Largest distance of a pair, in bits.

    Yields:
        The later row of each pair, and the earlier one.
    """
    for later, earlier, _ in _pairs(words, 0, within):
        yield later, earlier


def within_of(
    words: Words, others: Words, within: int, most: int
) -> Iterator[tuple[Rows, Rows, NDArray[np.int64]]]:
    """Yield for rows of fingerprints the closest of others, exactly, in blocks of rows.

    Every pair is compared: it is for few others, such as a holdout.

    Args:
        words: uint64 [n, 4].
        others: uint64 [m, 4].
        within: Largest distance, in bits.
        most: At most so many a row: the closest, of equals the first.

    Yields:
        Rows ascending, the other of each, and their distance in bits.
    """
    step = max(1, 4 * _BLOCK // max(1, len(others)))
    for start in range(0, len(words) if len(others) else 0, step):
        some = words[start : start + step]
        bits = np.zeros((len(some), len(others)), np.uint16)
        for word in range(words.shape[1]):
            bits += np.bitwise_count(some[:, word, None] ^ others[None, :, word])
        row, other = np.nonzero(bits <= within)
        distance = bits[row, other].astype(np.int64)
        order = np.lexsort((other, distance, row))
        row, other, distance = row[order], other[order], distance[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        kept = place < most
        yield start + row[kept], other[kept], distance[kept]


@dataclass(frozen=True)
class Group:
    """Coefficients, and by how many levels two fingerprints may differ in them."""

    columns: list[int]
    radius: int


def _pairs(words: Words, start: int, within: int, *, closest: bool = False) -> Iterator[Found]:
    """Yield ``(later, earlier, bits)`` of every pair whose later row is at least ``start``.

    A pair comes once or several times, in no particular order. Where the closest is meant, it comes
    for each later row, and others may not; no two rows are equal then.
    """
    n = len(words)
    if n < 2 or start >= n or within < 0:
        return
    groups = [Group([], within)]
    if n * (n - start) > FEW_PAIRS:
        groups = choose(words, start, within)
    head = _varied(words)
    for group in groups:
        yield from _of_group(words, head, group, start, within, closest=closest)


def levels_of(words: Words) -> NDArray[np.int8]:
    """Return the level of each coefficient, int8 [n, 51], 0 to 5."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1)
    used = bits[:, : LEVELS * COEFFICIENTS].reshape(len(words), LEVELS, COEFFICIENTS)
    return np.asarray(used.sum(axis=1, dtype=np.int8))


def _sample(words: Words) -> Words:
    rng = np.random.Generator(np.random.PCG64(0))
    return words[np.sort(rng.permutation(len(words))[:_SAMPLE])]


def _varied(words: Words) -> NDArray[np.uint64]:
    """Return the 64 bits of each fingerprint that differ most often, uint64 [n]."""
    bits = np.unpackbits(_sample(words).view(np.uint8), axis=1)
    shares = bits.mean(axis=0)
    chosen = np.sort(np.argsort(np.abs(shares - 0.5), kind="stable")[:64])
    head = np.empty(len(words), np.uint64)
    for begin in range(0, len(words), 1 << 16):
        some = words[begin : begin + (1 << 16)]
        picked = np.unpackbits(some.view(np.uint8), axis=1)[:, chosen]
        packed = np.ascontiguousarray(np.packbits(picked, axis=1))
        head[begin : begin + len(some)] = packed.view(np.uint64)[:, 0]
    return head


def choose(words: Words, start: int, within: int) -> list[Group]:
    """Return the groups that a sample says cost least.

    Args:
        words: All fingerprints, uint64 [n, 4].
        start: First row that is looked for among the others.
        within: The distance, in bits.
    """
    levels = levels_of(_sample(words))
    n, queries = len(words), len(words) - start
    halves = levels[::2], levels[1::2]
    apart = np.stack(
        [np.abs(halves[0][:, None, c] - halves[1][None, :, c]) for c in range(COEFFICIENTS)]
    )
    same = (apart == 0).mean(axis=(1, 2))
    dealt = np.argsort(same, kind="stable").tolist()  # the most telling coefficients first
    best, least = [Group([], within)], _A_PAIR * n * queries
    for number in range(2, within + 2):
        shares = [(within + 1) // number + (i < (within + 1) % number) - 1 for i in range(number)]
        groups = [Group(dealt[i::number], share) for i, share in enumerate(shares)]
        if any(offset_number(len(g.columns), g.radius) > _MOST_OFFSETS for g in groups):
            continue
        cost = 0.0
        for group in groups:
            near = apart[group.columns].sum(axis=0, dtype=np.int16) <= group.radius
            # Where the sample shows no pair there may still be one in as many as it has.
            share = max(float(near.mean()), 1 / near.size)
            buckets = min(float(n), 1 / max(float(np.prod(same[group.columns])), 1e-9))
            offsets = offset_number(len(group.columns), group.radius)
            cost += _A_PAIR * n * queries * share + buckets * (_A_CALL + offsets * _A_BUCKET)
        if cost < least:
            best, least = groups, cost
    return best


def offset_number(columns: int, radius: int) -> int:
    """Return how many whole-numbered points lie within a distance in L1."""
    counts = [1] + [0] * radius
    for _ in range(columns):
        counts = [
            counts[r] + 2 * sum(counts[r - step] for step in range(1, r + 1))
            for r in range(radius + 1)
        ]
    return sum(counts)


def _offsets(columns: int, radius: int) -> NDArray[np.int8]:
    """Return all whole-numbered points within a distance of 0 in L1, int8 [m, columns]."""
    found = [np.zeros(columns, np.int8)]
    for changed in range(1, min(columns, radius) + 1):
        steps = [s for s in product(range(-radius, radius + 1), repeat=changed) if 0 not in s]
        steps = [s for s in steps if sum(map(abs, s)) <= radius]
        for where in combinations(range(columns), changed):
            for step in steps:
                point = np.zeros(columns, np.int8)
                point[list(where)] = step
                found.append(point)
    return np.stack(found)


def _of_group(
    words: Words,
    head: NDArray[np.uint64],
    group: Group,
    start: int,
    within: int,
    *,
    closest: bool,
) -> Iterator[Found]:
    """Yield the pairs within the distance whose levels differ by no more than a group's share."""
    columns = group.columns[:_MOST_COLUMNS]
    k = len(columns)
    power = (LEVELS + 1) ** np.arange(k, dtype=np.int64)
    keys = np.zeros(len(words), np.int64)
    for begin in range(0, len(words) if k else 0, 1 << 16):
        some = words[begin : begin + (1 << 16)]
        keys[begin : begin + len(some)] = levels_of(some)[:, columns] @ power
    order = np.argsort(keys, kind="stable")
    buckets, first = np.unique(keys[order], return_index=True)
    ends = np.append(first[1:], len(words))
    sorted_words, sorted_head = words[order], head[order]
    levels = (buckets[:, None] // power % (LEVELS + 1)).astype(np.int8)
    offsets = _offsets(k, group.radius)
    for begin in range(0, len(buckets), 512):
        mine = levels[begin : begin + 512]
        there = mine[:, None, :] + offsets
        inside = ((there >= 0) & (there <= LEVELS)).all(axis=2)
        wanted = buckets[begin : begin + 512, None] + offsets @ power
        place = np.minimum(np.searchsorted(buckets, wanted), len(buckets) - 1)
        inside &= buckets[place] == wanted
        if not start and not closest:  # each pair of buckets once
            inside &= place >= np.arange(begin, begin + len(mine))[:, None]
        for row in range(len(mine)):
            one = slice(first[begin + row], ends[begin + row])
            queries = np.arange(one.start, one.stop)
            if start:
                queries = queries[order[one] >= start]
            if not len(queries):
                continue
            near = place[row, inside[row]]
            others = np.concatenate([np.arange(first[b], ends[b]) for b in near])
            if closest:
                yield from _closest(words, head, order[queries], np.sort(order[others]), within)
                continue
            for i, j, bits in _compared(sorted_words, sorted_head, queries, others, within):
                i, j = order[i], order[j]
                if start:
                    kept = j < i
                    yield i[kept], j[kept], bits[kept]
                else:
                    # Within a bucket a pair comes from both sides, and each row with itself.
                    kept = i != j
                    yield np.maximum(i, j)[kept], np.minimum(i, j)[kept], bits[kept]


def _compared(
    words: Words, head: NDArray[np.uint64], left: Rows, right: Rows, within: int
) -> Iterator[Found]:
    """Yield ``(left, right, bits)`` of pairs within the distance, in blocks that fit a cache."""
    wide = min(len(right), _WIDE)
    for b in range(0, len(right), wide):
        columns = right[b : b + wide]
        of_columns, column_words = head[columns], words[columns]
        step = max(1, _BLOCK // len(columns))
        for a in range(0, len(left), step):
            rows = left[a : a + step]
            near = np.bitwise_count(head[rows][:, None] ^ of_columns[None, :]) <= within
            if np.count_nonzero(near) > _MANY * near.size:
                near = less_one(words[rows], column_words) + np.uint8(1) <= within
            i, j = np.divmod(np.flatnonzero(near), len(columns))
            bits = np.bitwise_count(words[rows[i]] ^ column_words[j]).sum(axis=1, dtype=np.int64)
            near = bits <= within
            if near.any():
                yield rows[i[near]], columns[j[near]], bits[near]


def _closest(
    words: Words, head: NDArray[np.uint64], left: Rows, right: Rows, within: int
) -> Iterator[Found]:
    """Yield ``(left, right, bits)`` of the closest that is earlier, of equals the first.

    Where few are near at all, further ones come with it. No two rows are equal, and both lists are
    ascending.
    """
    wide = min(len(right), _WIDE)
    for b in range(0, len(right), wide):
        columns = right[b : b + wide]
        of_columns, column_words = head[columns], words[columns]
        step = max(1, _BLOCK // len(columns))
        for a in range(int(np.searchsorted(left, columns[0], "right")), len(left), step):
            rows = left[a : a + step]
            near = np.bitwise_count(head[rows][:, None] ^ of_columns[None, :]) <= within
            if np.count_nonzero(near) > _MANY * near.size:
                apart = less_one(words[rows], column_words)
                if columns[-1] >= rows[0]:
                    apart[columns[None, :] >= rows[:, None]] = 255
                j = apart.argmin(axis=1)
                i = np.arange(len(rows))
            else:
                i, j = np.divmod(np.flatnonzero(near), len(columns))
            bits = np.bitwise_count(words[rows[i]] ^ column_words[j]).sum(axis=1, dtype=np.int64)
            kept = (bits <= within) & (columns[j] < rows[i])
            if kept.any():
                yield rows[i[kept]], columns[j[kept]], bits[kept]
