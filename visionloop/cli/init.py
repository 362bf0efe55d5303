"""Look at a folder or bucket prefix of images, and write a first loop.yaml for it."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop.cli.configuration import absolute
from visionloop.cli.parser import show
from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.cli.draft import LabelTable
    from visionloop.media.survey import Survey

_MOST_TABLES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "folder",
        nargs="?",
        default=".",
        metavar="DIR",
        help="folder of the configuration, made when missing (default: this one)",
    )
    parser.add_argument(
        "--source", required=True, metavar="URI", help="images: a path, file:// or gs://"
    )
    parser.add_argument(
        "--labels",
        default="",
        metavar="folder|FILE.csv|none",
        help="labels known already: the name of an image's folder, or a CSV file with file,label "
        "(default: none; what is found is proposed)",
    )
    parser.add_argument("--name", default="", help="name of the loop (default: the source's)")
    parser.add_argument(
        "--output", default="loop.yaml", metavar="FILE", help="file to write (default: %(default)s)"
    )
    parser.add_argument(
        "--look-at",
        type=int,
        default=2_000,
        metavar="N",
        help="open no more than so many files (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print what was seen as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    folder = Path(args.folder).expanduser().absolute()
    output = folder / args.output
    source = absolute(args.source)
    _check_places(output, source)
    if args.look_at < 1:
        raise InputError("--look-at takes a number from 1 on", where=f"--look-at {args.look_at}")

    from visionloop.cli.draft import draft
    from visionloop.config import load_config
    from visionloop.media.survey import survey
    from visionloop.progress import progress

    with progress("init", unit="files") as bar:
        seen = survey(source, look_at=args.look_at, seen=bar.advance)
    if not seen.images:
        from visionloop.cli.draft import unreadable_words

        raise InputError(
            f"there is no image among {seen.candidates:,} files: {unreadable_words(seen)}, "
            f"{seen.skipped:,} could not be read",
            where=args.source,
            remedy="Name the folder or bucket prefix that the images lie under, with --source; of "
            "videos, tars and lists write `sources` yourself, as docs/ingest.md shows",
        )
    labels, tables = _labels(args.labels, seen, folder)
    name = args.name or loop_name(source)
    text = draft(seen, name=name, source=_written(source, folder), labels=labels, tables=tables)
    load_config(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _exists(output) from None
    show(
        _summary(seen, output, name, labels, tables),
        as_json=args.json,
        text=_told(seen, tables, labels, output),
    )
    return 0


def loop_name(source: str) -> str:
    """Return a loop's name made of its source's: lower-case letters, digits and dashes."""
    from visionloop.lake.storage import name_of

    plain = re.sub(r"[^a-z0-9]+", "-", name_of(source).lower()).strip("-")[:40].strip("-")
    return plain if plain[:1].isalpha() else f"loop-{plain}".strip("-")


def _check_places(output: Path, source: str) -> None:
    if output.exists():
        raise _exists(output)
    from visionloop.lake.storage import local_path, scheme_of

    if scheme_of(source) == "file":
        root = local_path(source)
        if root == output.parent or root in output.parent.parents:
            raise InputError(
                "the configuration and the lake would lie among the images",
                where=str(output),
                remedy=f"Name a folder beside them: visionloop init {root.parent / 'loop'} "
                f"--source {root}",
            )


def _exists(output: Path) -> InputError:
    return InputError(
        "there is a configuration already",
        where=str(output),
        remedy="Remove it, or name another file with --output",
    )


def _written(uri: str, folder: Path) -> str:
    """Return a URI as it stands in the file: relative where it lies near, else absolute."""
    from visionloop.lake.storage import local_path, scheme_of

    if scheme_of(uri) != "file":
        return uri
    path = local_path(uri)
    near = os.path.relpath(path, folder)
    return near if not near.startswith(os.path.join("..", "..")) else str(path)


def _labels(wanted: str, seen: Survey, folder: Path) -> tuple[str, tuple[LabelTable, ...]]:
    """Return what the source's `labels` is to be, and the tables of labels that were found."""
    if wanted == "folder":
        if not seen.folders:
            raise InputError(
                "the images lie in no folders whose names could be labels",
                where="--labels folder",
                remedy="Give --labels FILE.csv with the columns file,label, or --labels none",
            )
        return wanted, ()
    if wanted in ("", "none"):
        return "none", tuple(_found_tables(seen, folder)) if not wanted else ()
    table = _table(absolute(wanted), seen, folder)
    if not table.images and seen.looked_at == seen.candidates:
        raise InputError(
            f"none of its {table.rows:,} labels names an image of the source",
            where=wanted,
            remedy="Write file names as they lie under the source, or the end of their paths",
        )
    return table.path, (table,)


