"""Finds samples that show a picture of the holdout again, among new ones and earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.media.copies import HOLDOUT_COPY, Candidate, Copy, Prints, candidates, confirmed
from visionloop.media.holdout import HOLDOUT, POOL
from visionloop.media.intake import NEW
from visionloop.media.likeness import Floats, grey
from visionloop.media.metadata import Problem
from visionloop.media.outcomes import ids_of, texts_of
from visionloop.media.parts import IMAGE, THUMBNAIL
from visionloop.media.thumbnails import read_thumbnails

if TYPE_CHECKING:
    from visionloop.media.outcomes import Rows
    from visionloop.stages.ingest_rows import Ingest

Greys = dict[str, Floats]
# So many samples of the lake are compared with the holdout at a time.
_SOME = 65_536


def copies_of_holdout(
    ingest: Ingest, rows: Rows, held: pa.Table, splits: Mapping[str, str], joined: Sequence[str]
) -> list[str]:
    """Return which samples of the pool show a picture of the holdout again, and flag them.

    New samples are compared with the whole holdout, earlier ones with what joins it now. Memory
    holds the holdout, and the samples of one piece.

    Args:
        ingest: The ingest; receives the flags.
        rows: Its rows, decided.
        held: The samples that the lake has: sample_id, split and fingerprint.
        splits: Split of each new sample that is not of the pool.
        joined: Earlier samples that join the holdout.

    Returns:
        Ids of new and of earlier samples.
    """
    threshold = ingest.loop.holdout.copy_likeness
    if threshold >= 1:
        return []
    drawn = ids_of([one for one, split in splits.items() if split == HOLDOUT])
    joins = ids_of(list(joined))
    is_drawn = pc.is_in(rows.sample, value_set=drawn)
    came = Prints.of(rows.sample.filter(is_drawn), rows.fingerprint.filter(is_drawn)).once()
    came += _of_lake(held, pc.is_in(held["sample_id"], value_set=texts_of(joins)))
    holdout = _of_lake(held, pc.equal(held["split"], HOLDOUT)) + came
    originals = _Originals(ingest, _pictures_of(ingest, drawn))
    new = rows.of_kind(NEW) & ~np.asarray(pc.is_in(rows.sample, value_set=ids_of(list(splits))))
    found: dict[str, Copy] = {}

    def confirm(proposed: list[Candidate], greys: Greys) -> None:
        known = originals.of(proposed) | greys
        copies = confirmed(proposed, known, threshold)
        found.update((one.sample_id, one) for one in copies)

    for proposed, greys in _new_ones(ingest, new, holdout):
        confirm(proposed, greys)
    pool = _of_lake(held, pc.equal(held["split"], POOL))
    for start in range(0, len(pool.ids) if len(came.ids) else 0, _SOME):
        some = Prints(pool.ids.slice(start, _SOME), pool.words[start : start + _SOME])
        proposed = candidates(some.without(joins), came)
        confirm(proposed, _of_thumbnails(ingest, [one.sample_id for one in proposed]))
    ingest.flag(Problem(one, HOLDOUT_COPY, str(copy)) for one, copy in found.items())
    return sorted(found)


def _of_lake(held: pa.Table, mask: pa.ChunkedArray) -> Prints:
    some = held.filter(mask)
    return Prints.of(ids_of(some["sample_id"]), some["fingerprint"])


class _Originals:
    """What is compared of the holdout's pictures, read when it is first wanted.

    Args:
        ingest: The ingest.
        known: Those of new samples.
    """

    def __init__(self, ingest: Ingest, known: Greys) -> None:
        self._ingest = ingest
        self._known = known
        self._asked = set(known)

    def of(self, proposed: list[Candidate]) -> Greys:
        """Return those of some candidates, where they have a thumbnail."""
        wanted = {one.original for one in proposed}
        self._known |= _of_thumbnails(self._ingest, sorted(wanted - self._asked))
        self._asked |= wanted
        return {one: self._known[one] for one in wanted if one in self._known}


def _of_thumbnails(ingest: Ingest, samples: Sequence[str]) -> Greys:
    thumbnails = read_thumbnails(ingest.lake, samples, ingest.run.base)
    return {one: grey(data) for one, data in thumbnails.items()}


def _new_ones(
    ingest: Ingest, new: NDArray[np.bool_], holdout: Prints
) -> Iterator[tuple[list[Candidate], Greys]]:
    """Yield the candidates among new samples, those of one piece at a time, with their pixels."""
    start = 0
    for name in ingest.listing.pieces if len(holdout.ids) else ():
        proposed: list[Candidate] = []
        ingest.bar.note(f"compares with the holdout, {start:,} files so far")
        for part in ingest.kept.read(name):
            rows = part.rows.filter(pa.array(new[start : start + part.rows.num_rows]))
            start += part.rows.num_rows
            ids = rows["sample"].combine_chunks()
            proposed += candidates(Prints.of(ids, rows[IMAGE + "fingerprint"]), holdout)
        if proposed:
            # Thumbnails are most of a piece: they are read where one is wanted.
            yield proposed, _pictures_in(ingest, name, ids_of([one.sample_id for one in proposed]))


def _pictures_of(ingest: Ingest, samples: pa.Array) -> Greys:
    """Return what is compared of new samples."""
    found: Greys = {}
    for name in ingest.listing.pieces if len(samples) else ():
        held = chain.from_iterable(part.rows["sample"].chunks for part in ingest.kept.read(name))
        if any(pc.any(pc.is_in(some, value_set=samples)).as_py() for some in held):
            found |= _pictures_in(ingest, name, samples)
    return found


def _pictures_in(ingest: Ingest, name: str, samples: pa.Array) -> Greys:
    found: Greys = {}
    for part in ingest.kept.read(name, with_pictures=True):
        assert part.pictures is not None  # they were asked for
        mine = part.pictures.filter(pc.is_in(part.pictures["sample"], value_set=samples))
        ids = texts_of(mine["sample"]).to_pylist()
        pictures = mine[THUMBNAIL].to_pylist()
        found |= {one: grey(data) for one, data in zip(ids, pictures, strict=True)}
    return found
