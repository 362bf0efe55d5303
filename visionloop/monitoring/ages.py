"""Flags whose score is an age: written once, it grows, and is told as of a time of reading.

A flag that counts from a date has it as ``since`` in its evidence. That time goes on is thus no
change that would write a version of the lake.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.findings import SINCE
from visionloop.monitoring.telling import evidence_of

_UNITS = {"hours": timedelta(hours=1), "days": timedelta(days=1)}
# A source is heard when it is looked at: after the last look nobody knows whether it is silent.
_UNTIL_LOOKED = frozenset({"camera_silent"})


def counts_from(evidence: Mapping[str, Any]) -> datetime | None:
    """Return the date from which the score of a flag counts; None where it is no age.

    Args:
        evidence: The flag's evidence.
    """
    return datetime.fromisoformat(evidence[SINCE]) if SINCE in evidence else None


def with_ages(flags: pa.Table, now: datetime, looked_at: datetime | None) -> pa.Table:
    """Return flags with the ages among their scores as of a time.

    Args:
        flags: Rows of ``flags`` with ``kind``, ``score`` and ``evidence``.
        now: The time at which they are read.
        looked_at: When the sources were last looked at: a silence is counted up to then. None
            where nobody knows: it is told as it was written.

    Cost: O(n) in Arrow, and a row of Python's for each flag that has an age.
    """
    aged = pc.match_substring(pc.fill_null(flags["evidence"], ""), f'"{SINCE}": ')
    rows = flags.select(["kind", "score", "evidence"]).filter(aged).to_pylist()
    if not rows:
        return flags
    scores = pa.array([_score(row, now, looked_at) for row in rows], flags["score"].type)
    told = pc.replace_with_mask(flags["score"].combine_chunks(), aged.combine_chunks(), scores)
    return flags.set_column(flags.column_names.index("score"), flags.field("score"), told)


def _score(row: Mapping[str, Any], now: datetime, looked_at: datetime | None) -> float | None:
    evidence = evidence_of(row)
    since, score = counts_from(evidence), row["score"]
    until = looked_at if row["kind"] in _UNTIL_LOOKED else now
    if since is None or score is None or until is None:
        return None if score is None else float(score)
    # An age only grows: what an ingest brought while it looked came after it had begun.
    return max(float(score), (until - since) / _UNITS[evidence["unit"]])
