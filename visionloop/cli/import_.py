"""Bring an annotated set into a lake: its images, labels, boxes, predictions and metadata.

What is wrong with the set is counted and named, and stops nothing. A label that a person gave is
never overwritten: the sample is flagged instead.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.cli.configuration import absolute, add_lake_options, lake_config
from visionloop.cli.parser import say, show
from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.interchange.formats import ReadOptions
    from visionloop.interchange.records import Problem, Problems

COLUMNS = ("kind", "file", "field", "detail")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("set", metavar="SET", help="the set's folder or file: a path or URI")
    parser.add_argument("--format", required=True, metavar="NAME", help=formats())
    add_lake_options(parser)
    parser.add_argument("--media", metavar="URI", help="its images, where they lie elsewhere")
    parser.add_argument(
        "--model", default="", metavar="NAME", help="what it says are predictions of this model"
    )
    parser.add_argument("--annotator", default="", metavar="NAME", help="who annotated it")
    parser.add_argument(
        "--replace-imports",
        action="store_true",
        help="labels of an earlier import give way to different ones; a person's never do",
    )
    parser.add_argument("--copy", action="store_true", help="copy the images into the lake")
    parser.add_argument(
        "--no-ingest",
        dest="ingest",
        action="store_false",
        help="take in no images: only those count that the lake has",
    )
    parser.add_argument(
        "--reference", metavar="FILE", help="COCO results: the annotation file they are about"
    )
    parser.add_argument("--task", default="", metavar="NAME", help="LightlyOne: one task alone")
    parser.add_argument(
        "--predictions", action="store_true", help="Label Studio: what models predicted"
    )
    parser.add_argument(
        "--zero-based", action="store_true", help="Pascal VOC: pixels are counted from 0"
    )
    add_problem_option(parser)
    parser.add_argument("--dry-run", action="store_true", help="read the set, and change nothing")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.interchange.formats import ReadOptions, module_of

    module_of(args.format)
    options = ReadOptions(
        media=absolute(args.media) if args.media else "",
        zero_based=args.zero_based,
        reference=absolute(args.reference) if args.reference else "",
        task=args.task,
        predictions=args.predictions,
    )
    uri = absolute(args.set)
    with problems_of(args.problems) as problems:
        result, text = (_look if args.dry_run else _import)(args, uri, options, problems)
        told = {
            "problems": dict(sorted(problems.counts.items())),
            "examples": {
                kind: [str(one) for one in found] for kind, found in problems.examples.items()
            },
        }
    show({**result, **told}, as_json=args.json, text=text)
    if not args.json:
        tell(problems)
    return 0


def _look(
    args: argparse.Namespace, uri: str, options: ReadOptions, problems: Problems
) -> tuple[dict[str, Any], str]:
    from visionloop.interchange.formats import read_set

    labelled = images = boxes = 0
    reading = read_set(args.format, uri, problems=problems, options=options)
    for record in reading:
        images += 1
        labelled += bool(record.labels)
        boxes += len(record.boxes or ())
    found = {"images": images, "labelled": labelled, "boxes": boxes}
    text = f"{images:,} images, {labelled:,} with a label, {boxes:,} boxes; nothing was changed"
    return {**found, "boxes_met": dict(problems.boxes), "classes": reading.classes}, text


def _import(
    args: argparse.Namespace, uri: str, options: ReadOptions, problems: Problems
) -> tuple[dict[str, Any], str]:
    from visionloop.stages.import_set import Importing, import_set

    config = lake_config(args)
    how = Importing(args.ingest, args.copy, args.model, args.annotator, args.replace_imports)
    done = import_set(config, args.format, uri, how, problems=problems, options=options)
    taken = done.ingest
    lines = [
        f"{done.records:,} images: {done.matched:,} samples of the lake, {done.repeated:,} copies "
        f"of others, {done.unmatched:,} not in the lake",
        *(
            [
                f"ingest: {taken['n_files']:,} files, {taken['n_new']:,} new, "
                f"{taken['n_duplicates']:,} copies, {taken['n_unreadable']:,} unreadable, "
                f"{taken['n_skipped']:,} skipped"
            ]
            if taken
            else []
        ),
        *(
            [f"predictions of {args.model}: {done.predictions:,} with {done.n_boxes:,} boxes"]
            if args.model
            else [
                f"labels: {_counts(done.labels)}",
                f"boxes: {_counts(done.boxes)}; {done.n_boxes:,} boxes stored",
            ]
        ),
        f"metadata of {done.metadata:,} samples",
        *([f"a lake cannot hold: {_counts(+done.lost)}"] if +done.lost else []),
        f"lake {config.lake}, version {done.lake_version}",
    ]
    # Not by `asdict`: before Python 3.12 it makes pairs of a counter's keys.
    result = {**vars(done), "boxes_met": dict(problems.boxes), "lake": config.lake}
    return result, "\n".join(lines)


def _counts(counts: Any) -> str:
    return ", ".join(f"{n:,} {kind}" for kind, n in sorted(counts.items())) or "none"


def formats() -> str:
    """Return what the option `--format` says of itself."""
    # Named here, so that help needs nothing that a base install lacks.
    return (
        "coco, voc, yolo, folders, table (CSV or Parquet), lightly, label_studio, cvat, "
        "webdataset or fiftyone"
    )


def add_problem_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that asks for a list of all problems."""
    parser.add_argument(
        "--problems", metavar="FILE", help="write every problem there, as CSV: kind, file, field"
    )


@contextmanager
def problems_of(path: str | None) -> Iterator[Problems]:
    """Yield what counts problems, and writes all of them to a file where one is named.

    Raises:
        InputError: The file cannot be written.
    """
    from visionloop.interchange.records import Problems

    if not path:
        yield Problems()
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", where=path) from error
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)

        def write(one: Problem) -> None:
            writer.writerow([one.kind, one.file, one.field, one.detail])

        yield Problems(write)


def tell(problems: Problems) -> None:
    """Tell a person what was wrong."""
    for line in problems.lines():
        say(f"  {line}")
