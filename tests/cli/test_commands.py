"""The commands that work on a lake, one after the other, as a person types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from visionloop.cli import main
from visionloop.lake import Lake


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve images of two kinds, one broken file, and a lake that holds them."""
    home = tmp_path_factory.mktemp("commands")
    random = np.random.default_rng(0)
    for number in range(12):
        kind = home / "photos" / ("dark" if number % 2 else "light")
        kind.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(kind / f"{number}.png")
    (home / "photos" / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (home / "loop.yaml").write_text(
        "name: shades\nlake: lake\nsources: [{uri: photos}]\nholdout: {fraction: 0.25}\n"
        "labeling: {provider: csv}\nselection: {n_samples: 3}\n",
        encoding="utf-8",
    )
    status = main(["run", "intake", "--config", str(home / "loop.yaml"), "--set", "open_round=true",
                   "--output", str(home / "out")])  # fmt: skip
    assert status == 0
    return home


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "a program reads one line"
    result: dict[str, object] = json.loads(out)
    return result


def test_ingest_counts_add_up_and_a_second_one_skips(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ingest", "--lake", str(tmp_path / "lake"), "--source", str(folder / "photos")]
    first = printed(capsys, *command)
    assert (first["n_files"], first["n_new"], first["n_unreadable"]) == (13, 12, 1)
    second = printed(capsys, *command)
    assert (second["n_files"], second["n_new"], second["n_skipped"]) == (13, 0, 13)
    assert main(command) == 0
    assert "13 files: 0 new" in capsys.readouterr().out


def test_select_prints_writes_and_changes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["select", "--config", str(folder / "loop.yaml"), "-n", "4"]
    first = printed(capsys, *command, "--output", str(tmp_path / "picks.parquet"))
    assert first["n_selected"] == 4
    assert pq.read_table(tmp_path / "picks.parquet").num_rows == 4
    assert main([*command, "--output", str(tmp_path / "picks.csv")]) == 0
    assert len((tmp_path / "picks.csv").read_text(encoding="utf-8").splitlines()) == 5
    assert "4 selected of" in capsys.readouterr().out
    assert printed(capsys, *command)["picks"] == first["picks"]


def test_select_reads_a_selection_configuration_of_its_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "selection.yaml"
    config.write_text("n_samples: 2\nstrategy: diversity\n", encoding="utf-8")
    lake = ["--lake", str(folder / "lake"), "--loop", "shades"]
    assert printed(capsys, "select", *lake, "--config", str(config))["n_selected"] == 2
    config.write_text("n_sample: 2\n", encoding="utf-8")
    assert main(["select", *lake, "--config", str(config)]) == 2
    assert "n_samples" in capsys.readouterr().err


def test_select_of_more_than_there_is_fails_and_says_what_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["select", "--config", str(folder / "loop.yaml"), "-n", "500"])
    assert status in (1, 2)
    assert "500" in capsys.readouterr().err


def test_harvest_brings_recorded_events_in_once(
    folder: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["harvest", "--lake", str(tmp_path / "lake"), "--events", str(shared / "events")]
    first = printed(capsys, *command)
    assert int(str(first["n_confidences"])) > 0
    counts: Any = first["counts"]
    states = ("harvested", "pending", "orphan", "rejected", "ignored", "duplicate")
    assert sum(counts[state] for state in states) == first["n_events"] > counts["rejected"] > 0
    again: Any = printed(capsys, *command)
    assert again["n_events"] == 0 and not any(again["counts"][state] for state in states)
    # What the lake holds of the first one is told as such.
    assert again["so_far"] == first["so_far"] != {}
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("0 events: 0 harvested, 0 pending") and "all before it:\n" in said


def test_a_loop_that_the_lake_does_not_have_is_not_begun_by_a_harvest(
    folder: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = str(folder / "lake")
    held = Lake.loops(lake)
    command = ["harvest", "--lake", lake, "--events", str(shared / "events"), "--loop"]
    assert main([*command, held[0] + "s"]) == 2
    error = capsys.readouterr().err
    assert f"the lake has no loop `{held[0]}s`" in error and f"`{held[0]}`" in error
    assert Lake.loops(lake) == held


def test_report_is_one_file(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "deep" / "report.html"
    assert main(["report", "--config", str(folder / "loop.yaml"), "--output", str(page)]) == 0
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_a_round_waits_for_people_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "select_and_label", "--config", str(folder / "loop.yaml")]
    assert main([*command, "--output", str(tmp_path), "--set", "n_samples=3"]) == 0
    told = capsys.readouterr()
    assert "Round 0 waits for 6 labels in" in told.out and "it goes on" in told.out
    assert "✓ select" in told.err and "3 selected" in told.err
    assert "✓ report" in told.err, "a part of a round leaves a page, too"


def test_a_missing_source_fails_the_run_with_one_paragraph_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "loop.yaml"
    config.write_text("lake: lake\nsources: [{uri: nowhere}]\n", encoding="utf-8")
    status = main(["run", "intake", "--config", str(config), "--output", str(tmp_path / "out")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert error.startswith("error: task list_files failed: ") and "nowhere" in error
    log = Path(error.rpartition("The log is ")[2])
    assert "InputError" in log.read_text(encoding="utf-8")


def test_a_part_of_a_round_that_fails_leaves_a_page_and_tells_its_own_failure(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "loop.yaml"
    text = (folder / "loop.yaml").read_text().replace("photos", str(tmp_path / "nowhere"))
    config.write_text(text.replace("lake: lake", f"lake: {folder / 'lake'}"))
    page = folder / "lake" / "reports" / "shades.html"
    written = page.stat().st_mtime_ns
    assert main(["run", "intake", "--config", str(config), "--output", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "error: task list_files failed: " in told and "✓ report" in told
    assert page.stat().st_mtime_ns > written


def test_what_the_collector_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "visionloop",
        "collect",
        "--keep",
        "bodies",
        "--lake",
        str(tmp_path / "lake"),
    ]
    ports = tmp_path / "ports.json"
    with subprocess.Popen([*command, "--port", "0", "--port-file", str(ports)]) as collector:
        until = time.monotonic() + 30
        while not ports.exists() and time.monotonic() < until:
            time.sleep(0.05)
        url = f"http://127.0.0.1:{json.loads(ports.read_text())['http']}/"
        headers = {"ce-id": "1", "ce-type": "org.kubeflow.serving.inference.response"}
        request = urllib.request.Request(url, data=b'{"predictions": []}', headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200
        os.kill(collector.pid, signal.SIGKILL)
    kept = [
        line
        for path in (tmp_path / "lake" / "events").glob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(kept) == 1 and json.loads(kept[0])["headers"]["ce-id"] == "1"


@pytest.mark.parametrize("command", ["serve", "collect"])
def test_a_server_refuses_a_port_that_is_taken_with_status_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        about = ["--model", str(tmp_path / "m.json")] if command == "serve" else []
        about += ["--lake", str(tmp_path / "lake")] if command == "collect" else []
        assert main([command, *about, "--port", port]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_serve_refuses_events_that_are_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", "m.json", "--events", "lake/events"]) == 2
    assert "visionloop collect" in capsys.readouterr().err


def test_serve_needs_a_name_for_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model", "models/.json"]) == 2
    assert "--name" in capsys.readouterr().err
