"""Exports for viewers: every count reconciles, and nothing that is known is left behind."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tests.monitoring.live.small_lake import LATITUDE, SmallLake, rows
from visionloop.cli import main
from visionloop.errors import InputError
from visionloop.stages.export_set import Wanted
from visionloop.stages.export_viewer import export_viewer


@pytest.fixture
def small(tmp_path: Path) -> SmallLake:
    made = SmallLake(tmp_path)
    made.learn()
    return made


def test_fiftyone_gets_labels_predictions_flags_and_fields(
    small: SmallLake, tmp_path: Path
) -> None:
    small.path(7).unlink()
    small.path(8).write_bytes(b"another file")
    made = export_viewer(small.lake, "fiftyone", str(tmp_path / "out"), Wanted())
    assert made["asked"] == 30 == made["written"] + sum(made["left_out"].values())
    assert made["left_out"] == {"missing_file": 1, "changed_file": 1}
    held = json.loads((tmp_path / "out" / "samples.json").read_text())["samples"]
    assert len(held) == made["written"] == 28
    told = {one["sha256"]: one for one in held}
    third = told[small.ids[3]]
    assert set(third["tags"]) == {"pool", "flag:blurred", "flag:dark"}
    assert third["ground_truth"] == {"_cls": "Classification", "label": "dog"}
    assert third["predictions"] == {"_cls": "Classification", "label": "cat", "confidence": 0.9}
    assert third["meta_latitude"] == LATITUDE + 3
    assert third["meta_wet"] is True
    assert third["metadata"]["width"] == 24
    assert third["captured_at"] == "2026-11-20T11:00:00Z"
    assert "random" in told[small.ids[1]]["tags"]
    for one in held:
        place = tmp_path / "out" / one["filepath"]
        assert place.read_bytes() in {small.path(n).read_bytes() for n in range(30) if n != 7}
        assert all(name.isidentifier() for name in one)
    about = json.loads((tmp_path / "out" / "metadata.json").read_text())
    # Without a version FiftyOne takes it for its JSON form, which every version reads.
    assert "version" not in about
    assert about["info"]["lake_version"] == small.lake.version()


def test_objects_are_shares_of_their_image(small: SmallLake, tmp_path: Path) -> None:
    box = {
        "x_min": 6.0,
        "y_min": 4.0,
        "x_max": 12.0,
        "y_max": 12.0,
        "label": "car",
        "scores": [0.5],
    }
    with small.lake.run(stage="import", round_id="0002") as run:
        run.append("labels", rows("labels", sample_id=[small.ids[20]], task=["detection"],
                                  boxes=[[box]], origin=["import"]))  # fmt: skip
        run.commit()
    wanted = Wanted(f"split:{'pool'}")
    made = export_viewer(small.lake, "fiftyone", str(tmp_path / "out"), wanted, media="link")
    assert (made["written"], made["boxes"]) == (27, 1)
    held = json.loads((tmp_path / "out" / "samples.json").read_text())["samples"]
    (one,) = [one for one in held if one["sha256"] == small.ids[20]]
    # FiftyOne takes one type a field: other images have a class there.
    assert {one["ground_truth"]["_cls"] for one in held if "ground_truth" in one} == {
        "Classification"
    }
    (found,) = one["ground_truth_objects"]["detections"]
    assert found["bounding_box"] == [0.25, 0.25, 0.25, 0.5]
    assert (tmp_path / "out" / one["filepath"]).is_symlink()
    export_viewer(small.lake, "lightly-studio", str(tmp_path / "ls"), wanted)
    coco = json.loads((tmp_path / "ls" / "ground_truth.coco.json").read_text())
    assert [a["bbox"] for a in coco["annotations"]] == [[6.0, 4.0, 6.0, 8.0]]
    assert (tmp_path / "ls" / "images" / coco["images"][0]["file_name"]).is_file()


def test_lightly_studio_gets_a_program_that_names_files_that_are_there(
    small: SmallLake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["export", str(out), "--to", "lightly-studio", "--lake", str(tmp_path / "lake")]
    assert main([*command, "--what", "flag:dark", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["asked"], made["written"], made["flagged"], made["predicted"]) == (2, 2, 2, 2)
    held = json.loads((out / "samples.json").read_text())["samples"]
    assert all((out / one["file"]).is_file() for one in held)
    assert {one["predictions"] for one in held} == {"cat"}
    ast.parse((out / "open_in_lightly_studio.py").read_text())
    ast.parse("\n".join(made["lines"]))


def test_what_a_viewer_cannot_do_is_refused_before_anything_is_written(
    small: SmallLake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="own folder"):
        export_viewer(small.lake, "lightly-studio", str(out), Wanted(), media="none")
    with pytest.raises(InputError, match="its own machine"):
        export_viewer(small.lake, "fiftyone", "gs://bucket/out", Wanted())
    command = ["export", str(out), "--lake", str(tmp_path / "lake")]
    assert main([*command, "--to", "fiftyone", "--model", "m-1"]) == 2
    assert "--model is for --format" in capsys.readouterr().err
    assert main([*command, "--format", "coco", "--launch"]) == 2
    assert not out.exists()
