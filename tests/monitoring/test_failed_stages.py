"""A stage that fails leaves a record, which counts until the stage succeeds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.selection.small_lake import put
from visionloop.errors import InputError, StaleRead, VisionloopError
from visionloop.lake import Lake
from visionloop.lake.checking import check
from visionloop.lake.vacuum import vacuum
from visionloop.monitoring.failed_stages import STAYS, failures, record_failure
from visionloop.monitoring.report.build import build_report
from visionloop.monitoring.report_place import report_uri
from visionloop.stages.monitor import monitor
from visionloop.stages.report import report
from visionloop.task import stage

TOLD = {"round_id": "0003", "run_id": "r", "what": "no", "where": "", "remedy": ""}


@stage
def train(*, config: str, round_id: str = "", dry_run: bool = False, fail: Any = None) -> None:
    """Fail as it is told to, like a stage of that name."""
    if fail is not None:
        raise fail


@pytest.fixture
def held(tmp_path: Path) -> tuple[str, Lake]:
    """Return a loop's configuration and its lake, which holds one sample."""
    config = json.dumps(
        {"name": "test", "lake": str(tmp_path / "lake"), "labeling": {"provider": "csv"}}
    )
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    put(lake, "samples", [{"sample_id": "a", "split": "pool"}])
    return config, lake


def failed(config: str, error: BaseException, **options: Any) -> None:
    with pytest.raises(type(error)):
        train(config=config, fail=error, **options)


def test_a_failed_stage_is_told_until_it_succeeds(held: tuple[str, Lake]) -> None:
    config, lake = held
    for _ in range(2):
        failed(config, VisionloopError("the disk is gone", where="/mnt", remedy="Mount it"))
    (found,) = failures(lake)
    assert (found.stage, found.what, found.where, found.remedy, found.times) == (
        "train",
        "the disk is gone",
        "/mnt",
        "Mount it",
        2,
    )
    assert found.since < found.when
    monitor(config=config)
    (flag,) = lake.read("flags", where="kind == 'failed_stage'").to_pylist()
    assert (flag["subject"], flag["subject_type"], flag["score"]) == ("train", "stage", 2)
    assert json.loads(flag["evidence"])["what"] == "the disk is gone"
    with lake.run(stage="train", round_id="0000") as run:
        run.commit()
    assert failures(lake) == []
    monitor(config=config)
    assert lake.read("flags", where="kind == 'failed_stage'").num_rows == 0


def test_a_file_whose_name_is_no_text_does_not_hide_the_failure(held: tuple[str, Lake]) -> None:
    failed(held[0], VisionloopError("cannot be read", where="photos/\udcff.jpg"))
    assert [one.where for one in failures(held[1])] == [r"photos/\udcff.jpg"]
    monitor(config=held[0])
    (flag,) = held[1].read("flags", where="kind == 'failed_stage'").to_pylist()
    assert json.loads(flag["evidence"])["where"] == r"photos/\udcff.jpg"
    assert r"photos/\udcff.jpg" in build_report(held[1])


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (KeyboardInterrupt(), {}),
        (VisionloopError("x"), {"dry_run": True}),
        (InputError("no such file"), {}),
    ],
)
def test_what_a_person_stopped_tried_or_mistyped_is_no_failure_of_the_loop(
    held: tuple[str, Lake], error: BaseException, options: dict[str, Any]
) -> None:
    failed(held[0], error, **options)
    assert failures(held[1]) == []


