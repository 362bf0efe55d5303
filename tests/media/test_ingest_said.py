"""What is said of files that a lake knows: labels that come later, origins that fall silent."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.media.sources.making import tar, video
from tests.media.sources.test_ingested import PICTURES
from tests.media.test_metadata_sources import World
from visionloop import cli


def _labels(world: World) -> list[str]:
    return sorted(row["label"] for row in world.rows("labels"))


def test_labels_that_are_wanted_later_come_to_known_files(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(4):
        world.photo(f"{'cat' if number % 2 else 'dog'}/{number}.png", number)
    assert world.ingest().n_new == 4 and not world.rows("labels")
    world.settings["sources"][0]["labels"] = "folder"
    found = world.ingest()
    assert (found.n_files, found.n_skipped) == (4, 4)
    assert _labels(world) == ["cat", "cat", "dog", "dog"]
    assert world.counted.metrics["n_renewed_metadata"] == 0
    world.ingest()
    assert world.counted.metrics["n_labels"] == 0 and len(world.rows("labels")) == 4


def test_labels_of_known_tars_come_when_they_are_wanted_and_nothing_counts_as_gone(
    tmp_path: Path,
) -> None:
    path = tar(tmp_path / "x.tar", {"1.png": PICTURES[0], "1.cls": b"cat", "2.png": PICTURES[1]})
    world = World(tmp_path)
    world.settings["sources"] = [{"uri": str(path)}]
    assert world.ingest().n_new == 2
    world.settings["sources"][0]["labels"] = "source"
    found = world.ingest()
    assert (found.n_files, found.n_skipped) == (2, 2)
    assert _labels(world) == ["cat"]
    counted = world.counted.metrics
    assert (counted["n_removed"], counted["n_back"], counted["n_read_otherwise"]) == (0, 0, 3)


def test_other_frames_are_no_frames_that_are_gone(tmp_path: Path) -> None:
    world = World(tmp_path)
    video(world.source / "clip.mp4", 30)
    first, second = ({"uri": str(world.source), "video": {"every": n}} for n in (0.4, 0.8))
    world.settings["sources"] = [first]
    world.ingest()
    for source in (second, first):
        world.settings["sources"] = [source]
        assert world.ingest().n_new == 0
        counted = world.counted.metrics
        assert counted["n_read_otherwise"] > 0
        assert (counted["n_removed"], counted["n_back"], counted["n_media_missing"]) == (0, 0, 0)


def test_a_table_that_a_wider_source_does_not_see_keeps_its_word(tmp_path: Path) -> None:
    world = World(tmp_path)
    narrow = {"uri": str(world.source / "a")}
    world.photo("a/1.png", 1)
    world.photo("a/2.png", 2)
    world.put("a/metadata.csv", "file_name,weather\n1.png,fog\n2.png,sun\n")
    sidecar = world.put("a/1.json", '{"camera": "dock", "iso": 100}')
    world.settings["sources"] = [narrow]
    world.ingest()
    world.settings["sources"] = [{"uri": str(world.source)}]
    world.ingest()
    assert world.counted.metrics["n_renewed_metadata"] == 0
    sidecar.write_text('{"camera": "quay"}')
    world.ingest()
    one, two = (world.known()[name] for name in ("1.png", "2.png"))
    assert (one["weather"], one["camera"], two["weather"]) == ("fog", "quay", "sun")


def test_the_command_says_what_it_did_not_take_in_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path)
    whole = world.photo("good.png", 1).read_bytes()
    world.put("sub/cut.png", whole[: len(whole) // 2])
    world.put("sub/empty.jpg", b"")
    world.put("sub/metadata.csv", "file_name,weather\n1.png,fog\n")
    listed = tmp_path / "problems.csv"
    lake = ["--lake", str(tmp_path / "lake")]
    arguments = ["ingest", *lake, "--source", str(world.source), "--problems", str(listed)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "unreadable, empty: 1: sub/empty.jpg" in text
    assert "unreadable, truncated: 1: sub/cut.png" in text
    assert "sub/metadata.csv is not at the root" in text
    rows = list(csv.DictReader(listed.open(encoding="utf-8")))
    assert {row["kind"] for row in rows} == {"empty", "truncated", "not_an_image"}
    cut = next(row for row in rows if row["kind"] == "truncated")
    assert cut["file"].endswith("sub/cut.png") and cut["field"].startswith("byte ")
    (tmp_path / "empty").mkdir()
    assert cli.main(["ingest", *lake, "--source", str(tmp_path / "empty")]) == 0
    assert "the sources hold no files" in capsys.readouterr().out
    world.put("none.jpg", b"")
    assert cli.main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["reasons"]["unreadable"]
    assert told == {"empty": {"files": 1, "first": ["none.jpg"]}}


def test_a_repeated_line_is_counted_and_no_more_is_done_than_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path)
    world.photo("1.png", 1)
    tar(world.source / "x.tar", {f"{n}.png": PICTURES[n] for n in range(4)})
    listed = world.put("list.txt", "1.png\n./1.png\n")
    world.settings["sources"] = [
        {"uri": str(listed)},
        {"uri": str(world.source / "x.tar")},
    ]
    assert world.ingest().n_files == 5
    assert world.counted.metrics["n_repeated"] == 1
    lines = capsys.readouterr().err
    assert "ingest: 6 files" in lines and "record: 6 of 6 files" in lines


def test_groups_without_room_in_the_holdout_are_counted(tmp_path: Path) -> None:
    world = World(tmp_path, pattern="{camera}/{}")
    for number in range(12):
        world.photo(f"{'ab'[number % 2]}/{number}.png", number)
    world.photo("single.png", 20)
    world.settings["holdout"] = {"group_by": "camera", "fraction": 0.1}
    world.ingest()
    assert world.counted.metrics["n_unjudged_groups"] == 2


def test_any_reader_of_iceberg_reads_the_tables_as_the_page_on_lakes_says(tmp_path: Path) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    world = World(tmp_path)
    world.photo("1.png", 1)
    world.put("b.jpg", b"")
    world.ingest()
    catalog = SqlCatalog("visionloop", uri=f"sqlite:///{tmp_path}/lake/catalog.sqlite")
    rows = catalog.load_table("test.files").scan(row_filter="state == 'unreadable'").to_arrow()
    assert rows["reason"].to_pylist() == ["empty"]
    assert world.lake.read("files", where="state == 'unreadable'").num_rows == 1


def test_a_format_that_is_not_there_is_told_before_the_lake_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = ["--lake", str(tmp_path / "none")]
    assert cli.main(["export", str(tmp_path / "set"), "--format", "csv", *lake]) == 2
    assert "unknown format `csv`" in capsys.readouterr().err
