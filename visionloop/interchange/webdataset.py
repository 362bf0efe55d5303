"""WebDataset: tar shards in which files of one key belong together: ``000.jpg 000.cls 000.json``.

``cls`` is the class as a number (its name stands in ``classes.txt`` beside the shards) or as text;
``json`` holds all that is known. Of a shard the headers and the small files are read.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from visionloop.errors import InputError
from visionloop.interchange.boxes import BoxReader, certainty
from visionloop.interchange.formats import ReadOptions, WriteOptions
from visionloop.interchange.places import IMAGES, Folder, file_and_root, size_of, stem_of, suffix
from visionloop.interchange.records import Annotated, Box, Problems, Reading
from visionloop.interchange.shapes import as_list, as_metadata, as_pixels, as_text
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds
from visionloop.lake.archive_storage import Archive
from visionloop.lake.archives import COMPRESSED, PLAIN, Damage, Member, member_uri
from visionloop.lake.storage import open_storage

HOLDS = Holds(
    labels=1000,
    boxes=True,
    score=True,
    attributes=True,
    metadata=True,
    split=True,
    sample_id=True,
    media=("copy",),
)
_HEADER = 256 << 10
_MOST_TEXT = 16 << 20
# The keys of a member's .json that are no metadata.
_OWN = frozenset(
    ("file", "sample_id", "width", "height", "labels", "score", "boxes", "metadata", "split")
) | {"origin"}


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read a WebDataset; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    named, root = file_and_root(uri, *PLAIN, *COMPRESSED)
    folder = Folder(root)
    shards = [named] if named else sorted(folder.named(*PLAIN, *COMPRESSED))
    if not shards:
        raise InputError(
            "there are no tar shards here", where=uri, remedy="Name a .tar file, or their folder"
        )
    classes: list[str] = []
    if "classes.txt" in folder.files:
        classes = [line.strip() for line in folder.text("classes.txt").splitlines()]
    reading = Reading("webdataset", folder.root, problems, iter(()), [c for c in classes if c])
    reading.records = _records(folder, shards, classes, reading)
    return reading


def _records(
    folder: Folder, shards: list[str], classes: list[str], reading: Reading
) -> Iterator[Annotated]:
    problems = reading.problems
    for shard in shards:
        archive = Archive(folder.files[shard], open_storage(folder.root))
        for key, group in groupby(_members(archive, shard, problems), lambda one: _key(one.name)):
            files = {suffix_of(member.name): member for member in group}
            image = next((ending for ending in files if suffix(f"x{ending}") in IMAGES), "")
            if image:
                yield _record(_Sample(shard, archive, key, files), image, classes, reading)
            else:
                problems.add("no_file", shard, key, "no image has this key")


@dataclass(frozen=True)
class _Sample:
    """The files of one key of a shard."""

    shard: str
    archive: Archive
    key: str
    files: Mapping[str, Member]

    def text(self, ending: str, most: int = _MOST_TEXT) -> bytes:
        """Return the first bytes of a file, none where there is no such file."""
        member = self.files.get(ending)
        return self.archive.read(member.offset, min(member.size, most)) if member else b""


def _members(archive: Archive, shard: str, problems: Problems) -> Iterator[Member]:
    for item in archive:
        if isinstance(item, Damage):
            problems.add("broken_shard", shard, "", f"{item.reason}: {item.detail}")
        elif item.reason:
            problems.add(item.reason, shard, item.name, item.detail)
        else:
            yield item


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def suffix_of(name: str) -> str:
    """Return what follows the key: all from the first dot of a member's name, in lower case."""
    _, dot, ending = name.rpartition("/")[2].partition(".")
    return (dot + ending).lower()


