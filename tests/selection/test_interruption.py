"""`visionloop select`, interrupted for real and started again; and its picks kept in the lake."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.selection.small_lake import NOW, fill, ids, put
from visionloop import cli
from visionloop.lake import Lake, checking_rows
from visionloop.selection.greedy import Course, Picked
from visionloop.selection.interruption import Keeper

# Typicality of clusters and diversity: every step weighs every candidate, so that it lasts.
SELECTION = """
strategies:
  - {input: {type: EMBEDDINGS}, strategy: {type: COVERAGE}}
  - {input: {type: EMBEDDINGS}, strategy: {type: DIVERSITY}}
  - {input: {type: RANDOM}, strategy: {type: WEIGHTS}}
"""


def command(lake: Lake, folder: Path, *arguments: object) -> list[str]:
    (folder / "selection.yaml").write_text(SELECTION, encoding="utf-8")
    given = ["--lake", lake.uri, "--loop", lake.loop, "--config", str(folder / "selection.yaml")]
    return [sys.executable, "-m", "visionloop", "select", *given, *map(str, arguments)]


def environ(folder: Path) -> dict[str, str]:
    return os.environ | {"XDG_STATE_HOME": str(folder / "state"), "OMP_NUM_THREADS": "1"}


def finish(arguments: list[str], folder: Path) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [*arguments, "--json"], env=environ(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def crowd(lake: Lake, n: int, d: int) -> None:
    names = ids(n)
    put(lake, "samples", [{"sample_id": s, "split": "pool", "ingested_at": NOW} for s in names])
    x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    with lake.run(stage="infer", round_id="0000") as run:
        run.append_embeddings("e", names, x / np.linalg.norm(x, axis=1, keepdims=True))
        run.commit(outputs={"space": "e"})


# Runs the command line after a change to one step of it: at the pick of this number it waits, so
# that it is surely still selecting when the signal comes.
WAITING = """
import sys, time
from visionloop.cli import main
from visionloop.selection.interruption import Keeper

def note(keeper):
    if len(keeper.course.picked) == 40:
        print("waiting", flush=True)
        time.sleep(600)

Keeper.note = note
sys.exit(main(sys.argv[1:]))
"""
# SIGINT while a weak reference's callback runs, as SQLAlchemy's do whenever rubbish is collected:
# Python ignores the exception that it makes of it. The selection goes on for ten minutes then.
LOST = """
import signal, sys, time, weakref
from visionloop.cli import main
from visionloop.selection.interruption import Keeper

class Rubbish:
    pass

def note(keeper):
    if len(keeper.course.picked) == 40:
        rubbish = Rubbish()
        reference = weakref.ref(rubbish, lambda _: signal.raise_signal(signal.SIGINT))
        del rubbish
        print("the callback is over", flush=True)
    if len(keeper.course.picked) >= 40:
        time.sleep(10)

Keeper.note = note
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake.open(str(tmp_path_factory.mktemp("crowd") / "lake"), loop="test")
    crowd(lake, 600, 16)
    return lake


def test_an_interrupted_selection_goes_on_and_picks_what_it_would_have_picked(
    crowded: Lake, tmp_path: Path
) -> None:
    arguments = command(crowded, tmp_path, "-n", 100, "--output", tmp_path / "picks.csv")
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *arguments[3:]],
        env=environ(tmp_path),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and "Stopped by the keyboard" in told, told
    assert "the 40 picks so far are kept. Start the same command again to go on" in told
    (kept,) = (tmp_path / "state").rglob("select-*.json")
    assert len(json.loads(kept.read_text())["picked"]) == 40

    _, log = finish(arguments, tmp_path)
    assert not kept.exists() and "100 of 100 picks" in log
    other = tmp_path / "other"
    other.mkdir()
    finish(command(crowded, other, "-n", 100, "--output", other / "picks.csv"), other)
    resumed, whole = ((folder / "picks.csv").read_bytes() for folder in (tmp_path, other))
    assert resumed == whole and whole.count(b"\n") == 101


def test_an_interrupt_that_python_ignores_stops_the_selection_all_the_same(
    crowded: Lake, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, *command(crowded, tmp_path, "-n", 100)[3:]],
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert "the callback is over" in done.stdout  # the callback did swallow the exception
    assert done.returncode == 1 and "Stopped by the keyboard" in done.stderr, done.stderr
    (kept,) = (tmp_path / "state").rglob("select-*.json")
    assert len(json.loads(kept.read_text())["picked"]) == 40


