"""Drops the snapshots and files of a loop's tables that still tell of erased samples.

Iceberg leaves what it replaces: data files, and manifests with the bounds of their columns, of
which ids are some. What is dropped here is every snapshot that needs a file with a trace, every
version that names such a snapshot, and then the files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.errors import VisionloopError
from visionloop.lake import tables, versions
from visionloop.lake.erasing.scanning import Scanner
from visionloop.lake.migration import loop_tables
from visionloop.lake.storage import StorageError
from visionloop.lake.vacuum import listed, needed_files, place, recorded

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from visionloop.lake.lake import Lake

HISTORY = "stage_runs"


@dataclass
class Suspects:
    """Files of a loop's tables that hold traces, by their places.

    Attributes:
        lake: The loop.
        scanner: What looks into files.
        advance: Called with the size of each file that was read.
        held: ``{table: places}`` of those with traces.
        seen: Places of all files that were read: Iceberg never changes one.
    """

    lake: Lake
    scanner: Scanner
    advance: Callable[[int], None] = lambda size: None
    held: dict[str, set[str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Read what has not been read."""
        for name, table in loop_tables(self.lake.catalog, self.lake.loop):
            mine = self.held.setdefault(name, set())
            for spot, info in listed(self.lake, table).items():
                if spot in self.seen:
                    continue
                try:
                    if self.scanner.file(self.lake.storage, info):
                        mine.add(spot)
                except StorageError:
                    if self.lake.storage.exists(info.uri):
                        raise
                self.seen.add(spot)
                self.advance(info.size)

    def to_rewrite(self) -> list[str]:
        """Return the tables of which the newest rows, or what tells of them, hold traces."""
        head = versions.newest(self.lake.table(HISTORY))
        found = []
        for name, table in loop_tables(self.lake.catalog, self.lake.loop):
            newest = {tables.snapshot_of(table), head.tables.get(name)} - {None}
            needed = Needed(table)
            if any(
                needed.of(one) & self.held.get(name, set()) for one in newest if one is not None
            ):
                found.append(name)
        return found

    def going(self) -> dict[str, set[int]]:
        """Return the snapshots that need a file with traces, of those that are not the newest."""
        found = {}
        for name, table in loop_tables(self.lake.catalog, self.lake.loop):
            needed, current = Needed(table), tables.snapshot_of(table)
            found[name] = {
                snapshot.snapshot_id
                for snapshot in table.snapshots()
                if snapshot.snapshot_id != current and self._is_held(needed, name, snapshot)
            }
        return found

    def _is_held(self, needed: Needed, name: str, snapshot: object) -> bool:
        number = snapshot.snapshot_id  # type: ignore[attr-defined]
        try:
            return bool(needed.of(number) & self.held.get(name, set()))
        except OSError:
            return True  # an erasure that was killed has removed its manifests already


class Needed:
    """What files snapshots of a table need; each manifest is read once.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._entries: dict[str, set[str]] = {}

    def of(self, snapshot_id: int) -> set[str]:
        """Return the places of the files that a snapshot needs."""
        snapshot = self._table.snapshot_by_id(snapshot_id)
        if snapshot is None:
            return set()
        found = {place(snapshot.manifest_list)}
        for manifest in snapshot.manifests(self._table.io):
            path = manifest.manifest_path
            if path not in self._entries:
                entries = manifest.fetch_manifest_entry(self._table.io, discard_deleted=True)
                self._entries[path] = {place(entry.data_file.file_path) for entry in entries}
            found |= {place(path)} | self._entries[path]
        return found

    def of_all(self, snapshots: Iterable[int]) -> set[str]:
        """Return the places of the files that any of some snapshots needs."""
        found: set[str] = set()
        for one in snapshots:
            found |= self.of(one)
        return found


@dataclass
class Dropped:
    """What was dropped.

    Attributes:
        versions: Ids of the versions that cannot be read any more.
        snapshots: Number of snapshots.
        files: Number of files.
        bytes: Their size.
    """

    versions: list[str] = field(default_factory=list)
    snapshots: int = 0
    files: int = 0
    bytes: int = 0


def versions_of(lake: Lake, going: dict[str, set[int]]) -> tuple[list[str], set[int]]:
    """Return the versions that name a snapshot which goes, and the snapshots that record them."""
    history = lake.table(HISTORY)
    if history is None:
        return [], set()
    records = {
        snapshot.snapshot_id
        for snapshot in history.snapshots()
        if any(
            number in going.get(name, ()) for name, number in versions.of(snapshot).tables.items()
        )
    }
    records = (records | going.get(HISTORY, set())) - {tables.snapshot_of(history) or 0}
    staying = {
        versions.of(snapshot).id
        for snapshot in history.snapshots()
        if snapshot.snapshot_id not in records
    }
    every = [one.version.id for one in recorded(history)]
    return [one for one in every if one not in staying], records


def drop(suspects: Suspects, done: Dropped) -> None:
    """Drop snapshots and versions, then the files that nothing needs any more.

    The writer's lock is held.

    Args:
        suspects: What holds traces, after everything was looked at.
        done: Where it is counted.

    Raises:
        VisionloopError: The newest version itself still needs a file with traces.
    """
    lake = suspects.lake
    going = suspects.going()
    done.versions, records = versions_of(lake, going)
    going[HISTORY] = going.get(HISTORY, set()) | records
    # The history first: a version whose snapshots are going is no longer found.
    for name in sorted(going, key=lambda name: name != HISTORY):
        table = lake.catalog.load_table((lake.loop, name))
        before = _needed_of_some(Needed(table), going[name])
        if going[name]:
            table.maintenance.expire_snapshots().by_ids(sorted(going[name])).commit()
            table.refresh()
        done.snapshots += len(going[name])
        _remove(suspects, name, table, before | suspects.held.get(name, set()), done)


def _needed_of_some(needed: Needed, snapshots: Collection[int]) -> set[str]:
    found: set[str] = set()
    for one in snapshots:
        try:
            found |= needed.of(one)
        except OSError:
            continue  # its manifests are gone already
    return found


def _remove(
    suspects: Suspects, name: str, table: Table, candidates: set[str], done: Dropped
) -> None:
    lake = suspects.lake
    snapshots = [snapshot.snapshot_id for snapshot in table.snapshots()]
    needed = Needed(table).of_all(snapshots)
    needed.add(place(table.metadata_location))
    if kept := sorted(needed & suspects.held.get(name, set())):
        raise VisionloopError(
            f"the table {name} still needs a file that tells of what is erased: {kept[0]}",
            where=table.location(),
            remedy="Run the same command again: another process wrote meanwhile",
        )
    # Whoever holds the lock knows that nobody is writing: what nothing names was left by a kill,
    # and what is torn of it tells nobody what it holds.
    named = needed_files(table, snapshots)
    for spot, info in listed(lake, table).items():
        if spot not in needed and (spot in candidates or spot not in named):
            lake.storage.delete(info.uri)
            done.files += 1
            done.bytes += info.size
