"""Makes a lake of a backup, at any root and with any catalog.

Rows go into fresh Iceberg tables, so the newest version is the only one that can be read: it keeps
its id, and those before it stay as records in `stage_runs`. URIs that named files of the old lake
name those of the new one. The history is written last: until then the lake says that it is not
usable, and the restore can be run again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from visionloop import __version__
from visionloop.errors import InputError, VisionloopError
from visionloop.lake import schemas, tables, vector_files, versions
from visionloop.lake.catalog import catalog_errors, catalog_uri, open_catalog
from visionloop.lake.lake import Lake
from visionloop.lake.lock import writer_lock
from visionloop.lake.manifest import (
    Entry,
    Manifest,
    files_under,
    read_manifest,
    read_verified,
    verify,
)
from visionloop.lake.migration import RESTORING, loop_tables
from visionloop.lake.storage import Storage, StorageError, normalise, open_storage, relative

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

# Columns that may name a file of the lake itself.
RELOCATED = {
    "samples": ("uri",),
    "experiments": ("uri",),
    "harvest_ledger": ("uri",),
    "harvest_events": ("uri",),
}


def restore(
    source: str,
    uri: str,
    *,
    catalog: str = "",
    loop: str = "",
    advance: Callable[[str], None] = lambda name: None,
) -> tuple[Lake, Manifest]:
    """Restore a backup into an empty root.

    Args:
        source: Where the backup lies.
        uri: Root of the lake to make: empty, or one in which this restore was interrupted.
        catalog: Its catalog, see `Lake.open`.
        loop: Name of the loop; empty for the backup's, no other is possible.
        advance: Called with the name of each table that was restored, and of what else was done.

    Returns:
        The lake and the manifest of the backup.

    Raises:
        InputError: There is no whole backup, or the target is not empty.
        VisionloopError: A file of the backup is damaged, or the target cannot be written.
    """
    backup = normalise(source)
    manifest = read_manifest(backup)
    if loop and loop != manifest.loop:
        raise InputError(
            f"the backup is of the loop {manifest.loop!r}, not of {loop!r}",
            where=backup,
            remedy=f"Use --loop {manifest.loop}, or leave it out",
        )
    if manifest.schema_version > schemas.SCHEMA_VERSION:
        raise InputError(
            f"the backup has schema version {manifest.schema_version}, this visionloop knows "
            f"{schemas.SCHEMA_VERSION}",
            where=backup,
            remedy=f"Upgrade visionloop here to {manifest.program} or later",
        )
    # Before the target is touched: a damaged backup must not leave half a lake.
    verify(backup, manifest)
    advance("verified")
    lake = Lake.open(uri, catalog=catalog, loop=manifest.loop)
    _refuse_occupied(lake)
    address = catalog_uri(lake.uri, catalog)
    # Not the lake's own: a lake whose restore was interrupted refuses to be opened.
    opened = open_catalog(lake.uri, catalog)
    with catalog_errors(address), writer_lock(address, manifest.loop):
        _claim(lake, opened, backup, manifest)
        _fill(lake, opened, backup, manifest, advance)
    return lake, manifest


def _refuse_occupied(lake: Lake) -> None:
    # Before the catalog and the lock are made: what is refused is left as it was.
    if not lake.storage.exists(lake.uri):
        return
    found = files_under(lake.storage, lake.uri)
    others = [uri for uri in found if not _is_catalog(lake, uri)]
    if others and lake.path(RESTORING) not in others:
        raise _not_empty(lake, others[0])


def _not_empty(lake: Lake, what: str) -> InputError:
    return InputError(
        f"the target is not empty: it holds {what}",
        where=lake.place,
        remedy="Restore into a root and a catalog that hold nothing; a lake is not overwritten",
    )


def _claim(lake: Lake, catalog: Catalog, backup: str, manifest: Manifest) -> None:
    """Make sure that the target is empty, or clear what an interrupted restore left in it."""
    storage = lake.storage
    marker = lake.path(RESTORING)
    mine = {"backup": backup, "version": manifest.version, "loop": manifest.loop}
    held = [name for name, _ in loop_tables(catalog, manifest.loop)]
    found = [found for found in files_under(storage, lake.uri) if not _is_catalog(lake, found)]
    if marker in found and "stage_runs" not in held:
        begun = _read_json(storage, marker)
        if {name: begun.get(name) for name in mine} != mine:
            raise InputError(
                f"a restore of another backup was interrupted here: {begun.get('backup')}",
                where=lake.place,
                remedy="Finish that one, or name another root",
            )
    elif found or held:
        raise _not_empty(lake, found[0] if found else "tables of this loop")
    storage.write(marker, json.dumps(mine).encode())
    for name in held:
        catalog.drop_table((manifest.loop, name))
    for uri in found:
        if uri != marker:
            storage.delete(uri)


def _is_catalog(lake: Lake, uri: str) -> bool:
    return relative(lake.uri, uri).startswith("catalog.sqlite")


def _read_json(storage: Storage, uri: str) -> dict[str, Any]:
    try:
        held = json.loads(storage.read(uri))
    except (ValueError, StorageError):
        return {}
    return held if isinstance(held, dict) else {}


def _fill(
    lake: Lake,
    catalog: Catalog,
    backup: str,
    manifest: Manifest,
    advance: Callable[[str], None],
) -> None:
    source = open_storage(backup)
    entries = {entry.path: entry for entry in manifest.files}
    for entry in manifest.files:
        if entry.path.startswith("files/"):
            data = read_verified(source, backup, entry)
            path = entry.path.removeprefix("files/")
            if path.startswith("serving/"):
                data = _moved_pointer(data, manifest.lake, lake.uri)
            lake.storage.write(lake.path(*path.split("/")), data)
    advance("files")
    snapshots: dict[str, int] = {}
    for name, held in sorted(manifest.tables.items()):
        if name == "stage_runs":
            continue
        parts = [entries[path] for path in held["parts"]]
        snapshots[name] = _restore_table(lake, catalog, backup, manifest, name, parts)
        advance(name)
    history = [
        _rows(source, backup, entries[path]) for path in manifest.tables["stage_runs"]["parts"]
    ]
    _write_history(lake, catalog, backup, manifest, pa.concat_tables(history), snapshots)
    lake.storage.delete(lake.path(RESTORING))


def _restore_table(
    lake: Lake, catalog: Catalog, backup: str, manifest: Manifest, name: str, parts: list[Entry]
) -> int:
    source = open_storage(backup)
    table = None
    for entry in parts:
        rows = _moved(name, _rows(source, backup, entry), manifest.lake, lake.uri)
        if table is None:
            table = tables.create_table(
                catalog, lake.loop, name, rows.schema, schema_version=manifest.schema_version
            )
        if name.startswith(schemas.EMBEDDINGS_PREFIX):
            vector_files.append(table, rows)
        else:
            table.append(rows)
    snapshot = tables.snapshot_of(table) if table is not None else None
    restored = 0
    if table is not None and snapshot is not None:
        restored = tables.read(table, snapshot, columns=table.schema().column_names[:1]).num_rows
    if snapshot is None or restored != manifest.tables[name]["rows"]:
        raise VisionloopError(
            f"{restored} of {manifest.tables[name]['rows']} rows of the table {name} were restored",
            where=lake.place,
            remedy="Run this again",
        )
    return snapshot


def _rows(source: Storage, backup: str, entry: Entry) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(read_verified(source, backup, entry)))


def _moved(name: str, rows: pa.Table, old: str, new: str) -> pa.Table:
    """Return a table's rows as they are true in the new place."""
    for column in RELOCATED.get(name, ()):
        place = rows.schema.get_field_index(column)
        values = [_moved_uri(uri, old, new) for uri in rows[column].to_pylist()]
        rows = rows.set_column(place, column, pa.array(values, pa.string()))
    if name == "rounds":
        # Nobody runs the round in this lake: whoever comes next resumes it.
        place = rows.schema.get_field_index("holder")
        rows = rows.set_column(place, "holder", pa.array(["{}"] * rows.num_rows, pa.string()))
    return rows


