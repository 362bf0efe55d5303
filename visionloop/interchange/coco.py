"""COCO: one JSON file with images, annotations and categories.

Boxes are ``[x, y, width, height]`` in pixels. An annotation without ``bbox`` is a class of the
whole image. A list of results (``image_id``, ``category_id``, ``bbox``, ``score``) names neither
images nor categories: `ReadOptions.reference` does.

A file is read whole, about 1 KB of memory an annotation. It is written as records come.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import IO, Any

import orjson

from visionloop.errors import InputError
from visionloop.interchange.boxes import BoxReader, certainty, finite, plain_number
from visionloop.interchange.formats import ReadOptions, WriteOptions, leftovers
from visionloop.interchange.places import (
    Folder,
    Images,
    below,
    file_and_root,
    image_size,
    read_json,
)
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.shapes import as_key, as_list, as_metadata, as_pixels, as_text
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds

HOLDS = Holds(
    labels=1000, boxes=True, score=True, attributes=True, metadata=True, split=True, sample_id=True
)
# A key of ours: an image of a set without any box may still have been looked at.
_LOOKED = "annotated_boxes"
# Files of a set that are not about objects: left alone where one that is lies beside them.
_OTHER = re.compile(r"(captions|person_keypoints|panoptic|stuff|image_info)_")


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read a COCO set; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    named, root = file_and_root(uri, ".json")
    folder = Folder(root)
    found = [named] if named else _annotation_files(folder)
    if not found:
        raise InputError(
            "there is no COCO file here", where=uri, remedy="Name the .json file of the set"
        )
    pictures = Folder(options.media) if options.media else folder
    images = pictures.images(whole=not named)
    reading = Reading("coco", folder.root, problems, iter(()), [])
    reading.records = _records(folder, images, found, reading, options.reference)
    return reading


def _annotation_files(folder: Folder) -> list[str]:
    found = folder.named(".json")
    inside = [path for path in found if "annotations" in path.lower()] or found
    wanted = [path for path in inside if not _OTHER.match(path.rpartition("/")[2])] or inside
    return sorted(wanted)


def _records(
    folder: Folder, images: Images, found: list[str], reading: Reading, reference: str
) -> Iterator[Annotated]:
    problems = reading.problems
    read_one = 0
    for path in found:
        content = read_json(below(folder.root, path))
        if isinstance(content, list):
            if not reference:
                raise InputError(
                    "a list of COCO results names neither images nor categories",
                    where=path,
                    remedy="Name the annotation file that it is about with --reference",
                )
            named = read_json(reference)
            content = {**named, "annotations": content} if isinstance(named, dict) else {}
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            if len(found) == 1:
                raise InputError(
                    "this is no COCO file: it has no list `images`",
                    where=path,
                    remedy="Name the .json file of the set",
                )
            problems.add("not_coco", path, "images", "there is no such list")
            continue
        read_one += 1
        yield from _of_file(path, content, images, reading)
    if not read_one:
        raise InputError("none of the .json files here is COCO's", where=folder.root)
    yield from leftovers(images, problems)


def _of_file(
    path: str, content: Mapping[str, Any], images: Images, reading: Reading
) -> Iterator[Annotated]:
    problems = reading.problems
    names = _categories(path, content, problems)
    reading.classes += [name for name in names.values() if name not in reading.classes]
    by_image: dict[Any, list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
    annotations = as_list(content.get("annotations"))
    detects = False
    for number, annotation in enumerate(annotations):
        if isinstance(annotation, dict):
            by_image[as_key(annotation.get("image_id"))].append((number, annotation))
            detects = detects or bool(annotation.get("bbox"))
        else:
            problems.add("bad_annotation", path, f"annotations[{number}]", "no object")
    split = split_of(path)
    parent = path.rpartition("/")[0]
    above = parent.rpartition("/")[0]
    places = (f"{above}/images/{split}", f"{above}/{split}", f"{above}/images", parent,
              f"{parent}/images", above)  # fmt: skip
    hints = tuple(place.strip("/") for place in places)
    seen: set[Any] = set()
    for number, image in enumerate(content["images"]):
        field = f"images[{number}]"
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            problems.add("bad_image", path, field, "it has no file_name")
            continue
        key = as_key(image.get("id"))
        if key is None or key in seen:
            problems.add("duplicate_image_id", path, f"{field}.id", f"{key!r} of {name}")
            continue
        seen.add(key)
        uri = images.uri(images.find(name, hints=hints)) or _stated_uri(image)
        if not uri:
            problems.add("missing_file", path, f"{field}.file_name", name)
        width, height = (as_pixels(image.get(side)) for side in ("width", "height"))
        if not (width and height):
            width, height = image_size(uri)
        boxes = BoxReader(problems, path, width, height)
        objects, labels, score = _objects(path, by_image.pop(key, []), names, boxes, problems)
        # That somebody looked for objects is said of the image, or meant by a set of boxes.
        looked = bool(objects) or image.get(_LOOKED) is True or (detects and not labels)
        if not labels and not looked:
            problems.add("no_annotation", path, field, name)
        metadata = as_metadata(image.get("metadata"))
        if captured := as_text(image.get("date_captured")):
            metadata["date_captured"] = captured
        yield Annotated(
            name,
            uri,
            as_text(image.get("sample_id")),
            width,
            height,
            tuple(labels),
            score,
            (),
            tuple(objects) if looked else None,
            metadata,
            split,
        )
    for key, left in by_image.items():
        for number, annotation in left:
            drop = problems.drop_box if annotation.get("bbox") else problems.add
            drop("unknown_image", path, f"annotations[{number}].image_id", repr(key))


def _categories(path: str, content: Mapping[str, Any], problems: Problems) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for number, category in enumerate(as_list(content.get("categories"))):
        field = f"categories[{number}]"
        name = category.get("name") if isinstance(category, dict) else None
        if not isinstance(name, str) or not name or as_key(category.get("id")) is None:
            problems.add("bad_category", path, field, "it has no name or no id")
        elif as_key(category["id"]) in names:
            problems.add("duplicate_category_id", path, f"{field}.id", repr(category["id"]))
        else:
            names[as_key(category["id"])] = name
    return names


def _objects(
    path: str,
    found: list[tuple[int, Mapping[str, Any]]],
    names: Mapping[Any, str],
    boxes: BoxReader,
    problems: Problems,
) -> tuple[list[Box], list[str], float | None]:
    objects: list[Box] = []
    labels: list[str] = []
    score: float | None = None
    for number, annotation in found:
        field = f"annotations[{number}]"
        bounds = annotation.get("bbox")
        for kind in ("segmentation", "keypoints"):
            if annotation.get(kind):
                problems.add(kind, path, f"{field}.{kind}", "boxes and labels alone are read")
        drop = problems.drop_box if bounds else problems.add
        label = names.get(as_key(annotation.get("category_id")))
        if label is None:
            told = repr(annotation.get("category_id"))
            drop("unknown_category", path, f"{field}.category_id", told)
        elif annotation.get("iscrowd"):
            drop("crowd", path, f"{field}.iscrowd", f"a group of {label}")
        elif bounds:
            box = boxes.box(
                _corners(bounds),
                label,
                f"{field}.bbox",
                score=annotation.get("score"),
                attributes=annotation.get("attributes"),
            )
            objects += [box] if box else []
        elif annotation.get("segmentation"):
            problems.drop_box("no_box", path, f"{field}.bbox", "a shape without its box")
        elif label not in labels:
            if not labels:
                score = certainty(annotation.get("score"), problems, path, f"{field}.score")
            labels.append(label)
    return objects, labels, score


def _corners(bounds: Any) -> tuple[Any, ...]:
    numbers = [finite(value) for value in bounds] if isinstance(bounds, list) else []
    if len(numbers) != 4 or None in numbers:
        return tuple(bounds) if isinstance(bounds, list) else (bounds,)
    x, y, width, height = (number for number in numbers if number is not None)
    return x, y, x + width, y + height


def _stated_uri(image: Mapping[str, Any]) -> str:
    stated = image.get("coco_url")
    return stated if isinstance(stated, str) and stated.startswith(("file://", "gs://")) else ""


def split_of(path: str) -> str:
    """Return the split that a COCO file's name tells: ``instances_val2017.json`` is ``val2017``."""
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0]
    for mark in ("instances_", "annotations_", "labels_"):
        if stem.startswith(mark):
            return stem.removeprefix(mark)
    if stem == "_annotations.coco":
        return folder.rpartition("/")[2]
    return ""


