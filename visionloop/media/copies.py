"""Which samples show a picture of the holdout again: re-encoded, resized, cropped, made brighter.

Fingerprints propose: the closest few of the holdout within a wide distance, which holds nearly all
copies and many look-alikes. The pixels of the thumbnails decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.media.fingerprint import FINGERPRINT_BYTES, NEAR_DUPLICATE_BITS, as_words
from visionloop.media.likeness import Floats, likeness
from visionloop.media.near_duplicates import within_of

# Of crops of up to 8% at each side 95% lie within so many bits, and so does a look-alike of nearly
# every digit: so only the closest few are compared.
COPY_BITS = 48
CLOSEST = 4
# So many pairs are compared at a time: each picture has 16 KiB.
_PAIRS = 1000

HOLDOUT_COPY = "holdout_copy"


@dataclass(frozen=True)
class Copy:
    """A sample that shows the same picture as one of the holdout.

    Attributes:
        sample_id: The sample.
        original: The one of the holdout.
        bits: By how many bits their fingerprints differ.
        likeness: See `visionloop.media.likeness`; None where a thumbnail is missing and the
            fingerprints alone told.
    """

    sample_id: str
    original: str
    bits: int
    likeness: float | None

    def __str__(self) -> str:
        """Return one sentence."""
        told = "no thumbnail" if self.likeness is None else f"likeness {self.likeness:.3f}"
        return f"shows a picture of the holdout, {self.original} ({self.bits} bits, {told})"


@dataclass(frozen=True)
class Candidate:
    """A sample, one of the holdout that it may show, and the bits between them."""

    sample_id: str
    original: str
    bits: int


@dataclass(frozen=True)
class Prints:
    """Samples with their fingerprints.

    Attributes:
        ids: Sample ids, binary(32) [n].
        words: uint64 [n, 4], see `visionloop.media.fingerprint.as_words`.
    """

    ids: pa.Array
    words: NDArray[np.uint64]

    @classmethod
    def of(cls, ids: pa.Array, fingerprints: pa.Array | pa.ChunkedArray) -> Prints:
        """Return samples with those of their fingerprints that belong to a picture."""
        words = words_of(fingerprints)
        return cls(ids, words).where(np.asarray(words.any(axis=1)))

    def where(self, mask: NDArray[np.bool_]) -> Prints:
        """Return some of them."""
        return Prints(self.ids.filter(pa.array(mask)), self.words[mask])

    def without(self, ids: pa.Array) -> Prints:
        """Return those of none of some ids."""
        inside: NDArray[np.bool_] = np.asarray(pc.is_in(self.ids, value_set=ids))
        return self.where(~inside)

    def once(self) -> Prints:
        """Return the first of each id."""
        codes = self.ids.dictionary_encode().indices.to_numpy()
        first = np.zeros(len(codes), bool)
        first[np.unique(codes, return_index=True)[1]] = True
        return self.where(first)

    def __add__(self, other: Prints) -> Prints:
        """Return these and others."""
        ids = pa.concat_arrays([self.ids, other.ids])
        return Prints(ids, np.concatenate([self.words, other.words]))


def words_of(fingerprints: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return a column of fingerprints as four words each, uint64 [n, 4]; 0 where there is none."""
    words = np.zeros((len(fingerprints), FINGERPRINT_BYTES // 8), np.uint64)
    blank = bytes(FINGERPRINT_BYTES)
    for start in range(0, len(words), 65_536):  # of a million few are objects at a time
        some = fingerprints.slice(start, 65_536).to_pylist()
        words[start : start + len(some)] = as_words([one or blank for one in some])
    return words


def candidates(samples: Prints, holdout: Prints) -> list[Candidate]:
    """Return for each sample the closest few of the holdout, those of one sample side by side."""
    # Equals go to the smallest id, whatever order they came in.
    order = np.argsort(np.array(holdout.ids.to_pylist(), dtype="S32"), kind="stable")
    names = holdout.ids.take(pa.array(order)).to_pylist()
    found = []
    for rows, others, bits in within_of(samples.words, holdout.words[order], COPY_BITS, CLOSEST):
        ids = samples.ids.take(pa.array(rows)).to_pylist()
        for one, other, distance in zip(ids, others.tolist(), bits.tolist(), strict=True):
            found.append(Candidate(one.hex(), names[other].hex(), distance))
    return found


def confirmed(
    proposed: Iterable[Candidate], greys: Mapping[str, Floats], threshold: float
) -> list[Copy]:
    """Return the samples of which a candidate is confirmed, each with the one it is most like.

    Args:
        proposed: Candidates.
        greys: What `visionloop.media.likeness` compares, by sample id. A candidate that lacks one
            is judged by its fingerprints alone.
        threshold: Likeness from which on two pictures are the same.
    """
    best: dict[str, Copy] = {}
    rest = iter(proposed)
    while some := list(islice(rest, _PAIRS)):
        shown = [c for c in some if c.sample_id in greys and c.original in greys]
        found = likeness([greys[c.sample_id] for c in shown], [greys[c.original] for c in shown])
        alike = dict(zip(shown, found.tolist(), strict=True))
        for one in some:
            score = alike.get(one)
            told = one.bits <= NEAR_DUPLICATE_BITS if score is None else score >= threshold
            before = best.get(one.sample_id)
            if told and (before is None or (score or 0) > (before.likeness or 0)):
                best[one.sample_id] = Copy(one.sample_id, one.original, one.bits, score)
    return list(best.values())