def _moved_uri(uri: str | None, old: str, new: str) -> str | None:
    return new + uri[len(old) :] if uri and uri.startswith(f"{old}/") else uri


def _moved_pointer(data: bytes, old: str, new: str) -> bytes:
    held = json.loads(data)
    held["model_uri"] = _moved_uri(held.get("model_uri"), old, new)
    return (json.dumps(held, indent=2, ensure_ascii=False) + "\n").encode()


def _write_history(
    lake: Lake,
    catalog: Catalog,
    backup: str,
    manifest: Manifest,
    history: pa.Table,
    snapshots: dict[str, int],
) -> None:
    """Write the records of every stage run, and a last one of this restore: the lake is there."""
    now = datetime.now(UTC)
    sequence = manifest.sequence + 1
    row = {
        "sequence": sequence,
        "version": manifest.version,
        "tables": json.dumps(snapshots),
        "stage": "restore",
        "base_version": manifest.version,
        "started_at": now,
        "finished_at": now,
        "inputs": json.dumps(
            {"backup": backup, "lake": manifest.lake, "made_at": manifest.made_at}
        ),
        "outputs": "{}",
        "counts": "{}",
        "round_id": "",
        "run_id": "",
        "program": __version__,
    }
    known = {name: value for name, value in row.items() if name in history.column_names}
    added = pa.Table.from_pylist([known], schema=history.schema)
    stage_runs = tables.create_table(
        catalog,
        lake.loop,
        "stage_runs",
        history.schema,
        schema_version=manifest.schema_version,
    )
    # The id of a version that was copied stays its id: what names it still finds it.
    stage_runs.append(
        pa.concat_tables([history, added]),
        snapshot_properties=versions.summary(
            versions.Version(manifest.version, snapshots, sequence)
        ),
    )
