"""Flags that say how things stand now: which of all count, and how the monitor writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.ages import counts_from
from visionloop.monitoring.kinds import kind_of
from visionloop.monitoring.telling import evidence_of

if TYPE_CHECKING:
    from visionloop.lake.run import Run

_GONE, _UNREADABLE = "removed", "unreadable"
# What people said of a flag's subject since; the flag stays, and counts no more.
_SOLVED = '"state": "solved"'


def write_standing(
    run: Run, kinds: Sequence[str], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Put flags in the place of all that the lake holds of their kinds.

    A flag that stood before keeps its time, its round and its run, so that its age can be told; one
    that is not found any more is withdrawn. Where nothing changed, nothing is written. That time
    goes on is no change: of a flag that counts from a date (``since`` in its evidence) the score is
    an age, which whoever reads it tells by `visionloop.monitoring.ages.with_ages`.

    Args:
        run: The run that judged.
        kinds: All kinds that were judged, also those of which nothing was found.
        rows: Rows of ``flags`` without round and run; each subject at most once a kind.

    Returns:
        The rows that did not stand before.
    """
    from pyiceberg.expressions import In

    for kind in {*kinds, *(row["kind"] for row in rows)}:
        kind_of(kind)
    where = In(term="kind", literals=list(kinds))
    before = {
        (row["kind"], row["subject"]): row for row in run.read("flags", where=where).to_pylist()
    }
    kept, new = [], []
    for row in rows:
        held = before.get((row["kind"], row["subject"]))
        if held is None:
            new.append(row)
            kept.append({**row, "round_id": run.round_id, "run_id": run.run_id})
        else:
            since = {name: held[name] for name in ("flagged_at", "round_id", "run_id")}
            kept.append({**row, **since})
    if _said(kept) != _said(before.values()):
        table = pa.Table.from_pylist(kept, schema=arrow_schema("flags"))
        run.replace("flags", table, where)
    return new


def current_flags(
    flags: pa.Table, *, samples: pa.Table | None = None, files: pa.Table | None = None
) -> pa.Table:
    """Return the flags that count now.

    A standing one counts as long as the lake holds it. One that was found of a sample or a file for
    good counts while the lake has that sample or file: a file that was removed, or that can be read
    now, is not unreadable any more. A conflict that people solved counts no more.

    Args:
        flags: Rows of the table ``flags``, with all columns but round and run.
        samples: The lake's samples (sample_id); None keeps flags of any sample.
        files: The lake's files (uri, state), all findings; None keeps flags of any file.

    Cost: O(n) over the three tables, in Arrow.
    """
    if not flags.num_rows:
        return flags
    solved = pc.match_substring(pc.fill_null(flags["evidence"], ""), _SOLVED)
    keep = pc.invert(pc.and_(pc.equal(flags["kind"], "label_conflict"), solved))
    if samples is not None:
        there = pc.is_in(flags["subject"], value_set=_texts(samples["sample_id"]))
        keep = pc.and_(keep, pc.or_(pc.not_equal(flags["subject_type"], "sample"), there))
    if files is not None:
        of_file = pc.equal(flags["subject_type"], "file")
        present = files.filter(pc.not_equal(files["state"], _GONE))["uri"]
        broken = files.filter(pc.equal(files["state"], _UNREADABLE))["uri"]
        there = pc.if_else(
            pc.equal(flags["kind"], "unreadable"),
            pc.is_in(flags["subject"], value_set=_texts(broken)),
            pc.is_in(flags["subject"], value_set=_texts(present)),
        )
        keep = pc.and_(keep, pc.or_(pc.invert(of_file), there))
    return flags.filter(keep)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    return pc.unique(column.cast(pa.string()))


def _said(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return what rows say, whenever it is looked: of an age that it is one."""
    told = [row | {"score": None} if counts_from(evidence_of(row)) else row for row in rows]
    return sorted(json.dumps(row, sort_keys=True, default=str) for row in told)
