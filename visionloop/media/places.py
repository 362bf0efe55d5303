"""Where samples lie now: files that went away or came back, and samples without any place.

A row of `files` whose file a complete listing no longer shows is marked ``removed``; it is ``ok``
again when the same file is back. A sample that another place still has moves there; one that has
none is flagged ``media_missing``, and never selected while it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.media.intake import BACK
from visionloop.media.known import REMOVED, files_of, places_of
from visionloop.media.outcomes import Rows
from visionloop.media.reading import METADATA, OK, UNREADABLE

MEDIA_MISSING = "media_missing"


@dataclass
class Met:
    """What the table `files` says of the places that an ingest is about.

    Attributes:
        at_place: Sample ids found at the places of readable files before, as ``(place, id)``.
        rows: The rows of all places where one changes, changed; None where none does.
        left: Ids of samples of which a place is gone, as text.
        back: Ids of those of which a place is back, as text.
        renewed: Sample id and URI of each file whose sidecars alone were read, by its two words.
    """

    at_place: set[tuple[int, bytes]] = field(default_factory=set)
    rows: pa.Table | None = None
    left: set[str] = field(default_factory=set)
    back: set[str] = field(default_factory=set)
    renewed: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    @property
    def uris(self) -> list[str]:
        """The places whose rows change."""
        return sorted(set(self.rows["uri"].to_pylist())) if self.rows is not None else []


def meet(
    batches: Iterable[pa.RecordBatch],
    changes: pa.Table,
    rows: Rows,
    marks: Mapping[tuple[int, int], str],
) -> Met:
    """Read the table `files` once, and say what it means for an ingest.

    Args:
        batches: Its rows, with all columns.
        changes: As `visionloop.media.intake.CHANGES`.
        rows: The rows of the ingest.
        marks: New marks of the sidecars of known files, by the files' two words.
    """
    met = Met()
    words = np.frombuffer(b"".join(changes["file"].to_pylist()), "<u8").reshape(-1, 2)
    named = {
        (int(a), int(b)): change
        for (a, b), change in zip(words, changes["change"].to_pylist(), strict=True)
    }
    metadata = rows.of_kind(METADATA)
    touched = np.concatenate([changes["place"].to_numpy(), rows.places[metadata]])
    readable = rows.places[rows.is_image()]
    held: list[dict[str, Any]] = []
    schema = None
    for batch in batches:
        schema = schema or batch.schema
        uris = batch.column("uri").to_pylist()
        places = places_of(uris)
        samples = batch.column("sample_id")
        for row in np.flatnonzero(np.isin(places, readable)).tolist():
            if (sample := samples[row].as_py()) is not None:
                met.at_place.add((int(places[row]), bytes.fromhex(sample)))
        changed = np.flatnonzero(np.isin(places, touched))
        if len(changed):
            here = pa.Table.from_batches([batch]).take(pa.array(changed)).to_pylist()
            mine = files_of([r["uri"] for r in here], [r["generation"] for r in here])
            for row, (a, b) in zip(here, mine, strict=True):
                held.append(_changed(row, (int(a), int(b)), named, marks, met))
    if held and schema is not None:
        met.rows = pa.Table.from_pylist(held, schema=schema)
    return met


def _changed(
    row: dict[str, Any],
    file: tuple[int, int],
    named: Mapping[tuple[int, int], str],
    marks: Mapping[tuple[int, int], str],
    met: Met,
) -> dict[str, Any]:
    sample = row["sample_id"]
    change = named.get(file)
    if row["state"] == "skipped":
        return row
    if change == BACK:
        # Why an unreadable one is so was kept; a readable one has no reason.
        row |= {"state": OK, "reason": ""} if sample else {"state": UNREADABLE}
        if sample:
            met.back.add(sample)
    elif change is not None:
        row |= {"state": REMOVED, "reason": change if sample else row["reason"]}
        if sample:
            met.left.add(sample)
    if file in marks:
        row["sidecar"] = marks[file]
        met.renewed[file] = (sample, row["uri"])
    return row


@dataclass
class Moved:
    """Samples whose place changes.

    Attributes:
        uris: New URI of each sample that moves, by its id.
        missing: Ids of samples that have no place any more and are not flagged yet.
        found: Ids of flagged samples that have a place again.
    """

    uris: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)


def settle(
    batches: Iterable[pa.RecordBatch],
    met: Met,
    came: pa.Table,
    samples: Mapping[str, str],
    flagged: set[str],
    media: str,
) -> Moved:
    """Say where the samples lie of which a place came or went.

    Args:
        batches: The table `files` as it was, with uri, generation, state and sample_id.
        met: What `meet` found.
        came: Files of this ingest with these samples: sample_id and uri.
        samples: URI of each sample that a place came or went of, by id.
        flagged: Ids of samples that are flagged as missing.
        media: Root of the lake's own media, which no listing covers.
    """
    places: defaultdict[str, set[str]] = defaultdict(set)
    for sample, uri in zip(came["sample_id"].to_pylist(), came["uri"].to_pylist(), strict=True):
        places[sample].add(uri)
    changed = met.rows
    new_state = {}
    if changed is not None:
        keys = zip(*(changed[n].to_pylist() for n in ("uri", "generation", "state")), strict=True)
        new_state = {(uri, generation): state for uri, generation, state in keys}
    wanted = pa.array(sorted(samples), pa.string())
    for batch in batches:
        mine = pc.is_in(batch.column("sample_id").cast(pa.string()), value_set=wanted)
        for row in pa.Table.from_batches([batch]).filter(mine).to_pylist():
            state = new_state.get((row["uri"], row["generation"]), row["state"])
            if state == OK:
                places[row["sample_id"]].add(row["uri"])
    moved = Moved()
    for sample, uri in sorted(samples.items()):
        held = places[sample]
        inside = uri.startswith(media)
        if held or inside:
            if not inside and uri not in held:
                moved.uris[sample] = min(held)
            if sample in flagged:
                moved.found.append(sample)
        elif sample not in flagged:
            moved.missing.append(sample)
    return moved
