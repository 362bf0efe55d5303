"""Files are counted as columns, and come out as when each is looked at by itself."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.report.files import count_files
from visionloop.monitoring.subjects import CARRIER, UNKNOWN, subjects

START = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLES = ["s0", "s1", "s2"]


def table(name: str, columns: list[str], rows: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([arrow_schema(name).field(column) for column in columns])
    return pa.Table.from_pylist(rows, schema=schema)


file_rows = st.lists(
    st.fixed_dictionaries(
        {
            "uri": st.sampled_from(["a", "b", "c", "d"]),
            "generation": st.sampled_from([None, "1", "2"]),
            "state": st.sampled_from(["ok", "ok", "unreadable", "skipped", "removed"]),
            "sample_id": st.sampled_from([*SAMPLES, "gone", None]),
            "round_id": st.sampled_from(["0000", "0001", "", None]),
            "found_at": st.integers(0, 2).map(lambda n: START + timedelta(seconds=n)),
        }
    ),
    max_size=12,
)
check_rows = st.lists(
    st.fixed_dictionaries(
        {
            "subject": st.sampled_from([*SAMPLES, "a", "b", "c", "d"]),
            "generation": st.sampled_from(["", "1", "2"]),
            "state": st.sampled_from(["ok", "flagged", "unreadable", "no_picture", "unchecked"]),
        }
    ),
    max_size=10,
)
places = st.lists(st.sampled_from(["a", "b", "c", "x"]), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None)
@given(rows=file_rows, checks=check_rows, lies=places)
def test_columns_give_the_counts_that_single_files_give(
    rows: list[dict[str, Any]], checks: list[dict[str, Any]], lies: list[str]
) -> None:
    files = table(
        "files", ["uri", "generation", "state", "sample_id", "round_id", "found_at"], rows
    )
    samples = table(
        "samples",
        ["sample_id", "uri"],
        [{"sample_id": s, "uri": uri} for s, uri in zip(SAMPLES, lies, strict=True)],
    )
    counts = count_files(
        files, samples, table("checks", ["subject", "generation", "state"], checks)
    )
    held = {(row["subject"], row["generation"]): row["state"] for row in checks}
    states: dict[str, Counter[str]] = {}
    roles: dict[str, Counter[str]] = {}
    carried = set()
    for one in subjects(files, samples):
        round_id = rows[one.row]["round_id"] or ""
        state = held.get((one.subject, one.generation), "unchecked")
        states.setdefault(round_id, Counter())["unchecked" if one.role == UNKNOWN else state] += 1
        roles.setdefault(round_id, Counter())[one.role] += 1
        if one.role == CARRIER:
            carried.add(one.subject)
    assert {SAMPLES[row] for row in counts.carried} == carried
    assert len(counts.carried_in) == len(carried)
    assert counts.roles == roles
    assert counts.states == states
