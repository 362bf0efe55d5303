"""What the checks find, as rows of the lake's tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from visionloop.lake.schemas import arrow_schema

# In the evidence of a flag whose score is an age: from when it counts, ISO 8601.
SINCE = "since"


@dataclass
class Findings:
    """Rows of ``checks`` and ``flags`` as they are found.

    Attributes:
        now: Time that is written on every row, in UTC.
        checks: Rows of ``checks``.
        flags: Rows of ``flags``.
    """

    now: datetime
    checks: list[dict[str, Any]] = field(default_factory=list)
    flags: list[dict[str, Any]] = field(default_factory=list)

    def check(self, subject: str, generation: str, state: str) -> None:
        """Record the state of a subject: a sample with no generation, or a URI with its own.

        Args:
            subject: A sample's id, or the URI of what is none.
            generation: Generation of that URI; empty for a sample.
            state: ``ok``, ``flagged``, ``unreadable``, ``no_picture`` or ``unchecked``.
        """
        self.checks.append(
            {
                "subject": subject,
                "generation": generation,
                "state": state,
                "checked_at": self.now,
            }
        )

    def flag(
        self,
        subject: str,
        kind: str,
        *,
        score: float | None = None,
        threshold: float | None = None,
        subject_type: str = "sample",
        **evidence: Any,
    ) -> None:
        """Record a flag with its evidence.

        Args:
            subject: What is flagged.
            kind: Name of the flag.
            score: What was measured.
            threshold: What it was held against, in the same unit.
            subject_type: ``sample``, ``file``, ``model``, ``endpoint`` or ``round``.
            evidence: What a person needs to judge it; anything that JSON can hold.
        """
        self.flags.append(
            flag_row(subject, subject_type, kind, score, threshold, evidence, self.now)
        )

    def checks_table(self) -> pa.Table:
        """Return the rows of ``checks``, without round and run."""
        return rows_table("checks", self.checks)

    def flags_table(self) -> pa.Table:
        """Return the rows of ``flags``, without round and run."""
        return rows_table("flags", self.flags)


def flag_row(
    subject: str,
    subject_type: str,
    kind: str,
    score: float | None,
    threshold: float | None,
    evidence: Mapping[str, Any],
    now: datetime,
) -> dict[str, Any]:
    """Return a row of ``flags`` that the monitor writes, without round and run.

    Args:
        subject: What is flagged.
        subject_type: What that is, such as ``sample`` or ``stage``.
        kind: Name of the flag.
        score: What was measured.
        threshold: What it was held against, in the same unit.
        evidence: What a person needs to judge it. Written in ASCII: names of files may hold bytes
            that are no text.
        now: Written as ``flagged_at``.
    """
    return {
        "subject": subject,
        "subject_type": subject_type,
        "stage": "monitor",
        "kind": kind,
        "score": score,
        "threshold": threshold,
        "evidence": json.dumps(evidence, sort_keys=True),
        "flagged_at": now,
    }


def rows_table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows of a table of the lake, without the round and the run that the lake fills in."""
    filled_in = {"round_id", "run_id"}
    schema = pa.schema([f for f in arrow_schema(name) if f.name not in filled_in])
    return pa.Table.from_pylist(rows, schema=schema)