def _found_tables(seen: Survey, folder: Path) -> list[LabelTable]:
    """Return the tables of labels in the source, beside it, and where the configuration goes."""
    from visionloop.errors import VisionloopError
    from visionloop.lake.storage import normalise
    from visionloop.media.survey import tables_beside

    here = [normalise(path) for path in sorted(folder.glob("*.csv"))]
    found = []
    for uri in list(dict.fromkeys([*here, *tables_beside(seen.uri), *seen.tables]))[:_MOST_TABLES]:
        try:
            table = _table(uri, seen, folder)
        except VisionloopError:
            continue  # a table of something else
        if table.images:
            found.append(table)
    return sorted(found, key=lambda table: -table.images)


def _table(uri: str, seen: Survey, folder: Path) -> LabelTable:
    from visionloop.cli.draft import LabelTable
    from visionloop.labeling.tables import labels_of_files, read_label_csv

    rows = read_label_csv(uri)
    labels, _ = labels_of_files(uri, seen.uris)
    return LabelTable(
        path=_written(uri, folder),
        rows=len(rows),
        images=sum(sample_id in labels for sample_id in seen.uris.values()),
        classes=tuple(sorted({label for *_, label in rows})),
    )


def _summary(
    seen: Survey, output: Path, name: str, labels: str, tables: tuple[LabelTable, ...]
) -> dict[str, Any]:
    return {
        "config": str(output),
        "name": name,
        "source": seen.uri,
        "files": seen.files,
        "candidates": seen.candidates,
        "looked_at": seen.looked_at,
        "images": seen.images,
        "copies": seen.copies,
        "unreadable": seen.unreadable,
        "skipped": seen.skipped,
        "sidecars": seen.sidecars,
        "hidden": seen.hidden,
        "shorter_sides": [seen.sides[0], seen.median_side, seen.sides[-1]],
        "image_size": seen.image_size,
        "folders": seen.folders,
        "folders_look_like_classes": seen.looks_like_classes,
        "metadata": [{**asdict(key), "groups": key.groups} for key in seen.keys],
        "labels": labels,
        "label_tables": [asdict(table) for table in tables],
    }


def _told(seen: Survey, tables: tuple[LabelTable, ...], labels: str, output: Path) -> str:
    from visionloop.cli.draft import listed, unreadable_words
    from visionloop.words import counted

    part = "" if seen.looked_at == seen.candidates else f", looked at {seen.looked_at:,}"
    lines = [
        f"{seen.files:,} files{part}: {counted(seen.images, 'image')}, {unreadable_words(seen)}, "
        f"{counted(seen.sidecars, 'sidecar')}, {counted(len(seen.tables), 'table')}, "
        f"{seen.hidden:,} hidden"
        + (f", {seen.skipped:,} could not be read" if seen.skipped else ""),
        f"shorter sides {seen.sides[0]} to {seen.sides[-1]} px, mostly {seen.median_side}",
    ]
    if seen.looks_like_classes:
        lines.append(f"folders that look like classes: {listed(list(seen.folders))}")
    groups = [key.name for key in seen.keys if key.groups]
    if groups:
        lines.append(f"metadata that may group images: {listed(groups)}")
    for table in tables:
        lines.append(
            f"labels in {table.path}: {table.rows:,} of "
            f"{counted(len(table.classes), 'class', 'classes')}, {table.images:,} name images here"
        )
    if labels == "none" and (tables or seen.looks_like_classes):
        lines.append("what may be labels is proposed in the file, as comments")
    shown = os.path.relpath(output) if output.is_relative_to(Path.cwd()) else str(output)
    return "\n".join([*lines, f"wrote {shown}; go on with: visionloop run round --config {shown}"])
