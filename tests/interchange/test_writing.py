"""A set is there whole or not at all, and says what it does not hold."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.sets import pictures, png
from visionloop.errors import InputError
from visionloop.interchange.formats import FORMATS, WriteOptions, read_set, write_set
from visionloop.interchange.records import Annotated, Box, Problems
from visionloop.media.sources import open_source
from visionloop.source_config import SourceConfig

RECORDS = [
    Annotated("a.png", width=20, height=10, labels=("cat",), score=0.5, metadata={"iso": 100}),
    Annotated("b.png", width=20, height=10, boxes=(Box(1, 2, 3, 4, "dog", 0.5),), split="train"),
    Annotated("c.png", width=20, height=10),
]


@pytest.fixture
def records(tmp_path: Path) -> list[Annotated]:
    places = pictures(tmp_path / "media", RECORDS)
    return [replace(record, uri=places[record.file]) for record in RECORDS]


@pytest.mark.parametrize("name", FORMATS)
def test_every_record_is_written_or_left_out_for_a_reason(
    name: str, records: list[Annotated], tmp_path: Path
) -> None:
    gone = Annotated("d.png", (tmp_path / "gone.png").as_uri(), labels=("cat",), boxes=())
    twice = replace(records[0], file="A.png")
    problems = Problems()
    made = write_set(name, [*records, gone, twice], str(tmp_path / "set"), problems=problems)
    assert made["records"] == 5
    assert made["written"] + sum(made["left_out"].values()) == 5
    assert made["left_out"]["unannotated"] == 1
    assert made["left_out"]["missing_file"] == 1
    assert made == json.loads((tmp_path / "set" / "visionloop-export.json").read_text())
    if name in ("coco", "table", "webdataset"):
        assert not made["lost"]
    else:
        assert made["lost"] or made["left_out"]["not_held"]
    assert len(list(read_set(name, str(tmp_path / "set")))) == made["written"]


@pytest.mark.parametrize(("name", "kept", "told"), [("voc", 0, "boxes only"), ("folders", 1, "")])
def test_an_export_that_holds_nothing_is_refused_and_leaves_nothing(
    name: str, kept: int, told: str, records: list[Annotated], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no image can be written") as refused:
        write_set(name, records[kept : kept + 1], str(tmp_path / "set"))
    assert told in refused.value.remedy and not (tmp_path / "set").exists()


def test_shards_of_ours_come_in_without_what_lies_beside_them(
    records: list[Annotated], tmp_path: Path
) -> None:
    write_set("webdataset", records, str(tmp_path / "set"))
    source = SourceConfig(uri=str(tmp_path / "set"), kind="tar")
    roles = {Path(e.info.uri).name: e.role for e in open_source(source).entries()}
    assert roles == {
        "000000.tar": "container",
        "classes.txt": "labels",
        "visionloop-export.json": "labels",
    }


def test_images_nobody_annotated_go_along_only_when_asked(
    records: list[Annotated], tmp_path: Path
) -> None:
    write_set("coco", records, str(tmp_path / "with"), unannotated=True)
    found = {record.file: record for record in read_set("coco", str(tmp_path / "with"))}
    assert len(found) == 3
    made = write_set(
        "folders", records[:1] + records[2:], str(tmp_path / "folders"), unannotated=True
    )
    assert made["left_out"] == {"unannotated": 1}


def test_a_target_that_holds_something_is_kept_and_an_export_replaced_where_that_is_forced(
    records: list[Annotated], tmp_path: Path
) -> None:
    target = tmp_path / "set"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_set("coco", records, str(target))
    with pytest.raises(InputError, match="replaces an export alone"):
        write_set("coco", records, str(target), force=True)
    assert (target / "mine.txt").read_text() == "mine"
    (target / "mine.txt").unlink()
    write_set("yolo", records, str(target))
    (target / "mine.txt").write_text("mine")
    write_set("coco", records, str(target), force=True)
    assert not (target / "mine.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["media", "set"]


def test_an_export_that_fails_leaves_the_target_as_it_was(
    records: list[Annotated], tmp_path: Path
) -> None:
    target = tmp_path / "set"
    write_set("coco", records, str(target))
    before = sorted(target.rglob("*"))

    def failing() -> Iterator[Annotated]:
        yield records[0]
        raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError):
        write_set("yolo", failing(), str(target), force=True)
    assert sorted(target.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["media", "set"]


@pytest.mark.parametrize("media", ["copy", "link"])
def test_what_was_overwritten_since_is_left_out(media: Any, tmp_path: Path) -> None:
    records = [
        Annotated(f"{name}.png", width=20, height=10, labels=("cat",)) for name in ("a", "b")
    ]
    places = pictures(tmp_path / "media", records)
    named = [
        replace(
            record,
            uri=places[record.file],
            sample_id=hashlib.sha256(png(20, 10, number)).hexdigest(),
        )
        for number, record in enumerate(records)
    ]
    (tmp_path / "media" / "0.png").write_bytes(png(20, 10, 7))
    summary = write_set("coco", named, str(tmp_path / "set"), media=media)
    assert (summary["written"], summary["left_out"]) == (1, {"changed_file": 1})
    assert [p.name for p in (tmp_path / "set" / "images").iterdir()] == ["b.png"]


def test_links_lead_to_the_images_and_none_names_them(
    records: list[Annotated], tmp_path: Path
) -> None:
    write_set("coco", records, str(tmp_path / "linked"), media="link")
    link = tmp_path / "linked" / "images" / "a.png"
    assert link.is_symlink() and link.read_bytes() == png(20, 10, 0)
    for name in ("coco", "table", "label_studio", "fiftyone"):
        made = write_set(name, records[:2], str(tmp_path / name), media="none")
        assert made["written"] == 2
        assert not list((tmp_path / name).rglob("*.png"))
        found = {
            record.file.rpartition("/")[2]: record
            for record in read_set(name, str(tmp_path / name))
        }
        assert {record.uri for record in found.values()} == {r.uri for r in records[:2]}, name
    with pytest.raises(InputError, match="--media copy"):
        write_set("webdataset", records, str(tmp_path / "shards"), media="link")


def test_names_cannot_leave_the_target(records: list[Annotated], tmp_path: Path) -> None:
    for name in ("../out.png", "a/../../out.png", "/out.png"):
        with pytest.raises(InputError, match="cannot name a file"):
            write_set("coco", [replace(records[0], file=name)], str(tmp_path / "deep" / "set"))
    assert not (tmp_path / "deep" / "set").exists()


def test_shards_end_at_their_size(records: list[Annotated], tmp_path: Path) -> None:
    many = [replace(records[0], file=f"{i}.png") for i in range(20)]
    write_set("webdataset", many, str(tmp_path / "set"), options=WriteOptions(shard_bytes=10_000))
    shards = sorted(path.name for path in (tmp_path / "set").glob("*.tar"))
    assert len(shards) > 2
    assert [r.file for r in read_set("webdataset", str(tmp_path / "set"))] == [r.file for r in many]


def test_a_table_opens_as_people_expect(records: list[Annotated], tmp_path: Path) -> None:
    write_set("table", records[:2], str(tmp_path / "set"))
    with (tmp_path / "set" / "annotations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["file"], r["kind"], r["label"], r["x_max"]) for r in rows] == [
        ("a.png", "label", "cat", ""),
        ("b.png", "box", "dog", "3"),
    ]


@pytest.mark.parametrize("name", ["coco", "yolo", "webdataset", "lightly"])
def test_sets_go_to_and_come_from_a_bucket(
    name: str, bucket: str, records: list[Annotated], tmp_path: Path
) -> None:
    target = f"{bucket}/{name} set"
    made = write_set(name, records, target)
    with pytest.raises(InputError, match="not empty"):
        write_set(name, records, target)
    problems = Problems()
    found = list(read_set(name, target, problems=problems))
    assert len(found) == made["written"] > 0
    assert not problems.counts, problems.lines()
    assert all(record.uri.startswith(target) for record in found)
    again = write_set(name, found, f"{bucket}/{name}/again")
    assert again["written"] == made["written"]
    with pytest.raises(InputError, match="on a disk"):
        write_set("coco", records, f"{bucket}/links", media="link")
