"""Sets for viewers that show what a loop knows of its images: FiftyOne and LightlyStudio.

They hold more than a format that trains a model: label and prediction beside each other, how sure
the model was, flags and splits as tags, and every column of the lake as a field.

*FiftyOne*: ``samples.json`` with the samples as FiftyOne itself spells them, ``metadata.json`` and
``data/``. It is the JSON form of its type `FiftyOneDataset` that names no version of FiftyOne, so
every version reads it and none has to migrate it.

*LightlyStudio*: ``samples.json``, ``images/``, COCO files where there are boxes, and a short
program that loads them by LightlyStudio's own Python interface.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Protocol

import orjson

from visionloop.interchange.records import Box
from visionloop.interchange.target import Target

# Who said it: the names under which both viewers show labels and predictions.
TRUTH, PREDICTIONS = "ground_truth", "predictions"
_NO_FIELD = re.compile(r"\W+", re.ASCII)


@dataclass(frozen=True)
class Seen:
    """An image with all that is known of it.

    Attributes:
        place: Its file: relative to the set, or absolute.
        sample_id: SHA-256 of its bytes.
        width: Pixels, 0 where it is not known.
        height: Pixels.
        size: Bytes, 0 where it is not known.
        form: Its format, such as ``png``; empty where it is not known.
        tags: What it can be filtered by at a click.
        label: Its class, "" for none.
        boxes: Its objects; None where nobody looked for any.
        prediction: What the model takes it for, "" for nothing.
        confidence: How sure the model was.
        found: Objects that the model found; None where it looks for none.
        fields: Everything else, by name.
        among_classes: Whether images of the set have classes, be it this one or others.
    """

    place: str
    sample_id: str
    width: int
    height: int
    size: int
    form: str
    tags: tuple[str, ...]
    label: str
    boxes: Sequence[Box] | None
    prediction: str
    confidence: float | None
    found: Sequence[Box] | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    among_classes: bool = False


class ViewerWriter(Protocol):
    """Writes a set for one viewer.

    Attributes:
        folder: Where its images lie in the set.
        lines: Python that opens the set, a line each, with ``{folder}`` where its place belongs.
    """

    folder: str
    lines: Sequence[str]

    def add(self, seen: Seen) -> None:
        """Write one image."""

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write what is known at the end only."""


def field_names(names: Sequence[str]) -> dict[str, str]:
    """Return what each column is called as a field: letters, digits and underscores, each once.

    Args:
        names: Names of columns, metadata's among them.
    """
    taken: set[str] = set(_TAKEN)
    found = {}
    for name in names:
        # An id that FiftyOne gives itself is called so.
        named = "sha256" if name == "sample_id" else name.replace("metadata.", "meta_", 1)
        plain = _NO_FIELD.sub("_", named).strip("_") or "field"
        plain = f"field_{plain}" if plain[0].isdigit() else plain
        number, unique = 1, plain
        while unique in taken:
            number += 1
            unique = f"{plain}_{number}"
        taken.add(unique)
        found[name] = unique
    return found


# Fields that FiftyOne has of its own, and those of labels and predictions.
_TAKEN = frozenset(
    {"id", "filepath", "tags", "metadata", "media_type", "created_at", "last_modified_at",
     "frames", "frame_number", "sample_id", "dataset_id", "support", TRUTH, PREDICTIONS}
)  # fmt: skip


class _List:
    """A file with one long list in an object, written as it comes."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._first = file, True
        file.write(b'{"' + name.encode() + b'": [')

    def add(self, value: Any) -> None:
        self._file.write((b"\n" if self._first else b",\n") + orjson.dumps(value))
        self._first = False

    def close(self) -> None:
        self._file.write(b"\n]}\n")


def plain(value: Any) -> Any:
    """Return a value that JSON has: times as ISO 8601 in UTC, what is no number as null."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value


