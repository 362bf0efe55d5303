"""The command `visionloop lake`, and every command of the page docs/lake.md."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import ROOT
from tests.lake.old_lake import LOOP, VERSION, restored
from visionloop.cli import main
from visionloop.lake import Lake
from visionloop.lake.schemas import SCHEMA_VERSION, arrow_schema


def commands() -> list[str]:
    blocks = (ROOT / "docs" / "lake.md").read_text().split("```")[1::2]
    ours = [block for block in blocks if block.startswith("\n")]  # the others are Python
    return [line for block in ours for line in block.splitlines() if line.strip()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    restored(tmp_path / "lake")
    (tmp_path / "loop.yaml").write_text(f"name: {LOOP}\nlake: lake\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["lake", *arguments, "--json"]) == 0
    held: dict[str, Any] = json.loads(capsys.readouterr().out)
    return held


def test_every_command_of_the_page_does_what_it_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = commands()
    said = []
    for line in lines:
        program, *arguments = shlex.split(line.replace("clothing", LOOP))
        assert program == "visionloop"
        assert main(arguments) == 0, line
        said.append(capsys.readouterr().out)
    text = "\n".join(said)
    for expected in (
        "open round  0, waiting since",
        "held by nobody: the next run resumes it",
        "media       0 where they were found, 12 copied",
        f"{VERSION} collect_labels 0 ",
        "checks: nothing is broken",
        "would merge 0 small files",
        "merged 0 small files",
        "would remove 0 versions",
        f"backed up version {VERSION} of old: 10 tables",
        f"restored version {VERSION} of old at file://{folder}/restored",
    ):
        assert expected in text
    assert {line.split()[2] for line in lines} == {
        "status",
        "versions",
        "check",
        "compact",
        "vacuum",
        "backup",
        "restore",
    }


def test_results_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--lake", "lake", "--loop", LOOP]
    held = told(capsys, "status", *there)
    rows = {table["table"]: table["rows"] for table in held["tables"]}
    assert (held["version"], held["schema_version"], held["versions"]) == (
        VERSION,
        SCHEMA_VERSION,
        1,
    )
    assert rows["samples"] == 12 and rows["stage_runs"] == 8
    assert held["open_round"]["round_id"] == "0000" and held["in_service"] == ""
    on_disk = sum(path.stat().st_size for path in (folder / "lake").rglob("*") if path.is_file())
    assert held["disk"]["bytes"] == on_disk

    runs = told(capsys, "versions", *there)["versions"]
    assert [run["sequence"] for run in runs] == list(range(8))
    assert [run["readable"] for run in runs] == [False] * 6 + [True] * 2
    assert runs[-1]["stage"] == "restore" and runs[-1]["changed"]["samples"] == 12

    assert told(capsys, "check", *there)["broken"] == 0
    done = told(capsys, "vacuum", *there, "--keep-versions", "1", "--safety-hours", "0")
    assert done["kept"] == [VERSION] and done["dropped"] == []


def test_events_that_were_not_harvested_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake.open("lake", loop=LOOP)
    lake.storage.write(lake.path("events", "a.events.jsonl"), b'{"broken": 1}\n')
    there = ["--lake", "lake", "--loop", LOOP]
    before = told(capsys, "status", *there)["events"]
    assert before == {"files": 1, "unread_files": 1, "unread_bytes": 14}
    assert main(["harvest", *there]) == 0
    after = told(capsys, "status", *there)["events"]
    assert after == {"files": 1, "unread_files": 0, "unread_bytes": 0}


def test_a_broken_lake_is_status_1_with_what_is_wrong_and_the_remedy(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = sorted((folder / "lake" / "media").rglob("*.png"))[0]
    lost.unlink()
    assert main(["lake", "check", "--config", "loop.yaml"]) == 1
    said = capsys.readouterr().out
    assert "✗ media: every sample is there: 1 of 12" in said
    assert f"{lost.name} is missing" in said and "Bring the files back" in said
    assert "1 found something broken" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "--lake", "nowhere"], "there is no lake here"),
        (["status", "--lake", "lake", "--loop", "clothes"], "holds nothing of the loop 'clothes'"),
        (["status"], "no lake was named"),
        (["polish", "--lake", "lake"], "invalid choice"),
        (["restore", "nowhere", "--lake", "new"], "no backup here"),
        (["vacuum", "--lake", "lake", "--loop", LOOP, "--keep-versions", "0"], "newest version"),
        (["vacuum", "--lake", "lake", "--loop", LOOP, "--older-than", "-1"], "age is not negative"),
        (["vacuum", "--lake", "lake", "--loop", LOOP, "--safety-hours", "-1"], "is not negative"),
        (["vacuum", "--lake", "lake", "--loop", LOOP, "--older-than", "nan"], "age is a number"),
        (["vacuum", "--lake", "lake", "--loop", LOOP, "--safety-hours", "inf"], "age is a number"),
        (["compact", "--lake", "lake", "--loop", LOOP, "--min-files", "1"], "cannot be merged"),
        (["compact", "--lake", "lake", "--loop", LOOP, "--table", "fils"], "no table 'fils'"),
    ],
)
def test_wrong_input_is_status_2_and_makes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["lake", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "nowhere").exists() and not (folder / "new").exists()


def test_a_restored_lake_is_whole_without_the_one_it_was_made_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lake", "backup", "kept", "--config", "loop.yaml"]) == 0
    shutil.rmtree(folder / "lake")
    assert main(["lake", "restore", "kept", "--lake", "again"]) == 0
    assert told(capsys, "check", "--lake", "again", "--loop", LOOP)["broken"] == 0


def test_what_ran_between_two_rounds_is_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    with lake.run(stage="watch") as run:
        row = {"decision": "watch", "subject": run.round_id, "outcome": "wait"}
        run.append("decisions", pa.Table.from_pylist([row], schema=arrow_schema("decisions")))
        run.commit()
    there = ["lake", "versions", "--lake", lake.uri, "--loop", "test"]
    assert main(there) == 0
    assert "watch          before 0  20" in capsys.readouterr().out
    lake.rounds.open("r")
    assert main(there) == 0
    assert "watch          0         20" in capsys.readouterr().out
