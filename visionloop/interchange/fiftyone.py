"""FiftyOne's datasets of images with classes or boxes: ``labels.json`` and ``data/``.

These are its types `FiftyOneImageDetectionDataset` and `FiftyOneImageClassificationDataset`. Boxes
are ``[x, y, width, height]``, shares of the image. Images are named without their ending. A set
with labels of both kinds has the whole images' classes in ``classification.json``: FiftyOne imports
these with ``labels_path="classification.json"``. ``data.json`` stands for ``data/`` where images
were not copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

import orjson

from visionloop.errors import InputError
from visionloop.interchange.boxes import BoxReader, certainty, finite
from visionloop.interchange.formats import ReadOptions, WriteOptions, leftovers
from visionloop.interchange.places import (
    Folder,
    Images,
    below,
    file_and_root,
    image_size,
    read_json,
    stem_of,
)
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.shapes import as_list, as_object, as_text
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds

HOLDS = Holds(labels=1, boxes=True, score=True, attributes=True)
_FILES = ("labels.json", "classification.json")


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read a FiftyOne dataset; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    named, root = file_and_root(uri, ".json")
    folder = Folder(root)
    found = [named] if named else [name for name in _FILES if name in folder.files]
    contents = {name: read_json(below(folder.root, name)) for name in found}
    if not found or not all(
        isinstance(content, dict) and isinstance(content.get("labels"), dict)
        for content in contents.values()
    ):
        raise InputError(
            "there is no FiftyOne dataset here: no labels.json with `labels`",
            where=uri,
            remedy="Export it as FiftyOneImageDetectionDataset or …ClassificationDataset",
        )
    manifest = read_json(below(folder.root, "data.json")) if "data.json" in folder.files else {}
    images = (Folder(options.media) if options.media else folder).images(whole=not named)
    reading = Reading("fiftyone", folder.root, problems, iter(()), [])
    reading.records = _records(contents, manifest, images, reading)
    return reading


def _records(
    contents: Mapping[str, Any], manifest: Mapping[str, str], images: Images, reading: Reading
) -> Iterator[Annotated]:
    problems = reading.problems
    names: dict[str, None] = {}
    for content in contents.values():
        classes = as_list(content.get("classes"))
        reading.classes += [n for n in map(as_text, classes) if n and n not in reading.classes]
        names.update(dict.fromkeys(content["labels"]))
    for name in names:
        place = images.of_stem(name, "data") or images.of_stem(name)
        uri = images.uri(place) or as_text(as_object(manifest).get(name))
        if not uri:
            problems.add("missing_file", next(iter(contents)), f"labels.{name}", "no image")
        width, height = image_size(uri)
        labels: list[str] = []
        boxes: tuple[Box, ...] | None = None
        score: float | None = None
        for path, content in contents.items():
            said = content["labels"].get(name)
            field = f"labels.{name}"
            if isinstance(said, list):
                reader = BoxReader(problems, path, width, height)
                boxes = tuple(_boxes(path, field, said, content, reader, problems, (width, height)))
            elif said is not None:
                label = _class(said.get("label") if isinstance(said, dict) else said, content)
                if label is None:
                    problems.add("unknown_label", path, field, repr(said))
                    continue
                labels.append(label)
                given = said.get("confidence") if isinstance(said, dict) else None
                score = certainty(given, problems, path, f"{field}.confidence")
        if boxes is None and not labels:
            problems.add("no_annotation", next(iter(contents)), f"labels.{name}")
        ending = place[len(stem_of(place)) :]
        yield Annotated(
            name + (ending or uri[len(stem_of(uri)) :]),
            uri,
            "",
            width,
            height,
            tuple(labels),
            score,
            (),
            boxes,
        )
    yield from leftovers(images, problems)


def _boxes(
    path: str,
    field: str,
    said: list[Any],
    content: Mapping[str, Any],
    reader: BoxReader,
    problems: Problems,
    size: tuple[int, int],
) -> Iterator[Box]:
    for number, found in enumerate(said):
        where = f"{field}[{number}]"
        bounds = found.get("bounding_box") if isinstance(found, dict) else None
        if not isinstance(bounds, list) or len(bounds) != 4 or not all(size):
            why = repr(bounds) if all(size) else "the size of the image cannot be read"
            problems.drop_box("bad_box", path, f"{where}.bounding_box", why)
            continue
        label = _class(found.get("label"), content)
        if label is None:
            problems.drop_box("unknown_category", path, f"{where}.label", repr(found.get("label")))
            continue
        x, y, width, height = (finite(value) for value in bounds)
        centre = [
            None if start is None or extent is None else start + extent / 2
            for start, extent in ((x, width), (y, height))
        ]
        if found.get("mask"):
            problems.add("segmentation", path, f"{where}.mask", "boxes alone are read")
        box = reader.box(
            reader.relative(centre[0], centre[1], width, height),
            label,
            where,
            score=found.get("confidence"),
            attributes=found.get("attributes"),
        )
        if box is not None:
            yield box


def _class(target: Any, content: Mapping[str, Any]) -> str | None:
    """Return a class that is named, or given by its place in `classes`."""
    if isinstance(target, str):
        return target or None
    classes = as_list(content.get("classes"))
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(classes):
        return as_text(classes[target]) or None
    return None


class Writer:
    """Writes ``labels.json`` and ``data/`` or ``data.json``."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target = target
        self.classes = Classes(list(options.classes))
        self._parts: dict[str, IO[bytes]] = {}
        self._manifest: IO[bytes] | None = None

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        name = orjson.dumps(stem_of(record.file))
        content.put(self._target, f"data/{record.file}")
        if content.media == "none":
            first = self._manifest is None
            self._manifest = self._manifest or self._target.open("data.json")
            self._manifest.write((b"{" if first else b",\n") + name + b":" + _dumps(content.uri))
        if record.labels:
            self.classes.place(record.labels[0])
            said: Any = {"label": record.labels[0]}
            if record.score is not None:
                said["confidence"] = record.score
            self._say("classification", name, said)
        if record.boxes is not None or not record.annotated:
            boxes = record.boxes
            self._say(
                "detection",
                name,
                None if boxes is None else [self._object(box, record) for box in boxes],
            )

    def _object(self, box: Box, record: Annotated) -> dict[str, Any]:
        self.classes.place(box.label)
        if not (record.width and record.height):
            raise InputError(
                "an image of unknown size: its boxes cannot be written as shares of it",
                where=record.file,
                remedy="Export to COCO, or ingest the image first",
            )
        said: dict[str, Any] = {
            "label": box.label,
            "bounding_box": [
                box.x_min / record.width,
                box.y_min / record.height,
                (box.x_max - box.x_min) / record.width,
                (box.y_max - box.y_min) / record.height,
            ],
        }
        if box.score is not None:
            said["confidence"] = box.score
        if box.attributes:
            said["attributes"] = dict(box.attributes)
        return said

    def _say(self, kind: str, name: bytes, said: Any) -> None:
        if kind not in self._parts:
            self._parts[kind] = self._target.scratch()
            mark = b"\n"
        else:
            mark = b",\n"
        self._parts[kind].write(mark + name + b": " + _dumps(said))

    def finish(self) -> None:
        """Write the files, whose classes only the last record completes."""
        import shutil

        if self._manifest is not None:
            self._manifest.write(b"}\n")
        order = [kind for kind in ("detection", "classification") if kind in self._parts]
        names = [_FILES[0], _FILES[1]] if len(order) > 1 else [_FILES[0]]
        for kind, name in zip(order, names, strict=True) if order else ():
            part = self._parts[kind]
            part.seek(0)
            file = self._target.open(name)
            file.write(b'{"classes": ' + _dumps(self.classes.names) + b', "labels": {')
            shutil.copyfileobj(part, file)
            file.write(b"\n}}\n")
        if not order:
            self._target.write(_FILES[0], b'{"classes": [], "labels": {}}\n')


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value)
