"""Annotated sets as sources, and what `sources` of a configuration may say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.media.pictures import encoded, photograph
from tests.media.sources.making import source_of
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.interchange.formats import FORMATS
from visionloop.lake.storage import normalise
from visionloop.source_config import Format, SourceConfig


def put(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(photograph(96, 64, seed), "JPEG"))
    return path


def coco(folder: Path) -> Path:
    """Write a set of three images: one with boxes, one without any, one that is not there."""
    for number in (1, 2):
        put(folder / "images" / f"{number}.jpg", number)
    names = [f"images/{number}.jpg" for number in (1, 2, 3)]
    images = [
        {"id": n, "file_name": name, "width": 96, "height": 64} for n, name in enumerate(names)
    ]
    box = {"id": 1, "image_id": 0, "category_id": 7, "bbox": [8, 4, 40, 20]}
    wrong = {"id": 2, "image_id": 0, "category_id": 99, "bbox": [0, 0, 5, 5]}
    content = {
        "images": images,
        "annotations": [box, wrong],
        "categories": [{"id": 7, "name": "cell"}],
    }
    (folder / "set.json").write_text(json.dumps(content))
    return folder


def test_a_sets_images_come_with_what_it_says_of_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = coco(tmp_path / "cells")
    entries = list(source_of(folder, format="coco").entries())
    uris = [normalise(folder / "images" / f"{number}.jpg") for number in (1, 2, 3)]
    assert [(e.info.uri, e.reason) for e in entries] == [
        (uris[0], ""), (uris[1], ""), (uris[2], "missing"),
    ]  # fmt: skip
    (box,) = entries[0].boxes or ()
    assert (box["x_min"], box["y_min"], box["x_max"], box["y_max"]) == (8, 4, 48, 24)
    assert box["label"] == "cell" and entries[0].label == ""
    assert "99" in capfd.readouterr().err  # what is wrong in the set is told
    silent = list(source_of(folder, format="coco", labels="none").entries())
    assert [e.boxes for e in silent] == [None] * 3


def test_a_folder_of_classes_is_a_set(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog", "dog")):
        put(tmp_path / name / f"{number}.jpg", number)
    entries = list(source_of(tmp_path, format="folders").entries())
    assert [e.label for e in entries] == ["cat", "dog", "dog"]


def test_every_format_that_is_imported_can_be_a_source() -> None:
    assert set(get_args(Format)) == {"", *FORMATS}


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("photos", "folder"),
        ("photos/one.jpg", "folder"),
        ("gs://b/train-000.tar", "tar"),
        ("gs://b/train-{000..009}.TAR", "tar"),
        ("a.tar.gz", "tar"),
        ("a.tgz", "tar"),
        ("images.txt", "list"),
        ("images.csv", "list"),
        ("images.parquet", "list"),
        ("log/a.events.jsonl.gz", "events"),
    ],
)
def test_the_kind_is_told_from_the_uri(uri: str, kind: str) -> None:
    assert SourceConfig(uri=uri).resolved_kind == kind


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"uri": "a", "kind": "zip"}, "sources.0.kind"),
        ({"uri": "a", "format": "cocoo"}, "coco"),
        ({"uri": "a", "kind": "tar", "format": "coco"}, "not both"),
        ({"uri": "a", "media": "b"}, "name the set's `format`"),
        ({"uri": "a.tar", "video": {"every": 1}}, "of kind tar"),
        ({"uri": "a", "labels": "source"}, "for lists, tars and annotated sets"),
        ({"uri": "a", "kind": "events", "labels": "folder"}, "lie in no folders"),
        ({"uri": "a-{0..3}.csv"}, "braces are for tars"),
        ({"uri": "a", "video": {}}, "none of them"),
        ({"uri": "a", "video": {"evry": 1}}, "evry"),
    ],
)
def test_each_mistake_is_told_once_and_clearly(source: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match="source") as caught:
        load_config(json.dumps({"lake": "lake", "sources": [source]}))
    assert told in str(caught.value)


def test_relative_paths_are_those_of_the_configurations_folder(tmp_path: Path) -> None:
    sources = [
        {"uri": "videos", "video": {"frames": "frames.txt"}},
        {"uri": "set", "format": "voc", "media": "photos"},
        {"uri": "t-{0..3}.tar", "labels": "source"},
    ]
    (tmp_path / "loop.yaml").write_text(json.dumps({"lake": "lake", "sources": sources}))
    first, second, third = load_config(tmp_path / "loop.yaml").sources
    assert first.video and first.video.frames == str(tmp_path / "frames.txt")
    assert second.media == str(tmp_path / "photos") and second.brings_labels
    assert (third.uri, third.labels) == (str(tmp_path / "t-{0..3}.tar"), "source")


def test_what_the_page_on_ingest_shows_is_a_configuration() -> None:
    page = Path(__file__).parents[3] / "docs" / "ingest.md"
    section = page.read_text(encoding="utf-8").partition("## Sources")[2].partition("\n## ")[0]
    shown = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    kinds = {load_config(f"lake: lake\n{text}").sources[0].resolved_kind for text in shown}
    assert len(shown) >= 6 and kinds == {"folder", "list", "tar", "annotated", "events"}
