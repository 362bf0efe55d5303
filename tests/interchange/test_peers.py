"""Other people's readers find in our exports what was exported, and we in theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.sets import pictures
from visionloop.interchange.formats import read_set, write_set
from visionloop.interchange.records import Annotated, Box

# file, label, x_min, y_min, x_max, y_max
Told = set[tuple[str, str, float, float, float, float]]

BOXES = [
    Annotated("one.png", width=64, height=48, boxes=(Box(0, 0, 64, 48, "cat"),)),
    Annotated(
        "two words.png",
        width=40,
        height=30,
        boxes=(Box(1, 2, 11, 22, "dog"), Box(5, 5, 40, 30, "cat")),
    ),
    Annotated("none.png", width=40, height=30, boxes=()),
]
LABELS = [
    Annotated("a.png", width=10, height=10, labels=("cat",)),
    Annotated("b.png", width=10, height=10, labels=("dog",)),
    Annotated("c.png", width=10, height=10, labels=("cat",)),
]


def written(name: str, records: list[Annotated], folder: Path) -> Path:
    places = pictures(folder / "media", records)
    write_set(name, [replace(r, uri=places[r.file]) for r in records], str(folder / "set"))
    return folder / "set"


def wanted(shift: int = 0) -> Told:
    return {
        (r.file, b.label, b.x_min + shift, b.y_min + shift, b.x_max, b.y_max)
        for r in BOXES
        for b in r.boxes or ()
    }


def of_labelformat(reader: Any) -> Told:
    return {
        (label.image.filename, one.category.name, *(round(n, 3) for n in one.box.to_format(xyxy())))
        for label in reader.get_labels()
        for one in label.objects
    }


def xyxy() -> Any:
    from labelformat.model.bounding_box import BoundingBoxFormat

    return BoundingBoxFormat.XYXY


def test_pycocotools_and_torchvision_read_coco(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    coco = pytest.importorskip("pycocotools.coco")
    root = written("coco", BOXES, tmp_path)
    path = str(root / "annotations" / "instances.json")
    found = torchvision.datasets.CocoDetection(str(root / "images"), path)
    names = {c["id"]: c["name"] for c in coco.COCO(path).dataset["categories"]}
    told: Told = set()
    assert len(found) == len(BOXES)
    for index in range(len(found)):
        image, objects = found[index]
        file = found.coco.loadImgs(found.ids[index])[0]
        assert image.size == (file["width"], file["height"])
        for one in objects:
            x, y, w, h = one["bbox"]
            told.add((file["file_name"], names[one["category_id"]], x, y, x + w, y + h))
    assert told == wanted()


def test_torchvision_reads_pascal_voc(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    # It asks for files that end with .jpg, whatever they are.
    records = [replace(r, split="train", file=r.file.replace("png", "jpg")) for r in BOXES]
    places = pictures(tmp_path / "media", records)
    root = tmp_path / "VOCdevkit" / "VOC2012"
    write_set("voc", [replace(r, uri=places[r.file]) for r in records], str(root))
    found = torchvision.datasets.VOCDetection(str(tmp_path), year="2012", image_set="train")
    told: Told = set()
    assert len(found) == len(BOXES)
    for image, annotation in found:
        said = annotation["annotation"]
        assert image.size == (int(said["size"]["width"]), int(said["size"]["height"]))
        for one in said.get("object", []):
            told.add(
                (
                    said["filename"].replace("jpg", "png"),
                    one["name"],
                    *map(float, one["bndbox"].values()),
                )
            )  # type: ignore[arg-type]
    assert told == wanted(shift=1)


def test_torchvision_reads_folders_of_classes(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    found = torchvision.datasets.ImageFolder(str(written("folders", LABELS, tmp_path)))
    told = {Path(path).name: found.classes[place] for path, place in found.samples}
    assert told == {record.file: record.labels[0] for record in LABELS}


def test_labelformat_reads_coco_yolo_and_lightly(tmp_path: Path) -> None:
    pytest.importorskip("labelformat")
    from labelformat.formats.coco import COCOObjectDetectionInput
    from labelformat.formats.lightly import LightlyObjectDetectionInput
    from labelformat.formats.yolov8 import YOLOv8ObjectDetectionInput

    coco = written("coco", BOXES, tmp_path / "coco")
    reader = COCOObjectDetectionInput(coco / "annotations" / "instances.json")
    assert of_labelformat(reader) == wanted()
    yolo = written("yolo", BOXES, tmp_path / "yolo")
    assert of_labelformat(YOLOv8ObjectDetectionInput(yolo / "data.yaml", "train")) == wanted()
    lightly = written("lightly", BOXES, tmp_path / "lightly")
    task = lightly / ".lightly" / "predictions" / "object-detection"
    assert of_labelformat(LightlyObjectDetectionInput(task, "../../..")) == wanted()


def test_we_read_what_labelformat_writes(tmp_path: Path) -> None:
    pytest.importorskip("labelformat")
    from labelformat.formats.coco import COCOObjectDetectionInput, COCOObjectDetectionOutput
    from labelformat.formats.lightly import LightlyObjectDetectionOutput
    from labelformat.formats.yolov8 import YOLOv8ObjectDetectionOutput

    root = written("coco", BOXES, tmp_path)
    source = COCOObjectDetectionInput(root / "annotations" / "instances.json")
    COCOObjectDetectionOutput(tmp_path / "coco.json").save(source)
    YOLOv8ObjectDetectionOutput(tmp_path / "yolo" / "data.yaml", "train").save(source)
    (tmp_path / "yolo" / "images").symlink_to(root / "images")
    task = tmp_path / "lightly" / ".lightly" / "predictions" / "task"
    LightlyObjectDetectionOutput(task).save(source)
    for name, uri in (("coco", "coco.json"), ("yolo", "yolo"), ("lightly", "lightly")):
        from visionloop.interchange.formats import ReadOptions

        options = ReadOptions(media="" if name == "yolo" else str(root / "images"))
        told = {
            (r.file, b.label, *(round(n, 3) for n in (b.x_min, b.y_min, b.x_max, b.y_max)))
            for r in read_set(name, str(tmp_path / uri), options=options)
            for b in r.boxes or ()
        }
        assert told == wanted(), name


def test_the_webdataset_package_reads_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    root = written("webdataset", LABELS, tmp_path)
    shards = [str(path) for path in sorted(root.glob("*.tar"))]
    classes = (root / "classes.txt").read_text().split()
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    told = {sample["json"]["file"]: classes[sample["cls"]] for sample in found}
    assert told == {record.file: record.labels[0] for record in LABELS}
    assert {sample["png"].size for sample in found} == {(10, 10)}


def test_fiftyones_importers_find_what_they_look_for(tmp_path: Path) -> None:
    # FiftyOne brings a database with it: this is what its importers do with these files.
    root = written("fiftyone", BOXES, tmp_path / "boxes")
    content = json.loads((root / "labels.json").read_text())
    assert content["classes"] == ["cat", "dog"]
    images = {path.stem: path for path in (root / "data").iterdir()}
    assert images.keys() == content["labels"].keys()
    sizes = {record.file: (record.width, record.height) for record in BOXES}
    told: Told = set()
    for name, objects in content["labels"].items():
        width, height = sizes[images[name].name]
        for one in objects:
            x, y, w, h = one["bounding_box"]
            assert 0 <= x <= x + w <= 1 and 0 <= y <= y + h <= 1
            box = [x * width, y * height, (x + w) * width, (y + h) * height]
            told.add((images[name].name, one["label"], *(round(n, 3) for n in box)))  # type: ignore[arg-type]
    assert told == wanted()
    root = written("fiftyone", LABELS, tmp_path / "labels")
    content = json.loads((root / "labels.json").read_text())
    assert {k: v["label"] for k, v in content["labels"].items()} == {
        "a": "cat",
        "b": "dog",
        "c": "cat",
    }
