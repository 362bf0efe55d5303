"""A camera gone silent is told by its own pace, and only by that."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.monitoring.test_stages import Loop
from visionloop.demo.world import CAMERAS
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.ages import with_ages
from visionloop.monitoring.cameras import by_camera
from visionloop.monitoring.report.load import load_report
from visionloop.monitoring.sample_config import SampleThresholds
from visionloop.monitoring.silence import Silence, silences
from visionloop.monitoring.telling import evidence_lines
from visionloop.stages.monitor import monitor

START = np.datetime64("2026-01-05T08:00", "us")
THRESHOLDS = SampleThresholds()


def moments(gaps: np.ndarray) -> np.ndarray:
    """Return moments with some hours between them."""
    return START + (np.cumsum(np.r_[0.0, gaps]) * 3.6e9).astype("timedelta64[us]")


def judged(heard: np.ndarray, hours: float, **settings: Any) -> Silence:
    now = (heard.max() + np.timedelta64(int(hours * 3.6e9), "us")).astype(datetime)
    (one,) = silences({"c": heard}, now.replace(tzinfo=UTC), SampleThresholds(**settings))
    return one


def gaps(pattern: str, n: int, seed: int) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(seed))
    if pattern == "every night":
        return 24 + rng.normal(0, 0.1, n)
    if pattern == "any time":
        return rng.exponential(48, n)
    if pattern == "working days":
        return np.where(np.arange(n) % 5 == 4, 72.0, 24.0) + rng.normal(0, 0.1, n)
    by_day = [24 * d + 8 + np.sort(rng.uniform(0, 10, 20)) for d in range(n)]
    return np.diff(np.concatenate(by_day))


@pytest.mark.parametrize("pattern", ["every night", "any time", "working days", "by day"])
def test_a_camera_that_keeps_its_pace_is_hardly_ever_called_silent(pattern: str) -> None:
    alarms = 0
    for seed in range(20):
        heard = moments(gaps(pattern, 60, seed))
        waits = np.diff(heard) / np.timedelta64(1, "h")
        # Only the longest gaps can alarm, and each is looked at just before it ends.
        at = [i for i in np.argsort(-waits)[:15] if i >= 11]
        alarms += any(judged(heard[: i + 1], waits[i] * 0.999).state == "silent" for i in at)
    # Of 20 lives 5% each: more than 4 alarms have a probability of 3 in 10,000.
    assert alarms <= 4


@pytest.mark.parametrize(
    ("pattern", "hours"), [("every night", 48), ("working days", 24 * 50), ("by day", 40)]
)
def test_a_camera_that_stops_is_called_silent_by_then(pattern: str, hours: float) -> None:
    one = judged(moments(gaps(pattern, 60, 1)), hours)
    assert one.state == "silent"
    assert one.usual_hours <= one.longest_hours < one.threshold_hours < hours == one.hours
    assert one.probability < one.level


def test_a_camera_with_a_picture_every_thirty_seconds_is_judged_too() -> None:
    heard = moments(np.full(11 * 2880, 30 / 3600))
    assert judged(heard, 40 / 3600).state == "heard"
    assert judged(heard, 0.5).state == "silent"


def test_what_came_at_one_moment_is_one_arrival() -> None:
    nightly = moments(np.full(12, 24.0))
    assert judged(np.repeat(nightly, 500), 30) == judged(nightly, 30)


def test_few_arrivals_are_too_few_to_say() -> None:
    one = judged(moments(np.full(9, 24.0)), 24 * 365)
    assert one.state == "too few" and np.isnan(one.threshold_hours)


def test_many_cameras_ask_for_a_longer_silence_of_each() -> None:
    heard = moments(gaps("any time", 60, 3))
    alone = judged(heard, 1).threshold_hours
    now = heard.max().astype(datetime).replace(tzinfo=UTC)
    among = silences({f"c{i}": heard for i in range(50)}, now, THRESHOLDS)
    assert all(one.threshold_hours > alone for one in among)


def test_a_camera_without_any_rhythm_is_not_silent_at_the_strictest_level() -> None:
    one = judged(moments(np.array([1e-9] * 6 + [3000.0] * 5)), 1e4, silence_significance=1e-9)
    assert one.state == "heard" and np.isfinite(one.threshold_hours)


def test_rows_are_told_apart_by_camera_in_one_pass() -> None:
    cameras = pa.chunked_array([["a", "a", "b"], ["b", "c"]])
    found = {name: (rows.start, rows.stop) for name, rows in by_camera(cameras)}
    assert found == {"a": (0, 2), "b": (2, 4), "c": (4, 5)}
    assert not list(by_camera(pa.chunked_array([], pa.string())))


def test_what_is_still_to_come_by_a_wrong_clock_does_not_count_as_heard() -> None:
    heard = np.append(moments(np.full(20, 24.0)), np.datetime64("2999-01-01", "us"))
    (one,) = silences({"c": heard}, datetime(2026, 2, 20, tzinfo=UTC), THRESHOLDS)
    assert one.state == "silent"


class Cameras:
    """A lake into which two cameras bring a picture a day."""

    def __init__(self, folder: Path) -> None:
        self.config = json.dumps(
            {
                "name": "test",
                "lake": str(folder / "lake"),
                "classes": ["a"],
                "sources": [{"uri": str(folder)}],
                "labeling": {"provider": "csv"},
            }
        )
        self.lake = Lake.open(str(folder / "lake"), loop="test")
        self.now = datetime.now(UTC)

    def bring(self, camera: str, days: range, *, named: bool = True) -> None:
        ids = [f"{camera}{day}" for day in days]
        samples = [
            {"sample_id": one, "uri": f"{one}.png", "source": "s" if named else camera}
            | {"ingested_at": self.now - timedelta(days=day, hours=1)}
            for one, day in zip(ids, days, strict=True)
        ]
        files = [{"uri": f"{one}.png", "state": "ok", "sample_id": one} for one in ids]
        metadata = pa.table(
            {"sample_id": ids, "raw": ["{}"] * len(ids), "camera": [camera] * len(ids)}
        )
        with self.lake.run(stage="ingest", round_id="0000") as run:
            run.append("samples", without_run("samples", samples))
            run.append("files", without_run("files", files))
            if named:
                run.append("metadata", metadata)
            run.commit()

    def flags(self) -> list[dict[str, Any]]:
        return self.lake.read("flags", where="kind == 'camera_silent'").to_pylist()


def without_run(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    fields = [f for f in arrow_schema(name) if f.name not in ("round_id", "run_id")]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def test_a_camera_that_fell_silent_is_flagged_once_until_it_speaks_again(tmp_path: Path) -> None:
    cameras = Cameras(tmp_path)
    cameras.bring("north|1", range(30, 10, -1))
    cameras.bring("south", range(30, -1, -1))
    monitor(config=cameras.config, round_id="0000")
    (flag,) = cameras.flags()
    assert (flag["subject"], flag["subject_type"]) == ("north|1", "camera")
    evidence = json.loads(flag["evidence"])
    assert flag["score"] == pytest.approx(11 * 24 + 1, abs=0.1) and evidence["unit"] == "hours"
    assert evidence["usual_gap_hours"] == pytest.approx(24, abs=0.1)
    assert evidence["images"][0] == "north|111"
    before = cameras.lake.version()
    with cameras.lake.run(stage="ingest", round_id="0001") as run:
        run.commit()  # the sources were looked at again, and longer nothing came
    monitor(config=cameras.config, round_id="0001")
    assert cameras.lake.version() == before
    assert cameras.flags() == [flag]
    cameras.bring("north|1", range(0, -1, -1))
    monitor(config=cameras.config, round_id="0001")
    assert cameras.flags() == []


def test_a_silence_is_told_up_to_the_last_look_at_the_sources(tmp_path: Path) -> None:
    cameras = Cameras(tmp_path)
    cameras.bring("north", range(30, 10, -1))
    cameras.bring("south", range(30, -1, -1))
    monitor(config=cameras.config, round_id="0000")
    held = cameras.lake.read("flags")
    # Nobody ran anything for forty days: how silent the camera was nobody can tell.
    later = cameras.now + timedelta(days=40)
    data = load_report(cameras.lake, pictures=False, now=later)
    (told,) = data.standing
    assert told.score == pytest.approx(11 * 24 + 1, abs=0.1)
    # Whoever looked at the sources after nine days knows of nine more.
    (aged,) = with_ages(held, later, cameras.now + timedelta(days=9)).to_pylist()
    assert aged["score"] == pytest.approx(20 * 24 + 1, abs=0.1)
    (line,) = [one for one in evidence_lines(aged) if "threshold" in one]
    assert line.startswith("481 hours, threshold ")
    assert with_ages(held, later, None).equals(held)


def test_a_source_that_names_no_camera_is_one_beside_those_that_are_named(tmp_path: Path) -> None:
    cameras = Cameras(tmp_path)
    cameras.bring("north", range(30, -1, -1))
    cameras.bring("gs://b/yard", range(30, 10, -1), named=False)
    monitor(config=cameras.config, round_id="0000")
    assert [flag["subject"] for flag in cameras.flags()] == ["gs://b/yard"]


def test_cameras_that_an_ingest_brought_are_told_to_be_too_new_to_say(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.intake(3)
    monitor(config=loop.config)
    (run,) = loop.lake.stage_runs(where="stage == 'monitor'").to_pylist()
    cameras = json.loads(run["outputs"])["cameras"]
    assert cameras == {"silent": 0, "heard": 0, "too few": len(CAMERAS)}
