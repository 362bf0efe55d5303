"""Finds what tells of samples: in every table of every loop of a lake, old files included."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visionloop.lake.erasing.tombstones import Tombstones
from visionloop.lake.erasing.traces import Traces
from visionloop.lake.migration import loop_tables
from visionloop.lake.schemas import EMBEDDINGS_PREFIX
from visionloop.lake.storage import StorageError, join, local_path, name_of, scheme_of
from visionloop.lake.vacuum import listed

if TYPE_CHECKING:
    from visionloop.lake.lake import Lake

_ROWS = 16_384


@dataclass(frozen=True)
class Model:
    """A trained model that has seen an erased sample.

    Attributes:
        loop: Its loop.
        model_id: The model.
        state: What its experiment says: trained, in_service, retired and so on.
        uri: Its bundle.
        named_by: Pointers and records of rollouts that name it: it answers requests, or may again.
    """

    loop: str
    model_id: str
    state: str
    uri: str
    named_by: list[str] = field(default_factory=list)


@dataclass
class Gathered:
    """What is known of the samples that are to be erased.

    Attributes:
        traces: What tells of them.
        known: Those of them that the lake holds anything of.
        originals: Where each lies or lay outside of the lake.
        files: URI and generation of the files that an ingest found them in.
        sidecars: Files beside those that told something of them.
        sources: Sources whose tables, lists or sets speak of them.
        tasks: Ids of label requests at a provider, as ``provider: id``.
        models: Models that were trained with them.
        runs: Runs whose rows name them: artifacts of theirs may as well.
    """

    traces: Traces
    known: set[str] = field(default_factory=set)
    originals: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    files: set[tuple[str, str]] = field(default_factory=set)
    sidecars: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    models: list[Model] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)


class _Rows:
    """Reads columns of every Parquet file that lies under a table, of whatever snapshot."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._tables = dict(loop_tables(lake.catalog, lake.loop))

    @property
    def names(self) -> list[str]:
        return list(self._tables)

    def of(self, name: str, *columns: str) -> Iterator[pa.Table]:
        """Yield rows with those of the columns that a file has; the first one it must have."""
        table = self._tables.get(name)
        for info in listed(self._lake, table).values() if table is not None else ():
            if not info.uri.endswith(".parquet") or not info.size:
                continue
            local = scheme_of(info.uri) == "file"
            source: Any = (
                str(local_path(info.uri))
                if local
                else io.BytesIO(self._lake.storage.read(info.uri))
            )
            try:
                file = pq.ParquetFile(source)
            except (pa.ArrowInvalid, OSError):
                continue  # a killed writer left half of it
            held = [one for one in columns if one in file.schema_arrow.names]
            if columns[0] in held:
                for batch in file.iter_batches(_ROWS, columns=held):
                    yield pa.Table.from_batches([batch])


def gather(lakes: Sequence[Lake], sample_ids: Collection[str]) -> Gathered:
    """Find what tells of samples.

    Args:
        lakes: Every loop of a lake.
        sample_ids: The samples.
    """
    ids = frozenset(sample_ids)
    found = Gathered(Traces(ids))
    wanted = pa.array(sorted(ids), pa.string())
    for lake in lakes:
        rows = _Rows(lake)
        _mentions(rows, wanted, found)
        _requests(rows, wanted, found)
        found.traces |= _events(rows, wanted, ids, found.known)
        found.models += _models(lake, rows, ids)
    uris = _places(lakes, wanted, found)
    blobs = _blobs(lakes, wanted)
    found.traces |= Traces(ids, uris=frozenset(uris), blobs=frozenset(blobs))
    return found


def _mine(part: pa.Table, column: str, wanted: pa.Array) -> pa.Table:
    return part.filter(pc.is_in(part[column].cast(pa.string()), value_set=wanted))


def _mentions(rows: _Rows, wanted: pa.Array, found: Gathered) -> None:
    for name in rows.names:
        for column in ("sample_id", "subject"):
            for part in rows.of(name, column, "run_id"):
                mine = _mine(part, column, wanted)
                found.known.update(mine[column].to_pylist())
                if "run_id" in mine.column_names:
                    found.runs.update(one for one in mine["run_id"].to_pylist() if one)


def _requests(rows: _Rows, wanted: pa.Array, found: Gathered) -> None:
    for part in rows.of("label_requests", "sample_id", "provider", "external_id"):
        for row in _mine(part, "sample_id", wanted).to_pylist():
            if row.get("external_id"):
                found.tasks.add(f"{row.get('provider') or 'provider'}: {row['external_id']}")


def _events(rows: _Rows, wanted: pa.Array, ids: frozenset[str], known: set[str]) -> Traces:
    """Return the logged events that carried the samples, and the answers to them."""
    events: set[str] = set()
    answered: set[str] = set()
    answers: set[str] = set()
    for part in rows.of("confidences", "sample_id", "event_id", "response_sha256"):
        mine = _mine(part, "sample_id", wanted)
        answered.update(mine["event_id"].to_pylist())
        answers.update(one for one in mine["response_sha256"].to_pylist() if one)
    find = Traces(ids)
    for part in rows.of("harvest_events", "decoded", "event_id"):
        mine = part.filter(find.suspects(part["decoded"]))
        events.update(one for one in mine["event_id"].to_pylist() if one)
        for text in mine["decoded"].to_pylist():
            known.update(one for one in ids if one in text)
    return Traces(
        ids,
        events=frozenset(events | answered),
        answered=frozenset(answered),
        answers=frozenset(answers),
    )