def _record(sample: _Sample, image: str, classes: list[str], reading: Reading) -> Annotated:
    problems, shard, key = reading.problems, sample.shard, sample.key
    member = sample.files[image]
    said = _json(sample, problems)
    width, height = (as_pixels(said.get(side)) for side in ("width", "height"))
    if not (width and height):
        width, height = size_of(sample.text(image, _HEADER))
    labels = [label for label in map(as_text, as_list(said.get("labels"))) if label]
    if not labels:
        text = sample.text(".cls").decode("utf-8", "replace").strip()
        place = int(text) if text.isdigit() else -1
        label = classes[place] if 0 <= place < len(classes) else text
        labels = [label] if label else []
    boxes: list[Box] | None = None
    if isinstance(said.get("boxes"), list):
        reader = BoxReader(problems, shard, width, height)
        made = (
            reader.box(
                [box.get(side) for side in ("x_min", "y_min", "x_max", "y_max")],
                as_text(box.get("label")),
                f"{key}.json, boxes[{number}]",
                score=box.get("score"),
                attributes=box.get("attributes"),
            )
            for number, box in enumerate(said["boxes"])
            if isinstance(box, dict)
        )
        boxes = [box for box in made if box is not None]
    for label in [*labels, *(box.label for box in boxes or ())]:
        if label not in reading.classes:
            reading.classes.append(label)
    if not labels and boxes is None:
        problems.add("no_annotation", shard, key)
    metadata = as_metadata(said.get("metadata"))
    metadata |= {k: v for k, v in said.items() if k not in _OWN and not isinstance(v, dict | list)}
    if caption := sample.text(".txt").decode("utf-8", "replace"):
        metadata["caption"] = caption
    return Annotated(
        as_text(said.get("file")) or member.name,
        member_uri(sample.archive.info.uri, member),
        as_text(said.get("sample_id")),
        width,
        height,
        tuple(labels),
        certainty(said.get("score"), problems, shard, f"{key}.json, score"),
        (),
        None if boxes is None else tuple(boxes),
        metadata,
        as_text(said.get("split")),
        as_text(said.get("origin")),
    )


def _json(sample: _Sample, problems: Problems) -> dict[str, Any]:
    data = sample.text(".json")
    if not data:
        return {}
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        content, told = None, str(error)
    else:
        told = "no object"
    if not isinstance(content, dict):
        problems.add("bad_json", sample.shard, f"{sample.key}.json", told)
        return {}
    return content


class Writer:
    """Writes ``000000.tar`` and so on, and ``classes.txt``."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target, self._most = target, options.shard_bytes
        self.classes = Classes(list(options.classes))
        self._records = self._shards = 0
        self._tar: tarfile.TarFile | None = None
        self._name = ""

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record."""
        if self._tar is None:
            self._name = f"{self._shards:06d}.tar"
            self._shards += 1
            file = self._target.open(self._name)
            self._tar = tarfile.TarFile(fileobj=file, mode="w")
        key = stem_of(record.file)
        if "." in key.rpartition("/")[2]:
            # A key ends at the first dot.
            key = f"{key.replace('.', '_')}_{self._records:09d}"
        self._records += 1
        self._put(f"{key}{suffix(record.file) or '.jpg'}", content.data)
        if record.labels:
            self._put(f"{key}.cls", str(self.classes.place(record.labels[0])).encode())
        self._put(f"{key}.json", orjson.dumps(self._said(record)))
        if self._tar.offset >= self._most:
            self._close()

    def _said(self, record: Annotated) -> dict[str, Any]:
        said: dict[str, Any] = {
            "file": record.file,
            "sample_id": record.sample_id,
            "width": record.width,
            "height": record.height,
            "split": record.split,
            "origin": record.origin,
            "labels": list(record.labels),
            "metadata": dict(record.metadata),
        }
        said = {name: value for name, value in said.items() if value not in ("", 0, None, [], {})}
        if record.score is not None:
            said["score"] = record.score
        if record.boxes is not None:
            said["boxes"] = [self._object(box) for box in record.boxes]
        return said

    def _object(self, box: Box) -> dict[str, Any]:
        self.classes.place(box.label)
        said: dict[str, Any] = {
            side: getattr(box, side) for side in ("x_min", "y_min", "x_max", "y_max", "label")
        }
        if box.score is not None:
            said["score"] = box.score
        if box.attributes:
            said["attributes"] = dict(box.attributes)
        return said

    def _put(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        self._tar.addfile(member, io.BytesIO(data))

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            self._target.close(self._name)

    def finish(self) -> None:
        """End the last shard, and write the names of the classes."""
        self._close()
        names = "".join(f"{name}\n" for name in self.classes.names)
        self._target.write("classes.txt", names.encode())
