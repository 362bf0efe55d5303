"""Prometheus gets the report's numbers, at once, and a lake that is away is a number too."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.monitoring.notifying.receiving import decision, flag, write
from tests.monitoring.sample_report import full_report
from visionloop.cli import main
from visionloop.cli.metrics import _loops
from visionloop.lake import Lake
from visionloop.lake.storage import local_path
from visionloop.monitoring.acting_state import standing_acts
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.failed_stages import record_failure
from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.metrics.families import NAMED
from visionloop.monitoring.metrics.health import Health, StageTimes, read_health
from visionloop.monitoring.metrics.reader import Reader
from visionloop.monitoring.metrics.server import bind
from visionloop.monitoring.report.data import Window
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor

Key = tuple[str, frozenset[tuple[str, str]]]


def parsed(text: str) -> dict[Key, float]:
    """Return each sample's value by its name and labels, but for the loop's."""
    return {
        (one.name, frozenset((k, v) for k, v in one.labels.items() if k != "loop")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def value(told: dict[Key, float], name: str, **labels: str) -> float:
    return told[f"visionloop_{name}", frozenset(labels.items())]


def told_of(lake: Lake) -> dict[Key, float]:
    return told_by(read_health(lake, MonitoringConfig()))


def told_by(health: Health) -> dict[Key, float]:
    reader = Reader(lambda: {"test": lambda _: health})
    reader.refresh()
    return parsed(reader.text().decode())


def sample_health() -> Health:
    """Return the health of a loop of which everything is known."""
    data = full_report()
    when = data.as_of or data.rounds[-1].opened_at
    assert when is not None
    rows = [
        decision("block", "blocked", "why"),
        decision("rollback", "published", "why", after=60),
        decision("random_share", "raised", "why", after=90) | {"inputs": '{"to": 0.5}'},
    ]
    acts = standing_acts([row | {"round_id": "0001", "run_id": "r"} for row in rows])
    decided = {(row["decision"], row["outcome"]): row["decided_at"] for row in rows}
    stages = {"train": StageTimes(when, 12.5)}
    return Health(data, when, stages, when, when, acts, decided, 2, 1e9)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a loop.yaml whose lake holds two files, one of them torn."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("metrics")
    (folder / "images").mkdir()
    (folder / "images" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    Image.new("RGB", (64, 64), "red").save(folder / "images" / "whole.png")
    config = {
        "lake": str(folder / "lake"),
        "name": "small",
        "sources": [{"uri": str(folder / "images")}],
    }
    path = folder / "loop.yaml"
    path.write_text(json.dumps(config))
    ingest(config=path.read_text(), run_id="r", open_round=True)
    monitor(config=path.read_text(), round_id="0000")
    yield path


def test_the_numbers_are_those_of_the_lake(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--config", str(small)]) == 0
    told = parsed(capsys.readouterr().out)
    assert value(told, "lake_readable") == 1
    assert value(told, "flags", kind="unreadable", severity="warning") == 1
    assert value(told, "flags", kind="label_suspect", severity="warning") == 0
    assert value(told, "files", state="unreadable") == 1
    assert value(told, "rounds", state="running") == 1
    assert value(told, "samples") == 1
    assert value(told, "pool_samples") == 1, "an intake is enough to tell it"
    assert value(told, "publication_blocked") == 0
    assert value(told, "stage_failed", stage="monitor") == 0
    assert time.time() - value(told, "stage_last_success_timestamp_seconds", stage="monitor") >= 0
    states = [v for (name, _), v in told.items() if name == "visionloop_verdict"]
    assert sorted(states) == [0, 0, 0, 0, 1]


def test_every_loop_of_a_lake_is_told_where_none_is_named(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    write(lake, "flags", flag("unreadable", "x"))
    write(Lake.open(lake.uri, loop="other"), "flags", flag("unreadable", "x"))
    assert main(["metrics", "--lake", lake.uri]) == 0
    text = capsys.readouterr().out
    found = {
        sample.labels["loop"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "visionloop_flags"
    }
    assert found == {"test", "other"}
    assert text.count("# HELP visionloop_flags ") == 1
    assert main(["metrics", "--lake", f"{lake.uri}-gone"]) == 2


def test_of_a_full_report_each_number_comes_with_its_interval() -> None:
    health = sample_health()
    reader = Reader(lambda: {"digits": lambda _: health})
    reader.refresh()
    told = parsed(reader.text().decode())
    accuracy = health.data.in_service_accuracy
    assert accuracy is not None
    assert value(told, "accuracy_ratio") == accuracy.value
    assert value(told, "accuracy_low_ratio") == accuracy.low
    assert value(told, "accuracy_high_ratio") == accuracy.high
    assert value(told, "accuracy_answers") == accuracy.n
    assert value(told, "publication_blocked") == 1
    assert value(told, "random_share_ratio") == 0.5
    assert value(told, "rollback_timestamp_seconds") > 1.7e9
    assert value(told, "notifications_waiting") == 2


def test_after_a_rollback_an_endpoint_is_told_by_its_newest_window() -> None:
    health = sample_health()
    mine, other = health.data.in_service, "rolled-back"
    windows = tuple(
        Window(round_id, "E", model, 100, wilson(right, 100), (), by_labels=wilson(right, 100))
        for round_id, model, right in (("0001", mine, 70), ("0002", other, 20), ("0003", mine, 90))
    )
    for held, expected, by_labels in ((windows, 0.9, 0.9), (windows[:2], 0.2, 0.7)):
        health = replace(health, data=replace(health.data, windows=held))
        told = told_by(health)
        assert value(told, "expected_accuracy_ratio", endpoint="E") == pytest.approx(expected)
        assert value(told, "production_accuracy_ratio", endpoint="E") == pytest.approx(by_labels)
    alone = told_by(replace(health, data=replace(health.data, windows=windows[1:2])))
    assert value(alone, "expected_accuracy_ratio", endpoint="E") == pytest.approx(0.2)
    assert not any("production_accuracy" in str(name) for name in alone)


def test_a_rollback_that_waits_is_told_until_it_is_done() -> None:
    health = sample_health()
    rows = [decision("rollback", "called_for", "why"), decision("rollback", "failed", "why", 60)]
    signed = [row | {"round_id": "0001", "run_id": "r"} for row in rows]
    told = told_by(replace(health, acts=standing_acts(signed[:1])))
    assert value(told, "rollback_waiting_timestamp_seconds") == signed[0]["decided_at"].timestamp()
    told = told_by(replace(health, acts=standing_acts(signed)))
    assert not any("rollback_waiting" in name for name, _ in told)


def test_whoever_names_many_endpoints_in_events_makes_no_more_series_than_are_watched() -> None:
    health = sample_health()
    windows = tuple(
        Window("0001", f"e{i:03d}", "m", i, wilson(i, i), ()) for i in range(1, NAMED + 50)
    )
    told = told_by(replace(health, data=replace(health.data, windows=windows)))
    named = [dict(labels) for name, labels in told if name == "visionloop_expected_accuracy_ratio"]
    assert len(named) == NAMED and {"endpoint": f"e{NAMED + 49:03d}"} in named


def test_an_empty_lake_is_told_and_promises_nothing(lake: Lake) -> None:
    write(lake, "flags", flag("unreadable", "x"))
    told = told_of(Lake.open(lake.uri, loop="other"))
    assert value(told, "rounds", state="done") == 0
    assert not [name for name, _ in told if "accuracy" in name]
    assert value(told, "verdict", state="nothing_yet") == 1


def test_what_happened_once_is_a_time_so_that_an_alert_fires_the_first_time(lake: Lake) -> None:
    lake.rounds.open("r")
    write(lake, "decisions", decision("block", "blocked", "doubted labels"))
    told = told_of(lake)
    assert value(told, "publication_blocked") == 1
    since = value(told, "publication_blocked_timestamp_seconds")
    assert since == value(told, "decision_timestamp_seconds", decision="block", outcome="blocked")


def test_a_round_waits_since_its_labels_were_asked_for_however_often_it_is_looked_at(
    lake: Lake,
) -> None:
    opened = lake.rounds.open("r")
    for stage in ("request_labels", "collect_labels", "collect_labels"):
        with lake.run(stage=stage, round_id=opened.round_id, run_id="r") as run:
            run.set_round(state="running" if stage == "request_labels" else "waiting")
            run.commit()
    runs = {row["stage"]: row["finished_at"] for row in lake.stage_runs().to_pylist()}
    since = value(told_of(lake), "round_waiting_timestamp_seconds")
    assert since == runs["request_labels"].timestamp() < runs["collect_labels"].timestamp()


def test_the_report_is_read_again_where_the_lake_has_changed_or_a_stage_has_failed(
    lake: Lake,
) -> None:
    write(lake, "flags", flag("unreadable", "x"))
    first = read_health(lake, MonitoringConfig())
    second = read_health(lake, MonitoringConfig(), first)
    assert second.data is first.data
    failure = {"stage": "train", "what": "no space", "where": "", "remedy": ""}
    record_failure(lake, {**failure, "round_id": "", "run_id": ""}, datetime.now(UTC))
    third = read_health(lake, MonitoringConfig(), second)
    assert [one.stage for one in third.data.failed] == ["train"]
    write(lake, "flags", flag("unreadable", "y"))
    assert read_health(lake, MonitoringConfig(), third).data is not third.data


def test_names_units_and_help_are_as_prometheus_wants_them() -> None:
    health = sample_health()
    reader = Reader(lambda: {"digits": lambda _: health})
    reader.refresh()
    text = reader.text().decode()
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"visionloop_[a-z_]+", family.name)
        assert family.type == "gauge" and family.documentation
        assert not family.name.endswith("_total"), "a total is a counter"
        for sample in family.samples:
            assert not {"sample_id", "round_id", "run_id"} & set(sample.labels)
    kinds = {dict(labels)["kind"] for name, labels in parsed(text) if name == "visionloop_flags"}
    assert kinds >= set(KINDS)
    if promtool := shutil.which("promtool"):
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_lake_that_went_away_is_a_number_and_what_was_known_stays() -> None:
    health, here = sample_health(), [True]

    def read(_: Health | None) -> Health:
        if not here[0]:
            raise OSError("the bucket does not answer")
        return health

    reader = Reader(lambda: {"digits": read})
    assert (
        set(parsed(reader.text().decode()))
        == {("visionloop_build_info", frozenset({("version", "0.1.0")}))}
        or "visionloop_lake_readable" not in reader.text().decode()
    )
    assert reader.refresh()
    here[0] = False
    assert not reader.refresh()
    told = parsed(reader.text().decode())
    assert value(told, "lake_readable") == 0 and value(told, "accuracy_ratio") > 0


def by_loop(text: str, name: str) -> dict[str, float]:
    """Return a metric's value by loop; of several the last."""
    return {
        one.labels["loop"]: one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == f"visionloop_{name}"
    }


