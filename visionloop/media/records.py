"""Rows of the lake for what an ingest found: files, samples, thumbnails, metadata, flags."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visionloop.lake.erasing.tombstones import REASON
from visionloop.lake.schemas import WRITTEN_BY, arrow_schema
from visionloop.media.copies import words_of
from visionloop.media.holdout import HOLDOUT, POOL, SPLITS, Samples, draw_splits
from visionloop.media.metadata import RESERVED, Problem, column_type
from visionloop.media.metadata_room import MAX_COLUMNS, with_room
from visionloop.media.outcomes import Rows, ids_of, texts_of
from visionloop.media.parts import IMAGE, IMAGE_COLUMNS, THUMBNAIL
from visionloop.media.reading import METADATA

if TYPE_CHECKING:
    from visionloop.config import HoldoutConfig

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Earlier:
    """What the lake held before an ingest, as far as it decides on splits.

    Attributes:
        samples: Table `samples` with sample_id, split, group_key and fingerprint.
        learnt_from: Whether anything was selected, requested or trained on: from then on a sample
            of the pool stays there.
    """

    samples: pa.Table
    learnt_from: bool


def written_by_us(table: str) -> pa.Schema:
    """Return the schema of a table without the columns that the run fills in."""
    written = {name for name, _ in WRITTEN_BY}
    return pa.schema([column for column in arrow_schema(table) if column.name not in written])


def rows_of(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table of the lake, without the columns that the run fills in."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=written_by_us(table))


def some_at_a_time(names: Sequence[str], most: int = 10_000) -> Iterator[list[str]]:
    """Yield names in lists that a filter of rows can hold."""
    for start in range(0, len(names), most):
        yield list(names[start : start + most])


def among(column: str, values: Sequence[str]) -> Any:
    """Return a filter for the rows whose column has one of some texts, whatever is in them."""
    from pyiceberg.expressions import In

    return In(term=column, literals=set(values))


def file_rows(part: pa.Table, roots: Sequence[str], now: datetime) -> pa.Table:
    """Return the rows of `files`: one for every file of a part, whatever it is.

    A file of an erased sample has none: its URI may tell of it as well.

    Args:
        part: As `visionloop.media.parts.SCHEMA`.
        roots: Root of each source.
        now: Time of this ingest, UTC.
    """
    part = part.filter(pc.not_equal(part["state"], METADATA))
    part = part.filter(pc.not_equal(pc.coalesce(part["reason"].cast(pa.string()), ""), REASON))
    return _table(
        "files",
        part.num_rows,
        {
            **{name: part[name] for name in _SAME},
            "sample_id": texts_of(part["sample"]),
            "source": _sources(part, roots),
            "found_at": now,
        },
    )


# What a problem was found by comparing.
_OF = "the file, what lies beside it, and what the lake held of the sample"
_SAME = ("uri", "generation", "size", "state", "reason", "detail", "offset", "sidecar")


def sample_rows(
    part: pa.Table,
    new: Mask,
    roots: Sequence[str],
    splits: Mapping[str, str],
    groups: Sequence[str],
    now: datetime,
) -> pa.Table:
    """Return the rows of `samples` for the new ones of a part.

    Args:
        part: As `visionloop.media.parts.SCHEMA`.
        new: Which rows are new samples, bool [n].
        roots: Root of each source.
        splits: Split of each sample that is not of the pool.
        groups: Group of each row, empty for none.
        now: Time of this ingest, UTC.
    """
    keep = pa.array(new)
    part = part.filter(keep)
    ids = texts_of(part["sample"])
    return _table(
        "samples",
        part.num_rows,
        {
            **{name: part[IMAGE + name] for name in IMAGE_COLUMNS},
            "sample_id": ids,
            "uri": pc.coalesce(part["kept"], part["uri"]),
            "source_uri": part["uri"],
            "ingested_at": now,
            "source": _sources(part, roots),
            "split": pa.array([splits.get(one, POOL) for one in ids.to_pylist()], pa.string()),
            "group_key": pa.array(groups, pa.string()).filter(keep),
        },
    )


def thumbnail_rows(pictures: pa.Table, new_ids: pa.Array) -> pa.Table:
    """Return the rows of `thumbnails` for new samples.

    Args:
        pictures: As `visionloop.media.parts.PICTURES`.
        new_ids: Ids of the new samples of the same part, binary(32).
    """
    pictures = pictures.filter(pc.is_in(pictures["sample"], value_set=new_ids))
    # A copy within the same part has the same picture.
    _, first = np.unique(
        pictures["sample"].combine_chunks().dictionary_encode().indices.to_numpy()
        if pictures.num_rows
        else np.zeros(0, np.int32),
        return_index=True,
    )
    pictures = pictures.take(pa.array(np.sort(first)))
    return _table(
        "thumbnails",
        pictures.num_rows,
        {"sample_id": texts_of(pictures["sample"]), "image": pictures[THUMBNAIL]},
    )


def splits_of(
    rows: Rows, groups: Mapping[int, str], holdout: HoldoutConfig, earlier: Earlier
) -> tuple[dict[str, str], list[str]]:
    """Draw the split of every new sample.

    Args:
        rows: All rows of the ingest, decided.
        groups: Group by row, of the rows that have one.
        holdout: How the holdout is chosen.
        earlier: What the lake held before.

    Returns:
        The split of each new sample that is not in the pool, and the ids of earlier samples that
        move into the holdout.
    """
    new = np.flatnonzero(rows.of_kind("new"))
    if not len(new):
        return {}, []
    before = earlier.samples
    held_out = before.filter(pc.equal(before["split"], HOLDOUT))
    if held_out.num_rows >= holdout.min_samples or not holdout.fraction:
        before = held_out  # nothing more is drawn: the others of a large lake have no say
    where = pa.array(new)
    ids = np.concatenate(
        [_bytes_of(rows.sample.take(where)), _bytes_of(ids_of(before["sample_id"]))]
    )
    words = [words_of(rows.fingerprint.take(where)), words_of(before["fingerprint"])]
    theirs = [SPLITS.index(split) for split in before["split"].to_pylist()]
    had = np.concatenate([np.zeros(len(new), np.uint8), np.array(theirs, np.uint8)])
    keys = [groups.get(row, "") for row in new.tolist()]
    keys += [group or "" for group in before["group_key"].to_pylist()]
    drawn = draw_splits(
        Samples(ids, keys, np.concatenate(words), had),
        movable=not earlier.learnt_from,
        fraction=holdout.fraction,
        min_samples=holdout.min_samples,
        max_samples=holdout.max_samples,
        seed=holdout.seed,
    )
    changed = np.flatnonzero((drawn != had) & (drawn != SPLITS.index(POOL))).tolist()
    told = [(row, ids[row].tobytes().hex()) for row in changed]
    return (
        {one: SPLITS[drawn[row]] for row, one in told if row < len(new)},
        sorted(one for row, one in told if row >= len(new)),
    )


def _bytes_of(ids: pa.Array) -> NDArray[np.uint8]:
    """Return ids of binary(32), none of them null, as uint8 [n, 32]."""
    held = np.frombuffer(ids.buffers()[1] or b"", np.uint8).reshape(-1, 32)
    return held[ids.offset : ids.offset + len(ids)]


def metadata_schema(types: Mapping[str, Mapping[str, int]], existing: pa.Schema) -> pa.Schema:
    """Return the schema of `metadata` with the columns that an ingest adds.

    A new column has the type of all its values, or text where they are of several; so the columns
    do not depend on which part of the ingest is written first.

    Args:
        types: Number of values of each name by their type.
        existing: Schema of the table as it is.
    """
    room = MAX_COLUMNS - sum(field.name not in RESERVED for field in existing)
    counts = {name: sum(n.values()) for name, n in types.items() if name not in existing.names}
    added = with_room(counts, room)
    return pa.schema([*existing, *((name, column_type(types[name])) for name in added)])


def changed_metadata(new: pa.Table, held: pa.Table, narrowed: Collection[str]) -> pa.Table:
    """Return those rows of `metadata` that are others than they were.

    Args:
        new: Rows as they are said now.
        held: Those of the lake of the same samples.
        narrowed: Ids of samples that some origin does not speak of any more: what it said stays.
    """
    kept = [f for f in held.schema if f.name not in {*new.schema.names, "round_id", "run_id"}]
    before = {row["sample_id"]: row for row in held.to_pylist()}
    rows = []
    for row in new.to_pylist():
        old = before.get(row["sample_id"], {})
        row = {**dict.fromkeys((f.name for f in kept), None), **row}
        if row["sample_id"] in narrowed:
            row = {k: old.get(k) if v is None else v for k, v in row.items()}
        if any(value != old.get(name) for name, value in row.items()):
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=pa.schema([*new.schema, *kept]))


def flag_rows(problems: Iterable[Problem], now: datetime) -> pa.Table:
    """Return the rows of `flags` for problems that ingest met, one a sample and kind."""
    details: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        details.setdefault((problem.sample_id, problem.kind), []).append(problem.detail)
    return rows_of(
        "flags",
        [
            {
                "subject": sample_id,
                "subject_type": "sample",
                "stage": "ingest",
                "kind": kind,
                "evidence": json.dumps(
                    {"problems": told, "reference": _OF, "unit": "", "images": [sample_id]},
                    ensure_ascii=False,
                ),
                "flagged_at": now,
            }
            for (sample_id, kind), told in sorted(details.items())
        ],
    )


def _sources(part: pa.Table, roots: Sequence[str]) -> pa.Array:
    return pa.array([roots[number] for number in part["source"].to_pylist()], pa.string())


def _table(name: str, n: int, columns: Mapping[str, Any]) -> pa.Table:
    """Return columns as a table of the lake; a single value stands in every row."""
    schema = written_by_us(name)
    arrays = []
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            arrays.append(pa.nulls(n, field.type))
        elif isinstance(column, pa.Array | pa.ChunkedArray):
            arrays.append(column.cast(field.type))
        else:
            arrays.append(pa.repeat(pa.scalar(column, field.type), n))
    return pa.table(arrays, schema=schema)