def _places(lakes: Sequence[Lake], wanted: pa.Array, found: Gathered) -> set[str]:
    """Return the places that only these samples had, and note where they lie outside the lake."""
    mine: dict[str, set[str]] = defaultdict(set)
    columns = {"files": ("uri",), "samples": ("uri", "source_uri")}
    for lake in lakes:
        rows = _Rows(lake)
        for name, places in columns.items():
            for part in rows.of(name, "sample_id", *places, "sidecar", "generation", "source"):
                for row in _mine(part, "sample_id", wanted).to_pylist():
                    found.sidecars |= set(_sidecars(row))
                    if row.get("source") and _is_told(row):
                        found.sources.add(row["source"])
                    if row.get("generation"):
                        found.files.add((row["uri"], row["generation"]))
                    for place in places:
                        if row.get(place):
                            mine[row[place]].add(row["sample_id"])
    for uri, samples in mine.items():
        if not any(uri.startswith(f"{lake.path('media')}/") for lake in lakes):
            found.originals[uri] |= samples
    candidates = pa.array(sorted(mine), pa.string())
    shared = set()
    for lake in lakes:
        rows = _Rows(lake)
        for name, places in columns.items():
            for part in rows.of(name, "sample_id", *places):
                others = part.filter(
                    pc.and_(
                        pc.is_valid(part["sample_id"]),
                        pc.invert(pc.is_in(part["sample_id"].cast(pa.string()), value_set=wanted)),
                    )
                )
                for place in places:
                    if place in others.column_names:
                        shared.update(_mine(others, place, candidates)[place].to_pylist())
    return set(mine) - shared


def _sidecars(row: dict[str, Any]) -> Iterator[str]:
    """Yield the places of the sidecars that a row of `files` names."""
    folder = (row.get("uri") or "").rpartition("/")[0]
    for mark in (row.get("sidecar") or "").split("; "):
        if name := mark.rpartition(" ")[0]:
            yield join(folder, name)


def _is_told(row: dict[str, Any]) -> bool:
    """Return whether a table, a list or a set of its source speaks of a row of `files`."""
    marks = (row.get("sidecar") or "").split("; ")
    told = ("table=", "values=", "boxes=")
    named = row["source"].lower().endswith((".csv", ".txt", ".parquet"))
    return named or any(mark.startswith(told) for mark in marks)


def _blobs(lakes: Sequence[Lake], wanted: pa.Array) -> set[bytes]:
    """Return the vectors and thumbnails that only these samples have."""
    found: set[bytes] = set()
    for lake in lakes:
        rows = _Rows(lake)
        for name in rows.names:
            column = "image" if name == "thumbnails" else "vector"
            if name != "thumbnails" and not name.startswith(EMBEDDINGS_PREFIX):
                continue
            mine: set[bytes] = set()
            for part in rows.of(name, "sample_id", column):
                mine.update(_mine(part, "sample_id", wanted)[column].drop_null().to_pylist())
            if not mine:
                continue
            # The same picture in another file has the same vector: that one stays.
            for part in rows.of(name, "sample_id", column):
                same = pc.is_in(part[column], value_set=pa.array(sorted(mine), part[column].type))
                other = pc.invert(pc.is_in(part["sample_id"].cast(pa.string()), value_set=wanted))
                mine.difference_update(part.filter(pc.and_(same, other))[column].to_pylist())
            found |= mine
    return found


def _models(lake: Lake, rows: _Rows, ids: frozenset[str]) -> list[Model]:
    stones = Tombstones.of(lake)
    names = [*ids, *(name for one in ids if (name := stones.name_of(one)))]
    sets: set[str] = set()
    for part in rows.of("training_sets", "sample_id", "training_set"):
        sets.update(
            _mine(part, "sample_id", pa.array(names, pa.string()))["training_set"].to_pylist()
        )
    if not sets:
        return []
    columns = ["model_id", "training_set", "state", "uri"]
    held = [
        row
        for row in lake.read("experiments", columns=columns).to_pylist()
        if row["training_set"] in sets
    ]
    records = _records(lake) if held else {}
    return [
        Model(
            lake.loop,
            row["model_id"],
            row["state"] or "",
            row["uri"] or "",
            [name for name, text in records.items() if row["model_id"] in text],
        )
        for row in sorted(held, key=lambda row: row["model_id"])
    ]


def _records(lake: Lake) -> dict[str, str]:
    """Return pointers and records of rollouts, by their place below the lake's root."""
    found = {}
    for folder in ("serving", "leases"):
        uri = lake.path(folder)
        for info in lake.storage.list(uri) if lake.storage.exists(uri) else ():
            try:
                told = json.loads(lake.storage.read(info.uri))
            except (StorageError, ValueError):
                continue
            found[f"{folder}/{name_of(info.uri)}"] = json.dumps(told)
    return found