class Writer:
    """Writes ``annotations/instances[_<split>].json`` and ``images/``."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target = target
        self.classes = Classes(list(options.classes))
        self._parts: dict[str, _Part] = {}

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        content.put(self._target, f"images/{record.file}")
        if record.split not in self._parts:
            name = f"instances_{record.split}" if record.split else "instances"
            path = f"annotations/{name}.json"
            self._parts[record.split] = _Part(self._target.open(path), self._target.scratch())
        self._parts[record.split].add(record, content, self.classes)

    def finish(self) -> None:
        """Write the categories, which only the last record completes."""
        if not self._parts:
            self._parts[""] = _Part(
                self._target.open("annotations/instances.json"), self._target.scratch()
            )
        for part in self._parts.values():
            part.finish(self.classes)


class _Part:
    """One file: its images go there at once, its annotations follow them."""

    def __init__(self, file: IO[bytes], annotations: IO[bytes]) -> None:
        self._file, self._annotations = file, annotations
        self._images = self._objects = 0
        file.write(b'{"info": {"description": "written by visionloop"}, "images": [')

    def add(self, record: Annotated, content: Content, classes: Classes) -> None:
        self._images += 1
        image: dict[str, Any] = {
            "id": self._images,
            "file_name": record.file,
            "width": record.width,
            "height": record.height,
        }
        if content.media == "none" and content.uri:
            image["coco_url"] = content.uri
        if record.boxes is not None:
            image[_LOOKED] = True
        if record.sample_id:
            image["sample_id"] = record.sample_id
        if record.metadata:
            image["metadata"] = dict(record.metadata)
        self._file.write((b",\n" if self._images > 1 else b"\n") + orjson.dumps(image))
        for place, label in enumerate(record.labels):
            self._annotation(classes, label, record.score if not place else None, {})
        for box in record.boxes or ():
            width, height = box.x_max - box.x_min, box.y_max - box.y_min
            bounds = [plain_number(n) for n in (box.x_min, box.y_min, width, height)]
            more: dict[str, Any] = {"bbox": bounds, "area": plain_number(width * height)}
            if box.attributes:
                more["attributes"] = dict(box.attributes)
            self._annotation(classes, box.label, box.score, more)

    def _annotation(
        self, classes: Classes, label: str, score: float | None, more: dict[str, Any]
    ) -> None:
        self._objects += 1
        said: dict[str, Any] = {
            "id": self._objects,
            "image_id": self._images,
            "category_id": classes.place(label) + 1,
            **more,
            "iscrowd": 0,
        }
        if score is not None:
            said["score"] = score
        self._annotations.write((b",\n" if self._objects > 1 else b"\n") + orjson.dumps(said))

    def finish(self, classes: Classes) -> None:
        self._file.write(b'\n], "annotations": [')
        self._annotations.seek(0)
        shutil.copyfileobj(self._annotations, self._file)
        named = [{"id": i + 1, "name": name} for i, name in enumerate(classes.names)]
        self._file.write(b'\n], "categories": ' + orjson.dumps(named) + b"}\n")
