"""One harvest of any number of events: spilled to the disk by event id, joined part by part.

All rows with one id are in one part, the new and the held ones, so the parts together give what one
join of everything gives. Memory holds a batch of bodies, a part, and 8 bytes for each event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake.storage import FileInfo
from visionloop.serving.events import Event
from visionloop.serving.harvesting import STATES, harvest_events
from visionloop.serving.key_hashes import Hashes
from visionloop.serving.seen import event_table, see_all, seen_rows, unless_erased
from visionloop.serving.segments import Position
from visionloop.serving.spilling import Partitions, Rows

# What is decoded at once.
BATCH_EVENTS = 2048
BATCH_BYTES = 32 * 2**20
# A packed segment holds so many times its size.
_GZIP = 6
# Logged bytes behind one part, and the most parts: each is an open file.
PART_BYTES = 4 * 2**20
MOST_PARTS = 512


def parts_for(files: Iterable[tuple[FileInfo, Position]]) -> int:
    """Return into how many parts the events of files are put, by how much of them is not read."""
    logged = sum(
        info.size * _GZIP if info.uri.endswith(".gz") else max(info.size - read.bytes_read, 0)
        for info, read in files
    )
    return min(max(logged // PART_BYTES, 1), MOST_PARTS)


class Joined:
    """What a harvest writes, on the disk, and what it counted.

    Attributes:
        counts: As of `visionloop.serving.harvesting.Harvest`, summed.
        reasons: As there.
        later: As there.
        tenths: Rows of confidences by the tenth that their confidence lies in.
    """

    def __init__(self, folder: Path) -> None:
        self.new_events = Rows(folder / "new-events.arrow")
        self.new_confidences = Rows(folder / "new-confidences.arrow")
        self.changed_events = Rows(folder / "changed-events.arrow")
        self.changed_confidences = Rows(folder / "changed-confidences.arrow")
        self.unlinked = Rows(folder / "unlinked.arrow")
        self.counts: Counter[str] = Counter(dict.fromkeys(("events", *STATES, "inferences"), 0))
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.later: Counter[tuple[str, str]] = Counter()
        self.tenths: Counter[int] = Counter()
        self._changed: list[pa.Array] = [pa.array([], pa.string())]

    @property
    def changed_ids(self) -> pa.Array:
        """Event ids of which older rows change."""
        return pa.concat_arrays(self._changed)

    def add(
        self,
        new: pa.Table | None,
        held: pa.Table | None,
        *,
        orphaned_before: datetime,
        classes: Mapping[str, Sequence[str]],
    ) -> None:
        """Join one part.

        Args:
            new: Rows that were read, None for none.
            held: Rows of earlier harvests, None for none.
            orphaned_before: See `harvest_events`.
            classes: See there.
        """
        found = harvest_events(
            seen_rows(new) if new is not None else [],
            seen_rows(held) if held is not None else [],
            orphaned_before=orphaned_before,
            classes=classes,
        )
        self.new_events.add(found.new_events)
        self.new_confidences.add(found.new_confidences)
        self.changed_events.add(found.changed_events)
        self.changed_confidences.add(found.changed_confidences)
        self.unlinked.add(found.unlinked)
        self._changed.append(pa.array(found.changed_ids, pa.string()))
        self.counts.update(found.counts)
        self.reasons.update(found.reasons)
        self.later.update(found.later)
        for rows in (found.new_confidences, found.changed_confidences):
            self.tenths.update(_tenths(rows["confidence"]))


class Joiner:
    """Takes events, then the held rows, and joins them.

    Args:
        folder: For temporary files.
        parts: Number of parts.
        erased: Contains the samples that were erased.
    """

    def __init__(self, folder: Path, parts: int, erased: Container[object] = frozenset()) -> None:
        self._folder, self._parts, self._erased = folder, parts, erased
        self._new = Partitions(folder, "new", parts)
        self._hashes: list[Hashes] = [np.zeros(0, np.uint64)]
        self.events = 0

    def read(self, events: Iterable[Event]) -> None:
        """Decode events and put them to their parts; a body is forgotten with its batch."""
        for batch in _batches(events):
            seen = [unless_erased(one, self._erased) for one in see_all(batch)]
            rows = event_table(seen)
            keys = self._new.add(rows)
            named = pc.is_valid(rows["event_id"]).to_numpy()
            self._hashes.append(keys[named])
            self.events += len(seen)

    def hashes(self) -> Hashes:
        """Return the hashes of the event ids that were read, ascending."""
        self._hashes = [np.unique(np.concatenate(self._hashes))]
        return self._hashes[0]

    def join(
        self,
        held: Iterable[pa.Table],
        *,
        orphaned_before: datetime,
        classes: Mapping[str, Sequence[str]],
    ) -> Joined:
        """Join what was read with what earlier harvests hold.

        Args:
            held: Their rows, as `visionloop.serving.held_rows.held_rows` yields them.
            orphaned_before: See `harvest_events`.
            classes: See there.
        """
        self._new.close()
        older = Partitions(self._folder, "held", self._parts)
        for rows in held:
            older.add(rows)
        older.close()
        joined = Joined(self._folder)
        for number in range(self._parts):
            joined.add(
                self._new.take(number),
                older.take(number),
                orphaned_before=orphaned_before,
                classes=classes,
            )
        return joined


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    size = 0
    for event in events:
        batch.append(event)
        size += len(event.body)
        if len(batch) >= BATCH_EVENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tenths(confidence: pa.ChunkedArray) -> dict[int, int]:
    known = confidence.drop_null().to_numpy()
    tenths, counts = np.unique(np.minimum((known * 10).astype(int), 9), return_counts=True)
    return dict(zip(tenths.tolist(), counts.tolist(), strict=True))
