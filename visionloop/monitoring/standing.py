"""Flags that say how things stand now: written anew by each monitor, and dated by their first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from visionloop.lake.schemas import arrow_schema

if TYPE_CHECKING:
    from visionloop.lake.run import Run


def write_standing(
    run: Run, kinds: Sequence[str], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Put flags in the place of all that the lake holds of their kinds.

    A flag that stood before keeps its time, its round and its run, so that its age can be told; one
    that is not found any more is withdrawn. Where nothing changed, nothing is written.

    Args:
        run: The monitor's run.
        kinds: All kinds that were judged, also those of which nothing was found.
        rows: Rows of ``flags`` without round and run; each subject at most once a kind.

    Returns:
        The rows that did not stand before.
    """
    from pyiceberg.expressions import In

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


def _said(rows: Any) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)
