"""What a lake holds, read from its metadata: cheap however many rows there are."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionloop.lake import migration, tables, versions
from visionloop.lake.catalog import catalog_errors
from visionloop.lake.compact import SMALL_BYTES
from visionloop.lake.rounds import DONE, Round, is_alive
from visionloop.lake.storage import local_path, relative, scheme_of
from visionloop.lake.vacuum import recorded

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

# From so many small files on a scan notices them: each costs it about a millisecond.
MANY_FILES = 64


def status(lake: Lake) -> dict[str, Any]:
    """Return the state of a loop.

    Returns:
        ``lake``, ``loop``, ``version``, ``schema_version``, ``versions`` (how many can be read),
        ``rounds`` and ``open_round`` (with who holds it), ``tables`` (rows, files, bytes and
        snapshots of each), ``fragmented`` (tables that `compact` would speed up), ``media``,
        ``in_service`` and ``disk``.
    """
    with catalog_errors(lake.catalog_uri):
        stage_runs = tables.load_table(lake.catalog, lake.loop, "stage_runs")
        newest = versions.newest(stage_runs)
        readable = recorded(stage_runs) if stage_runs is not None else []
        held = lake.rounds.all()
        sizes = _tables(lake, newest)
        return {
            "lake": lake.uri,
            "loop": lake.loop,
            "version": newest.id,
            "schema_version": migration.stored_version(lake.catalog, lake.loop),
            "versions": len(readable),
            "rounds": dict(Counter(one.outcome or one.state for one in held)),
            "open_round": next((_round(one) for one in held if one.state != DONE), None),
            "tables": sizes,
            "fragmented": [one["table"] for one in sizes if _is_fragmented(one)],
            "media": _media(lake),
            "in_service": _in_service(lake),
            "disk": _disk(lake),
        }


def history(lake: Lake) -> list[dict[str, Any]]:
    """Return every stage run with the version that it made, the newest last.

    Returns:
        ``sequence``, ``version``, ``readable``, ``stage``, ``round_id``, ``run_id``,
        ``finished_at``, ``changed`` (``{table: rows more or fewer}``) and ``program``.
    """
    with catalog_errors(lake.catalog_uri):
        stage_runs = tables.load_table(lake.catalog, lake.loop, "stage_runs")
        readable = {one.version.id for one in recorded(stage_runs)} if stage_runs else set()
        rows = lake.history().to_pylist()
        sizes = {
            name: {s.snapshot_id: _total(s, "total-records") for s in table.snapshots()}
            for name, table in migration.loop_tables(lake.catalog, lake.loop)
        }
    found = []
    before: dict[str, int] = {}
    for row in rows:
        if row["stage"] == "restore":
            before = {}  # every table was made anew
        after = {name: int(snapshot) for name, snapshot in json.loads(row["tables"]).items()}
        found.append(
            {
                "sequence": row["sequence"],
                "version": row["version"],
                "readable": row["version"] in readable,
                "stage": row["stage"],
                "round_id": row["round_id"] or "",
                "run_id": row["run_id"] or "",
                "finished_at": row["finished_at"],
                "changed": _changed(before, after, sizes),
                "program": row["program"] or "",
            }
        )
        before = after
    return found


def _changed(
    before: dict[str, int], after: dict[str, int], sizes: dict[str, dict[int, int]]
) -> dict[str, int | None]:
    """Return how many rows each changed table has more; None where a vacuum took what tells."""
    changed: dict[str, int | None] = {}
    for name, snapshot in after.items():
        if before.get(name) == snapshot:
            continue
        held = sizes.get(name, {})
        new, old = held.get(snapshot), held.get(before[name]) if name in before else 0
        changed[name] = new - old if new is not None and old is not None else None
    return changed


def _total(snapshot: Any, name: str) -> int:
    return int((snapshot.summary[name] if snapshot.summary else None) or 0)


def _tables(lake: Lake, newest: versions.Version) -> list[dict[str, Any]]:
    found = []
    for name, table in migration.loop_tables(lake.catalog, lake.loop):
        current = tables.snapshot_of(table)
        wanted = current if name == "stage_runs" else newest.tables.get(name)
        snapshot = table.snapshot_by_id(wanted) if wanted is not None else None
        found.append(
            {
                "table": name,
                "rows": _total(snapshot, "total-records") if snapshot else 0,
                "files": _total(snapshot, "total-data-files") if snapshot else 0,
                "bytes": _total(snapshot, "total-files-size") if snapshot else 0,
                "snapshots": len(table.snapshots()),
            }
        )
    return found


def _is_fragmented(table: dict[str, Any]) -> bool:
    files: int = table["files"]
    return files >= MANY_FILES and table["bytes"] < files * SMALL_BYTES


def _round(held: Round) -> dict[str, Any]:
    return {
        "round_id": held.round_id,
        "state": held.state,
        "run_id": held.run_id,
        "opened_at": held.opened_at,
        "updated_at": held.updated_at,
        "holder": _holder(held.holder),
    }


def _holder(holder: dict[str, Any]) -> str:
    if not holder:
        return "nobody: the next run resumes it"
    if not holder.get("pid"):
        return f"a run on {holder.get('host', 'another machine')}"
    who = f"process {holder['pid']} on {holder['host']}"
    alive = is_alive(holder)
    if alive is None:
        return f"{who}, which is not this machine"
    return who if alive else f"{who}, which is gone: the next run resumes it"


def _media(lake: Lake) -> dict[str, int]:
    places = lake.media().values()
    copied = sum((uri or "").startswith(lake.path("media") + "/") for uri in places)
    return {"referenced": len(places) - copied, "copied": copied}


def _in_service(lake: Lake) -> str:
    wanted = ["model_id", "state", "arm", "trained_at"]
    rows = [
        (row["trained_at"] or datetime.min.replace(tzinfo=UTC), row["model_id"])
        for row in lake.read("experiments", columns=wanted).to_pylist()
        if row["state"] == "in_service" and row["arm"] == "loop"
    ]
    return max(rows)[1] if rows else ""


def _disk(lake: Lake) -> dict[str, Any]:
    """Return the bytes under each folder of the root, and what is free where that is known."""
    folders: Counter[str] = Counter()
    for info in lake.storage.list(lake.uri):
        folder, slash, _ = relative(lake.uri, info.uri).partition("/")
        folders[folder if slash else "."] += info.size
    free = None
    if scheme_of(lake.uri) == "file":
        free = shutil.disk_usage(local_path(lake.uri)).free
    return {"bytes": sum(folders.values()), "folders": dict(sorted(folders.items())), "free": free}
