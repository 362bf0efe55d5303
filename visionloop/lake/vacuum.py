"""Removes what no kept version needs: old snapshots, and files that nothing names any more.

Versions go first, then the snapshots that only they named, then the files that only those named. A
vacuum that is killed has thus removed less, and the next one goes on: no version is ever listed
whose rows are gone. pyiceberg expires snapshots and removes no file, neither theirs nor those that
a killed run wrote; both are found here by comparing what lies under a table with what its metadata
names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from visionloop.errors import InputError, VisionloopError
from visionloop.lake import tables, versions
from visionloop.lake.catalog import catalog_errors
from visionloop.lake.lock import writer_lock
from visionloop.lake.migration import loop_tables
from visionloop.lake.storage import FileInfo, local_path, name_of, normalise, scheme_of

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from visionloop.lake.lake import Lake

SAFETY = timedelta(hours=1)
# What shards have finished is committed when the last of them is, which may take days; a run that
# opened no round, an hourly intake, cannot be told from one that was killed.
SHARDS_STAY = timedelta(days=7)
# Where `FileStorage.write` leaves `.name.xxxxxxxx` when it is killed before it renames.
_FOLDERS = (
    "descriptors", "failures", "label_events", "label_requests", "leases", "media", "models",
    "outbox", "reports", "serving", "shards", "tmp", "trained", "training", "weights",
)  # fmt: skip
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")


@dataclass
class Removed:
    """What was removed of one table, or of the files beside the tables.

    Attributes:
        snapshots: Number of snapshots.
        files: Number of files.
        bytes: Their size.
    """

    snapshots: int = 0
    files: int = 0
    bytes: int = 0


@dataclass
class Vacuumed:
    """What a vacuum did, or would do.

    Attributes:
        kept: Ids of the versions that can still be read, the oldest first.
        dropped: Ids of those that no longer can.
        tables: What was removed of each table; under ``""`` what lay beside them.
        dry_run: Whether nothing was done.
    """

    kept: list[str]
    dropped: list[str]
    tables: dict[str, Removed] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def total(self) -> Removed:
        """The sum over all tables."""
        held = self.tables.values()
        return Removed(*(sum(getattr(r, n) for r in held) for n in ("snapshots", "files", "bytes")))


@dataclass(frozen=True)
class Recorded:
    """A version as the history has it.

    Attributes:
        version: The version, with its last sequence.
        snapshot: The snapshot of `stage_runs` that records it last.
        superseded: When a later version took its place; None for the newest.
    """

    version: versions.Version
    snapshot: int
    superseded: datetime | None


def recorded(stage_runs: Table) -> list[Recorded]:
    """Return the versions that can be read, the oldest first, each once."""
    rows = [(versions.of(snapshot), snapshot) for snapshot in stage_runs.snapshots()]
    ordered = sorted((row for row in rows if row[0].id), key=lambda row: row[0].sequence)
    found: dict[str, Recorded] = {}
    previous = ""
    for version, snapshot in ordered:
        made = _made(snapshot)
        if previous and previous != version.id:
            held = found[previous]
            found[previous] = Recorded(held.version, held.snapshot, made)
        found.pop(version.id, None)
        found[version.id] = Recorded(version, snapshot.snapshot_id, None)
        previous = version.id
    return list(found.values())


def vacuum(
    lake: Lake,
    *,
    keep_versions: int | None = None,
    older_than: timedelta | None = None,
    safety: timedelta = SAFETY,
    dry_run: bool = False,
) -> Vacuumed:
    """Remove old versions and every file that no kept one needs.

    The newest version, those of the open round, and those that were the newest within `safety` are
    always kept: a stage or a backup may be reading them.

    Args:
        lake: The lake; other loops in it are left alone.
        keep_versions: Keep so many of the newest versions, and drop the others.
        older_than: Drop versions that stopped being the newest so long ago. With neither, every
            version is kept, and only what none of them needs is removed.
        safety: No file that is younger is removed.
        dry_run: Only tell what would be removed.

    Raises:
        InputError: Both limits were given, or one that is too small.
        VisionloopError: A table lacks files that its metadata names: nothing was removed of it.
    """
    if keep_versions is not None and older_than is not None:
        raise InputError("give --keep-versions or --older-than, not both")
    if keep_versions is not None and keep_versions < 1:
        raise InputError("at least the newest version is kept", where="--keep-versions")
    for name, age in (("--older-than", older_than), ("--safety-hours", safety)):
        if age is not None and age < timedelta(0):
            raise InputError("an age is not negative", where=name, remedy="Use 0 or more")
    catalog = lake.catalog
    now = datetime.now(UTC)
    with catalog_errors(lake.catalog_uri), writer_lock(lake.catalog_uri, lake.loop):
        stage_runs = tables.load_table(catalog, lake.loop, "stage_runs")
        found = recorded(stage_runs) if stage_runs is not None else []
        if stage_runs is None or not found:
            return Vacuumed([], [], dry_run=dry_run)
        pinned = _of_open_round(lake)
        kept = [
            one
            for place, one in enumerate(found)
            if one.superseded is None
            or one.superseded > now - safety
            or one.version.id in pinned
            or (keep_versions is not None and place >= len(found) - keep_versions)
            or (older_than is not None and one.superseded > now - older_than)
            or (keep_versions is None and older_than is None)
        ]
        ids = [one.version.id for one in kept]
        done = Vacuumed(
            ids, [one.version.id for one in found if one.version.id not in ids], dry_run=dry_run
        )
        # The history first: a version whose snapshots are going is no longer found.
        wanted = {"stage_runs": {one.snapshot for one in kept}}
        for name, _ in loop_tables(catalog, lake.loop):
            if name != "stage_runs":
                wanted[name] = {o.version.tables[name] for o in kept if name in o.version.tables}
        head = found[-1].version
        for name, snapshots in wanted.items():
            table = catalog.load_table((lake.loop, name))
            current, newest = tables.snapshot_of(table), head.tables.get(name)
            if name != "stage_runs" and _is_unfinished(table, newest, now - safety):
                current = newest
                if not dry_run:
                    tables.reset(table, newest)
                    current = tables.snapshot_of(table)
            going = _going(table, snapshots | {current or 0}, now - safety)
            if going and not dry_run:
                table.maintenance.expire_snapshots().by_ids(sorted(going)).commit()
                table.refresh()
            removed = Removed(len(going))
            _remove(lake, removed, _unneeded(lake, table, going, now - safety), dry_run)
            done.tables[name] = removed
        beside = Removed()
        _remove(lake, beside, _left_by_killed_writes(lake, now - safety), dry_run)
        _remove(lake, beside, _left_by_ended_shards(lake, now - max(safety, SHARDS_STAY)), dry_run)
        done.tables[""] = beside
    return done


def _of_open_round(lake: Lake) -> set[str]:
    """Return the versions that the stages of the open round read at or made."""
    held = lake.rounds.current()
    if held is None:
        return set()
    rows = lake.stage_runs(where=f"round_id == '{held.round_id}'")
    return {*rows["version"].to_pylist(), *rows["base_version"].to_pylist()}


def _is_unfinished(table: Table, newest: int | None, before: datetime) -> bool:
    """Whether a table's newest snapshot is what a killed run left."""
    current = table.current_snapshot()
    if current is None or current.snapshot_id == newest or _made(current) >= before:
        return False
    rows = current.summary["total-records"] if current.summary else "0"
    return newest is not None or rows != "0"


