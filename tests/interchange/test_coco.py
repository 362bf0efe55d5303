"""What real COCO files get wrong is counted and named, and stops nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.sets import images, read
from visionloop.errors import InputError
from visionloop.interchange.formats import read_set


def coco(annotations: list[dict[str, Any]], **more: Any) -> str:
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 100, "height": 50},
            {"id": 2, "file_name": "gone.png", "width": 100, "height": 50},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": annotations,
    }
    return json.dumps({**content, **more})


def test_coco_boxes_that_leave_the_image_are_clipped_or_dropped_by_name(tmp_path: Path) -> None:
    images(tmp_path, "images/a.png", "images/nobody.png")
    boxes = [
        [10, 10, 20, 20],
        [90, 40, 20, 20],
        [200, 10, 5, 5],
        [5, 5, 0, 9],
        [1, 2, 3],
        [1, "x", 3, 4],
    ]
    said = [{"image_id": 1, "category_id": 7, "bbox": box} for box in boxes]
    (tmp_path / "instances.json").write_text(coco(said))
    found, problems = read("coco", tmp_path)
    assert [(b.x_min, b.y_min, b.x_max, b.y_max) for b in found["a.png"].boxes or ()] == [
        (10, 10, 30, 30),
        (90, 40, 100, 50),
    ]
    assert problems.counts == {
        "clipped_box": 1,
        "outside_image": 1,
        "empty_box": 1,
        "bad_box": 2,
        "missing_file": 1,
        "no_annotation": 1,
    }
    example = problems.examples["outside_image"][0]
    assert (example.file, example.field) == ("instances.json", "annotations[2].bbox")
    assert found["images/nobody.png"].boxes is None


def test_coco_ids_that_lead_nowhere_or_stand_twice_are_counted(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    said = [
        {"image_id": 1, "category_id": 8, "bbox": [1, 1, 2, 2]},
        {"image_id": 77, "category_id": 7, "bbox": [1, 1, 2, 2]},
        {"image_id": 1, "category_id": 7, "bbox": [1, 1, 9, 9], "iscrowd": 1},
        {"image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 2, 2, 1]],
         "keypoints": [1, 1, 2]},
        {"image_id": 1, "category_id": 9, "bbox": [1, 1, 2, 2], "score": 1.5},
    ]  # fmt: skip
    twice = [
        {"id": 1, "file_name": "a.png", "width": 100, "height": 50},
        {"id": 1, "file_name": "b.png", "width": 100, "height": 50},
    ]
    (tmp_path / "set.json").write_text(coco(said, images=twice))
    found, problems = read("coco", tmp_path)
    assert [box.label for box in found["a.png"].boxes or ()] == ["cat", "dog"]
    for kind in ("unknown_category", "unknown_image", "crowd", "segmentation", "keypoints",
                 "bad_score", "duplicate_image_id"):  # fmt: skip
        assert problems.counts[kind] == 1, kind


def test_coco_categories_without_boxes_are_labels_of_the_whole_image(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "gone.png")
    (tmp_path / "set.json").write_text(
        coco([{"image_id": 1, "category_id": 7}, {"image_id": 1, "category_id": 9}])
    )
    found, problems = read("coco", tmp_path)
    assert found["a.png"].labels == ("cat", "dog")
    assert found["a.png"].boxes is None
    assert problems.counts == {"no_annotation": 1}  # gone.png, which nobody labelled


def test_coco_results_need_the_file_that_they_are_about(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref" / "set.json").write_text(coco([]))
    results = [{"image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 0.25}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match="names neither images nor categories"):
        read("coco", tmp_path / "results.json")
    found, _ = read("coco", tmp_path / "results.json", reference=str(tmp_path / "ref/set.json"))
    (box,) = found["a.png"].boxes or ()
    assert (box.label, box.score, box.x_max) == ("dog", 0.25, 4)


def test_one_file_of_a_coco_set_takes_in_its_own_images_alone(tmp_path: Path) -> None:
    images(tmp_path, "train2017/a.png", "val2017/a.png", "val2017/b.png")
    (tmp_path / "annotations").mkdir()
    only = [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}]
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(coco([{"image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2]}], images=only))
    found, problems = read("coco", path)
    assert [record.uri for record in found.values()] == [(tmp_path / "val2017/a.png").as_uri()]
    assert not problems.counts
    found, problems = read("coco", tmp_path)
    assert len(found) == 3 and problems.counts == {"no_annotation": 2}


def test_roboflows_layout_of_coco_is_found_split_by_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        images(tmp_path, f"{split}/a.png")
        said = [{"image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2]}]
        only = [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}]
        (tmp_path / split / "_annotations.coco.json").write_text(coco(said, images=only))
    found = list(read_set("coco", str(tmp_path)))
    assert [(r.split, r.uri.rpartition("/")[0].rpartition("/")[2]) for r in found] == [
        ("train", "train"),
        ("valid", "valid"),
    ]
