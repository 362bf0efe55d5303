"""Checks of the files that a lake's rows and versions name: data files, media, models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from visionloop.errors import VisionloopError
from visionloop.lake import tables
from visionloop.lake.archive_storage import ArchiveStorage
from visionloop.lake.checking import Finding, finding
from visionloop.lake.erasing.beside import JOURNAL
from visionloop.lake.identity import is_sample
from visionloop.lake.manifest import files_under
from visionloop.lake.storage import (
    INSIDE,
    FileInfo,
    StorageError,
    is_member,
    join,
    open_storage,
    split_member,
)
from visionloop.lake.vacuum import listed, needed_files, place, recorded

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

CARD = "card.json"


def tables_of_versions(lake: Lake) -> Iterator[Finding]:
    """Yield whether each readable version's snapshots, and the files of each table, are there."""
    catalog = lake.catalog
    stage_runs = catalog.load_table((lake.loop, "stage_runs"))
    held = recorded(stage_runs)
    wanted: dict[str, set[int]] = {"stage_runs": {one.snapshot for one in held}}
    for one in held:
        for name, snapshot in one.version.tables.items():
            wanted.setdefault(name, set()).add(snapshot)
    lost, absent, checked = [], [], 0
    for name, snapshots in sorted(wanted.items()):
        table = tables.load_table(catalog, lake.loop, name)
        there = {s.snapshot_id for s in table.snapshots()} if table is not None else set()
        lost += [
            f"version {one.version.id} needs the snapshot {one.version.tables[name]} of {name}"
            for one in held
            if name in one.version.tables and one.version.tables[name] not in there
        ]
        if table is None:
            continue
        found = {spot for spot, info in listed(lake, table).items() if info.size}
        try:
            needed = needed_files(table, snapshots & there)
        except OSError as error:
            absent.append(f"{name}: a manifest cannot be read: {error}")
            continue
        needed -= {place(entry.metadata_file) for entry in _earlier(table)}
        checked += len(needed)
        absent += [f"{name}: {spot} is missing" for spot in sorted(needed - found)]
    yield finding(
        "versions: every snapshot is there",
        len(held),
        lost,
        "Restore the lake from a backup; a version that is not the newest can be dropped with: "
        "visionloop lake vacuum --keep-versions N",
    )
    yield finding(
        "tables: every file is there",
        checked,
        absent,
        "Bring the files back, or restore the lake from a backup; rows were not checked",
    )


def _earlier(table: Any) -> list[Any]:
    # The catalog deletes old metadata files itself, and nothing reads them.
    return list(table.metadata.metadata_log)


def media(lake: Lake, version: str) -> Iterator[Finding]:
    """Yield whether the bytes of every sample lie where its row says, as they were."""
    columns = ["uri", "generation", "size", "state", "sample_id", "source"]
    files = lake.read("files", columns=columns, version=version).to_pylist()
    known = {(row["uri"], row["generation"], row["sample_id"]) for row in files}
    sizes = {row["sample_id"]: row["size"] for row in files if row["state"] == "ok"}
    places = {sample: uri or "" for sample, uri in lake.media(version=version).items()}
    gone = _known_to_be_gone(files, places, lake.path("media"))
    roots = {row["source"] for row in files if row["state"] == "ok" and row["source"]}
    there = _listing(roots)
    copies = lake.path("media")
    if any(uri.startswith(f"{copies}/") for uri in places.values()):
        there |= _listing({copies})
    wanted = {uri for sample, uri in places.items() if uri and sample not in gone}
    there |= _elsewhere(wanted - set(there), roots)
    missing, changed = [], []
    for sample_id, uri in sorted(places.items()):
        if sample_id in gone:
            continue
        info = there.get(uri)
        if not uri:
            missing.append(f"the sample {sample_id} names no file")
        elif info is None:
            missing.append(f"{uri} is missing")
        elif not _unchanged(info, sample_id, sizes.get(sample_id), known):
            changed.append(f"{uri} is changed: it is no longer sample {sample_id[:12]}…")
    yield finding(
        "media: every sample is there",
        len(places) - len(gone),
        missing,
        "Bring the files back to where they were ingested from, or ingest again: what was removed "
        "on purpose is then known to be; with `copy: true` a source's images are kept in the lake",
    )
    yield finding(
        "media: no sample has changed",
        len(places) - len(gone),
        changed,
        "Bring the first file back, or ingest again: the new bytes are then a sample of their own, "
        "and this one keeps its labels without its image",
    )
    # Whoever removed or overwrote a file knows it, and so does the lake: counted, and not broken.
    yield finding("media: samples known to be removed or overwritten", len(gone), [], "")


