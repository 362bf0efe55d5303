"""A set goes into a lake and comes out of it as it was; people's labels stay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.interchange.sets import pictures
from visionloop.cli import main
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.interchange.formats import ReadOptions, read_set, write_set
from visionloop.interchange.records import Annotated, Box, Problems
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.stages.export_set import Wanted, export_set
from visionloop.stages.import_set import Imported, Importing, import_set

RECORDS = [
    Annotated("a.png", width=20, height=10, labels=("cat",), metadata={"weather": "rain"}),
    Annotated("b.png", width=30, height=10, boxes=(Box(1, 2, 3, 4, "dog"), Box(0, 0, 9, 9, "cat"))),
    Annotated("c.png", width=20, height=12, labels=("dog",), boxes=(Box(1, 2, 3.5, 4, "dog"),)),
    Annotated("d.png", width=20, height=12, labels=("dog",), boxes=()),
]


def made(folder: Path, name: str, records: list[Annotated] = RECORDS) -> Path:
    places = pictures(folder / "media", records)
    records = [replace(record, uri=places[record.file]) for record in records]
    write_set(name, records, str(folder / name))
    return folder / name


def bring(lake: Lake, name: str, uri: Path | str, **how: Any) -> tuple[Imported, Problems]:
    loop = load_config("{}", overrides={"lake": lake.uri, "name": lake.loop})
    problems = Problems()
    options = how.pop("options", None)
    done = import_set(loop, name, str(uri), Importing(**how), problems=problems, options=options)
    assert done.records == done.matched + done.unmatched + done.repeated
    return done, problems


def out(lake: Lake, name: str, target: Path, **wanted: Any) -> dict[str, Any]:
    summary = export_set(lake, name, str(target), Wanted(**wanted))
    left = sum(summary["left_out"].values())
    assert summary["asked"] == summary["not_in_lake"] + summary["written"] + left
    return summary


def told(records: Any) -> set[Any]:
    return {
        (
            r.file,
            r.labels,
            None
            if r.boxes is None
            else tuple(sorted((b.x_min, b.y_min, b.x_max, b.y_max, b.label) for b in r.boxes)),
        )
        for r in records
    }


@pytest.mark.parametrize("name", ["coco", "table", "webdataset"])
def test_import_after_export_through_a_lake_is_the_identity(
    name: str, lake: Lake, tmp_path: Path
) -> None:
    done, problems = bring(lake, name, made(tmp_path, name))
    assert not problems.counts, problems.lines()
    assert (done.matched, done.labels["new"], done.boxes["new"], done.n_boxes) == (4, 3, 3, 3)
    assert done.metadata == 1
    assert done.lost.total() == 0
    summary = out(lake, name, tmp_path / "out", splits=False)
    assert summary["written"] == 4
    assert summary["lake_version"] == done.lake_version
    again = list(read_set(name, str(tmp_path / "out")))
    assert told(again) == told(RECORDS)
    assert {r.file: dict(r.metadata) for r in again}["a.png"] == {"weather": "rain"}
    assert all(record.sample_id for record in again)


@pytest.mark.parametrize("name", ["coco", "webdataset"])
def test_a_set_in_a_bucket_goes_into_a_lake_and_out_to_a_bucket(
    name: str, bucket: str, lake: Lake, tmp_path: Path
) -> None:
    places = pictures(tmp_path / "media", RECORDS)
    records = [replace(record, uri=places[record.file]) for record in RECORDS]
    write_set(name, records, f"{bucket}/{name} ä")
    done, problems = bring(lake, name, f"{bucket}/{name} ä")
    assert (done.matched, problems.counts) == (4, {})
    export_set(lake, name, f"{bucket}/{name}-out", Wanted(splits=False))
    assert told(read_set(name, f"{bucket}/{name}-out")) == told(RECORDS)


def test_importing_twice_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    first, _ = bring(lake, "coco", made(tmp_path, "coco"))
    second, problems = bring(lake, "coco", tmp_path / "coco")
    assert second.labels == {"same": 3}
    assert second.boxes == {"same": 3}
    assert not problems.counts
    assert second.lake_version == first.lake_version or lake.read("labels").num_rows == 6
    assert lake.storage.exists(lake.path("imports")) is False or not list(
        lake.storage.list(lake.path("imports"))
    )


def test_a_persons_label_is_never_overwritten(lake: Lake, tmp_path: Path) -> None:
    bring(lake, "folders", made(tmp_path, "folders", [RECORDS[0], RECORDS[2]]))
    rows = lake.read("labels").to_pylist()
    sample = next(row["sample_id"] for row in rows if row["label"] == "cat")
    with lake.run(stage="test") as run:
        said = {**rows[0], "sample_id": sample, "label": "cat", "origin": "csv", "annotator": "me"}
        run.append("labels", pa.Table.from_pylist([said], schema=arrow_schema("labels")))
        run.commit()
    other = [replace(RECORDS[0], labels=("fox",)), replace(RECORDS[2], labels=("fox",))]
    uri = made(tmp_path / "other", "table", other)
    for replacing, counts in ((False, {"conflict": 2}), (True, {"conflict": 1, "replaced": 1})):
        done, problems = bring(lake, "table", uri, replace_imports=replacing)
        assert done.labels == counts
        assert problems.counts["label_conflict"] == counts["conflict"]
    flags = lake.read("flags").to_pylist()
    assert {row["kind"] for row in flags} == {"label_conflict"}
    assert all(row["stage"] == "import" for row in flags)
    summary = out(lake, "folders", tmp_path / "out")
    assert summary["classes"] == ["cat", "fox"]


def test_predictions_of_another_model_come_in_and_go_out(lake: Lake, tmp_path: Path) -> None:
    records = [
        Annotated("a.png", width=20, height=10, labels=("cat",), probabilities=(0.75, 0.25),
                  score=0.75),
        Annotated("b.png", width=30, height=10, labels=("dog",), probabilities=(0.5, 0.5),
                  score=0.5, boxes=(Box(1, 2, 3, 4, "dog", 0.5),)),
    ]  # fmt: skip
    uri = made(tmp_path, "lightly", records)
    done, problems = bring(lake, "lightly", uri, model="theirs")
    assert (done.predictions, done.n_boxes, problems.counts) == (2, 1, {})
    assert lake.read("labels").num_rows == 0
    bring(lake, "lightly", uri, model="theirs")
    rows = {row["label"]: row for row in lake.read("predictions").to_pylist()}
    assert len(rows) == lake.read("predictions").num_rows == 2
    assert rows["dog"]["boxes"][0]["scores"] == [0.5]
    assert rows["cat"]["probabilities"] == [0.75, 0.25]
    summary = out(lake, "lightly", tmp_path / "out", model="theirs")
    assert (summary["written"], summary["labels"], summary["boxes"]) == (2, 2, 1)
    again = {record.file: record for record in read_set("lightly", str(tmp_path / "out"))}
    assert again["a.png"].probabilities == (0.75, 0.25)
    # Nobody looked for objects there: that is not an image without any.
    assert rows["cat"]["boxes"] is None
    assert (again["a.png"].boxes, len(again["b.png"].boxes or ())) == (None, 1)
    with pytest.raises(InputError, match="no predictions of a model"):
        out(lake, "lightly", tmp_path / "none", model="mine")


def test_a_detector_that_found_nothing_says_so_and_a_classifier_does_not(
    lake: Lake, tmp_path: Path
) -> None:
    empty = [Annotated("a.png", width=20, height=10, boxes=())]
    classes = [Annotated("a.png", width=20, height=10, labels=("cat",), score=0.5)]
    for model, records in (("detector", empty), ("classifier", classes)):
        bring(lake, "lightly", made(tmp_path / model, "lightly", records), model=model)
        out(lake, "lightly", tmp_path / model / "out", model=model)
        again = list(read_set("lightly", str(tmp_path / model / "out")))
        assert [record.boxes for record in again] == [records[0].boxes]


def test_metadata_is_added_and_what_the_lake_knew_stays(lake: Lake, tmp_path: Path) -> None:
    bring(lake, "coco", made(tmp_path, "coco", [RECORDS[0], RECORDS[2]]))
    more = [
        replace(RECORDS[0], metadata={"weather": "sun", "iso": 200}),
        replace(RECORDS[2], metadata={"iso": 100, "captured": "2026-01-02T03:04:05+00:00"}),
    ]
    done, _ = bring(lake, "webdataset", made(tmp_path / "more", "webdataset", more))
    assert done.metadata == 2
    rows = {row["weather"]: row for row in lake.read("metadata").to_pylist()}
    assert rows["rain"]["iso"] == 200
    assert rows[None]["iso"] == 100
    assert rows[None]["captured"].year == 2026
    flags = lake.read("flags").to_pylist()
    assert [row["kind"] for row in flags] == ["metadata_conflict"]
    again, _ = bring(lake, "webdataset", tmp_path / "more" / "webdataset")
    assert again.metadata == 0


def test_boxes_of_an_image_of_another_size_are_not_stored(lake: Lake, tmp_path: Path) -> None:
    uri = made(tmp_path, "coco", [RECORDS[2]])
    path = uri / "annotations" / "instances.json"
    path.write_text(path.read_text().replace('"width":20', '"width":200'))
    done, problems = bring(lake, "coco", uri)
    assert done.boxes == {"mismatch": 1}
    assert done.labels == {"new": 1}
    assert problems.counts == {"size_mismatch": 1}
    assert [row["kind"] for row in lake.read("flags").to_pylist()] == ["size_mismatch"]
    again, problems = bring(lake, "coco", uri)
    assert problems.counts == {"size_mismatch": 1} and again.lake_version == done.lake_version
    assert len(lake.read("flags")) == 1, "it is flagged once"


def test_annotations_match_images_that_the_lake_has(lake: Lake, tmp_path: Path) -> None:
    bring(lake, "coco", made(tmp_path, "coco", RECORDS[:2]))
    tasks = [
        {
            "data": {"image": f"https://labels.example/data/{name}"},
            "annotations": [{"result": [{"type": "choices", "value": {"choices": ["fox"]}}]}],
        }
        for name in ("b.png", "unheard-of.png")
    ]
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "export.json").write_text(json.dumps(tasks))
    done, problems = bring(lake, "label_studio", tmp_path / "answers", ingest=False)
    assert (done.matched, done.unmatched, done.labels["new"]) == (0, 2, 0)
    options = ReadOptions(media=str(tmp_path / "coco" / "images"))
    done, problems = bring(
        lake, "label_studio", tmp_path / "answers", ingest=False, options=options
    )
    assert (done.matched, done.unmatched, done.labels["new"]) == (2, 1, 1)
    # a.png lies there too, and nobody answered about it.
    assert problems.counts == {"missing_file": 1, "not_in_lake": 1, "no_annotation": 1}


def test_an_image_of_several_classes_gets_none_as_its_label(lake: Lake, tmp_path: Path) -> None:
    uri = made(tmp_path, "coco", [replace(RECORDS[0], labels=("cat", "dog")), RECORDS[2]])
    done, problems = bring(lake, "coco", uri)
    assert done.labels == {"several": 1, "new": 1}
    assert problems.counts == {"several_labels": 1}
    rows = {row["weather"]: row for row in lake.read("metadata").to_pylist()}
    assert json.loads(rows["rain"]["labels"]) == ["cat", "dog"]
    assert {row["label"] for row in lake.read("labels").to_pylist()} == {"dog", None}


def test_what_a_lake_cannot_hold_is_counted(lake: Lake, tmp_path: Path) -> None:
    box = Box(1, 2, 3, 4, "cat", attributes={"difficult": True})
    said = replace(RECORDS[0], score=0.5, boxes=(box,))
    uri = made(tmp_path, "coco", [said])
    path = uri / "annotations" / "instances.json"
    held = json.loads(path.read_text())
    held["images"][0]["sample_id"] = "ab" * 32  # of other bytes than the file's
    path.write_text(json.dumps(held))
    done, problems = bring(lake, "coco", uri)
    assert done.lost == {"attributes": 1, "scores": 1}
    assert problems.counts == {"changed_bytes": 1}


def test_a_set_that_names_an_image_by_other_bytes_is_written_without_it(
    lake: Lake, tmp_path: Path
) -> None:
    records = [replace(RECORDS[0], sample_id="ab" * 32), RECORDS[1]]
    done, _ = bring(lake, "coco", made(tmp_path, "coco", records))
    assert done.records == 1
    with pytest.raises(InputError, match="left out are 1 changed_file"):
        made(tmp_path / "alone", "coco", records[:1])


def test_a_class_that_the_loop_lacks_stops_before_anything_is_stored(
    lake: Lake, tmp_path: Path
) -> None:
    uri = made(tmp_path, "folders", [RECORDS[0], RECORDS[2]])
    loop = load_config(
        "{}", overrides={"lake": lake.uri, "name": lake.loop, "classes": ["cat", "dig"]}
    )
    with pytest.raises(InputError, match="dig"):
        import_set(loop, "folders", str(uri), Importing(), problems=Problems())
    assert not lake.version()


def test_tags_of_a_lake_are_exported(lake: Lake, tmp_path: Path) -> None:
    bring(lake, "coco", made(tmp_path, "coco"))
    ids = sorted(lake.read("samples")["sample_id"].to_pylist())
    with lake.run(stage="test") as run:
        rows = [
            {"training_set": "t1", "sample_id": i, "label": "old", "position": 0} for i in ids[:2]
        ]
        rows.append({"training_set": "t1", "sample_id": "erased", "label": "x", "position": 2})
        run.append("training_sets", pa.Table.from_pylist(rows, arrow_schema("training_sets")))
        run.commit()
    summary = out(lake, "folders", tmp_path / "t1", what="training_set:t1")
    assert (summary["asked"], summary["not_in_lake"], summary["written"]) == (3, 1, 2)
    assert summary["classes"] == ["old"]  # as it was trained on
    (tmp_path / "ids.txt").write_text(f"{ids[0]}\n")
    assert out(lake, "table", tmp_path / "ids", what=f"file:{tmp_path / 'ids.txt'}")["asked"] == 1
    assert out(lake, "coco", tmp_path / "dogs", what="label:dog")["written"] == 2
    for what in ("round:9999", "nonsense", "split:nowhere"):
        with pytest.raises(InputError):
            out(lake, "coco", tmp_path / "none", what=what)


def test_images_of_the_same_name_get_names_of_their_own(lake: Lake, tmp_path: Path) -> None:
    records = [
        Annotated(f"{camera}/1.png", width=10 + i, height=10, labels=("cat",))
        for i, camera in enumerate(("north", "south"))
    ]
    records.append(Annotated("south/2.png", width=20, height=10, labels=("cat",)))
    uri = tmp_path / "set" / "cat"
    for record, place in pictures(tmp_path / "media", records).items():
        (uri / record).parent.mkdir(parents=True, exist_ok=True)
        (uri / record).write_bytes(Path(place.removeprefix("file://")).read_bytes())
    bring(lake, "folders", tmp_path / "set")
    summary = out(lake, "folders", tmp_path / "out", splits=False)
    assert summary["written"] == 3
    names = sorted(path.name for path in (tmp_path / "out" / "cat").iterdir())
    assert names[-1] == "2.png"
    assert all(name.startswith("1-") and len(name) == len("1-.png") + 12 for name in names[:2])


def test_the_commands_tell_what_they_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = made(tmp_path, "coco")
    path = uri / "annotations" / "instances.json"
    path.write_text(path.read_text().replace("d.png", "gone.png"))
    lake, log = str(tmp_path / "lake"), tmp_path / "problems.csv"
    common = ["--format", "coco", "--lake", lake]
    assert main(["import", str(uri), *common, "--dry-run", "--json"]) == 0
    looked = json.loads(capsys.readouterr().out)
    assert (looked["images"], looked["problems"]) == (5, {"missing_file": 1, "no_annotation": 1})
    assert not Path(lake).exists()
    assert main(["import", str(uri), *common, "--problems", str(log)]) == 0
    shown = capsys.readouterr()
    assert "5 images: 4 samples of the lake" in shown.out
    assert "missing file" in shown.err
    assert log.read_text().count("\n") == 4  # header, missing_file, no_annotation, not_in_lake
    target = str(tmp_path / "out")
    assert main(["export", target, "--format", "yolo", "--lake", lake, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["asked"], summary["written"]) == (4, 2)
    assert main(["export", target, "--format", "yolo", "--lake", lake]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["export", target, "--format", "yolo", "--lake", str(tmp_path / "no")]) == 2