class FiftyOne:
    """Writes a FiftyOne dataset.

    Args:
        target: Where it goes.
    """

    folder = "data"
    lines = (
        "import fiftyone as fo",
        "dataset = fo.Dataset.from_dir({folder!r}, fo.types.FiftyOneDataset)",
        "fo.launch_app(dataset).wait()",
    )

    def __init__(self, target: Target) -> None:
        self._target = target
        self._samples = _List(target.open("samples.json"), "samples")

    def add(self, seen: Seen) -> None:
        """Write one image."""
        size = {"size_bytes": seen.size or None, "width": seen.width, "height": seen.height}
        kind = {"mime_type": f"image/{seen.form.lower()}"} if seen.form else {}
        said: dict[str, Any] = {
            "filepath": seen.place,
            "tags": list(seen.tags),
            "metadata": {"_cls": "ImageMetadata", **size, **kind},
            **{name: plain(value) for name, value in seen.fields.items() if value is not None},
        }
        for name, label, sure, boxes in (
            (TRUTH, seen.label, None, seen.boxes),
            (PREDICTIONS, seen.prediction, seen.confidence, seen.found),
        ):
            if label:
                said[name] = {"_cls": "Classification", "label": label}
                if sure is not None:
                    said[name]["confidence"] = sure
            if boxes is not None and seen.width and seen.height:
                # A field has one type in the whole set: where images have classes, objects stand
                # in a field of their own.
                apart = bool(label) or (name == TRUTH and seen.among_classes)
                place = f"{name}_objects" if apart else name
                said[place] = {
                    "_cls": "Detections",
                    "detections": [_detection(box, seen) for box in boxes],
                }
        self._samples.add(said)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write what is known at the end only."""
        self._samples.close()
        told = {"name": about.get("loop", ""), "media_type": "image", "info": dict(about)}
        self._target.write("metadata.json", orjson.dumps(told, option=orjson.OPT_INDENT_2))


def _detection(box: Box, seen: Seen) -> dict[str, Any]:
    said: dict[str, Any] = {
        "_cls": "Detection",
        "label": box.label,
        "bounding_box": [
            box.x_min / seen.width,
            box.y_min / seen.height,
            (box.x_max - box.x_min) / seen.width,
            (box.y_max - box.y_min) / seen.height,
        ],
    }
    if box.score is not None:
        said["confidence"] = box.score
    return said


class LightlyStudio:
    """Writes a set and the program that loads it into LightlyStudio.

    Args:
        target: Where it goes.
    """

    folder = "images"
    lines = ("import runpy", "runpy.run_path({folder!r} + '/open_in_lightly_studio.py')")

    def __init__(self, target: Target) -> None:
        self._target = target
        self._samples = _List(target.open("samples.json"), "samples")
        self._images: list[dict[str, Any]] = []
        self._objects: dict[str, list[dict[str, Any]]] = {TRUTH: [], PREDICTIONS: []}
        self._classes: dict[str, int] = {}

    def add(self, seen: Seen) -> None:
        """Write one image."""
        fields = {name: plain(held) for name, held in seen.fields.items() if held is not None}
        self._samples.add(
            {
                "file": seen.place,
                "tags": list(seen.tags),
                TRUTH: seen.label or None,
                PREDICTIONS: seen.prediction or None,
                "confidence": seen.confidence,
                "fields": fields,
            }
        )
        if seen.boxes is None and seen.found is None:
            return
        number = len(self._images)
        name = seen.place.removeprefix(f"{self.folder}/")
        self._images.append(
            {"id": number, "file_name": name, "width": seen.width, "height": seen.height}
        )
        for source, boxes in ((TRUTH, seen.boxes), (PREDICTIONS, seen.found)):
            for box in boxes or ():
                self._objects[source].append(self._object(box, number, source))

    def _object(self, box: Box, image: int, source: str) -> dict[str, Any]:
        width, height = box.x_max - box.x_min, box.y_max - box.y_min
        said = {
            "id": len(self._objects[source]),
            "image_id": image,
            "category_id": self._classes.setdefault(box.label, len(self._classes)),
            "bbox": [box.x_min, box.y_min, width, height],
            "area": width * height,
            "iscrowd": 0,
        }
        return said if box.score is None else {**said, "score": box.score}

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write what is known at the end only."""
        self._samples.close()
        classes = [{"id": place, "name": name} for name, place in self._classes.items()]
        for source, objects in self._objects.items():
            if objects:
                told = {"images": self._images, "annotations": objects, "categories": classes}
                self._target.write(f"{source}.coco.json", orjson.dumps(told))
        self._target.write("open_in_lightly_studio.py", _PROGRAM.encode())


_PROGRAM = '''"""Loads this set into LightlyStudio and opens it: pip install lightly-studio.

With --no-embeddings it asks no network for the model behind the map and the search.
"""

import json
import sys
from pathlib import Path

import lightly_studio as ls
from lightly_studio.core.annotation import CreateClassification

FOLDER = Path(__file__).resolve().parent
SOURCES = ("ground_truth", "predictions")


def main() -> None:
    """Load images, tags, metadata, labels and predictions, and show them."""
    with (FOLDER / "samples.json").open(encoding="utf-8") as file:
        told = {Path(one["file"]).name: one for one in json.load(file)["samples"]}
    dataset = ls.ImageDataset.create()
    embed = "--no-embeddings" not in sys.argv
    dataset.add_images_from_path(path=str(FOLDER / "images"), embed=embed)
    for sample in dataset:
        one = told[sample.file_name.rpartition("/")[2]]
        sample.tags = set(one["tags"])
        sample.metadata.update(one["fields"])
        for source in SOURCES:
            if one[source] is None:
                continue
            sure = one["confidence"] if source == "predictions" else None
            said = CreateClassification(class_name=one[source], confidence=sure)
            sample.add_annotation(said, annotation_source=source)
    for source in SOURCES:
        coco = FOLDER / f"{source}.coco.json"
        if coco.exists():
            dataset.add_annotations_from_coco(
                annotations_json=str(coco),
                images_root=str(FOLDER / "images"),
                annotation_source=source,
                embed_annotations=embed,
            )
    ls.start_gui()


if __name__ in ("__main__", "<run_path>"):
    main()
'''

VIEWERS: dict[str, type[FiftyOne] | type[LightlyStudio]] = {
    "fiftyone": FiftyOne,
    "lightly-studio": LightlyStudio,
}
