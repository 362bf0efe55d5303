"""Copies a lake at one version into a folder or bucket prefix.

The rows of every table go into Parquet files of their own, not Iceberg's: Iceberg's metadata holds
absolute paths, and a copy of it would go on pointing at the lake that it was made from. Beside the
rows lie the files that they name: bundles, descriptors, weights, copied media, label requests, the
pointer. Nothing of the source changes, and no writer has to wait.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from visionloop import __version__
from visionloop.errors import InputError, VisionloopError
from visionloop.lake import migration, tables, vector_files, versions
from visionloop.lake.catalog import catalog_errors
from visionloop.lake.manifest import MANIFEST, UNFINISHED, Manifest, Writer, files_under
from visionloop.lake.schemas import EMBEDDINGS_PREFIX
from visionloop.lake.storage import Storage, StorageError, join, normalise, open_storage, relative

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from visionloop.lake.lake import Lake

# Bytes of one Parquet file in the backup: it is built in memory.
PART_BYTES = 64 * 1024 * 1024


def backup(
    lake: Lake,
    destination: str,
    *,
    events: bool = False,
    advance: Callable[[str], None] = lambda name: None,
) -> Manifest:
    """Write a backup of a loop's newest version.

    Args:
        lake: The lake.
        destination: An empty folder or prefix, or one in which a backup was interrupted.
        events: Whether to copy the logged events too; they are large, and hold pixels.
        advance: Called with the name of each table and folder that was copied.

    Returns:
        The manifest.

    Raises:
        InputError: The lake is empty, or the destination is not.
        VisionloopError: What the lake's rows name is not there.
    """
    root = normalise(destination)
    # Pointers first: a model is recorded before the pointer names it, so the version read after
    # them knows every model that they name.
    pointers = _pointers(lake)
    version = versions.newest(tables.load_table(lake.catalog, lake.loop, "stage_runs"))
    if not version.id:
        raise InputError(
            f"the loop {lake.loop!r} holds nothing to back up",
            where=lake.place,
            remedy="Name the loop with --loop or --config",
        )
    _claim(lake, root)
    writer = Writer(root)
    held: dict[str, dict[str, object]] = {}
    with catalog_errors(lake.place):
        for name, table, snapshot in _tables(lake, version):
            rows, parts = 0, []
            for number, part in enumerate(_parts(table, snapshot)):
                path = f"tables/{name}/{number:05d}.parquet"
                writer.write(path, _parquet(part))
                rows += part.num_rows
                parts.append(path)
            held[name] = {"rows": rows, "parts": parts}
            advance(name)
    for folder, uris in _files(lake, version.id, pointers, events=events).items():
        for uri in uris:
            _copy(lake, uri, writer)
        advance(folder)
    return writer.finish(
        Manifest(
            lake=lake.uri,
            loop=lake.loop,
            version=version.id,
            sequence=version.sequence,
            schema_version=migration.stored_version(lake.catalog, lake.loop),
            program=__version__,
            made_at=datetime.now(UTC).isoformat(),
            events=events,
            tables=held,
        )
    )


def _claim(lake: Lake, root: str) -> None:
    """Make sure that the destination is ours: empty, or left by a backup that was interrupted."""
    if f"{root}/".startswith(f"{lake.uri}/") or f"{lake.uri}/".startswith(f"{root}/"):
        raise InputError(
            "a backup inside the lake would not survive it",
            where=root,
            remedy="Name a folder or bucket outside the lake",
        )
    storage = open_storage(root)
    found = list(files_under(storage, root))
    marker = join(root, UNFINISHED)
    if found and (marker not in found or join(root, MANIFEST) in found):
        raise InputError(
            "the destination is not empty",
            where=root,
            remedy="Name a folder that does not exist yet: each backup has its own",
        )
    begun = {"lake": lake.uri, "loop": lake.loop, "begun_at": datetime.now(UTC).isoformat()}
    storage.write(marker, json.dumps(begun).encode())
    for uri in found:
        if uri != marker:
            storage.delete(uri)


def _tables(lake: Lake, version: versions.Version) -> Iterator[tuple[str, Table, int]]:
    """Yield ``(name, table, snapshot)`` of every table of a version, and of its history."""
    for name, snapshot in sorted(version.tables.items()):
        table = tables.load_table(lake.catalog, lake.loop, name)
        if table is None:
            raise VisionloopError(
                f"the table {name} of version {version.id} is not in the catalog",
                where=lake.place,
                remedy="See what else is missing with: visionloop lake check",
            )
        yield name, table, snapshot
    history = tables.load_table(lake.catalog, lake.loop, "stage_runs")
    assert history is not None  # the version was found in it
    yield "stage_runs", history, _snapshot_of_record(history, version.sequence)


def _snapshot_of_record(history: Table, sequence: int) -> int:
    for snapshot in history.snapshots():
        if versions.of(snapshot).sequence == sequence:
            return snapshot.snapshot_id
    raise VisionloopError("the version was vacuumed away meanwhile", remedy="Run this again")


def _parts(table: Table, snapshot: int) -> Iterator[pa.Table]:
    """Yield a table's rows in parts of bounded size; one without rows for an empty table."""
    pending: list[pa.Table] = []
    size = 0
    for rows in _rows(table, snapshot):
        pending.append(tables.narrow(rows))
        size += rows.nbytes
        if size >= PART_BYTES:
            yield pa.concat_tables(pending)
            pending, size = [], 0
    if pending or size == 0:
        nothing = tables.narrow(table.schema().as_arrow().empty_table())
        yield pa.concat_tables(pending) if pending else nothing


