"""A hash of each text of a column, without a Python object a row.

It says which rows *may* have one of many keys: 8 bytes stand for a key, and two may share them.
It is the same on every machine and in every run.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
# A longer text goes through Python by itself: no event id of a sound client is that long.
_LONG = 256


def hashes(texts: pa.Array | pa.ChunkedArray) -> Hashes:
    """Return a hash of each text; null has that of the empty text.

    Args:
        texts: Text, length n.

    Returns:
        uint64 [n].
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    data = pc.fill_null(texts.cast(pa.large_string()), "").cast(pa.large_binary())
    lengths = pc.binary_length(data).to_numpy(zero_copy_only=False)
    found = np.zeros(len(data), np.uint64)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        part = data.take(pa.array(rows))
        if 0 < length <= _LONG:
            found[rows] = _of_one_length(part, length)
        elif length:
            found[rows] = [_of_long(one) for one in part.to_pylist()]
    return found


def among(texts: pa.Array | pa.ChunkedArray, wanted: Hashes) -> NDArray[np.bool_]:
    """Return which texts have a hash among some; null never has.

    Args:
        texts: Text, length n.
        wanted: Hashes in ascending order.

    Returns:
        bool [n].
    """
    if not len(wanted) or not len(texts):
        return np.zeros(len(texts), np.bool_)
    mine = hashes(texts)
    place = np.minimum(np.searchsorted(wanted, mine), len(wanted) - 1)
    valid = pc.is_valid(texts).to_numpy(zero_copy_only=False)
    return np.asarray((wanted[place] == mine) & valid)


def _of_one_length(part: pa.LargeBinaryArray, length: int) -> Hashes:
    width = -(-length // 8) * 8
    padded = np.zeros((len(part), width), np.uint8)
    flat = np.frombuffer(part.buffers()[2], np.uint8, len(part) * length)
    padded[:, :length] = flat.reshape(len(part), length)
    found = np.full(len(part), length, np.uint64)
    for word in padded.view("<u8").T:
        found = (found ^ word) * _MIX
        found ^= found >> _SHIFT
    return found * _MIX


def _of_long(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