def _known_to_be_gone(files: list[dict[str, Any]], places: dict[str, str], copies: str) -> set[str]:
    """Return the samples of which an ingest has found every place removed or overwritten."""
    ok = {row["sample_id"] for row in files if row["state"] == "ok"}
    removed = {row["sample_id"] for row in files if row["state"] == "removed"}
    return {
        sample_id
        for sample_id, uri in places.items()
        if sample_id in removed and sample_id not in ok and not uri.startswith(f"{copies}/")
    }


def _listing(roots: set[str]) -> dict[str, FileInfo]:
    found: dict[str, FileInfo] = {}
    for root in sorted(roots):
        try:
            found |= {info.uri: info for info in open_storage(root).list(root)}
        except VisionloopError:
            continue  # its samples are then missing, one by one
    return found


def _elsewhere(uris: set[str], roots: set[str]) -> dict[str, FileInfo]:
    """List what no listing of a source shows: members of tars, and what lists of files name."""
    found: dict[str, FileInfo] = {}
    tars = {split_member(uri)[0] for uri in uris if is_member(uri)}
    for tar in sorted(tars):
        found |= {info.uri: info for info in ArchiveStorage().list(tar + INSIDE)}
    folders = tuple(f"{root}/" for root in roots)
    for uri in sorted(uris):
        if not is_member(uri) and not uri.startswith(folders):
            found |= _listing({uri})
    return found


def _unchanged(
    info: FileInfo, sample_id: str, size: int | None, known: set[tuple[str, str, str]]
) -> bool:
    if (info.uri, info.generation, sample_id) in known:
        return True
    if size is not None and info.size != size:
        return False
    # Touched or copied: only the bytes tell whether it is still the same sample.
    try:
        data = open_storage(info.uri).read(info.uri)
    except StorageError:
        return False
    return is_sample(sample_id, data)


def erasures(lake: Lake) -> Finding:
    """Return whether an erasure was begun and has not ended."""
    left = lake.storage.exists(lake.path(JOURNAL))
    return finding(
        "erasures: none is unfinished",
        1,
        [f"{lake.path(JOURNAL)}: samples that were to be erased may still be found"] * left,
        "End it with: visionloop erase --yes",
    )


def models(lake: Lake, version: str) -> Iterator[Finding]:
    """Yield whether every model's bundle is whole, and the pointer names the one in service."""
    held = lake.read("experiments", columns=["model_id", "uri", "state", "arm"], version=version)
    experiments = held.to_pylist()
    wrong = [
        f"{row['model_id']}: {problem}"
        for row in experiments
        if (problem := _bundle_problem(lake, row["uri"], row["model_id"]))
    ]
    yield finding(
        "models: every bundle is whole",
        len(experiments),
        wrong,
        "Restore the folder from a backup; a model that is not in service can be trained again",
    )
    ids = {row["model_id"] for row in experiments}
    pointed: set[str] = set()
    wrong, checked = [], 0
    for uri in files_under(lake.storage, lake.path("serving")):
        checked += 1
        try:
            pointer = json.loads(lake.storage.read(uri))
            model_id, model_uri = str(pointer["model_id"]), str(pointer["model_uri"])
        except (ValueError, KeyError, TypeError, VisionloopError) as error:
            wrong.append(f"{uri} is no pointer: {error}")
            continue
        if model_id in ids:  # another loop's pointer is that loop's
            pointed.add(model_id)
            if problem := _bundle_problem(lake, model_uri, model_id):
                wrong.append(f"{uri} points at {model_uri}: {problem}")
    serving = {row["model_id"] for row in experiments if row["state"] == "in_service"}
    serving &= {row["model_id"] for row in experiments if row["arm"] == "loop"}
    wrong += [
        f"{model} is in service by its experiment, and no pointer names it"
        for model in sorted(serving - pointed)
    ]
    yield finding(
        "serving: the pointer names the model in service",
        max(checked, len(serving)),
        wrong,
        "Run publish again for the model that should be in service",
    )


def _bundle_problem(lake: Lake, uri: str | None, model_id: str) -> str:
    if not uri:
        return "it has no bundle"
    storage = open_storage(uri)
    try:
        card = json.loads(storage.read(join(uri, CARD)))
        if card.get("model_id") != model_id:
            return f"its card is of the model {card.get('model_id')}"
        for name, digest in (card.get("files") or {}).items():
            if hashlib.sha256(storage.read(join(uri, name))).hexdigest() != digest:
                return f"{name} is not the file that {CARD} vouches for"
    except StorageError as error:
        return str(error)
    except (ValueError, AttributeError) as error:
        return f"{CARD} is damaged: {error}"
    return ""
