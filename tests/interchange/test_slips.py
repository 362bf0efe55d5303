"""What real sets get wrong is counted and named, and stops nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.sets import images, png, read
from visionloop.errors import InputError
from visionloop.interchange.formats import read_set


def voc(bounds: str, more: str = "") -> str:
    return (
        "<annotation><filename>a.png</filename><size><width>100</width><height>50</height></size>"
        f"<object><name>cat</name>{more}<bndbox>{bounds}</bndbox></object></annotation>"
    )


def corners(*numbers: object) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, numbers, strict=True))


def test_voc_counts_pixels_from_one_and_includes_the_last(tmp_path: Path) -> None:
    images(tmp_path, "JPEGImages/a.png")
    (tmp_path / "Annotations").mkdir()
    path = tmp_path / "Annotations" / "a.xml"
    path.write_text(voc(corners(1, 1, 100, 50)))
    found, problems = read("voc", tmp_path)
    (box,) = found["a.png"].boxes or ()
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (0, 0, 100, 50)
    assert not problems.counts
    path.write_text(voc(corners(0, 0, 100, 50)))
    assert read("voc", tmp_path)[1].counts == {"clipped_box": 1}
    assert not read("voc", tmp_path, zero_based=True)[1].counts


def test_voc_without_numbers_parts_or_a_name_goes_on(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    (tmp_path / "a.xml").write_text(voc(corners("", 2, 3, 4), "<part><name>head</name></part>"))
    (tmp_path / "broken.xml").write_text("<annotation><object>")
    (tmp_path / "b.xml").write_text(voc(corners(5, 5, 9, 9)).replace("a.png", "renamed.jpg"))
    found, problems = read("voc", tmp_path)
    assert problems.counts == {"bad_box": 1, "part": 1, "bad_xml": 1}
    assert len(found["b.png"].boxes or ()) == 1  # found by the name of the XML file


def test_an_entity_bomb_is_refused_unread(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    bomb = '<!DOCTYPE b [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + voc(corners(1, 2, 3, 4))
    (tmp_path / "a.xml").write_text(bomb.replace("cat", "&b;"))
    found, problems = read("voc", tmp_path)
    assert "document type" in problems.examples["bad_xml"][0].detail
    assert found["a.png"].boxes is None


def test_the_blood_cells_are_all_read_but_two_slipped_clicks(shared: Path) -> None:
    found, problems = read("voc", shared / "data" / "bccd" / "BCCD")
    assert len(found) == 364
    assert problems.boxes == {"found": 4888, "kept": 4886, "empty_box": 2}
    assert problems.counts == {"empty_box": 2}
    named = [(one.file, one.field) for one in problems.examples["empty_box"]]
    assert named[0] == ("Annotations/BloodImage_00338.xml", "object[13]/bndbox")
    splits = [record.split for record in found.values()]
    assert [splits.count(s) for s in ("train", "val", "test")] == [205, 87, 72]


def test_yolos_lines_are_judged_one_by_one(tmp_path: Path) -> None:
    images(tmp_path, "images/train/a.png", "images/train/b.png", "images/val/c.png")
    (tmp_path / "data.yaml").write_text(
        "path: /somebody/elses/disk\ntrain: ../train/images\nval: images/val\nnames: [cat, dog]\n"
    )
    (tmp_path / "data.yaml").write_text(
        "path: /somebody/elses/disk\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
    )
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text(
        "0 0.5 0.5 0.2 0.2\n"
        "1 0.5 0.5 0.2 0.2 0.75\n"
        "5 0.5 0.5 0.2 0.2\n"
        "0 0.5 0.5 0.2\n"
        "1 0.1 0.1 0.3 0.1 0.3 0.4\n"
        "0 0.95 0.5 0.2 0.2\n"
    )
    (labels / "nobody.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "labels" / "val").mkdir()
    (tmp_path / "labels" / "val" / "c.txt").write_text("")
    found, problems = read("yolo", tmp_path / "data.yaml")
    boxes = found["a.png"].boxes or ()
    assert [(b.label, b.score) for b in boxes] == [
        ("cat", None),
        ("dog", 0.75),
        ("dog", None),
        ("cat", None),
    ]
    assert (boxes[0].x_min, boxes[0].y_min, boxes[0].x_max, boxes[0].y_max) == (40, 20, 60, 30)
    assert (boxes[2].x_min, boxes[2].y_min, boxes[2].x_max, boxes[2].y_max) == (10, 5, 30, 20)
    assert problems.counts == {
        "unknown_category": 1,
        "bad_box": 1,
        "segmentation": 1,
        "clipped_box": 1,
        "no_annotation": 1,
        "missing_file": 1,
    }
    assert found["b.png"].boxes is None  # nobody looked
    assert found["c.png"].boxes == ()  # somebody looked, and there was nothing
    assert (found["a.png"].split, found["c.png"].split) == ("train", "val")


def test_yolo_names_that_are_no_names_are_unknown_categories(tmp_path: Path) -> None:
    images(tmp_path, "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 1 1\n1 .5 .5 1 1\n2 .5 .5 1 1\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat, [dog], 7]\n")
    found, problems = read("yolo", tmp_path)
    assert [box.label for box in found["a.png"].boxes or ()] == ["cat", "7"]
    assert problems.counts == {"unknown_category": 1}


def test_yolo_with_roboflows_paths_is_found(tmp_path: Path) -> None:
    images(tmp_path, "train/images/a.png", "valid/images/b.png")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n"
    )
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    found, _ = read("yolo", tmp_path)
    assert {name: record.split for name, record in found.items()} == {
        "a.png": "train",
        "b.png": "val",
    }
    assert len(found["a.png"].boxes or ()) == 1


def task(image: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": [{"result": list(results), **more}]}


def rectangle(x: float, y: float, w: float, h: float, rotation: float = 0) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": rotation}
    return {
        "type": "rectanglelabels",
        "original_width": 100,
        "original_height": 50,
        "value": {**value, "rectanglelabels": ["cat"]},
    }


def test_label_studios_percent_are_pixels_and_what_is_turned_is_no_box(tmp_path: Path) -> None:
    images(tmp_path, "photos/a.png", "b.png", "c.png")
    late = {"result": [{"type": "choices", "value": {"choices": ["dog"]}}], "updated_at": "2026-02"}
    early = {
        "result": [{"type": "choices", "value": {"choices": ["cat"]}}],
        "updated_at": "2026-01",
    }
    tasks = [
        task(
            "/data/local-files/?d=somewhere/photos/a.png",
            rectangle(10, 20, 50, 50),
            rectangle(10, 20, 50, 50, rotation=30),
            {"type": "polygonlabels", "value": {"points": []}},
        ),
        {"data": {"image": "/data/upload/3/0a1b2c3d-b.png"}, "annotations": [late, early]},
        task("c.png", was_cancelled=True),
        {"data": {"text": "no image"}},
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    found, problems = read("label_studio", tmp_path / "export.json")
    (box,) = found["photos/a.png"].boxes or ()
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (10, 10, 60, 35)
    assert found["b.png"].labels == ("dog",)  # the later annotation
    assert not found["c.png"].annotated
    assert problems.counts == {
        "rotated_box": 1,
        "segmentation": 1,
        "several_annotations": 1,
        "cancelled": 1,
        "no_annotation": 1,
        "no_file": 1,
    }


def test_lightlys_probabilities_have_to_be_some(tmp_path: Path) -> None:
    images(tmp_path, "sub/a.png", "b.png")
    task_folder = tmp_path / ".lightly" / "predictions" / "animals"
    (task_folder / "sub").mkdir(parents=True)
    categories = [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}]
    schema = {"task_type": "classification", "categories": categories}
    (task_folder / "schema.json").write_text(json.dumps(schema))
    (task_folder.parent / "tasks.json").write_text('["animals"]')

    def say(name: str, **said: Any) -> None:
        content = {"file_name": f"{name}.png", "predictions": [said]}
        (task_folder / f"{name}.json").write_text(json.dumps(content))

    say("sub/a", category_id=3, probabilities=[0.2, 0.8])
    say("b", category_id=1, probabilities=[0.9, 0.9])
    metadata = tmp_path / ".lightly" / "metadata"
    metadata.mkdir()
    (metadata / "schema.json").write_text("[]")
    (metadata / "b.json").write_text(
        json.dumps({"file_name": "b.png", "type": "image", "metadata": {"weather": "rain"}})
    )
    found, problems = read("lightly", tmp_path)
    assert found["sub/a.png"].labels == ("dog",)
    assert found["sub/a.png"].probabilities == (0.2, 0.8)  # cat, dog: by their ids
    assert found["sub/a.png"].score == 0.8
    assert found["b.png"].labels == ("cat",)
    assert found["b.png"].metadata == {"weather": "rain"}
    assert problems.counts == {"bad_probabilities": 1}


def test_tables_of_people_are_understood(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    (tmp_path / "boxes.csv").write_text(
        "filename;class;xmin;ymin;xmax;ymax;weather\n"
        "a.png;cat;1;2;30;40;rain\n"
        "b.png;dog;1;2;30;40;sun\n"
        "a.png;dog;90;2;130;40;rain\n"
        "gone.png;dog;1;2;3;4;sun\n"
        "a.png;cat\n"
        ";cat;1;2;3;4;sun\n",
        encoding="utf-8-sig",
    )
    found, problems = read("table", tmp_path / "boxes.csv")
    assert [b.label for b in found["a.png"].boxes or ()] == ["cat", "dog"]
    assert found["a.png"].metadata == {"weather": "rain"}
    assert problems.counts == {"clipped_box": 1, "missing_file": 1, "bad_row": 1, "no_file": 1}


def test_a_broken_shard_gives_what_lies_before_the_damage(tmp_path: Path) -> None:
    import io
    import tarfile

    place = tmp_path / "0.tar"
    with tarfile.open(place, "w") as tar:
        for number in range(3):
            for ending, data in (("png", png(20, 10, number)), ("cls", b"1")):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    place.write_bytes(place.read_bytes()[:4500])
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    found, problems = read("webdataset", tmp_path)
    assert problems.counts["broken_shard"] == 1
    assert found["0.png"].labels == ("dog",)
    assert found["0.png"].uri == place.as_uri() + "!/0.png"
    assert (found["0.png"].width, found["0.png"].height) == (20, 10)


def test_fiftyones_classes_are_names_or_places(tmp_path: Path) -> None:
    images(tmp_path, "data/a.png", "data/b.png", "data/c.png")
    labels = {"a": 1, "b": "cat", "c": 5, "gone": "cat"}
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["cat", "dog"], "labels": labels}))
    found, problems = read("fiftyone", tmp_path)
    assert (found["a.png"].labels, found["b.png"].labels) == (("dog",), ("cat",))
    assert problems.counts["unknown_label"] == 1
    assert problems.counts["missing_file"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "coco",
        "voc",
        "yolo",
        "folders",
        "table",
        "lightly",
        "label_studio",
        "cvat",
        "webdataset",
        "fiftyone",
    ],
)
def test_a_folder_without_a_set_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        list(read_set(name, str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        list(read_set(name, str(tmp_path / "empty")))


def test_a_misspelt_format_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="yolo"):
        read_set("yollo", ".")
