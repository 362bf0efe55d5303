"""Puts a table's rows into files that do not tell of erased samples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake import data_files, vector_files
from visionloop.lake.erasing.tombstones import Tombstones
from visionloop.lake.erasing.traces import SHORT, Traces
from visionloop.lake.schemas import EMBEDDINGS_PREFIX
from visionloop.lake.vacuum import place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table

# Columns of which an empty value says less than a tombstone would: they name a row elsewhere.
_REFERENCES = {"nearest_chosen": "nearest_distance"}


@dataclass
class Rewritten:
    """What was done to a table's rows.

    Attributes:
        removed: Rows that were the samples'.
        changed: Rows of others that named them, and stay without.
        files: Data files that were written anew or dropped.
    """

    removed: int = 0
    changed: int = 0
    files: int = 0


def rewrite(
    name: str,
    table: Table,
    traces: Traces,
    stones: Tombstones,
    suspects: Collection[str],
    properties: dict[str, str],
) -> Rewritten:
    """Write the files of a table's newest snapshot anew that tell of samples, without them.

    Args:
        name: Name of the table.
        table: The table.
        traces: What tells of the samples.
        stones: What is put in their places.
        suspects: Places of the files that hold traces.
        properties: Properties of the snapshots.
    """
    done = Rewritten()
    names = {one[:SHORT]: stones.name_of(one) for one in traces.ids}
    added: list[DataFile] = []
    going = [task for task in table.scan().plan_files() if place(task.file.file_path) in suspects]
    for task in going:
        parts = (without(name, part, traces, names, done) for part in _parts(name, table, task))
        options = (
            vector_files.layout() if name.startswith(EMBEDDINGS_PREFIX) else {"compression": "zstd"}
        )
        written = data_files.write(table, parts, **options)
        added += [written] if written is not None else []
    done.files = len(going)
    with table.transaction() as change:
        if going:
            with change.update_snapshot(properties).overwrite() as snapshot:
                for task in going:
                    snapshot.delete_data_file(task.file)
                for one in added:
                    snapshot.append_data_file(one)
        # That one tells in its manifests which files it removed, with their bounds; the next one
        # no longer does.
        with change.update_snapshot(properties).fast_append():
            pass
    return done


def count(name: str, table: Table, traces: Traces, suspects: Collection[str]) -> Rewritten:
    """Return what `rewrite` would do, as far as rows go.

    Args:
        name: Name of the table.
        table: The table.
        traces: What tells of the samples.
        suspects: Places of the files that hold traces.
    """
    done = Rewritten()
    for task in table.scan().plan_files():
        if place(task.file.file_path) in suspects:
            done.files += 1
            for part in _parts(name, table, task):
                without(name, part, traces, {}, done)
    return done


def _parts(name: str, table: Table, task: FileScanTask) -> Iterator[pa.Table]:
    if name.startswith(EMBEDDINGS_PREFIX):
        return vector_files.tables(table, task)
    from visionloop.lake.scanning import rows_of_file

    return rows_of_file(table, task)


def without(
    name: str, part: pa.Table, traces: Traces, names: Mapping[str, str], done: Rewritten
) -> pa.Table:
    """Return rows without what tells of samples, and count what was done.

    Args:
        name: Name of their table.
        part: Rows, with all columns.
        traces: What tells of the samples.
        names: What is put in their places, by the beginning of an id.
        done: Where it is counted.
    """
    gone = _theirs(name, part, traces)
    changed = pa.repeat(False, part.num_rows)
    if name == "training_sets":
        part = _buried(part, gone, names)
        changed = gone
    else:
        done.removed += pc.sum(gone).as_py() or 0
        part = part.filter(pc.invert(gone))
        changed = pa.repeat(False, part.num_rows)
    for place_, column in enumerate(part.schema):
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        found = traces.suspects(part[column.name])
        if not pc.any(found).as_py():
            continue
        old = part[column.name].to_pylist()
        new = [
            _redacted(text, traces, names) if suspect else text
            for text, suspect in zip(old, found.to_pylist(), strict=True)
        ]
        here = [a != b for a, b in zip(old, new, strict=True)]
        if column.name in _REFERENCES:
            new = [None if other else text for other, text in zip(here, new, strict=True)]
            beside = _REFERENCES[column.name]
            there = part.schema.get_field_index(beside)
            empty = pa.scalar(None, part.schema.field(there).type)
            part = part.set_column(
                there, part.schema.field(there), pc.if_else(pa.array(here), empty, part[beside])
            )
        part = part.set_column(place_, column, pa.array(new, column.type))
        changed = pc.or_(changed, pa.array(here))
    done.changed += pc.sum(changed).as_py() or 0
    return part


def _theirs(name: str, part: pa.Table, traces: Traces) -> pa.ChunkedArray | pa.Array:
    """Return which rows are about the samples, not only name them."""
    gone = pa.repeat(False, part.num_rows)
    subjects = pa.array(sorted(traces.ids | traces.uris), pa.string())
    for column in ("sample_id", "subject", *(["uri"] if name == "files" else [])):
        if column in part.column_names:
            held = pc.is_in(part[column].cast(pa.string()), value_set=subjects)
            gone = pc.or_(gone, held)
    if name == "harvest_events":
        gone = pc.or_(gone, pa.array([_carried(row, traces) for row in _light(part)], pa.bool_()))
    if name == "confidences":
        # The body of a request is one: what it asked about other images goes with it.
        asked = pc.is_in(part["event_id"], value_set=pa.array(sorted(traces.events), pa.string()))
        same = pa.array(sorted(traces.answers), pa.string())
        gone = pc.or_(gone, pc.and_(asked, pc.is_in(part["response_sha256"], value_set=same)))
    return gone


def _light(part: pa.Table) -> list[dict[str, str | None]]:
    rows: list[dict[str, str | None]] = part.select(
        ["event_id", "kind", "state", "decoded"]
    ).to_pylist()
    return rows


def _carried(row: dict[str, str | None], traces: Traces) -> bool:
    """Whether a logged event carried a sample, or is the answer to one that did."""
    told, event = row["decoded"] or "", row["event_id"]
    if told and traces.in_text(told):
        return True
    if event not in traces.events:
        return False
    if not told:
        return row["state"] == "duplicate"
    if row["kind"] != "response":
        return False
    return event not in traces.answered or json.loads(told).get("body_sha256") in traces.answers


def _buried(part: pa.Table, gone: pa.Array, names: Mapping[str, str]) -> pa.Table:
    """Return rows of training sets with tombstones: how many there were is not forgotten."""
    ids = [
        names.get(one[:SHORT], "erased") if going else one
        for one, going in zip(part["sample_id"].to_pylist(), gone.to_pylist(), strict=True)
    ]
    for name, values in (
        ("sample_id", pa.array(ids, pa.string())),
        ("label", pc.if_else(gone, pa.scalar(None, pa.string()), part["label"].cast(pa.string()))),
    ):
        where = part.schema.get_field_index(name)
        part = part.set_column(where, name, values.cast(part.schema.field(where).type))
    return part


def _redacted(text: str, traces: Traces, names: Mapping[str, str]) -> str:
    """Return a text with tombstones where it named samples or places of theirs."""
    return traces.text.sub(lambda found: names.get(found[0][:SHORT].lower(), "erased"), text)
