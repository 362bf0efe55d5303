"""CVAT: "CVAT for images 1.1" and "CVAT for video 1.1" XML, as a file, a zip, or in a folder.

Boxes are ``xtl ytl xbr ybr`` in pixels; a tag is a class of the whole image, and its attributes
are metadata. Several files are several jobs or tasks of one set. Polygons, polylines, masks,
ellipses, points, skeletons, cuboids and rectangles that are turned are no boxes: they are counted.

CVAT writes an image that nobody annotated as it writes one with nothing in it: both are unknown
here, unless the file is ours. Frames that were deleted in CVAT are not in its files.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from typing import IO, Any
from xml.etree import ElementTree

from visionloop.errors import InputError
from visionloop.interchange.boxes import BoxReader, finite, plain_number
from visionloop.interchange.cvat_tracks import MOST_FILLED, Drawn, Video, filled, visible
from visionloop.interchange.cvat_writing import LOOKED, SIDES, Writer
from visionloop.interchange.formats import ReadOptions, leftovers
from visionloop.interchange.places import Folder, Images, file_and_root, image_size, stem_of
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.safe_xml import BadXml, parts
from visionloop.interchange.shapes import as_pixels
from visionloop.interchange.writing import Holds
from visionloop.lake.storage import INSIDE, local_path, open_storage

__all__ = ["HOLDS", "Writer", "read"]

HOLDS = Holds(labels=1000, boxes=True, attributes=True, split=True, sample_id=True)
# Shapes that are no boxes, and what they are called among the problems.
_SHAPES = {
    "polygon": "segmentation",
    "polyline": "segmentation",
    "mask": "segmentation",
    "ellipse": "segmentation",
    "points": "keypoints",
    "skeleton": "keypoints",
    "cuboid": "cuboid",
}
# What came into CVAT by a file or from a model, and nobody touched there.
_UNTOUCHED = ("auto", "file")
_CHUNK = 1 << 20
# What damaged bytes raise, as far as they were understood before: encrypted ones a RuntimeError.
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)
_MOST_FRAMES = 10**9


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read a CVAT set; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    named, root = file_and_root(uri, ".xml", ".zip")
    folder = Folder(root)
    found = [named] if named else folder.named(".xml", ".zip")
    if not found:
        raise InputError(
            "there is no CVAT file here",
            where=uri,
            remedy="Name the annotations.xml, or the zip, that CVAT exported",
        )
    images = (Folder(options.media) if options.media else folder).images(whole=not named)
    reading = Reading("cvat", folder.root, problems, iter(()), [])
    reading.records = _records(folder, images, found, reading)
    return reading


def _records(
    folder: Folder, images: Images, found: list[str], reading: Reading
) -> Iterator[Annotated]:
    for path in found:
        yield from _File(path, images, reading).records(_documents(folder, path, reading.problems))
    yield from leftovers(images, reading.problems)


def _documents(folder: Folder, path: str, problems: Problems) -> Iterator[Iterator[bytes]]:
    """Yield the XML documents of a file: one, or those of a zip."""
    uri = folder.uri(path)
    if path.lower().endswith(".xml"):
        data = open_storage(uri).read(uri)
        yield (data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK))
        return
    local = uri.startswith("file://")
    file: Any = local_path(uri) if local else io.BytesIO(open_storage(uri).read(uri))
    try:
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            inside = [m for m in members if m.filename.lower().endswith(".xml")]
            if len(inside) < len(members):
                told = f"{len(members) - len(inside)} files: unpack it, or name them by --media"
                problems.add("zipped_images", path, "", told)
            if not inside:
                problems.add("bad_xml", path, "", "the zip has no XML file in it")
            for member in inside:
                with archive.open(member) as part:
                    yield _chunks(part)
    except _BAD_ZIP as error:
        problems.add("bad_xml", path, "", f"not a zip that can be read: {error}")


def _chunks(part: IO[bytes]) -> Iterator[bytes]:
    try:
        while chunk := part.read(_CHUNK):
            yield chunk
    except _BAD_ZIP as error:
        raise BadXml(f"not a zip that can be read: {error}") from None


class _File:
    """The records of one file."""

    def __init__(self, path: str, images: Images, reading: Reading) -> None:
        self._path, self._images, self._reading = path, images, reading
        self._problems = reading.problems

    def records(self, documents: Iterator[Iterator[bytes]]) -> Iterator[Annotated]:
        """Yield a record for each image, then one for each frame that a track is seen in."""
        for chunks in documents:
            self._types: dict[tuple[str, str], str] = {}
            self._videos: dict[str, Video] = {}
            self._frames: dict[tuple[str, int], list[Box]] = defaultdict(list)
            self._left = MOST_FILLED
            number = 0
            try:
                for part in parts(chunks):
                    if part.tag == "meta":
                        self._learn(part)
                    elif part.tag == "image":
                        number += 1
                        yield self._image(part, f"image[{number}]")
                    elif part.tag == "track":
                        self._track(part)
                    elif part.tag not in ("annotations", "version"):
                        raise BadXml(f"<{part.tag}> is no part of CVAT's format")
            except BadXml as error:
                self._problems.add("bad_xml", self._path, "", str(error))
            for (task, frame), boxes in sorted(self._frames.items(), key=lambda f: f[0]):
                yield self._frame(task, frame, boxes)

    def _learn(self, meta: ElementTree.Element) -> None:
        for label in meta.iter("label"):
            name = (label.findtext("name") or "").strip()
            if name and name not in self._reading.classes and label.findtext("type") != "skeleton":
                self._reading.classes.append(name)
            for one in label.findall("attributes/attribute"):
                kind = (one.findtext("input_type") or "").strip()
                self._types[name, (one.findtext("name") or "").strip()] = kind
        project = (meta.findtext("project/assignee/username") or "").strip()
        for task in [*meta.iter("task"), *meta.iter("job")]:
            asked = (task.findtext("frame_filter") or "").partition("step=")[2]
            size = task.find("original_size")
            size = meta.find("original_size") if size is None else size
            self._videos[(task.findtext("id") or "").strip()] = Video(
                (task.findtext("source") or meta.findtext("source") or "").strip(),
                _whole(task.findtext("start_frame"), 0),
                _whole(task.findtext("stop_frame"), -1),
                max(_whole(asked, 1), 1),
                0 if size is None else as_pixels(size.findtext("width")),
                0 if size is None else as_pixels(size.findtext("height")),
                _subset(task.findtext("subset")),
                (task.findtext("assignee/username") or project).strip(),
            )

    def _task(self, part: ElementTree.Element) -> tuple[str, Video]:
        named = part.get("task_id", "")
        if named not in self._videos and len(self._videos) == 1:
            named = next(iter(self._videos))
        return named, self._videos.get(named, Video())

    def _image(self, part: ElementTree.Element, field: str) -> Annotated:
        name = part.get("name", "").strip()
        place, uri = self._place(name)
        if not uri and part.get("uri", "").startswith(("gs://", "file://")):
            uri = part.get("uri", "")
        if not uri:
            self._problems.add("missing_file", self._path, f"{field}/name", name)
        width, height = as_pixels(part.get("width")), as_pixels(part.get("height"))
        if not (width and height):
            self._problems.add("no_size", self._path, field, "taken from the image")
            width, height = image_size(uri)
        reader = BoxReader(self._problems, self._path, width, height)
        labels: list[str] = []
        metadata: dict[str, Any] = {}
        kept: list[Box] = []
        as_it_was: dict[str, list[bool]] = {"tag": [], "box": []}
        for number, shape in enumerate(part):
            where = f"{field}/{shape.tag}[{number + 1}]"
            label = shape.get("label", "").strip()
            if shape.tag in as_it_was:
                as_it_was[shape.tag].append(shape.get("source") in _UNTOUCHED)
                if as_it_was[shape.tag][-1]:
                    told = "it came by a file or from a model, and nobody changed it"
                    self._problems.add("untouched", self._path, where, told)
            if shape.tag == "tag" and not label:
                self._problems.add("unknown_category", self._path, where, "no label")
            elif shape.tag == "tag":
                labels += [label] if label not in labels else []
                for key, value in self._attributes(shape, label).items():
                    metadata.setdefault(key, value)
            elif shape.tag == "box":
                box = self._box(shape, label, reader, where)
                kept += [box] if box else []
            else:
                self._other(shape.tag, where)
        if not (labels or kept or part.get(LOOKED)):
            self._problems.add("no_annotation", self._path, field, name)
        names = [*labels, *(box.label for box in kept)]
        self._note(names)
        boxes = tuple(kept) if kept or part.get(LOOKED) == "1" else None
        _, video = self._task(part)
        return Annotated(
            place or name or field,
            uri,
            part.get("sample_id", ""),
            width,
            height,
            tuple(labels),
            boxes=boxes,
            metadata=metadata,
            split=_subset(part.get("subset")) or video.subset,
            origin=video.annotator,
            untouched=any(shapes and all(shapes) for shapes in as_it_was.values()),
        )

    def _place(self, name: str) -> tuple[str, str]:
        """Return the name and URI of the image that a name in this file means."""
        if not name:
            return "", ""
        parent = self._path.rpartition("/")[0]
        beside = f"{parent}/images" if parent else "images"
        place = self._images.find(name, hints=(beside, parent), loose=True)
        return place.removeprefix(f"{beside}/"), self._images.uri(place)

    def _note(self, names: list[str]) -> None:
        known = self._reading.classes
        known += [name for name in dict.fromkeys(names) if name not in known]

    def _other(self, tag: str, where: str) -> None:
        told = f"{tag}: boxes and tags alone are read"
        self._problems.add(_SHAPES.get(tag, "other_result"), self._path, where, told)

    def _box(
        self, shape: ElementTree.Element, label: str, reader: BoxReader, where: str
    ) -> Box | None:
        if not label:
            self._problems.drop_box("unknown_category", self._path, where, "no label")
            return None
        if _turned(shape):
            told = f"{shape.get('rotation')} degrees"
            self._problems.drop_box("rotated_box", self._path, where, told)
            return None
        corners = [shape.get(side) for side in SIDES]
        return reader.box(corners, label, where, attributes=self._said(shape, label))

    def _said(self, shape: ElementTree.Element, label: str) -> dict[str, Any]:
        said = self._attributes(shape, label)
        return {**said, "occluded": True} if shape.get("occluded") == "1" else said

    def _attributes(self, shape: ElementTree.Element, label: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in shape.findall("attribute"):
            name, text = one.get("name", "").strip(), one.text or ""
            kind = self._types.get((label, name), "")
            number = finite(text) if kind == "number" else None
            if kind == "checkbox":
                found[name] = text.strip().lower() == "true"
            elif name:
                found[name] = text if number is None else plain_number(number)
        return found

    def _track(self, part: ElementTree.Element) -> None:
        """Put the boxes of a track into the frames that it is seen in."""
        label = part.get("label", "").strip()
        field = f"track[@id={part.get('id', '')}]"
        task, video = self._task(part)
        reader = BoxReader(self._problems, self._path, video.width, video.height)
        drawn: dict[int, Drawn] = {}
        for number, shape in enumerate(part):
            where = f"{field}/{shape.tag}[{number + 1}]"
            if shape.tag != "box":
                self._other(shape.tag, where)
                continue
            frame = _whole(shape.get("frame"), -1)
            corners = [finite(shape.get(side)) for side in SIDES]
            if frame < 0 or None in corners or not label:
                kind = "bad_box" if label else "unknown_category"
                self._problems.drop_box(kind, self._path, where, "no frame, corner or label")
            elif frame in drawn:
                told = f"frame {frame} a second time"
                self._problems.drop_box("repeated_frame", self._path, where, told)
            else:
                numbers = tuple(corner for corner in corners if corner is not None)
                drawn[frame] = Drawn(
                    frame,
                    (numbers[0], numbers[1], numbers[2], numbers[3]),
                    shape.get("keyframe", "1") == "1",
                    shape.get("outside") == "1",
                    _turned(shape),
                    self._said(shape, label),
                )
        rows = list(drawn.values())
        self._left -= filled(rows, video)
        if self._left < 0:
            told = f"more than {MOST_FILLED:,} frames to fill in: what is drawn alone is read"
            self._problems.add("long_track", self._path, field, told)
        for one in visible(rows, video, fill=self._left >= 0):
            where = f"{field}/box[@frame={one.frame}]"
            if one.rotated:
                self._problems.drop_box("rotated_box", self._path, where)
                continue
            box = reader.box(one.corners, label, where, attributes=one.attributes)
            if box is not None:
                self._frames[task, one.frame].append(box)
        self._note([label] if label else [])

    def _frame(self, task: str, frame: int, boxes: list[Box]) -> Annotated:
        video = self._videos.get(task, Video())
        parent = self._path.rpartition("/")[0]
        stem = f"images/frame_{frame:06d}"
        path = self._images.of_stem(f"{parent}/{stem}" if parent else stem)
        # As the lake calls the frames of a video, see `visionloop.media.sources.containers`.
        name = f"{video.source}{INSIDE}{frame:08d}.jpg" if video.source else f"{stem_of(stem)}.png"
        return Annotated(
            path.rpartition("/")[2] if path else name,
            self._images.uri(path),
            "",
            video.width,
            video.height,
            boxes=tuple(boxes),
            split=video.subset,
            origin=video.annotator,
        )


def _turned(shape: ElementTree.Element) -> bool:
    return bool((finite(shape.get("rotation")) or 0) % 360)


def _whole(text: str | None, otherwise: int) -> int:
    number = finite(text)
    return int(number) if number is not None and 0 <= number < _MOST_FRAMES else otherwise


def _subset(text: str | None) -> str:
    found = (text or "").strip()
    return "" if found.lower() == "default" else found