def _rows(table: Table, snapshot: int) -> Iterator[pa.Table]:
    if table.name()[-1].startswith(EMBEDDINGS_PREFIX):
        for task in table.scan(snapshot_id=snapshot).plan_files():
            yield from vector_files.tables(table, task)
    else:
        for batch in tables.batches(table, snapshot):
            yield pa.Table.from_batches([batch])


def _parquet(rows: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    # Iceberg's field ids and metadata belong to the table that the rows come from.
    plain = rows.cast(pa.schema([pa.field(f.name, f.type) for f in rows.schema]))
    pq.write_table(plain, buffer, compression="zstd")
    return buffer.getvalue()


def _pointers(lake: Lake) -> dict[str, str]:
    """Return the pointers of the lake: ``{uri: model id}``."""
    found = {}
    for uri in files_under(lake.storage, lake.path("serving")):
        try:
            found[uri] = str(json.loads(lake.storage.read(uri))["model_id"])
        except (ValueError, KeyError, TypeError, StorageError):
            continue  # no pointer; `lake check` tells
    return found


def _files(
    lake: Lake, version: str, pointers: dict[str, str], *, events: bool
) -> dict[str, list[str]]:
    """Return the URIs of the files that a loop's rows need, by the folder that they lie in."""
    storage = lake.storage
    models = lake.read("experiments", columns=["model_id"], version=version)["model_id"].to_pylist()
    media = lake.media(version=version).values()
    requests = lake.path("label_requests")
    return {
        "trained": _under(storage, [lake.path("trained", model) for model in models]),
        "models": _under(storage, [lake.path("models", model) for model in models]),
        "serving": [uri for uri, model in pointers.items() if model in models],
        "descriptors": _under(storage, [lake.path("descriptors", lake.loop)]),
        "weights": _under(storage, [lake.path("weights")]),
        "label_requests": [
            uri
            for uri in files_under(storage, requests)
            if uri.startswith(f"{requests}/{lake.loop}-")
        ],
        "media": sorted({uri for uri in media if (uri or "").startswith(lake.path("media") + "/")}),
        "events": _under(storage, [lake.path("events")]) if events else [],
    }


def _under(storage: Storage, folders: list[str]) -> list[str]:
    return [uri for folder in sorted(set(folders)) for uri in files_under(storage, folder)]


def _copy(lake: Lake, uri: str, writer: Writer) -> None:
    writer.write(f"files/{relative(lake.uri, uri)}", lake.storage.read(uri))
