"""YOLO as Ultralytics lays it out: ``data.yaml``, ``images/…``, ``labels/….txt``.

A line is ``class centre_x centre_y width height``, shares of the image, and perhaps a score. Sizes
come from the images themselves. A line with more numbers is a polygon: its bounding box is taken.
An image without a label file was not annotated here; an empty file says that nothing is in it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from visionloop.documents import parse_document
from visionloop.errors import InputError
from visionloop.interchange.boxes import BoxReader, finite
from visionloop.interchange.formats import ReadOptions, WriteOptions
from visionloop.interchange.places import (
    Folder,
    Images,
    file_and_root,
    image_size,
    readable_text,
    stem_of,
)
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.shapes import as_text
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds

HOLDS = Holds(boxes=True, score=True, split=True, apart=("split",), media=("copy", "link"))
# Keys of data.yaml that name no split.
_NO_SPLITS = frozenset({"path", "names", "nc", "download", "yaml_file", "channels", "kpt_shape"})
_CORNERS = 5


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read a YOLO set; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    named, root = file_and_root(uri, ".yaml", ".yml")
    folder = Folder(root)
    if options.media:
        raise InputError(
            "the images of a YOLO set lie beside its labels",
            where="--media",
            remedy="Leave --media out",
        )
    settings, names = _settings(folder, named, uri)
    reading = Reading(
        "yolo", folder.root, problems, iter(()), [names[i] for i in sorted(names) if names[i]]
    )
    reading.records = _records(folder, settings, names, problems)
    return reading


def _settings(folder: Folder, named: str, uri: str) -> tuple[Mapping[str, Any], dict[int, str]]:
    found = [named] if named else [p for p in folder.named(".yaml", ".yml") if "/" not in p]
    for path in found:
        content = parse_document(folder.text(path), where=path)
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, list):
            return content, {i: as_text(name) for i, name in enumerate(names)}
        if isinstance(names, dict) and all(str(key).isdigit() for key in names):
            return content, {int(key): as_text(name) for key, name in names.items()}
    if "classes.txt" in folder.files:
        lines = [line.strip() for line in folder.text("classes.txt").splitlines()]
        return {}, {i: line for i, line in enumerate(lines) if line}
    raise InputError(
        "this is no YOLO set: no data.yaml with `names`, and no classes.txt",
        where=uri,
        remedy="Name the data.yaml of the set",
    )


def _records(
    folder: Folder, settings: Mapping[str, Any], names: Mapping[int, str], problems: Problems
) -> Iterator[Annotated]:
    images = folder.images()
    every = sorted(images.paths())
    labels = set(folder.named(".txt"))
    for split, place, listed in _splits(folder, images, settings, every):
        if place is None and not listed:
            problems.add("missing_folder", "data.yaml", split, "no image of the set lies there")
        for path in listed:
            if path in images.used:
                continue
            uri = images.uri(path)
            file = path.removeprefix(f"{place}/") if place else path
            beside = label_path(path)
            width, height = image_size(uri)
            boxes: tuple[Box, ...] | None = None
            if beside in labels:
                labels.discard(beside)
                text = readable_text(folder.uri(beside), beside, problems)
                if text is None:
                    pass  # it was told
                elif width and height:
                    reader = BoxReader(problems, beside, width, height)
                    boxes = tuple(_boxes(beside, text, names, reader, problems))
                else:
                    problems.add("no_size", beside, "", f"the size of {path} cannot be read")
            else:
                problems.add("no_annotation", path, "", f"there is no {beside}")
            yield Annotated(file, uri, "", width, height, boxes=boxes, split=split)
    for path in sorted(labels):
        if path != "classes.txt" and "labels/" in path:
            problems.add("missing_file", path, "", "no image of this name")


def _splits(
    folder: Folder, images: Images, settings: Mapping[str, Any], every: list[str]
) -> Iterator[tuple[str, str | None, list[str]]]:
    """Yield each split: its name, the folder that its files are named from, its images."""
    base = as_text(settings.get("path")).strip("/")
    named: dict[str, str] = {}
    for key, value in settings.items():
        if key in _NO_SPLITS:
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str) or not item:
                continue
            # One folder under two keys, as where there is no other part to validate on.
            if item not in named or item.rstrip("/").rpartition("/")[2] == key:
                named[item] = key
    if not named:
        named = {"images": ""} if any(path.startswith("images/") for path in every) else {".": ""}
    for item, key in named.items():
        plain = posixpath.normpath(item).removeprefix("./").lstrip("/")
        while plain.startswith("../"):
            plain = plain[3:]
        if plain.endswith(".txt") and plain in folder.files:
            lines = [line.strip() for line in folder.text(plain).splitlines() if line.strip()]
            found = [images.find(line, loose=True) for line in lines]
            yield key, None, [path for path in found if path]
            continue
        place = next(
            (p for p in (f"{base}/{plain}".strip("/"), *_tails(plain)) if _any_below(p, every)),
            None,
        )
        whole = plain in (".", "images")
        listed = [path for path in every if place in (None, ".") or path.startswith(f"{place}/")]
        yield "" if whole else key, place, listed if place else []


def _tails(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _any_below(place: str, every: list[str]) -> bool:
    return bool(every) and (place == "." or any(path.startswith(f"{place}/") for path in every))


def label_path(image: str) -> str:
    """Return where the labels of an image lie: the last ``images`` of its path is ``labels``."""
    head, mark, tail = f"/{image}".rpartition("/images/")
    path = f"{head}/labels/{tail}" if mark else f"/{image}"
    return stem_of(path.lstrip("/")) + ".txt"


def _boxes(
    path: str, text: str, names: Mapping[int, str], reader: BoxReader, problems: Problems
) -> Iterator[Box]:
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        field = f"line {number}"
        if not words:
            continue
        index = finite(words[0])
        label = names.get(int(index)) if index is not None and index.is_integer() else None
        if not label:
            problems.drop_box("unknown_category", path, field, words[0])
            continue
        numbers = words[1:]
        score = None
        if len(numbers) == _CORNERS:
            score = numbers.pop()
        elif len(numbers) > _CORNERS and len(numbers) % 2 == 0:
            problems.add("segmentation", path, field, "a polygon: its bounding box is taken")
            numbers = _bounds(numbers)
        if len(numbers) != _CORNERS - 1:
            problems.drop_box("bad_box", path, field, line[:80])
            continue
        box = reader.box(reader.relative(*numbers), label, field, score=score)
        if box is not None:
            yield box


def _bounds(numbers: list[str]) -> list[Any]:
    x = [finite(n) for n in numbers[0::2]]
    y = [finite(n) for n in numbers[1::2]]
    if None in x or None in y:
        return [None] * 4
    left, right = min(n for n in x if n is not None), max(n for n in x if n is not None)
    top, bottom = min(n for n in y if n is not None), max(n for n in y if n is not None)
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


class Writer:
    """Writes ``images/[<split>/]``, ``labels/[<split>/]`` and ``data.yaml``."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target = target
        self.classes = Classes(list(options.classes))
        self._splits: dict[str, str] = {}

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        place = f"images/{record.split}" if record.split else "images"
        self._splits[record.split] = place
        path = f"{place}/{record.file}"
        content.put(self._target, path)
        if record.boxes is None:
            return
        lines = [self._line(box, record.width, record.height) for box in record.boxes]
        self._target.write(label_path(path), "".join(lines).encode())

    def _line(self, box: Box, width: int, height: int) -> str:
        if not (width and height):
            raise InputError(
                "an image of unknown size: its boxes cannot be written as shares of it",
                remedy="Export to COCO, or ingest the image first",
            )
        shares = (
            (box.x_min + box.x_max) / 2 / width,
            (box.y_min + box.y_max) / 2 / height,
            (box.x_max - box.x_min) / width,
            (box.y_max - box.y_min) / height,
        )
        numbers = " ".join(f"{share:.10f}".rstrip("0").rstrip(".") for share in shares)
        score = "" if box.score is None else f" {box.score!r}"
        return f"{self.classes.place(box.label)} {numbers}{score}\n"

    def finish(self) -> None:
        """Write data.yaml."""
        import yaml

        places = {name or "train": place for name, place in self._splits.items()}
        content: dict[str, Any] = dict(sorted(places.items()))
        # Ultralytics asks for both; a set without parts is trained and validated on the whole.
        first = places.get("train") or next(iter(places.values()), "images")
        content.setdefault("train", first)
        content.setdefault("val", places.get("val", first))
        content["names"] = dict(enumerate(self.classes.names))
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        self._target.write("data.yaml", text.encode())
