"""An export never replaces what it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interchange.sets import pictures
from tests.interchange.test_lake import RECORDS, bring, made
from visionloop.cli import main
from visionloop.errors import InputError
from visionloop.interchange.formats import read_set
from visionloop.interchange.places import SUMMARY
from visionloop.interchange.records import Problems
from visionloop.lake import Lake
from visionloop.stages.export_set import Wanted, export_set
from visionloop.stages.ingest import ingest


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_force_replaces_neither_lake_nor_source_nor_what_holds_them(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(lake, "coco", made(tmp_path, "coco"))
    root = Path(lake.uri.removeprefix("file://"))
    (tmp_path / "link").symlink_to(root)
    (tmp_path / SUMMARY).write_text("{}")  # as the set has one that was ingested
    before = content(tmp_path)
    for target in (root, root / "media", tmp_path / "link", tmp_path, tmp_path / "coco"):
        arguments = ["export", str(target), "--lake", lake.uri, "--loop", lake.loop]
        assert main([*arguments, "--format", "coco", "--force"]) == 2, target
        assert "Name a folder of its own" in capsys.readouterr().err
        assert content(tmp_path) == before


def test_an_export_is_replaced_by_another_and_nothing_else_is(lake: Lake, tmp_path: Path) -> None:
    bring(lake, "coco", made(tmp_path, "coco"))
    target = tmp_path / "out"
    export_set(lake, "coco", str(target), Wanted())
    export_set(lake, "table", str(target), Wanted(), force=True)
    assert json.loads((target / SUMMARY).read_bytes())["format"] == "table"
    pictures(tmp_path / "mine", RECORDS)
    before = content(tmp_path / "mine")
    with pytest.raises(InputError, match="replaces an export alone"):
        export_set(lake, "coco", str(tmp_path / "mine"), Wanted(), force=True)
    assert content(tmp_path / "mine") == before


@pytest.mark.parametrize("name", ["webdataset", "yolo", "table"])
def test_an_image_whose_name_holds_a_line_break_comes_back_out_of_an_export(
    name: str, lake: Lake, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    places = pictures(source, RECORDS[:2])
    odd = ["a\nb.png", "a\\b.png"]
    for record, new in zip(RECORDS, odd, strict=False):
        Path(places[record.file].removeprefix("file://")).rename(source / new)
    config = json.dumps({"name": lake.loop, "lake": lake.uri, "sources": [{"uri": str(source)}]})
    ingest(config=config)
    made = export_set(lake, name, str(tmp_path / "out"), Wanted(), unannotated=True)
    assert (made["written"], made["left_out"]) == (2, {})
    problems = Problems()
    again = list(read_set(name, str(tmp_path / "out"), problems=problems).records)
    assert set(problems.counts) <= {"no_annotation"}, problems.lines()
    assert len(again) == 2
    assert all("\n" not in record.file and "a_b" in record.file for record in again)