def _going(table: Table, staying: set[int], before: datetime) -> set[int]:
    """Return the snapshots to expire: all that do not stay and are not young."""
    # A REST catalog has no writer's lock: there a young snapshot may be a run's that goes on.
    return {
        snapshot.snapshot_id
        for snapshot in table.snapshots()
        if snapshot.snapshot_id not in staying and _made(snapshot) < before
    }


def _made(snapshot: Snapshot) -> datetime:
    return datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)


def needed_files(table: Table, snapshots: Iterable[int]) -> set[str]:
    """Return the places of every file that a table needs to read some of its snapshots."""
    needed = {table.metadata_location}
    needed |= {entry.metadata_file for entry in table.metadata.metadata_log}
    seen: set[str] = set()
    for snapshot_id in snapshots:
        snapshot = table.snapshot_by_id(snapshot_id)
        if snapshot is None:
            continue
        needed.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                needed |= {entry.data_file.file_path for entry in entries}
    return {place(location) for location in needed | seen}


def place(location: str) -> str:
    """Return where a location of Iceberg's metadata or a URI of ours lies, in one form for both.

    Iceberg writes a file's path as it is, our URIs are quoted.
    """
    return location.removeprefix("file://") if location.startswith("file://") else location


def listed(lake: Lake, table: Table) -> dict[str, FileInfo]:
    """Return what lies under a table, by its `place`."""
    # The table's own word for where it lies: the same place may be reached by another path.
    location = table.location()
    if scheme_of(location) == "file":
        found = lake.storage.list(normalise(place(location)))
        return {str(local_path(info.uri)): info for info in found}
    return {info.uri: info for info in lake.storage.list(location)}


def _unneeded(lake: Lake, table: Table, going: set[int], before: datetime) -> list[FileInfo]:
    """Return the files under a table that no snapshot needs but those that are going."""
    remaining = {snapshot.snapshot_id for snapshot in table.snapshots()} - going
    needed = needed_files(table, remaining)
    held = listed(lake, table)
    missing = sorted(needed - set(held) - _rotated(table))
    if missing:
        raise VisionloopError(
            f"the table {table.name()[-1]} lacks {len(missing)} files that its metadata names, "
            f"the first is {missing[0]}",
            where=table.location(),
            remedy="Nothing of it was removed. See what is wrong with: visionloop lake check",
        )
    return [info for spot, info in held.items() if spot not in needed and info.updated < before]


def _rotated(table: Table) -> set[str]:
    """Return earlier metadata files: the catalog may have deleted them, and nothing reads them."""
    return {place(entry.metadata_file) for entry in table.metadata.metadata_log}


def _left_by_killed_writes(lake: Lake, before: datetime) -> list[FileInfo]:
    found = []
    for folder in _FOLDERS:
        uri = lake.path(folder)
        if scheme_of(uri) == "file" and lake.storage.exists(uri):
            found += [
                info
                for info in lake.storage.list(uri)
                if _TEMPORARY.fullmatch(name_of(info.uri)) and info.updated < before
            ]
    return found


def _left_by_ended_shards(lake: Lake, before: datetime) -> list[FileInfo]:
    """Return what shards have finished and nobody will commit: while a round is open, it may be."""
    folder = lake.path("shards", lake.loop)
    if lake.rounds.current() is not None or not lake.storage.exists(folder):
        return []
    return [info for info in lake.storage.list(folder) if info.updated < before]


def _remove(lake: Lake, removed: Removed, files: list[FileInfo], dry_run: bool) -> None:
    for info in files:
        if not dry_run:
            lake.storage.delete(info.uri)
        removed.files += 1
        removed.bytes += info.size
