"""Pascal VOC: an XML file an image, and lists of the splits.

Pixels are counted from 1, and a box includes its last one, as the format's development kit has it:
``xmin 1, xmax 10`` are the first ten pixels, 0 to 10 here. A box whose corners are one point is
read as a click that slipped, so a box of a single pixel cannot be held.

XML that declares a document type is refused: there entities could be made to fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from visionloop.errors import InputError
from visionloop.interchange.boxes import BoxReader, finite, plain_number
from visionloop.interchange.formats import ReadOptions, WriteOptions, leftovers
from visionloop.interchange.places import (
    Folder,
    Images,
    file_and_root,
    image_size,
    readable_text,
    stem_of,
)
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.safe_xml import refusing_parser, xml_text
from visionloop.interchange.shapes import as_pixels
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds
from visionloop.lake.storage import open_storage

HOLDS = Holds(boxes=True, attributes=True, split=True)
MAX_XML_BYTES = 16 << 20
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = ("truncated", "difficult", "occluded")


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read a Pascal VOC set; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    named, root = file_and_root(uri, ".xml")
    folder = Folder(root)
    found = [named] if named else folder.named(".xml")
    if not found:
        raise InputError(
            "there is no Pascal VOC file here",
            where=uri,
            remedy="Name the folder that has Annotations/*.xml",
        )
    images = (Folder(options.media) if options.media else folder).images(whole=not named)
    reading = Reading("voc", folder.root, problems, iter(()), [])
    reading.records = _records(folder, images, found, reading, options.zero_based)
    return reading


def _records(
    folder: Folder, images: Images, found: list[str], reading: Reading, zero_based: bool
) -> Iterator[Annotated]:
    splits = _splits(folder, {_stem(path) for path in found}, reading.problems)
    for path in found:
        try:
            root = parse_xml(open_storage(folder.root).read(folder.uri(path)))
        except ValueError as error:
            reading.problems.add("bad_xml", path, "", str(error))
            continue
        if root.tag != "annotation":
            reading.problems.add("bad_xml", path, root.tag, "the root is no <annotation>")
            continue
        yield _record(path, root, images, reading, splits, zero_based)
    yield from leftovers(images, reading.problems)


def _record(
    path: str,
    root: ElementTree.Element,
    images: Images,
    reading: Reading,
    splits: dict[str, str],
    zero_based: bool,
) -> Annotated:
    problems = reading.problems
    stem = _stem(path)
    name = (root.findtext("filename") or "").strip()
    parent = path.rpartition("/")[0]
    beside = parent.rpartition("Annotations")[0] + "JPEGImages"
    hints = (beside, parent, (root.findtext("folder") or "").strip())
    place = images.find(name, hints=hints, loose=True) if name else ""
    # The name of the XML file counts where the one in it leads nowhere: images get renamed.
    place = place or images.of_stem(stem, beside.strip("/")) or images.of_stem(stem_of(path))
    uri = images.uri(place)
    if not uri:
        problems.add("missing_file", path, "filename", name)
    file = place.removeprefix(f"{beside.strip('/')}/") or name or stem
    width, height = (as_pixels(root.findtext(f"size/{s}")) for s in ("width", "height"))
    if not (width and height):
        problems.add("no_size", path, "size", "taken from the image")
        width, height = image_size(uri)
    boxes = BoxReader(problems, path, width, height)
    kept = []
    for number, found in enumerate(root.findall("object")):
        box = _box(path, f"object[{number + 1}]", found, boxes, problems, zero_based)
        if box is not None:
            kept.append(box)
            if box.label not in reading.classes:
                reading.classes.append(box.label)
    if (root.findtext("segmented") or "0").strip() not in ("", "0"):
        problems.add("segmentation", path, "segmented", "boxes alone are read")
    return Annotated(file, uri, "", width, height, boxes=tuple(kept), split=splits.get(stem, ""))


def _box(
    path: str,
    field: str,
    found: ElementTree.Element,
    boxes: BoxReader,
    problems: Problems,
    zero_based: bool,
) -> Box | None:
    label = (found.findtext("name") or "").strip()
    if not label:
        problems.drop_box("unknown_category", path, f"{field}/name", "it is empty")
        return None
    for part in ("part", "polygon", "mask"):
        for _ in found.findall(part):
            problems.add(part, path, f"{field}/{part}", "boxes of whole objects alone are read")
    corners = [finite(found.findtext(f"bndbox/{side}")) for side in _SIDES]
    attributes: dict[str, Any] = {}
    pose = (found.findtext("pose") or "").strip()
    if pose and pose != "Unspecified":
        attributes["pose"] = pose
    for flag in _FLAGS:
        if (found.findtext(flag) or "0").strip() not in ("", "0"):
            attributes[flag] = True
    if not zero_based and None not in corners:
        x_min, y_min, x_max, y_max = (number for number in corners if number is not None)
        if (x_min, y_min) == (x_max, y_max):
            problems.drop_box(
                "empty_box", path, f"{field}/bndbox", f"the point {x_min:g} {y_min:g}"
            )
            return None
        corners = [x_min - 1, y_min - 1, x_max, y_max]
    return boxes.box(corners, label, f"{field}/bndbox", attributes=attributes)


def _stem(path: str) -> str:
    """Return what the lists of the splits call an annotation file."""
    return stem_of(path).rpartition("Annotations/")[2]


def _splits(folder: Folder, stems: set[str], problems: Problems) -> dict[str, str]:
    """Return the split of each image that ImageSets/Main names; the narrowest list counts."""
    splits: dict[str, str] = {}
    lists = [path for path in folder.named(".txt") if "ImageSets/Main/" in path]
    # `trainval` is the union of two others.
    for path in sorted(lists, key=lambda path: (path.endswith("/trainval.txt"), path)):
        split = stem_of(path.rpartition("/")[2])
        text = readable_text(folder.uri(path), path, problems) or ""
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if any(name not in stems and _of_one_class(name, stems) for name in names):
            continue
        for name in names:
            if splits.setdefault(name, split) != split and split != "trainval":
                problems.add("several_splits", path, name, f"it is in {splits[name]} too")
    return splits


def _of_one_class(line: str, stems: set[str]) -> bool:
    """Whether a line is of one class's list: a name, and 1, 0 or -1 behind it."""
    name, _, flag = line.rpartition(" ")
    return flag in ("1", "0", "-1") and name.strip() in stems


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse XML that declares no entities.

    Raises:
        ValueError: It is not well formed, too large, or has a document type.
    """
    if len(data) > MAX_XML_BYTES:
        raise ValueError(f"larger than {MAX_XML_BYTES:,} bytes")
    tree = ElementTree.TreeBuilder()
    parser = refusing_parser()

    def start(tag: str, attributes: dict[str, str]) -> None:
        tree.start(tag, attributes)

    parser.StartElementHandler = start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    try:
        parser.Parse(data, True)
        root: ElementTree.Element = tree.close()
    except expat.ExpatError as error:
        raise ValueError(f"not XML: {error}") from None
    except AssertionError:
        raise ValueError("not XML: it ends too early") from None
    return root


class Writer:
    """Writes ``Annotations/``, ``JPEGImages/`` and ``ImageSets/Main/<split>.txt``."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target, self._problems = target, problems
        self.classes = Classes(list(options.classes))

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        content.put(self._target, f"JPEGImages/{record.file}")
        stem = stem_of(record.file)
        lines = [
            "<annotation>",
            "<folder>JPEGImages</folder>",
            f"<filename>{xml_text(record.file)}</filename>",
            *([f"<path>{xml_text(content.uri)}</path>"] if content.media == "none" else []),
            f"<size><width>{record.width}</width><height>{record.height}</height>"
            "<depth>3</depth></size>",
            "<segmented>0</segmented>",
            *(self._object(box) for box in record.boxes or ()),
            "</annotation>",
        ]
        self._target.write(f"Annotations/{stem}.xml", "\n".join(lines).encode() + b"\n")
        if record.split:
            listed = self._target.open(f"ImageSets/Main/{record.split}.txt")
            listed.write(f"{stem}\n".encode())

    def finish(self) -> None:
        """Write nothing more."""

    def _object(self, box: Box) -> str:
        self.classes.place(box.label)
        said = box.attributes
        corners = (box.x_min + 1, box.y_min + 1, box.x_max, box.y_max)
        bounds = "".join(
            f"<{side}>{plain_number(value)}</{side}>"
            for side, value in zip(_SIDES, corners, strict=True)
        )
        flags = "".join(f"<{flag}>{int(bool(said.get(flag)))}</{flag}>" for flag in _FLAGS)
        pose = xml_text(str(said.get("pose", "Unspecified")))
        return (
            f"<object><name>{xml_text(box.label)}</name><pose>{pose}</pose>{flags}"
            f"<bndbox>{bounds}</bndbox></object>"
        )
