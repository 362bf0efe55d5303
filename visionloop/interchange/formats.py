"""The formats by name, and the two ways through them: `read_set` and `write_set`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError
from visionloop.interchange.records import Annotated, Problems, Reading

if TYPE_CHECKING:
    from visionloop.interchange.writing import Holds

# Each format's module, and what it is.
FORMATS = {
    "coco": "COCO JSON: boxes, or categories of whole images; also detection results",
    "voc": "Pascal VOC XML: boxes",
    "yolo": "YOLO (Ultralytics): data.yaml, images/ and labels/*.txt: boxes",
    "folders": "one folder a class: labels of whole images",
    "table": "CSV or Parquet: labels, boxes and metadata, a row each",
    "lightly": "LightlyOne: .lightly/predictions and .lightly/metadata",
    "label_studio": "Label Studio JSON: choices and rectangles",
    "cvat": "CVAT for images and for video 1.1 (XML): tags and boxes",
    "webdataset": "WebDataset tar shards: labels, boxes and metadata beside each image",
    "fiftyone": "FiftyOne's image classification and detection datasets (labels.json)",
}


@dataclass(frozen=True)
class ReadOptions:
    """What a person may say of a set that is read.

    Attributes:
        media: Folder or prefix of its images, where they lie elsewhere; empty: in the set.
        zero_based: Pascal VOC: the first pixel is 0, which is against the format.
        reference: COCO: the annotation file that names the images and categories of a list of
            results.
        task: LightlyOne: the prediction task to read; empty: all.
        predictions: Label Studio: read what models predicted, not what people annotated.
    """

    media: str = ""
    zero_based: bool = False
    reference: str = ""
    task: str = ""
    predictions: bool = False


@dataclass(frozen=True)
class WriteOptions:
    """How a set is written.

    Attributes:
        classes: Names of its classes, in order; others follow as they come up.
        table: Format of a table: ``csv`` or ``parquet``.
        columns: Arrow schema of the metadata that gets columns of its own in a table.
        shard_bytes: Size of a shard of a tar set, roughly.
    """

    classes: tuple[str, ...] = ()
    table: str = "csv"
    columns: Any = None
    shard_bytes: int = 256 << 20


def module_of(name: str) -> Any:
    """Return the module of a format.

    Raises:
        InputError: There is no such format.
    """
    if name not in FORMATS:
        from visionloop.validation import nearest

        raise InputError(
            f"unknown format `{name}`{nearest(name, list(FORMATS))}",
            where="--format",
            remedy=f"Use one of {', '.join(FORMATS)}",
        )
    return importlib.import_module(f"visionloop.interchange.{name}")


def read_set(
    name: str,
    uri: str,
    *,
    problems: Problems | None = None,
    options: ReadOptions | None = None,
) -> Reading:
    """Read an annotated set.

    Args:
        name: Its format, see `FORMATS`.
        uri: Its folder, or its file: a path, file://… or gs://….
        problems: Receives what is wrong with it; nothing of that stops the reading.
        options: What is to be known of it.

    Returns:
        The set: its records come as they are iterated over, one an image, in the set's own order,
        and at the end one for each image that nobody annotated.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    found = problems if problems is not None else Problems()
    reading: Reading = module_of(name).read(uri, found, options or ReadOptions())
    reading.records = _unique(reading.records, found)
    return reading


def write_set(
    name: str,
    records: Iterable[Annotated],
    target: str,
    *,
    media: str = "copy",
    force: bool = False,
    unannotated: bool = False,
    problems: Problems | None = None,
    options: WriteOptions | None = None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write an annotated set; memory holds some dozen images, and 60 bytes for each name.

    Args:
        name: Its format, see `FORMATS`.
        records: What it shall hold.
        target: An empty folder or prefix, or one that does not exist.
        media: ``copy`` the images into it, ``link`` to them, or ``none``: name where they lie.
        force: Replace the export that is at the target.
        unannotated: Write images too that nobody annotated. Most tools take these for images with
            nothing in them.
        problems: Receives what is wrong with the records.
        options: How it is written.
        about: What else its summary says.

    Returns:
        The summary that lies in the set: its counts, in which ``records`` = ``written`` + all of
        ``left_out``.

    Raises:
        InputError: The target is not empty, the format cannot be written so, or it holds nothing
            of what the records say.
        StorageError: It cannot be written.
    """
    from visionloop.interchange.target import Target
    from visionloop.interchange.writing import Admission, Written

    module = module_of(name)
    problems = problems if problems is not None else Problems()
    written = Written()
    with Target(target, force=force) as out:
        admission = Admission(module.HOLDS, media, unannotated, out, written, problems)  # type: ignore[arg-type]
        writer = module.Writer(out, options or WriteOptions(), problems)
        for record, content in admission.admit(records):
            writer.add(record, content)
            written.count(record, module.HOLDS)
        if written.records and not written.written:
            raise _nothing_written(name, module.HOLDS, written.left_out)
        writer.finish()
        summary = {
            "format": name,
            **(about or {}),
            **written.plain(),
            "classes": writer.classes.names,
            "media": media,
            "problems": dict(sorted(problems.counts.items())),
        }
        out.finish(summary)
    return summary


def _nothing_written(name: str, holds: Holds, left_out: Mapping[str, int]) -> InputError:
    told = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items())
    remedies = {
        "not_held": f"{name} holds {'boxes' if holds.boxes else 'labels of whole images'} only: "
        f"use {'folders, coco or table' if holds.boxes else 'coco or table'}",
        "unannotated": "--unannotated writes images without a label, where the format can",
    }
    found = [remedies[reason] for reason in left_out if reason in remedies]
    return InputError(
        f"no image can be written: left out are {told}",
        where=f"--format {name}",
        remedy="; ".join(found) or "--problems FILE lists them",
    )


def _unique(records: Iterator[Annotated], problems: Problems) -> Iterator[Annotated]:
    """Yield records, and tell where one image is spoken of twice."""
    seen: set[int] = set()
    for record in records:
        name = hash(record.uri or (record.split, record.file))
        if name in seen:
            problems.add("repeated_image", record.file, "", "the set speaks of it more than once")
        seen.add(name)
        yield record


def leftovers(images: Any, problems: Problems, said: Sequence[str] = ()) -> Iterator[Annotated]:
    """Yield a record for each image that a set does not speak of.

    Args:
        images: The images, as `visionloop.interchange.places.Images`.
        problems: Receives a ``no_annotation`` for each.
        said: Paths that something was said of in other ways.
    """
    spoken = set(said)
    for path in list(images.unused()):
        if path not in spoken:
            problems.add("no_annotation", path, "", "the set does not speak of this image")
            yield Annotated(path, images.uri(path))
