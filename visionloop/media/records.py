"""Rows of the lake for what an ingest found: files, samples, metadata, flags."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from visionloop.lake.schemas import WRITTEN_BY, arrow_schema
from visionloop.lake.storage import normalise
from visionloop.media.holdout import HOLDOUT, Held, Member, draw_splits
from visionloop.media.intake import NEW, Found
from visionloop.media.metadata import (
    Problem,
    Sidecar,
    capture_time,
    column_name,
    metadata_table,
)
from visionloop.media.reading import SKIPPED, UNREADABLE

if TYPE_CHECKING:
    from visionloop.config import HoldoutConfig


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


def rows_of(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table of the lake, without the columns that the run fills in."""
    written = {name for name, _ in WRITTEN_BY}
    schema = pa.schema([column for column in arrow_schema(table) if column.name not in written])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def file_rows(found: Iterable[Found], now: datetime) -> pa.Table:
    """Return the rows of `files`: one for every new file, whatever it is."""
    rows = []
    for item in found:
        examined = item.examined
        state = examined.state
        rows.append(
            {
                "uri": examined.info.uri,
                "generation": examined.info.generation,
                "size": examined.info.size if state == SKIPPED else examined.size,
                "state": state,
                "reason": examined.reason,
                "detail": examined.detail[:500],
                "sample_id": None if state in (SKIPPED, UNREADABLE) else examined.sample_id,
                "source": normalise(item.source.uri),
                "found_at": now,
            }
        )
    return rows_of("files", rows)


def sample_rows(
    found: Iterable[Found], holdout: HoldoutConfig, earlier: Earlier, now: datetime
) -> tuple[pa.Table, list[str]]:
    """Return the rows of `samples` for the new ones, each with its split.

    Args:
        found: What was found.
        holdout: How the holdout is chosen.
        earlier: What the lake held before.
        now: Time of this ingest, UTC.

    Returns:
        The new rows, and the ids of earlier samples that move into the holdout.
    """
    column = column_name(holdout.group_by) if holdout.group_by else ""
    new: dict[str, tuple[Found, Member]] = {}
    for item in found:
        inspection = item.examined.inspection
        if item.outcome == NEW and inspection is not None:
            group = _group_key(item.examined.sidecar, column)
            member = Member(inspection.sample_id, group, inspection.fingerprint)
            new[inspection.sample_id] = (item, member)
    held = [
        Held(Member(sample_id, group or "", fingerprint or bytes(32)), split)
        for sample_id, group, fingerprint, split in zip(
            *(
                earlier.samples[name].to_pylist()
                for name in ("sample_id", "group_key", "fingerprint", "split")
            ),
            strict=True,
        )
    ]
    splits = draw_splits(
        [member for _, member in new.values()],
        held,
        movable=not earlier.learnt_from,
        fraction=holdout.fraction,
        min_samples=holdout.min_samples,
        max_samples=holdout.max_samples,
        seed=holdout.seed,
    )
    rows = rows_of(
        "samples",
        [
            _sample(item, member, splits[sample_id], now)
            for sample_id, (item, member) in new.items()
        ],
    )
    return rows, [sample_id for sample_id in splits if sample_id not in new]


def moved_rows(samples: pa.Table) -> pa.Table:
    """Return rows of `samples` with the split ``holdout``; all else stays, the round too."""
    place = samples.schema.get_field_index("split")
    field = samples.schema.field(place)
    return samples.set_column(place, field, pa.array([HOLDOUT] * samples.num_rows, field.type))


def metadata_rows(found: Iterable[Found], existing: pa.Schema) -> tuple[pa.Table, list[Problem]]:
    """Return the rows of `metadata` for new samples with a sidecar, and what did not fit.

    A copy's own sidecar is not read: the first file of a sample speaks for it.
    """
    sidecars = {
        item.examined.sample_id: item.examined.sidecar
        for item in found
        if item.outcome == NEW and item.examined.sidecar is not None
    }
    return metadata_table(sidecars, existing)


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
                "evidence": json.dumps({"problems": told}, ensure_ascii=False),
                "flagged_at": now,
            }
            for (sample_id, kind), told in sorted(details.items())
        ],
    )


def _sample(item: Found, member: Member, split: str, now: datetime) -> dict[str, Any]:
    inspection = item.examined.inspection
    assert inspection is not None  # a new sample was inspected
    sidecar = item.examined.sidecar
    captured = inspection.captured_at or (capture_time(sidecar) if sidecar else None)
    return {
        "sample_id": inspection.sample_id,
        "uri": item.uri,
        "source_uri": item.examined.info.uri,
        "width": inspection.width,
        "height": inspection.height,
        "format": inspection.format,
        "captured_at": captured,
        "ingested_at": now,
        "source": normalise(item.source.uri),
        "split": split,
        "group_key": member.group_key,
        "fingerprint": inspection.fingerprint,
        "sharpness": inspection.sharpness,
        "brightness": inspection.brightness,
        "contrast": inspection.contrast,
    }


def _group_key(sidecar: Sidecar | None, column: str) -> str:
    value = sidecar.values.get(column) if sidecar and column else None
    return value.text if value else ""
