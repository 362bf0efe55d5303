"""`visionloop select`: what is refused before the work, kept after it, and told on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.selection.small_lake import NOW, fill, ids, put
from visionloop import cli
from visionloop.lake import Lake
from visionloop.selection import record
from visionloop.selection.interruption import Keeper


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    lake = Lake.open(str(tmp_path / "lake"), loop="test")
    fill(lake)
    return lake


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is selected: whatever is refused is refused before."""

    def work(*_: Any, **__: Any) -> None:
        pytest.fail("the selection began")

    monkeypatch.setattr(record, "select_from_lake", work)


def select(lake: Lake, *arguments: object, config: str = "strategy: diversity") -> int:
    path = Path(lake.uri.removeprefix("file://")).parent / "selection.yaml"
    path.write_text(config, encoding="utf-8")
    return cli.main(["select", "--lake", lake.uri, "--config", str(path), *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-n", 0), "at least one sample"),
        (("--seed", -1), "a seed is 0 or more"),
        (("--save", ""), "the name of a selection has letters"),
        (("--output", "picks.txt"), ".csv or .parquet"),
        (("--output", "/dev/null/picks.csv"), "cannot be written there: File exists: /dev/null"),
    ],
)
@pytest.mark.usefixtures("unread")
def test_options_that_cannot_be_followed_are_refused_before_the_work(
    lake: Lake, arguments: tuple[object, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert select(lake, *arguments) == 2
    assert words in refused(capsys)


@pytest.mark.usefixtures("unread")
def test_a_gpu_that_is_not_there_and_a_device_that_is_none_are_refused_before_the_work(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert select(lake, config="device: cuda:99") == 2
    assert "cuda:99 was asked for" in refused(capsys)
    assert select(lake, config="device: tpu") == 2
    told = refused(capsys)
    assert "give `auto`, `cuda` or `cuda:1`" in told and "not 'tpu'" in told and "^" not in told


def test_a_name_that_another_number_of_picks_has_is_refused_before_the_work(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert select(lake, "-n", 4, "--save", "night") == 0
    assert select(lake, "-n", 4, "--save", "night") == 0  # the same picks
    assert "the lake has a selection night, of 4 samples" in capsys.readouterr().err
    monkeypatch.setattr(record, "select_from_lake", lambda *_, **__: pytest.fail("it began"))
    assert select(lake, "-n", 5, "--save", "night") == 2
    assert "another selection of this name, of 4 samples" in refused(capsys)


def test_picks_that_cannot_be_saved_are_shown_and_kept_for_the_same_command(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert select(lake, "-n", 4, "--save", "night") == 0
    capsys.readouterr()
    others = ("-n", 4, "--json")
    assert select(lake, *others, "--save", "night", config="strategy: typicality") == 2
    told = capsys.readouterr()
    shown = json.loads(told.out)
    assert shown["n_selected"] == len(shown["picks"]) == 4 and shown["saved"] is None
    assert "another selection of this name" in told.err
    assert select(lake, *others, "--save", "day", config="strategy: typicality") == 0
    told = capsys.readouterr()
    assert "4 picks of an interrupted selection are gone on with" in told.err
    again = json.loads(told.out)
    assert again["picks"] == shown["picks"] and again["saved"]["name"] == "day"
    assert not list((tmp_path / "state").rglob("select-*.json"))


@pytest.mark.usefixtures("unread")
def test_a_lake_that_cannot_be_written_to_is_known_before_the_work(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lake" / "tmp").write_text("where a folder should be")
    assert select(lake, "-n", 4, "--save", "night") == 1
    assert "cannot write" in refused(capsys)


def test_without_a_place_for_the_picks_so_far_the_selection_goes_on_and_says_so(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert select(lake, "-n", 4) == 0
    told = capsys.readouterr()
    assert "warning: an interruption would lose the picks" in told.err
    assert "4 selected of" in told.out


def test_what_was_kept_and_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / Keeper(tmp_path, {"n": 5}, {}).path.name).write_text("{half of")
    keeper = Keeper(tmp_path, {"n": 5}, {})
    assert keeper.outdated and not keeper.course.picked and not keeper.why_not


def test_the_counts_tell_pool_from_holdout_and_who_was_passed_over(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--output", tmp_path / "deep" / "picks.csv")
    config = "{dialect: lightly, strategy: diversity, n_samples: 30, duplicate_distance: 0.8}"
    assert select(lake, *arguments, "--json", config=config) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["pool"] == 30 and made["holdout"] == 3 and made["removed"]
    assert made["passed_over"] == made["eligible"] - made["n_selected"] > 0
    assert f"{made['passed_over']} more are near duplicates" in " ".join(made["warnings"])
    assert select(lake, *arguments, config=config) == 0
    told = capsys.readouterr().out
    assert f"; {made['passed_over']} passed over as near duplicates" in told
    assert "The pool has 30 samples, the holdout 3 others; not eligible: 1 copies" in told
    header = (tmp_path / "deep" / "picks.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("sample_id,rank,arm") and told.rstrip().endswith("picks.csv")


def test_a_table_on_a_terminal_ends_where_the_terminal_does(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert select(lake, "-n", 4) == 0
    wide = capsys.readouterr().out
    assert max(map(len, wide.splitlines())) > 80 and "Picked because" not in wide
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    assert select(lake, "-n", 4) == 0
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 70
    assert narrow.split() == wide.split()


def test_a_line_on_predictions_beside_others_is_told_why_it_has_no_say(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    margin = "{input: {type: SCORES, score: margin}, strategy: {type: WEIGHTS}}"
    other = "{input: {type: EMBEDDINGS}, strategy: {type: DIVERSITY}}"
    assert select(lake, "-n", 4, "--json", config=f"strategies: [{margin}, {other}]") == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert "Nothing is known of margin" in warning and "no model is in service" in warning


def test_without_embeddings_the_command_that_makes_them_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = Lake.open(str(tmp_path / "lake"), loop="test")
    put(empty, "samples", [{"sample_id": s, "split": "pool", "ingested_at": NOW} for s in ids(9)])
    assert select(empty, "-n", 4, config="random_share: 0\nstrategy: diversity") == 2
    told = refused(capsys)
    assert "visionloop run intake --config loop.yaml" in told, told


def test_an_interrupt_before_the_first_pick_promises_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(record, "select_from_lake", interrupted)
    assert select(lake, "-n", 4) == 1
    told = refused(capsys)
    assert "Stopped by the keyboard before the first pick" in told and "kept" not in told
