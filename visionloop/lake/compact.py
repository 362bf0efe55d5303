"""Merges small files of a lake's tables into large ones.

Every stage that writes adds a file to each table it writes to; after some hundred runs a scan opens
more files than it reads. Merging changes no row: it is a version of its own, the ones before it
keep their files until `vacuum` drops them, and a stage that began to read before it may go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.lake import data_files, tables, vector_files, versions
from visionloop.lake.catalog import catalog_errors
from visionloop.lake.schemas import EMBEDDINGS_PREFIX

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table

    from visionloop.lake.lake import Lake

# Files of less are merged, into files of at most so many bytes.
SMALL_BYTES = 32 * 2**20
MERGED_BYTES = 128 * 2**20
# So few are not worth a version.
MIN_FILES = 8
HISTORY = "stage_runs"


@dataclass(frozen=True)
class Merged:
    """What was done to a table.

    Attributes:
        files: How many small files were merged.
        into: How many files took their place.
        bytes: Size of the small ones.
        rows: How many rows they hold.
    """

    files: int
    into: int
    bytes: int
    rows: int


@dataclass
class Compacted:
    """What a compaction did, or would do.

    Attributes:
        version: The lake version with the merged files; the newest one where nothing was done.
        tables: What was merged, by table; none that was left alone.
        dry_run: Whether nothing was done.
    """

    version: str
    tables: dict[str, Merged] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def total(self) -> Merged:
        """The sum over all tables."""
        held = self.tables.values()
        return Merged(
            *(sum(getattr(one, name) for one in held) for name in Merged.__dataclass_fields__)
        )


def compact(
    lake: Lake,
    *,
    only: Iterable[str] = (),
    min_files: int = MIN_FILES,
    dry_run: bool = False,
    advance: Callable[[str], None] = lambda name: None,
) -> Compacted:
    """Merge the small files of each table that has enough of them.

    It holds the writer's lock while it merges; readers are not disturbed. One that is killed leaves
    the lake as it was, and files that `vacuum` removes.

    Args:
        lake: The lake.
        only: Tables to look at; all by default.
        min_files: Leave a table with fewer small files alone.
        dry_run: Only tell what would be merged.
        advance: Called with the name of each table that was looked at.

    Raises:
        InputError: `min_files` is below 2, or the lake has no table of a name.
        VisionloopError: Another process writes, or the lake cannot be written.
    """
    if min_files < 2:
        raise InputError("a single file cannot be merged", where="--min-files", remedy="At least 2")
    with catalog_errors(lake.place):
        newest = versions.newest(lake.table(HISTORY))
    names = [*sorted(newest.tables), HISTORY]
    if unknown := set(only) - set(names):
        raise InputError(
            f"the lake has no table {sorted(unknown)[0]!r}",
            where="--table",
            remedy=f"Use one of {', '.join(names)}",
        )
    names = [name for name in names if not only or name in set(only)]
    done = Compacted(newest.id, dry_run=dry_run)
    if not newest.id:
        return done
    wanted: list[str] = []
    with catalog_errors(lake.place):
        for name in names:
            groups = _groups(lake.table(name), newest.tables.get(name), min_files)
            if groups:
                wanted.append(name)
                done.tables[name] = _told(groups, len(groups))
    if dry_run or not wanted:
        return done
    done.tables.clear()
    with lake.run(stage="compact", inputs={"tables": wanted}) as run:
        for name in wanted:

            def merge(table: Table, properties: dict[str, str], name: str = name) -> None:
                # Planned again: others may have written until the lock was taken.
                groups = _groups(table, tables.snapshot_of(table), min_files)
                written = [_merged(name, table, group) for group in groups]
                added = [one for one in written if one is not None]
                gone = [task.file for group in groups for task in group]
                data_files.commit(table, added, gone, properties=properties)
                if groups:
                    done.tables[name] = _told(groups, len(added))

            run.rewrite(name, merge)
            advance(name)
        counts = {name: one.files for name, one in done.tables.items()}
        done.version = run.commit(outputs={"merged": counts})
    return done


def _told(groups: list[list[FileScanTask]], into: int) -> Merged:
    files = [task.file for group in groups for task in group]
    return Merged(
        len(files),
        into,
        sum(file.file_size_in_bytes for file in files),
        sum(file.record_count for file in files),
    )


def _groups(table: Table | None, snapshot: int | None, min_files: int) -> list[list[FileScanTask]]:
    """Return which files of a snapshot are to become one file each; none where they are few."""
    if table is None:
        return []
    # The history's own snapshot is its newest.
    tasks = table.scan(snapshot_id=snapshot).plan_files()
    small = [task for task in tasks if task.file.file_size_in_bytes < SMALL_BYTES]
    if len(small) < min_files:
        return []
    groups: list[list[FileScanTask]] = [[]]
    size = 0
    for task in sorted(small, key=lambda task: task.file.file_path):
        if size + task.file.file_size_in_bytes > MERGED_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(task)
        size += task.file.file_size_in_bytes
    return [group for group in groups if len(group) > 1]


def _merged(name: str, table: Table, group: list[FileScanTask]) -> DataFile | None:
    from visionloop.lake.scanning import rows_of_file

    if name.startswith(EMBEDDINGS_PREFIX):
        parts = (part for task in group for part in vector_files.tables(table, task))
        return data_files.write(table, parts, **vector_files.layout())
    parts = (part for task in group for part in rows_of_file(table, task))
    return data_files.write(table, parts, compression="zstd")
