"""Samples that show the same picture as some others: of what is erased they are what stays."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from visionloop.media.copies import Prints, candidates, confirmed
from visionloop.media.likeness import grey
from visionloop.media.outcomes import ids_of
from visionloop.media.records import among, some_at_a_time
from visionloop.media.thumbnails import read_thumbnails

if TYPE_CHECKING:
    from visionloop.lake import Lake

# That of `monitoring.near_duplicate_likeness` by default.
LIKENESS = 0.94


def near_copies(lake: Lake, samples: Collection[str]) -> list[dict[str, Any]]:
    """Return the other samples of a lake's newest version that show one of some pictures.

    Args:
        lake: The lake.
        samples: Ids of the pictures.

    Returns:
        ``sample_id``, ``uri``, ``original`` (the one of `samples`) and ``likeness`` (None where a
        thumbnail is missing, and the fingerprints told) of each.
    """
    version = lake.version()
    held = lake.read("samples", columns=["sample_id", "fingerprint"], version=version)
    mine = ids_of(sorted(samples))
    every = Prints.of(ids_of(held["sample_id"]), held["fingerprint"])
    others = every.without(mine)
    asked = every.without(others.ids)
    if not len(asked.ids) or not len(others.ids):
        return []
    proposed = candidates(others, asked)
    names = {one.sample_id for one in proposed} | {one.original for one in proposed}
    greys = {one: grey(data) for one, data in read_thumbnails(lake, names, version).items()}
    copies = {one.sample_id: one for one in confirmed(proposed, greys, LIKENESS)}
    found = []
    for some in some_at_a_time(sorted(copies)):
        where = among("sample_id", some)
        table = lake.read("samples", columns=["sample_id", "uri"], where=where, version=version)
        for row in sorted(table.to_pylist(), key=lambda row: str(row["sample_id"])):
            copy = copies[row["sample_id"]]
            found.append({**row, "original": copy.original, "likeness": copy.likeness})
    return found
