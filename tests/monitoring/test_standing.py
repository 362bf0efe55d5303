"""Flags that say how things stand: dated by their first, withdrawn when it is over."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from tests.selection.small_lake import put
from visionloop.errors import VisionloopError
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.standing import current_flags, write_standing

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def flag(subject: str, kind: str = "slow_stage", **more: Any) -> dict[str, Any]:
    return {
        "subject": subject,
        "subject_type": "stage",
        "stage": "monitor",
        "kind": kind,
        "score": 2.0,
        "threshold": 1.0,
        "evidence": "{}",
        "flagged_at": NOW,
        **more,
    }


def written(lake: Lake, rows: list[dict[str, Any]], round_id: str) -> tuple[list[str], str]:
    """Write flags as a monitor does; return the subjects that are new, and the lake's version."""
    with lake.run(stage="monitor", round_id=round_id) as run:
        new = write_standing(run, ["slow_stage", "pool_exhausted"], rows)
        return [row["subject"] for row in new], run.commit()


def test_a_flag_that_stands_keeps_its_age_and_one_that_is_over_is_withdrawn(lake: Lake) -> None:
    put(lake, "flags", [flag("s", "blurred", subject_type="sample")])
    assert written(lake, [flag("infer"), flag("train")], "0000")[0] == ["infer", "train"]
    later = NOW + timedelta(days=3)
    rows = [flag("infer", score=5.0, flagged_at=later), flag("select", flagged_at=later)]
    assert written(lake, rows, "0001")[0] == ["select"]
    held = {row["subject"]: row for row in lake.read("flags").to_pylist()}
    assert set(held) == {"s", "infer", "select"}
    assert (held["infer"]["flagged_at"], held["infer"]["round_id"]) == (NOW, "0000")
    assert (held["infer"]["score"], held["select"]["round_id"]) == (5.0, "0001")


def test_where_nothing_changed_nothing_is_written(lake: Lake) -> None:
    _, version = written(lake, [flag("infer")], "0000")
    assert written(lake, [flag("infer", flagged_at=NOW + timedelta(days=1))], "0001") == (
        [],
        version,
    )


def test_a_kind_that_nobody_registered_is_refused(lake: Lake) -> None:
    with lake.run(stage="monitor", round_id="0000") as run, pytest.raises(VisionloopError):
        write_standing(run, ["slow_stage"], [flag("x", "made_up")])


def test_flags_count_while_their_subject_is_there_and_what_is_said_is_so() -> None:
    solved = json.dumps({"state": "solved", "solved": "cat"}, sort_keys=True)
    rows = [
        flag("here", "blurred", subject_type="sample"),
        flag("gone", "blurred", subject_type="sample"),
        flag("here", "label_conflict", subject_type="sample"),
        flag("there", "label_conflict", subject_type="sample", evidence=solved),
        flag("file:///broken.png", "unreadable", subject_type="file"),
        flag("file:///mended.png", "unreadable", subject_type="file"),
        flag("file:///removed.png", "exact_duplicate", subject_type="file"),
        flag("file:///copy.png", "exact_duplicate", subject_type="file"),
        flag("infer"),
    ]
    flags = pa.Table.from_pylist(rows, schema=arrow_schema("flags"))
    files = {"broken": "unreadable", "mended": "ok", "removed": "removed", "copy": "ok"}
    held = current_flags(
        flags,
        samples=pa.table({"sample_id": ["here", "there"]}),
        files=pa.table(
            {"uri": [f"file:///{name}.png" for name in files], "state": list(files.values())}
        ),
    )
    assert [(row["subject"], row["kind"]) for row in held.to_pylist()] == [
        ("here", "blurred"),
        ("here", "label_conflict"),
        ("file:///broken.png", "unreadable"),
        ("file:///copy.png", "exact_duplicate"),
        ("infer", "slow_stage"),
    ]
    assert current_flags(flags).num_rows == len(rows) - 1
    assert current_flags(flags.slice(0, 0)).num_rows == 0
