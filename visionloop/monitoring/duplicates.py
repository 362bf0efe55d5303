"""Near duplicates: the same picture again, re-encoded, resized or slightly changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionloop.media.fingerprint import distances

# One block of distances stays in the processor's cache.
_ROWS, _COLUMNS = 256, 8192
# Farther than any two fingerprints of 256 bits can be.
_NEVER = 257


def nearest_earlier(
    words: NDArray[np.uint64], start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each row from ``start`` on, the earlier row with the closest fingerprint.

    Exact: m new rows are compared with all before them in O(m n) time and O(m) memory.

    Args:
        words: Fingerprints in the order of arrival, uint64 [n, 4], see
            `visionloop.media.fingerprint.as_words`.
        start: First row to look for an earlier one; the rows before it are known already.

    Returns:
        Row of the closest earlier fingerprint (the earliest among equals, -1 for row 0), and the
        distance to it in bits (257 for row 0), each int64 [n - start].
    """
    n = len(words)
    nearest = np.full(n - start, -1, dtype=np.int64)
    distance = np.full(n - start, _NEVER, dtype=np.int64)
    for low in range(start, n, _ROWS):
        high = min(n, low + _ROWS)
        best = distance[low - start : high - start]
        place = nearest[low - start : high - start]
        for left in range(0, high, _COLUMNS):
            right = min(high, left + _COLUMNS)
            bits = distances(words[low:high], words[left:right])
            # A row is compared with earlier rows only, never with itself or a later one.
            bits[np.arange(left, right)[None, :] >= np.arange(low, high)[:, None]] = _NEVER
            found = bits.argmin(axis=1)
            bit = bits[np.arange(high - low), found]
            closer = bit < best  # strictly: of equals the earliest stays
            best[closer] = bit[closer]
            place[closer] = left + found[closer]
    return nearest, distance
