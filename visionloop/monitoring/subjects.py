"""What each file that was found is checked as, so that none is counted twice and none is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

# How the check of a file ends.
STATES = ("ok", "flagged", "unreadable", "no_picture", "unchecked")
CARRIER, COPY, AGAIN, UNREADABLE, UNKNOWN = "carrier", "copy", "again", "unreadable", "unknown"


@dataclass(frozen=True)
class Subject:
    """What one row of `files` is checked as.

    Attributes:
        row: Its row in the table.
        role: ``carrier`` of a sample, further ``copy`` of one, the carrier found ``again``
            (rewritten with the same bytes), ``unreadable``, or ``unknown`` without its sample.
        subject: Key in `checks`: the sample's id for a carrier, otherwise the URI.
        generation: Second part of that key, "" for a carrier.
    """

    row: int
    role: str
    subject: str
    generation: str


def subjects(files: pa.Table, samples: pa.Table) -> list[Subject]:
    """Return what each file is checked as, in the order of URI and generation.

    A sample is carried by the file that lies where the sample's bytes lie; where they were copied
    into the lake, by the file that came first. Rows in state ``removed`` are no files any more, and
    a row in state ``skipped`` (its bytes could not be had) gives way to any other of that file.

    Args:
        files: Table ``files`` with uri, generation, state, sample_id, round_id and found_at.
        samples: Table ``samples`` with sample_id and uri.
    """
    places = dict(zip(samples["sample_id"].to_pylist(), samples["uri"].to_pylist(), strict=True))
    wanted = ("uri", "generation", "state", "sample_id", "round_id", "found_at")
    columns = zip(*(files[name].to_pylist() for name in wanted), strict=True)
    newest: dict[tuple[str, str], tuple[int, str, str | None]] = {}
    first: dict[str, tuple[Any, ...]] = {}
    for row, (uri, generation, state, sample, round_id, found_at) in enumerate(columns):
        if state == "removed":
            continue
        key = (uri, generation or "")
        if key not in newest or newest[key][1] == "skipped":
            newest[key] = (row, state, sample)
        if sample in places:
            arrival = (uri != places[sample], round_id or "", str(found_at), uri)
            first[sample] = min(first.get(sample, arrival), arrival)
    carried: set[str] = set()
    result = []
    for (uri, generation), (row, state, sample) in sorted(newest.items()):
        if state == "unreadable":
            result.append(Subject(row, UNREADABLE, uri, generation))
        elif sample not in first or sample is None:
            result.append(Subject(row, UNKNOWN, uri, generation))
        elif uri != first[sample][-1]:
            result.append(Subject(row, COPY, uri, generation))
        elif sample in carried:
            result.append(Subject(row, AGAIN, uri, generation))
        else:
            carried.add(sample)
            result.append(Subject(row, CARRIER, sample, ""))
    return result
