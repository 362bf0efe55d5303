"""Bring images into a lake, once each: of folders, lists, tars, videos, annotated sets or logs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from visionloop.cli.configuration import absolute, add_lake_options, lake_config
from visionloop.cli.import_ import problems_of
from visionloop.cli.parser import show
from visionloop.errors import InputError
from visionloop.source_config import Format, SourceConfig

if TYPE_CHECKING:
    from visionloop.stages.ingest_told import Told

_OF_A_SOURCE = (
    "kind",
    "format",
    "every",
    "scenes",
    "frames",
    "metadata",
    "pattern",
    "labels",
    "copy",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="URI",
        help="folder or bucket prefix, list of images (.txt, .csv, .parquet) or tar archive "
        "(x-{000..009}.tar for many); may be given again (default: the configuration's sources)",
    )
    parser.add_argument(
        "--kind",
        choices=get_args(SourceConfig.model_fields["kind"].annotation),
        help="folder, list, tar (also a folder of them) or events (requests logged with their "
        "bodies) (default: auto, told from the end of the URI)",
    )
    parser.add_argument(
        "--format",
        choices=[name for name in get_args(Format) if name],
        help="the source is an annotated set: its labels, boxes and metadata come along",
    )
    video = parser.add_mutually_exclusive_group()
    video.add_argument(
        "--every", type=float, metavar="SECONDS", help="take a frame of each video so often"
    )
    video.add_argument(
        "--scenes",
        type=float,
        metavar="CHANGE",
        help="take the first frame of each scene of a video: where more changes than this, 0 to 1 "
        "(0.1 finds hard cuts)",
    )
    video.add_argument(
        "--frames",
        metavar="FILE",
        help="take the frames that a text file names as LightlyOne does: clip-099-mp4.png",
    )
    parser.add_argument(
        "--metadata",
        choices=("all", "sidecar", "none"),
        help="sidecar: photo.jpg.json, photo.json or .yaml beside an image, metadata.csv, paths; "
        "all: EXIF, too (default: all)",
    )
    parser.add_argument(
        "--pattern",
        help="what the path below the source says: {camera}/{date:%%Y-%%m-%%d}/{name}",
    )
    parser.add_argument(
        "--labels",
        metavar="none|folder|source|FILE",
        help="labels known already: the name of an image's folder, what the list, tar or set "
        "itself says, or a CSV file (default: none; for an annotated set: source)",
    )
    parser.add_argument(
        "--copy", action="store_true", help="copy the images into the lake, not only refer to them"
    )
    parser.add_argument(
        "--problems",
        metavar="FILE",
        help="write every file that is unreadable or was skipped there, as CSV: kind, file, field "
        "(the byte), detail",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")


class _Counts:
    """What the stage counts."""

    def __init__(self) -> None:
        self.numbers: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        """Take a number."""
        self.numbers[metric] = value


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    overrides: dict[str, Any] = {}
    if args.source:
        overrides["sources"] = [_source(args, uri) for uri in args.source]
    elif given := [f"--{n}" for n in _OF_A_SOURCE if getattr(args, n) not in (None, False)]:
        raise InputError(
            f"{' and '.join(given)} describe a --source, and none was given",
            remedy="Give --source URI, or write these into the configuration's sources",
        )
    config = lake_config(args, overrides)
    if not config.sources:
        raise InputError(
            "there is nothing to ingest from",
            remedy="Give --source URI, or a configuration with `sources`",
        )

    from visionloop.stages.ingest import EXTRAS, ingest

    counted = _Counts()
    with _told_of(args.problems) as told:
        found = ingest(config=config.text(), metrics=counted, files=told.files)
        told.read()
    extras = {name: int(counted.numbers.get(name, 0)) for name in EXTRAS}
    duplicates = found.n_files - found.n_new - found.n_unreadable - found.n_skipped
    text = (
        f"{found.n_files:,} files: {found.n_new:,} new, {duplicates:,} copies of others, "
        f"{found.n_unreadable:,} unreadable, {found.n_skipped:,} skipped\n"
        + ("" if found.n_files else "the sources hold no files: check their URIs, or the mount\n")
        + "".join(f"{line}\n" for line in told.lines())
        + "".join(
            f"{name.removeprefix('n_')}: {n:,} {EXTRAS[name]}\n" for name, n in extras.items() if n
        )
        + f"lake {config.lake}, version {found.lake_version}"
    )
    result = {**found._asdict(), **extras, **told.result(), "lake": config.lake}
    show(result, as_json=args.json, text=text)
    return 0


def _source(args: argparse.Namespace, uri: str) -> dict[str, Any]:
    source: dict[str, Any] = {"uri": absolute(uri)}
    for name in ("kind", "format", "metadata", "pattern"):
        if getattr(args, name):
            source[name] = getattr(args, name)
    if args.labels:
        known = args.labels in ("none", "folder", "source")
        source["labels"] = args.labels if known else absolute(args.labels)
    if args.copy:
        source["copy"] = True
    video: dict[str, Any] = {"every": args.every, "scenes": args.scenes}
    video["frames"] = absolute(args.frames) if args.frames else None
    if given := {name: value for name, value in video.items() if value is not None}:
        source["video"] = given
    return source


@contextmanager
def _told_of(path: str | None) -> Iterator[Told]:
    """Yield what learns what became of the files, also where the ingest ends with an error.

    Args:
        path: Where to write every file that was not taken in; None for nowhere.

    Raises:
        InputError: The file cannot be written.
    """
    from visionloop.stages.ingest_told import Told

    with problems_of(path) as problems, TemporaryDirectory(prefix="visionloop-") as folder:
        told = Told(problems, Path(folder))
        try:
            yield told
        except InputError:
            told.read()
            raise
