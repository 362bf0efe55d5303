"""Where VISIONLOOP_LOG=json, each line of the log is a JSON object that says what it is about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from visionloop.cli import main
from visionloop.progress import log, relay
from visionloop.stages.ingest import ingest


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(autouse=True)
def _json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONLOOP_LOG", "json")


def test_a_stage_logs_objects_with_its_round_its_run_and_what_it_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    config = {"lake": str(tmp_path / "lake"), "sources": [{"uri": str(tmp_path / "a.png")}]}
    config["sources"] = [{"uri": str(tmp_path)}]
    ingest(config=json.dumps(config), round_id="0000", run_id="run-1")
    lines = objects(capsys.readouterr().err)
    assert len(lines) >= 3
    for line in lines:
        assert {"time", "level", "message"} <= set(line)
        assert (line["stage"], line["round_id"], line["run_id"]) == ("ingest", "0000", "run-1")
    counted = next(line for line in lines if line.get("work") == "ingest")
    assert counted["done"] == counted["total"] == 1 and counted["unit"] == "files"
    assert lines[-1]["outputs"]["n_files"] == 1


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_tells_no_secret_whoevers_words_it_repeats(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISIONLOOP_LOG", form)
    monkeypatch.setenv("VISIONLOOP_NOTIFY_TOKEN_CHAT", "hunter2hunter2")
    log("401 for hunter2hunter2", told="postgresql://u:pass@host/db", n=3)
    said = capsys.readouterr().err
    assert "401 for ***" in said and "hunter2" not in said and "pass@" not in said


def test_an_error_of_the_command_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--lake", "/nowhere/at/all"]) == 2
    [line] = objects(capsys.readouterr().err)
    assert line["level"] == "error" and line["exit_status"] == 2
    assert line["where"] == "/nowhere/at/all" and line["remedy"] and line["what"]


def test_an_exception_that_nobody_catches_is_one_object() -> None:
    program = (
        "from visionloop.redaction import hide_in_tracebacks\n"
        "hide_in_tracebacks()\n"
        "raise ValueError('a\\nb')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"VISIONLOOP_LOG": "json"},
        timeout=60,
        check=False,
    )
    [line] = objects(done.stderr)
    assert line["message"] == "ValueError: a\nb" and "Traceback" in line["traceback"]


def test_a_line_of_another_process_stays_an_object_and_says_whose_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay("pod-1", '{"message": "epoch 1", "level": "info", "loss": 0.5}')
    relay("pod-1", "plain words")
    relay("pod-1", "[1, 2]")
    first, second, third = objects(capsys.readouterr().err)
    assert (first["loss"], first["process"]) == (0.5, "pod-1")
    assert (second["message"], second["process"]) == ("plain words", "pod-1")
    assert third["message"] == "[1, 2]"
    monkeypatch.setenv("VISIONLOOP_LOG", "")
    relay("pod-1", "plain words")
    assert capsys.readouterr().err == "[pod-1] plain words\n"