def test_wrong_input_in_a_run_that_nobody_watches_is_a_failure(
    held: tuple[str, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_KFP_RUNTIME", "true")
    failed(held[0], InputError("no such class"))
    assert [one.what for one in failures(held[1])] == ["no such class"]


def test_a_stale_read_counts_when_the_last_try_fails_and_only_once(held: tuple[str, Lake]) -> None:
    failed(held[0], StaleRead("overtaken"))
    assert [one.times for one in failures(held[1])] == [1]


def test_secrets_are_not_in_the_record(
    held: tuple[str, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_LABELSTUDIO_TOKEN", "hunter2hunter2")
    failed(held[0], RuntimeError("401 for token hunter2hunter2 at https://u:pass@host/x"))
    lake = held[1]
    (info,) = lake.storage.list(lake.path("failures"))
    text = lake.storage.read(info.uri).decode()
    assert "RuntimeError" in text and "hunter2" not in text and "pass@" not in text


def test_a_lake_that_cannot_be_written_hides_no_error(
    tmp_path: Path, held: tuple[str, Lake]
) -> None:
    (tmp_path / "lake" / "failures").write_text("a file where the folder should be")
    with pytest.raises(VisionloopError, match="the real one"):
        train(config=held[0], fail=VisionloopError("the real one"))


def test_without_a_lake_no_lake_is_made(tmp_path: Path) -> None:
    config = json.dumps(
        {"name": "test", "lake": str(tmp_path / "none"), "labeling": {"provider": "csv"}}
    )
    failed(config, VisionloopError("x"))
    assert not (tmp_path / "none").exists()


def test_a_shards_failure_is_over_when_the_stage_that_gathers_them_succeeds(lake: Lake) -> None:
    put(lake, "samples", [{"sample_id": "a"}])
    record_failure(lake, {"stage": "infer_shard", **TOLD}, datetime.now(UTC))
    assert [one.stage for one in failures(lake)] == ["infer_shard"]
    with lake.run(stage="infer", round_id="0000") as run:
        run.commit()
    assert failures(lake) == []


def test_each_loop_of_a_lake_has_a_report_of_its_own_and_clears_only_its_own_failure(
    held: tuple[str, Lake],
) -> None:
    lake, config = held[1], json.loads(held[0])
    other = Lake.open(lake.uri, loop="other")
    put(other, "samples", [{"sample_id": "b"}])
    for one in (lake, other):
        record_failure(one, {"stage": "report", **TOLD}, datetime.now(UTC))
    report(config=json.dumps({**config, "name": "other"}))
    assert failures(other) == []
    assert [one.stage for one in failures(lake)] == ["report"]
    theirs = other.storage.read(report_uri(other))
    report(config=held[0])
    assert failures(lake) == []
    assert other.storage.read(report_uri(other)) == theirs
    assert b"other" in theirs and lake.storage.read(report_uri(lake)) != theirs


def test_failures_are_forgotten_after_ninety_days_and_others_of_the_past_are_told(
    lake: Lake,
) -> None:
    put(lake, "samples", [{"sample_id": "a"}])
    now = datetime.now(UTC)
    record_failure(lake, {"stage": "train", **TOLD}, now - STAYS - timedelta(hours=1))
    record_failure(lake, {"stage": "select", **TOLD}, now - timedelta(days=2))
    assert [one.stage for one in failures(lake)] == ["select"]
    record_failure(lake, {"stage": "export", **TOLD}, now)
    assert len(list(lake.storage.list(lake.path("failures")))) == 2
    assert [one.stage for one in failures(lake)] == ["export", "select"]
    assert [one.stage for one in failures(lake, now=now - timedelta(days=1))] == ["select"]


def test_a_vacuum_keeps_failures_and_removes_what_a_kill_left_of_one(lake: Lake) -> None:
    put(lake, "samples", [{"sample_id": "a"}])
    uri = record_failure(lake, {"stage": "train", **TOLD}, datetime.now(UTC))
    torn = Path(uri.removeprefix("file://")).with_name(".x.json.abcdefgh")
    torn.write_text("{")
    vacuum(lake, safety=timedelta(0))
    assert not torn.exists() and [one.stage for one in failures(lake)] == ["train"]
    assert not [finding for finding in check(lake) if "failures" in str(finding)]


def test_what_is_no_record_is_passed_over(lake: Lake) -> None:
    put(lake, "samples", [{"sample_id": "a"}])
    lake.storage.write(lake.path("failures", "test", "notes.txt"), b"hello")
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-train-0000000a.json"
    lake.storage.write(lake.path("failures", "test", name), b'{"stage": 1}')
    assert failures(lake) == []
    record_failure(lake, {"stage": "train", **TOLD}, datetime.now(UTC))
    for mine in ("notes.txt", name):
        assert lake.storage.exists(lake.path("failures", "test", mine)), "nobody's to delete"


def test_of_many_failures_of_a_stage_only_the_last_is_read(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "samples", [{"sample_id": "a"}])
    now = datetime.now(UTC)
    for hours in range(20, 0, -1):
        told = {**TOLD, "what": f"{hours} hours ago", "stage": "ingest_shard"}
        record_failure(lake, told, now - timedelta(hours=hours))
    read, seen = lake.storage.read, []

    def counted(uri: str, *rest: Any) -> bytes:
        seen.append(uri)
        return read(uri, *rest)

    monkeypatch.setattr(lake.storage, "read", counted)
    (found,) = failures(lake)
    assert (found.times, found.what) == (20, "1 hours ago") and len(seen) == 1
    assert found.since == now - timedelta(hours=20)


def test_the_page_shows_what_a_failure_names_and_obeys_nothing_of_it(
    held: tuple[str, Lake], tmp_path: Path
) -> None:
    config, _ = held
    failed(config, VisionloopError("cannot read <img src=x>.png", remedy="Set `labeling.provider`"))
    page = tmp_path / "page.md"
    monitor(config=config, page=SimpleNamespace(path=str(page), uri=str(page), metadata={}))
    section = page.read_text().partition("## The loop")[2]
    assert "train failed" in section and "`labeling.provider`" in section
    assert "<img" not in page.read_text()
