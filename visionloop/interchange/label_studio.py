"""Label Studio: a JSON list of tasks with annotations (or predictions).

``choices`` are classes of the whole image, ``rectanglelabels`` boxes in percent of it. A rectangle
that was rotated is no box and is left out; so are polygons, brushes, ellipses and key points. Of
several annotations of a task the ground truth counts, else the one that was changed last; one that
was cancelled does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import IO, Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from visionloop.errors import InputError
from visionloop.interchange.boxes import DECIMALS, BoxReader, certainty, finite
from visionloop.interchange.formats import ReadOptions, WriteOptions, leftovers
from visionloop.interchange.places import (
    IMAGES,
    Folder,
    Images,
    below,
    file_and_root,
    image_size,
    read_json,
    suffix,
)
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.shapes import (
    as_list,
    as_metadata,
    as_object,
    as_pixels,
    as_text,
)
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds

HOLDS = Holds(labels=1000, boxes=True, score=True, metadata=True, sample_id=True)
# What Label Studio puts before the name of a file that was uploaded.
_UPLOADED = re.compile(r"[0-9a-f]{8}-")
_SHAPES = {
    "polygonlabels": "segmentation",
    "brushlabels": "segmentation",
    "ellipselabels": "segmentation",
    "keypointlabels": "keypoints",
    "bitmasklabels": "segmentation",
}


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read a Label Studio export; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    named, root = file_and_root(uri, ".json")
    folder = Folder(root)
    found = [named] if named else [path for path in folder.named(".json") if "/" not in path]
    if len(found) != 1:
        raise InputError(
            f"{len(found)} JSON files lie here", where=uri, remedy="Name the export's .json file"
        )
    tasks = read_json(below(folder.root, found[0]))
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(
            "this is no list of Label Studio tasks",
            where=uri,
            remedy="Export the project as JSON (not JSON-MIN)",
        )
    if tasks and all("data" not in task and "annotation_id" in task for task in tasks):
        raise InputError(
            "this is Label Studio's JSON-MIN, which says too little of boxes and of who answered",
            where=uri,
            remedy="Export the project as JSON (not JSON-MIN)",
        )
    images = (Folder(options.media) if options.media else folder).images(whole=not named)
    reading = Reading("label_studio", folder.root, problems, iter(()), [])
    reading.records = _records(found[0], tasks, images, reading, options.predictions)
    return reading


def _records(
    path: str,
    tasks: list[dict[str, Any]],
    images: Images,
    reading: Reading,
    predictions: bool,
) -> Iterator[Annotated]:
    problems = reading.problems
    for number, task in enumerate(tasks):
        field = f"[{number}]"
        data = dict(as_object(task.get("data")))
        key = _image_key(data)
        if not key:
            problems.add("no_file", path, f"{field}.data", "no image is named")
            continue
        stated = str(data.pop(key))
        name, uri = _image(stated, images)
        if not uri:
            problems.add("missing_file", path, f"{field}.data.{key}", stated)
        said = _answer(path, field, task, predictions, problems)
        yield _record(path, field, name, uri, data, said, reading)
    yield from leftovers(images, problems)


def _image_key(data: Mapping[str, Any]) -> str:
    for key in ("image", "img", "url"):
        if isinstance(data.get(key), str):
            return key
    named = (k for k, v in data.items() if isinstance(v, str) and suffix(_path(v)) in IMAGES)
    return next(named, "")


def _path(stated: str) -> str:
    parts = urlsplit(stated)
    asked = parse_qs(parts.query).get("d")
    if asked:  # /data/local-files/?d=photos/1.jpg
        return asked[0]
    return unquote(parts.path) if parts.scheme or "%" in parts.path else stated


def _image(stated: str, images: Images) -> tuple[str, str]:
    """Return the name and URI of the image that a task speaks of."""
    name = _path(stated).strip("/")
    place = images.find(name, hints=("images", ""), loose=True)
    if not place:
        last = name.rpartition("/")[2]
        place = images.find(_UPLOADED.sub("", last, count=1), loose=True)
    uri = images.uri(place)
    if not uri and stated.startswith(("gs://", "file://")):
        return name.rpartition("/")[2], stated
    return (place.removeprefix("images/") or name), uri


def _answer(
    path: str, field: str, task: Mapping[str, Any], predictions: bool, problems: Problems
) -> Mapping[str, Any]:
    kind = "predictions" if predictions else "annotations"
    # `completions` is what annotations were called once.
    listed = as_list(task.get(kind)) or as_list(task.get("completions"))
    given = [answer for answer in listed if isinstance(answer, dict)]
    valid = [answer for answer in given if not answer.get("was_cancelled")]
    for _ in range(len(given) - len(valid)):
        problems.add("cancelled", path, f"{field}.{kind}")
    if not valid:
        problems.add("no_annotation", path, f"{field}.{kind}")
        return {}
    # Python's sort keeps the order of equals: of two without a time the last one counts.
    valid.sort(key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")))
    for other in valid[:-1]:
        told = f"{len(valid)} of one task: that of {_author(other) or 'nobody'} does not count"
        problems.add("several_annotations", path, f"{field}.{kind}", told)
    return valid[-1]


def _author(said: Mapping[str, Any]) -> str:
    by = said.get("completed_by", said.get("model_version", ""))
    return as_text(by.get("email", by.get("id", "")) if isinstance(by, dict) else by)


def _record(
    path: str,
    field: str,
    name: str,
    uri: str,
    data: dict[str, Any],
    said: Mapping[str, Any],
    reading: Reading,
) -> Annotated:
    problems = reading.problems
    width = height = 0
    labels: list[str] = []
    boxes: list[Box] = []
    looked = False
    score: float | None = None
    results = [r for r in as_list(said.get("result")) if isinstance(r, dict)]
    for result in results:
        width = width or as_pixels(result.get("original_width"))
        height = height or as_pixels(result.get("original_height"))
    if not (width and height):
        width, height = image_size(uri)
    reader = BoxReader(problems, path, width, height)
    for number, result in enumerate(results):
        where = f"{field}.result[{number}]"
        kind, value = str(result.get("type", "")), result.get("value")
        value = as_object(value)
        if kind == "choices":
            chosen = [c for c in map(as_text, as_list(value.get("choices"))) if c]
            if not labels and chosen:
                given = result.get("score", said.get("score"))
                score = certainty(given, problems, path, f"{where}.score")
            labels += [c for c in chosen if c not in labels]
        elif kind == "rectanglelabels":
            looked = True
            box = _box(where, value, result, reader, problems, path, width, height)
            boxes += [box] if box else []
        elif kind in _SHAPES:
            problems.add(_SHAPES[kind], path, where, f"{kind}: boxes and choices alone are read")
        elif kind:
            problems.add("other_result", path, f"{where}.type", kind)
    if said and not results:
        looked = True  # somebody submitted the task with nothing in it
    names = [*labels, *(box.label for box in boxes)]
    reading.classes += [n for n in dict.fromkeys(names) if n not in reading.classes]
    sample_id = as_text(data.pop("sample_id", ""))
    seconds = finite(said.get("lead_time"))
    return Annotated(
        name,
        uri,
        sample_id,
        width,
        height,
        tuple(labels),
        score,
        (),
        tuple(boxes) if looked else None,
        as_metadata(data),
        "",
        _author(said),
        seconds if seconds is not None and seconds >= 0 else None,
    )


def _box(
    where: str,
    value: Mapping[str, Any],
    result: Mapping[str, Any],
    reader: BoxReader,
    problems: Problems,
    path: str,
    width: int,
    height: int,
) -> Box | None:
    names = [n for n in map(as_text, as_list(value.get("rectanglelabels"))) if n]
    if not names:
        problems.drop_box("unknown_category", path, f"{where}.value.rectanglelabels", "no label")
        return None
    for other in names[1:]:
        problems.add("several_labels", path, f"{where}.value.rectanglelabels", str(other))
    if (finite(value.get("rotation")) or 0) % 360:
        told = f"{value.get('rotation')} degrees"
        problems.drop_box("rotated_box", path, f"{where}.value.rotation", told)
        return None
    if not (width and height):
        problems.drop_box("bad_box", path, where, "the size of the image is not known")
        return None
    numbers = [finite(value.get(side)) for side in ("x", "y", "width", "height")]
    corners: list[Any] = numbers
    if None not in numbers:
        x, y, w, h = (number for number in numbers if number is not None)
        corners = [
            round(x * width / 100, DECIMALS),
            round(y * height / 100, DECIMALS),
            round((x + w) * width / 100, DECIMALS),
            round((y + h) * height / 100, DECIMALS),
        ]
    return reader.box(corners, names[0], f"{where}.value", score=result.get("score"))


class Writer:
    """Writes ``tasks.json`` to import, ``labels.xml`` for the project, and ``images/``."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target = target
        self.classes = Classes(list(options.classes))
        self._file: IO[bytes] = target.open("tasks.json")
        self._file.write(b"[")
        self._tasks = 0
        self._kinds: dict[str, dict[str, None]] = {"choices": {}, "rectanglelabels": {}}

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        content.put(self._target, f"images/{record.file}")
        uri = content.uri if content.media == "none" else f"images/{record.file}"
        results = [self._choice(label, record) for label in record.labels]
        if record.score is not None and results:
            results[0]["score"] = record.score
        results += [self._object(box, record) for box in record.boxes or ()]
        data = {**record.metadata, "image": uri}
        if record.sample_id:
            data["sample_id"] = record.sample_id
        task: dict[str, Any] = {"data": data}
        if record.annotated:
            said: dict[str, Any] = {"result": results}
            if record.origin:
                said["completed_by"] = {"email": record.origin}
            task["annotations"] = [said]
        self._file.write((b",\n" if self._tasks else b"\n") + orjson.dumps(task))
        self._tasks += 1

    def _choice(self, label: str, record: Annotated) -> dict[str, Any]:
        self.classes.place(label)
        self._kinds["choices"][label] = None
        return {
            "from_name": "label",
            "to_name": "image",
            "type": "choices",
            "original_width": record.width,
            "original_height": record.height,
            "value": {"choices": [label]},
        }

    def _object(self, box: Box, record: Annotated) -> dict[str, Any]:
        self.classes.place(box.label)
        self._kinds["rectanglelabels"][box.label] = None
        if not (record.width and record.height):
            raise InputError(
                "an image of unknown size: its boxes cannot be written in percent of it",
                where=record.file,
                remedy="Export to COCO, or ingest the image first",
            )
        said: dict[str, Any] = {
            "from_name": "box",
            "to_name": "image",
            "type": "rectanglelabels",
            "original_width": record.width,
            "original_height": record.height,
            "image_rotation": 0,
            "value": {
                "x": 100 * box.x_min / record.width,
                "y": 100 * box.y_min / record.height,
                "width": 100 * (box.x_max - box.x_min) / record.width,
                "height": 100 * (box.y_max - box.y_min) / record.height,
                "rotation": 0,
                "rectanglelabels": [box.label],
            },
        }
        if box.score is not None:
            said["score"] = box.score
        return said

    def finish(self) -> None:
        """End the list, and write the labelling interface that shows it."""
        from xml.sax.saxutils import quoteattr

        self._file.write(b"\n]\n")
        lines = ["<View>", '  <Image name="image" value="$image"/>']
        if self._kinds["choices"]:
            lines.append('  <Choices name="label" toName="image">')
            lines += [f"    <Choice value={quoteattr(n)}/>" for n in self._kinds["choices"]]
            lines.append("  </Choices>")
        if self._kinds["rectanglelabels"]:
            lines.append('  <RectangleLabels name="box" toName="image">')
            lines += [f"    <Label value={quoteattr(n)}/>" for n in self._kinds["rectanglelabels"]]
            lines.append("  </RectangleLabels>")
        self._target.write("labels.xml", "\n".join([*lines, "</View>"]).encode() + b"\n")
