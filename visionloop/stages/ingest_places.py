"""Marks what a listing no longer shows, and moves or flags the samples that lay there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.media.metadata import Problem
from visionloop.media.outcomes import ids_of, texts_of
from visionloop.media.places import MEDIA_MISSING, Moved, settle
from visionloop.media.records import among, some_at_a_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visionloop.lake import Run
    from visionloop.media.outcomes import Rows
    from visionloop.media.places import Met
    from visionloop.stages.ingest_rows import Ingest


def settle_places(ingest: Ingest, rows: Rows, met: Met) -> dict[str, str]:
    """Write which files are gone or back, and flag samples that no place has any more.

    Args:
        ingest: The ingest that is being committed.
        rows: What it found.
        met: The files that it met, and what became of those of earlier ingests.

    Returns:
        New URI of each sample that another place still has.
    """
    run = ingest.run
    for some in some_at_a_time(met.uris):
        assert met.rows is not None  # there are places
        mine = met.rows.filter(pc.is_in(met.rows["uri"].cast(pa.string()), pa.array(some)))
        run.replace("files", mine, among("uri", some))
    missing = run.read("flags", columns=["subject"], where=f"kind == '{MEDIA_MISSING}'")
    flagged = set(missing["subject"].to_pylist())
    came = _came(ingest, rows, met.left | flagged)
    concerned = met.left | (flagged & (met.back | set(came["sample_id"].to_pylist())))
    uris: dict[str, str] = {}
    for some in some_at_a_time(sorted(concerned)):
        these = among("sample_id", some)
        table = run.read("samples", columns=["sample_id", "uri"], where=these)
        uris |= dict(zip(table["sample_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    if not uris:
        return {}
    columns = ["uri", "generation", "state", "sample_id"]
    moved = settle(ingest.files(columns), met, came, uris, flagged, ingest.lake.path("media"))
    _write_flags(ingest, moved, uris)
    ingest.counts["n_moved"] += len(moved.uris)
    return moved.uris


def change_samples(run: Run, splits: Mapping[str, str], moved: Mapping[str, str]) -> None:
    """Change samples that the lake has.

    Args:
        run: The run.
        splits: New split of those that join the holdout, or are reserved.
        moved: New URI of those that lie elsewhere now.
    """
    for some in some_at_a_time(sorted({*splits, *moved})):
        these = among("sample_id", some)
        table = run.read("samples", where=these)
        ids = table["sample_id"].to_pylist()
        for name, values in (("split", splits), ("uri", moved)):
            place = table.schema.get_field_index(name)
            new = [
                values.get(one, value)
                for one, value in zip(ids, table[name].to_pylist(), strict=True)
            ]
            table = table.set_column(place, table.schema.field(place), pa.array(new, pa.string()))
        run.replace("samples", table, these)


def _write_flags(ingest: Ingest, moved: Moved, uris: Mapping[str, str]) -> None:
    for some in some_at_a_time(moved.found):
        these = among("subject", some)
        table = ingest.run.read("flags", where=these)
        stay = table.filter(pc.not_equal(table["kind"], MEDIA_MISSING))
        ingest.run.replace("flags", stay, these)
    ingest.flag(
        Problem(one, MEDIA_MISSING, f"no source has it any more: {uris[one]}")
        for one in moved.missing
    )


def _came(ingest: Ingest, rows: Rows, samples: set[str]) -> pa.Table:
    """Return the files of this ingest that hold some samples: sample_id and uri."""
    wanted = ids_of(sorted(samples))
    found = []
    if len(wanted) and pc.any(pc.is_in(rows.sample, value_set=wanted)).as_py():
        for part in ingest.parts():
            mine = part.rows.filter(pc.is_in(part.rows["sample"], value_set=wanted))
            found.append(pa.table({"sample_id": texts_of(mine["sample"]), "uri": mine["uri"]}))
    none = {name: pa.array([], pa.string()) for name in ("sample_id", "uri")}
    return pa.concat_tables([pa.table(none), *found])
