"""Where samples lie now: files that went away or came back, and samples without any place.

A row of `files` whose file a complete listing no longer shows is marked ``removed``; it is ``ok``
again when the same file is back. A sample that another place still has moves there; one that has
none is flagged ``media_missing``, and never selected while it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.lake.storage.interface import stored_generation
from visionloop.media.intake import BACK
from visionloop.media.known import (
    CONTAINER,
    REMOVED,
    SKIPPED,
    Words,
    container_of,
    files_of,
    places_of,
)
from visionloop.media.outcomes import Rows
from visionloop.media.reading import METADATA, OK, UNREADABLE, renewed_mark

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
        narrowed: Ids of those that an origin of metadata does not speak of any more.
        dropped: URIs of earlier rows that what is found now takes the place of.
        again: Files that could only be skipped once more, for the same reason, by their two words:
            the row of the first time stays.
    """

    at_place: set[tuple[int, bytes]] = field(default_factory=set)
    rows: pa.Table | None = None
    left: set[str] = field(default_factory=set)
    back: set[str] = field(default_factory=set)
    renewed: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)
    narrowed: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    again: set[tuple[int, int]] = field(default_factory=set)
    _went: Counter[tuple[str, str]] = field(default_factory=Counter)
    _came: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, opened: Collection[tuple[str, str]]) -> dict[str, int]:
        """Return how many rows were removed, are back, or belong to what is read in another way.

        A video of which other frames are chosen is still there, and so is a tar whose labels are
        wanted now.

        Args:
            opened: URI and stored generation of each container that was opened.
        """
        still = self._came.keys() | set(opened)
        went = sum(n for file, n in self._went.items() if file not in still)
        came = sum(n for file, n in self._came.items() if file not in self._went)
        return {
            "n_removed": went,
            "n_back": came,
            "n_read_otherwise": self._went.total() - went,
        }

    @property
    def uris(self) -> list[str]:
        """The places whose rows change."""
        held = self.rows["uri"].to_pylist() if self.rows is not None else []
        return sorted({*held, *self.dropped})


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
    anew = _Anew(rows)
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
        is_touched = np.isin(places, touched)
        some = np.flatnonzero(is_touched | anew.has(places))
        here = pa.Table.from_batches([batch]).take(pa.array(some)).to_pylist()
        words = files_of([r["uri"] for r in here], [r["generation"] for r in here])
        for row, place, (a, b) in zip(here, some.tolist(), words, strict=True):
            file = (int(a), int(b))
            new = anew.at(places[place])
            if new >= 0 and row["state"] == SKIPPED and anew.is_skipped(new, file, row["reason"]):
                met.again.add(file)
                if is_touched[place]:
                    held.append(row)
            elif new >= 0 and (row["state"] == SKIPPED or anew.is_of(new, file)):
                met.dropped.add(row["uri"])
            else:
                held.append(_changed(row, file, named, marks, met))
    # Where a file came beside rows that stay, there is nothing to write anew.
    is_touched = np.isin(places_of(row["uri"] for row in held), touched)
    kept = [
        row
        for row, one in zip(held, is_touched.tolist(), strict=True)
        if one or row["uri"] in met.dropped
    ]
    if (kept or met.dropped) and schema is not None:
        met.rows = pa.Table.from_pylist(kept, schema=schema)
    return met


class _Anew:
    """The files that an ingest is to write, by their place.

    Args:
        rows: The rows of the ingest, not decided yet.
    """

    def __init__(self, rows: Rows) -> None:
        written = np.flatnonzero(~rows.of_kind(METADATA))
        self._rows = written[np.argsort(rows.places[written], kind="stable")]
        self._places = rows.places[self._rows]
        self._all = rows
        self._skipped = rows.of_kind(SKIPPED)

    def has(self, places: Words) -> NDArray[np.bool_]:
        """Return which places one of them is at, bool [n]."""
        return np.isin(places, self._places)

    def at(self, place: np.uint64) -> int:
        """Return the first row at a place, -1 for none."""
        row = int(np.searchsorted(self._places, place))
        found = row < len(self._places) and self._places[row] == place
        return int(self._rows[row]) if found else -1

    def is_of(self, row: int, file: tuple[int, int]) -> bool:
        """Return whether a row is of a file, told by its two words."""
        return tuple(self._all.files[row].tolist()) == file

    def is_skipped(self, row: int, file: tuple[int, int], reason: str) -> bool:
        """Return whether a row says that a file could not be had, for some reason."""
        same = self._all.reason[row].as_py() == reason
        return bool(self._skipped[row]) and same and self.is_of(row, file)


def _changed(
    row: dict[str, Any],
    file: tuple[int, int],
    named: Mapping[tuple[int, int], str],
    marks: Mapping[tuple[int, int], str],
    met: Met,
) -> dict[str, Any]:
    sample = row["sample_id"]
    change = named.get(file)
    if row["state"] == SKIPPED:
        return row
    held_by = (container_of(row["uri"]) or row["uri"], stored_generation(row["generation"] or ""))
    if change is not None:
        (met._came if change == BACK else met._went)[held_by] += 1
    if change == BACK:
        # Why an unreadable one is so was kept; a readable one has no reason.
        state = UNREADABLE if row["reason"] else CONTAINER
        row |= {"state": OK, "reason": ""} if sample else {"state": state}
        if sample:
            met.back.add(sample)
    elif change is not None:
        row |= {"state": REMOVED, "reason": change if sample else row["reason"]}
        if sample:
            met.left.add(sample)
    if file in marks:
        row["sidecar"], narrowed = renewed_mark(row["sidecar"] or "", marks[file])
        if narrowed:
            met.narrowed.add(sample)
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
