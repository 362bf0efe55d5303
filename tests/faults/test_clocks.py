"""Clocks that jump: of cameras, of file systems, of the machines that run rounds."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.faults.conftest import SmallLoop, doubled, failure_of
from visionloop.labeling.answers import latest_labels
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor
from visionloop.stages.report import report

YEAR = 365 * 24 * 3600


@pytest.mark.parametrize("years", [-60, 0, 100, 400, 20_000])
def test_files_of_any_time_are_taken_in_once(loop: SmallLoop, years: int) -> None:
    for path in loop.images():
        try:
            os.utime(path, ns=(0, years * YEAR * 10**9 + 1))
        except OSError:
            pytest.skip(f"this file system keeps no time {years} years from 1970")
    first = ingest(config=loop.config)
    assert first.n_files == len(loop.images())
    second = ingest(config=loop.config)
    assert (second.n_new, second.n_skipped) == (0, first.n_files)
    assert not doubled(loop.lake)


def test_a_file_whose_time_alone_changed_is_no_second_sample(loop: SmallLoop) -> None:
    ingest(config=loop.config)
    n = loop.lake.read("samples").num_rows
    for path in loop.images():
        os.utime(path, (4e9, 4e9))
    again = ingest(config=loop.config)
    assert again.n_new == 0 and again.n_skipped + again.n_unreadable == again.n_files
    assert loop.lake.read("samples").num_rows == n


def test_pictures_of_any_time_are_taken_in_and_those_from_the_future_flagged(
    loop: SmallLoop,
) -> None:
    images = loop.images()
    times = ["1970-01-01T00:00:00Z", "2999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"]
    times += ["9999-12-31T23:59:59-12:00", "not a time", "99999999999999", "-1"]
    for path, taken in zip(images, times, strict=False):
        Path(f"{path}.json").write_text(json.dumps({"captured_at": taken}))
    round_id = loop.take_in()
    assert round_id == "0000"
    monitor(config=loop.config)
    flags = [
        json.loads(row["evidence"])["captured_at"]
        for row in loop.lake.read("flags", where="stage == 'monitor'").to_pylist()
        if "captured in the future" in (row["evidence"] or "")
    ]
    assert any(taken.startswith("2999-12-31") for taken in flags)
    assert not any(taken.startswith("1970") for taken in flags)
    assert loop.label() > 0
    report(config=loop.config)


def test_the_label_of_the_later_round_wins_even_where_its_clock_was_behind() -> None:
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    rows = [
        {"round_id": round_id, "sample_id": "s", "label": label, "created_at": noon + ahead}
        | {"task": "classification", "annotator": "a"}
        for round_id, label, ahead in [
            ("0001", "latest", timedelta(0)),
            ("0000", "first", timedelta(days=400)),
            ("0000", "before", timedelta(days=399)),
        ]
    ]
    assert latest_labels(rows, "classification") == {"s": "latest"}
    assert latest_labels(rows[1:], "classification") == {"s": "first"}


def elsewhere(lake: Lake, seen: datetime) -> None:
    """Let a run on another machine hold the round, and leave its last sign of life."""
    lake.rounds.open("theirs")
    (row,) = lake.read("rounds").to_pylist()
    row |= {"holder": json.dumps({"host": "other", "boot": "b", "pid": 1}), "updated_at": seen}
    with lake.run(stage="open_round", round_id="0000", run_id="nobody") as run:
        run.replace(
            "rounds",
            pa.Table.from_pylist([row], schema=arrow_schema("rounds")),
            "round_id == '0000'",
        )
        run.commit()
    beat = {"round_id": "0000", "run_id": "theirs", "stage": "train", "seen_at": seen.isoformat()}
    lake.storage.write(lake.path("leases", f"{lake.loop}.json"), json.dumps(beat).encode())


def test_a_sign_of_life_from_the_future_is_told_and_can_be_taken_over(loop: SmallLoop) -> None:
    elsewhere(loop.lake, datetime(2099, 1, 1, tzinfo=UTC))
    told = failure_of(lambda: ingest(config=loop.config, run_id="mine", open_round=True))
    assert told.exit_status == 1
    assert "'theirs' on other" in told.what and "clock" in told.what and "2099" in told.what
    assert "take_over=true" in told.remedy
    done = ingest(config=loop.config, run_id="mine", open_round=True, take_over=True)
    assert done.round_id == "0000" and not doubled(loop.lake)


def test_a_clock_that_was_set_back_does_not_keep_a_run_on_this_machine_alive(
    loop: SmallLoop,
) -> None:
    """Here a process is there or it is not, whatever the clocks say."""
    lake = loop.lake
    elsewhere(lake, datetime(2099, 1, 1, tzinfo=UTC))
    from visionloop.lake.run import process_identity

    (row,) = lake.read("rounds").to_pylist()
    row["holder"] = json.dumps(process_identity() | {"pid": 2**22 - 1, "started": "1"})
    with lake.run(stage="open_round", round_id="0000", run_id="theirs") as run:
        run.replace(
            "rounds",
            pa.Table.from_pylist([row], schema=arrow_schema("rounds")),
            "round_id == '0000'",
        )
        run.commit()
    assert ingest(config=loop.config, run_id="mine", open_round=True).round_id == "0000"