def test_what_was_kept_is_read_as_it_was_written(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, {"n": 5}, {"version": "a"})
    keeper.write()
    assert not keeper.path.exists()  # nothing was picked yet
    keeper.course.picked.append(Picked(7, {"diversity": 0.1 + 0.2, "margin": None}))
    keeper.course.refused.append(3)
    keeper.write()
    again = Keeper(tmp_path, {"n": 5}, {"version": "a"})
    assert again.course == Course(keeper.course.picked, [3]) and not again.outdated
    assert Keeper(tmp_path, {"n": 6}, {"version": "a"}).course == Course()
    again.finish()
    assert Keeper(tmp_path, {"n": 5}, {"version": "a"}).course == Course()


def test_what_was_kept_of_another_version_of_the_lake_is_not_used(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, {"n": 5}, {"version": "a"})
    keeper.course.picked.append(Picked(7, {}))
    keeper.write()
    later = Keeper(tmp_path, {"n": 5}, {"version": "b"})
    assert later.outdated and later.course == Course()


def test_what_comes_before_the_first_pick_is_shown_with_its_time_left(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(lake)
    monkeypatch.setattr("visionloop.vectors.phases._PACE_S", 0.0)
    monkeypatch.setattr("visionloop.progress._LOG_PACE", 0.0)
    assert cli.main(["select", "--lake", lake.uri, "-n", "4"]) == 0  # `auto`, without a model
    told = capsys.readouterr().err
    assert "reading the lake" in told
    assert re.search(r"first centres \d+%, about \d+ s left of it", told)
    assert told.index("typicality 100%") < told.index("1 of 4 picks")


def test_picks_that_another_query_file_led_to_are_not_used(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    query, seen = tmp_path / "query.txt", []
    line = {"input": {"type": "EMBEDDINGS", "query": [f"file:{query}"]}}
    line["strategy"] = {"type": "SIMILARITY"}
    config = tmp_path / "similar.yaml"
    config.write_text(json.dumps({"strategies": [line]}), encoding="utf-8")
    arguments = ["select", "--lake", lake.uri, "--config", str(config), "-n", "4"]
    names = sorted(lake.read("samples", columns=["sample_id"])["sample_id"].to_pylist())

    def interrupted(_: Lake, config: Any, *__: Any, course: Course, **___: Any) -> None:
        seen.append(len(course.picked))
        course.picked.append(Picked(0, {}))
        raise KeyboardInterrupt

    monkeypatch.setattr("visionloop.selection.record.select_from_lake", interrupted)
    query.write_text(names[0])
    assert cli.main(arguments) == cli.main(arguments) == 1
    query.write_text(names[1])
    assert cli.main(arguments) == 1
    assert seen == [0, 1, 0], "the picks of the first file are gone on with for it alone"


def test_picks_are_kept_in_the_lake_under_a_name_and_no_round_minds(
    lake: Lake, tmp_path: Path
) -> None:
    fill(lake)
    rounds, before = lake.rounds.all(), lake.rounds.current_or_next()
    table = tmp_path / "picks.csv"
    arguments = command(lake, tmp_path, "-n", 6, "--save", "night", "--output", table)
    made, _ = finish(arguments, tmp_path)
    picked = [pick["sample_id"] for pick in made["picks"]]
    rows = lake.read("named_selections", version=made["saved"]["lake_version"]).sort_by("rank")
    assert rows["sample_id"].to_pylist() == picked
    assert set(rows["name"].to_pylist()) == {"night"}
    with table.open(newline="", encoding="utf-8") as file:
        assert [row["sample_id"] for row in csv.DictReader(file)] == picked
    assert lake.rounds.all() == rounds and lake.rounds.current_or_next() == before
    assert lake.read("selections").num_rows == 0
    named = [
        one for one in checking_rows.rows(lake, lake.version()) if "named_selections" in one.check
    ]
    assert named and not any(one.broken for one in named)

    again, _ = finish(arguments, tmp_path)  # the same picks: they are taken by nobody
    assert [pick["sample_id"] for pick in again["picks"]] == picked
    assert lake.read("named_selections").num_rows == 6
    other = subprocess.run(
        command(lake, tmp_path, "-n", 5, "--save", "night"),
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 2 and "another selection of this name" in other.stderr
    assert lake.read("named_selections").num_rows == 6


def test_a_name_that_is_none_is_refused_before_anything_is_selected(
    lake: Lake, tmp_path: Path
) -> None:
    fill(lake)
    done = subprocess.run(
        command(lake, tmp_path, "-n", 5, "--save", "a'; --"),
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "letters, digits" in done.stderr
    assert not (tmp_path / "state").exists()


def test_an_interrupt_says_that_the_picks_are_lost_where_they_cannot_be_kept(
    crowded: Lake, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", LOST, *command(crowded, tmp_path, "-n", 100)[3:]],
        env=environ(tmp_path) | {"XDG_STATE_HOME": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 1 and "picks so far are lost" in done.stderr, done.stderr
    assert "what was finished is kept" not in done.stderr