def test_a_loop_that_cannot_be_read_keeps_its_numbers_and_makes_no_other_one_stale(
    capsys: pytest.CaptureFixture[str],
) -> None:
    health, here, n = sample_health(), [True], [1]

    def good(_: Health | None) -> Health:
        return replace(health, outbox=n[0])

    def bad(_: Health | None) -> Health:
        if not here[0]:
            raise OSError("a file of it is gone")
        return replace(health, outbox=n[0])

    reader = Reader(lambda: {"good": good, "bad": bad})
    for readable, waiting, bad_waits in ((True, 1, 1), (False, 2, 1), (True, 3, 3)):
        here[0], n[0] = readable, waiting
        assert reader.refresh() is readable
        text = reader.text().decode()
        assert by_loop(text, "loop_readable") == {"good": 1, "bad": readable}
        assert by_loop(text, "notifications_waiting") == {"good": waiting, "bad": bad_waits}
        assert value(parsed(text), "lake_readable") == 1
        times = by_loop(text, "loop_read_timestamp_seconds")
        assert (times["bad"] > times["good"]) is readable
    said = capsys.readouterr().err
    assert said.count("the loop bad cannot be read, and will be tried again: OSError") == 1


def test_of_a_lake_with_a_loop_that_is_broken_the_others_are_printed(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Lake.open(lake.uri, loop="broken")
    for one in (lake, broken):
        write(one, "flags", flag("unreadable", "x"))
    local_path(broken.table("flags").metadata_location).unlink()
    assert main(["metrics", "--lake", lake.uri]) == 1
    told = capsys.readouterr()
    assert by_loop(told.out, "loop_readable") == {"test": 1, "broken": 0}
    assert by_loop(told.out, "flags").keys() == {"test"}
    assert "the loop broken cannot be read" in told.err


def test_a_server_without_a_lake_says_that_it_tries_again_and_asks_nobody_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "loop.yaml"
    file.write_text(json.dumps({"lake": str(tmp_path / "lake"), "name": "small"}))
    args = argparse.Namespace(lake="", config=str(file), loop="", catalog="")
    assert not Reader(lambda: _loops(args)).refresh()
    said = capsys.readouterr().err
    assert "cannot be read, and will be tried again: there is no lake here" in said
    assert "start the same command again" not in said and "Check the path" not in said


def test_a_scrape_does_not_wait_for_the_lake() -> None:
    reading, go = threading.Event(), threading.Event()

    def read(_: Health | None) -> Health:
        reading.set()
        go.wait(30)
        return sample_health()

    reader = Reader(lambda: {"digits": read})
    server = bind(reader, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    worker = threading.Thread(target=reader.refresh)
    worker.start()
    assert reading.wait(10)
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert (
            b"visionloop_build_info" in urllib.request.urlopen(f"{url}/metrics", timeout=5).read()
        )
        assert urllib.request.urlopen(f"{url}/healthz", timeout=5).status == 200
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/other", timeout=5)
    finally:
        go.set()
        worker.join()
        server.shutdown()
        server.server_close()


def test_the_command_serves_until_it_is_told_to_end(small: Path, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = ["metrics", "--serve", "--config", str(small), "--port=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "visionloop", *command, f"--port-file={port_file}"]
    )
    try:
        deadline, text = time.monotonic() + 60, ""
        while "visionloop_lake_readable" not in text:
            assert process.poll() is None and time.monotonic() < deadline
            if port_file.exists():
                port = json.loads(port_file.read_text())["http"]
                answer: Any = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
                assert answer.headers["content-type"].startswith("text/plain")
                text = answer.read().decode()
            time.sleep(0.05)
        assert value(parsed(text), "lake_readable") == 1
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
