"""LightlyOne: ``.lightly/predictions/<task>/…json`` and ``.lightly/metadata/…json``.

Boxes are ``[x, y, width, height]`` in pixels. Each task has a ``schema.json`` with its categories,
and a file an image, named as the image is. Labels are given in the same way as predictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from visionloop.errors import InputError
from visionloop.interchange.boxes import BoxReader, certainty, finite, plain_number
from visionloop.interchange.formats import ReadOptions, WriteOptions, leftovers
from visionloop.interchange.lightly_metadata import MetadataSchema, entry, type_of
from visionloop.interchange.places import (
    Folder,
    Images,
    file_and_root,
    image_size,
    read_json,
    stem_of,
)
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.shapes import as_key, as_list, as_metadata, as_object, as_text
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds

HOLDS = Holds(labels=1, boxes=True, score=True, metadata=True)
_PREDICTIONS, _METADATA = ".lightly/predictions/", ".lightly/metadata/"
CLASSIFICATION, DETECTION = "classification", "object-detection"
# Tasks whose boxes are read, and whose finer shapes are left out.
_WITH_BOXES = (DETECTION, "keypoint-detection", "instance-segmentation")
_ROUNDING = 1e-3


class _Task:
    """One prediction task: its categories, and the file of each image."""

    def __init__(self, name: str, schema: Mapping[str, Any], files: dict[str, str]) -> None:
        self.name, self.type, self.files = name, as_text(schema.get("task_type")), files
        named: dict[str | int, str] = {}
        for category in map(as_object, as_list(schema.get("categories"))):
            key, text = as_key(category.get("id")), as_text(category.get("name"))
            if key is not None and text:
                named.setdefault(key, text)
        order = sorted(named, key=lambda key: (isinstance(key, str), str(key).zfill(20)))
        self.names: dict[str | int | None, str] = {key: named[key] for key in order}
        self.place = {key: i for i, key in enumerate(self.names)}


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read predictions and metadata; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    _, root = file_and_root(uri)
    root = root.removesuffix("/.lightly")
    folder = Folder(root)
    tasks = _tasks(folder, options.task, problems)
    metadata = _by_stem(folder, _METADATA)
    if not tasks and not metadata:
        raise InputError(
            "there is neither .lightly/predictions nor .lightly/metadata here",
            where=uri,
            remedy="Name the folder that has .lightly in it",
        )
    images = (Folder(options.media) if options.media else folder).images()
    reading = Reading("lightly", folder.root, problems, iter(()), [])
    for task in tasks:
        reading.classes += [n for n in task.names.values() if n not in reading.classes]
    reading.records = _records(folder, tasks, metadata, images, reading)
    return reading


def _tasks(folder: Folder, wanted: str, problems: Problems) -> list[_Task]:
    there = sorted(
        {p[len(_PREDICTIONS) :].partition("/")[0] for p in folder.named("/schema.json")
         if p.startswith(_PREDICTIONS)}
    )  # fmt: skip
    if wanted and wanted not in there:
        raise InputError(
            f"there is no prediction task {wanted!r}",
            where="--task",
            remedy=f"Use one of {', '.join(there) or 'none: there are no predictions'}",
        )
    tasks: list[_Task] = []
    for name in [wanted] if wanted else there:
        schema = read_json(folder.uri(f"{_PREDICTIONS}{name}/schema.json"))
        task = _Task(name, as_object(schema), {})
        kind = DETECTION if task.type in _WITH_BOXES else task.type
        if kind not in (CLASSIFICATION, DETECTION):
            problems.add("task_type", f"{name}/schema.json", "task_type", task.type)
        elif any((t.type in _WITH_BOXES) == (kind == DETECTION) for t in tasks):
            told = f"another task of the type {kind}: read it alone with --task {name}"
            problems.add("several_tasks", f"{name}/schema.json", "task_type", told)
        else:
            task.files = _by_stem(folder, f"{_PREDICTIONS}{name}/")
            tasks.append(task)
    return tasks


def _by_stem(folder: Folder, prefix: str) -> dict[str, str]:
    return {
        stem_of(path[len(prefix) :]): path
        for path in folder.files
        if path.startswith(prefix) and path.endswith(".json") and path != f"{prefix}schema.json"
    }


def _records(
    folder: Folder,
    tasks: list[_Task],
    metadata: dict[str, str],
    images: Images,
    reading: Reading,
) -> Iterator[Annotated]:
    problems = reading.problems
    at = f"{_METADATA}schema.json"
    schema = MetadataSchema([], at, problems)
    if at in folder.files:
        schema = MetadataSchema.read(folder.uri(at), at, problems)
    for stem in sorted({*metadata, *(stem for task in tasks for stem in task.files)}):
        contents: list[tuple[_Task | None, str, Mapping[str, Any]]] = []
        for task in [*tasks, None]:
            path = (metadata if task is None else task.files).get(stem)
            if path is None:
                continue
            try:
                content = read_json(folder.uri(path))
            except InputError as error:
                problems.add("bad_json", path, "", error.what)
                continue
            if isinstance(content, dict):
                contents.append((task, path, content))
            else:
                problems.add("bad_json", path, "", "no object")
        if not contents:
            continue
        name = as_text(contents[0][2].get("file_name")) or stem
        for _, path, content in contents:
            if stem_of(as_text(content.get("file_name")) or stem) != stem:
                problems.add("name_mismatch", path, "file_name", str(content.get("file_name")))
        uri = images.uri(images.find(name, hints=("",)))
        if not uri:
            problems.add("missing_file", contents[0][1], "file_name", name)
        record = _record(name, uri, contents, problems)
        at = metadata.get(stem, record.file)
        yield replace(record, metadata=schema.values(record.metadata, at))
    for record in leftovers(images, problems):
        yield replace(record, metadata=schema.values({}, record.file))


def _record(
    name: str,
    uri: str,
    contents: list[tuple[_Task | None, str, Mapping[str, Any]]],
    problems: Problems,
) -> Annotated:
    width, height = image_size(uri)
    labels: list[str] = []
    score: float | None = None
    probabilities: tuple[float, ...] = ()
    boxes: tuple[Box, ...] | None = None
    known: dict[str, Any] = {}
    for task, path, content in contents:
        if task is None:
            known = as_metadata(content.get("metadata"))
            continue
        found = as_list(content.get("predictions"))
        if task.type in _WITH_BOXES:
            reader = BoxReader(problems, path, width, height)
            boxes = tuple(_boxes(path, found, task, reader, problems))
            continue
        for number, said in enumerate(found):
            field = f"predictions[{number}]"
            category = as_key(as_object(said).get("category_id"))
            if category not in task.names:
                problems.add("unknown_label", path, f"{field}.category_id", repr(category))
                continue
            labels.append(task.names[category])
            if len(labels) == 1:
                probabilities = _probabilities(path, field, said, task, problems)
                score = certainty(said.get("score"), problems, path, f"{field}.score")
                if score is None and probabilities:
                    score = probabilities[task.place[category]]
    return Annotated(
        name, uri, "", width, height, tuple(labels), score, probabilities, boxes, known
    )


def _probabilities(
    path: str, field: str, said: Mapping[str, Any], task: _Task, problems: Problems
) -> tuple[float, ...]:
    given = said.get("probabilities")
    if not given:
        return ()
    numbers = [finite(value) for value in given] if isinstance(given, list) else []
    plain = [number for number in numbers if number is not None]
    if len(plain) != len(task.names) or len(plain) != len(numbers):
        told = f"{len(numbers)} values for {len(task.names)} categories"
    elif min(plain) < 0 or abs(sum(plain) - 1) > _ROUNDING:
        told = f"they sum to {sum(plain):.4f}"
    else:
        return tuple(plain)
    problems.add("bad_probabilities", path, f"{field}.probabilities", told)
    return ()


def _boxes(
    path: str, found: list[Any], task: _Task, reader: BoxReader, problems: Problems
) -> Iterator[Box]:
    for number, said in enumerate(found):
        field = f"predictions[{number}]"
        category = as_key(as_object(said).get("category_id"))
        if category not in task.names:
            problems.drop_box("unknown_category", path, f"{field}.category_id", repr(category))
            continue
        bounds = said.get("bbox")
        numbers = [finite(value) for value in bounds] if isinstance(bounds, list) else []
        for shape in ("keypoints", "segmentation"):
            if said.get(shape):
                problems.add(shape, path, f"{field}.{shape}", "boxes alone are read")
        corners: list[Any] = [bounds]
        if len(numbers) == 4 and None not in numbers:
            x, y, w, h = (number for number in numbers if number is not None)
            corners = [x, y, x + w, y + h]
        scores = tuple(n for n in map(finite, as_list(said.get("probabilities"))) if n is not None)
        if scores and len(scores) != len(task.names):
            told = f"{len(scores)} values for {len(task.names)} categories"
            problems.add("bad_probabilities", path, f"{field}.probabilities", told)
            scores = ()
        box = reader.box(
            corners,
            task.names[category],
            f"{field}.bbox",
            score=said.get("score"),
            scores=scores,
        )
        if box is not None:
            yield box


class Writer:
    """Writes the images as they are called, and ``.lightly/`` beside them."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target = target
        self.classes = Classes(list(options.classes))
        self._labelled = target.scratch()
        self._tasks: set[str] = set()
        self._types: dict[str, set[type]] = {}

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        content.put(self._target, record.file)
        if record.labels:
            # Each vector is as long as the list of classes, which only the end completes.
            place = self.classes.place(record.labels[0])
            said = [record.file, place, record.score, list(record.probabilities)]
            self._labelled.write(orjson.dumps(said) + b"\n")
            self._tasks.add(CLASSIFICATION)
        if record.boxes is not None:
            self._tasks.add(DETECTION)
            self._say(DETECTION, record.file, [self._object(box) for box in record.boxes])
        if record.metadata:
            for name, value in record.metadata.items():
                self._types.setdefault(name, set()).add(type(value))
            said_of = {"file_name": record.file, "type": "image", "metadata": dict(record.metadata)}
            path = f"{_METADATA}{stem_of(record.file)}.json"
            self._target.write(path, orjson.dumps(said_of))

    def _object(self, box: Box) -> dict[str, Any]:
        bounds = (box.x_min, box.y_min, box.x_max - box.x_min, box.y_max - box.y_min)
        said: dict[str, Any] = {
            "category_id": self.classes.place(box.label),
            "bbox": [plain_number(number) for number in bounds],
        }
        if box.score is not None:
            said["score"] = box.score
        if box.scores:
            said["probabilities"] = list(box.scores)
        return said

    def _say(self, task: str, file: str, predictions: list[dict[str, Any]]) -> None:
        path = f"{_PREDICTIONS}{task}/{stem_of(file)}.json"
        self._target.write(path, orjson.dumps({"file_name": file, "predictions": predictions}))

    def finish(self) -> None:
        """Write the classifications and the schemas."""
        self._labelled.seek(0)
        n_classes = len(self.classes.names)
        for line in self._labelled:
            file, place, score, probabilities = orjson.loads(line)
            said: dict[str, Any] = {"category_id": place}
            if score is not None:
                said["score"] = score
            if probabilities:
                said["probabilities"] = probabilities + [0.0] * (n_classes - len(probabilities))
            elif score is None:
                said["probabilities"] = [float(i == place) for i in range(n_classes)]
            self._say(CLASSIFICATION, file, [said])
        categories = [{"id": i, "name": name} for i, name in enumerate(self.classes.names)]
        for task in sorted(self._tasks):
            schema = {"task_type": task, "categories": categories}
            self._target.write(f"{_PREDICTIONS}{task}/schema.json", orjson.dumps(schema))
        if self._tasks:
            listed = orjson.dumps(sorted(self._tasks))
            self._target.write(f"{_PREDICTIONS}tasks.json", listed)
        if self._types:
            entries = [entry(name, type_of(kinds)) for name, kinds in sorted(self._types.items())]
            self._target.write(f"{_METADATA}schema.json", orjson.dumps(entries))
