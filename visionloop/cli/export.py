"""Write samples of a lake, with their labels, boxes and metadata, in another tool's format."""

from __future__ import annotations

import argparse

from visionloop.cli.configuration import absolute, add_lake_options, lake_config, open_existing
from visionloop.cli.import_ import add_problem_option, formats, problems_of, tell
from visionloop.cli.parser import show
from visionloop.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("target", metavar="TARGET", help="an empty folder, path or gs://")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--format", default="", metavar="NAME", help=formats())
    kind.add_argument(
        "--to",
        default="",
        choices=("fiftyone", "lightly-studio"),
        help="for a viewer: labels and predictions, flags and splits as tags, every column as a "
        "field, and the lines of Python that open it there",
    )
    parser.add_argument(
        "--launch", action="store_true", help="with --to, open the viewer, where it is installed"
    )
    add_lake_options(parser)
    parser.add_argument(
        "--what",
        default="all",
        metavar="SET",
        help="all (default), split:NAME, round:ID, requests:ID, selection:NAME, training_set:ID, "
        "flag:KIND, label:CLASS, tag:NAME or file:IDS",
    )
    parser.add_argument(
        "--round",
        default="",
        metavar="ID",
        help="what this round asks people about, for another tool to label: as --what "
        "requests:ID --unannotated",
    )
    parser.add_argument(
        "--version", default="", metavar="ID", help="lake version (default: newest)"
    )
    parser.add_argument(
        "--model", default="", metavar="ID", help="what this model predicted, not the labels"
    )
    parser.add_argument(
        "--media",
        choices=("copy", "link", "none"),
        default="copy",
        help="copy the images (default), link to them, or only name where they lie",
    )
    parser.add_argument(
        "--unannotated",
        action="store_true",
        help="samples without a label too; most tools take these for images of nothing",
    )
    parser.add_argument(
        "--no-splits", dest="splits", action="store_false", help="one set, without its parts"
    )
    parser.add_argument(
        "--table", choices=("csv", "parquet"), default="csv", help="kind of a table (default: csv)"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier export")
    add_problem_option(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.interchange.formats import WriteOptions, module_of
    from visionloop.stages.export_set import Wanted, export_set

    if args.to:
        from visionloop.cli.export_viewer import run_viewer

        return run_viewer(args)
    if args.launch:
        raise InputError("--launch opens a viewer", remedy="Name it with --to, without --format")
    module_of(args.format)
    config = lake_config(args)
    what = asked_for(args)
    lake = open_existing(config.lake, config.catalog, config.name)
    with problems_of(args.problems) as problems:
        made = export_set(
            lake,
            args.format,
            absolute(args.target),
            Wanted(what, args.version, args.model, args.splits, config.task),
            media=args.media,
            force=args.force,
            unannotated=args.unannotated or bool(args.round),
            problems=problems,
            options=WriteOptions(classes=tuple(config.classes), table=args.table),
        )
    left = ", ".join(f"{n:,} {why}" for why, n in made["left_out"].items()) or "none"
    lines = [
        f"{made['asked']:,} samples: {made['written']:,} written, left out: {left}"
        + (f", not in the lake: {made['not_in_lake']:,}" if made["not_in_lake"] else ""),
        f"{made['labels']:,} labels and {made['boxes']:,} boxes of {len(made['classes'])} classes",
        *(
            [
                "the format cannot hold: "
                + ", ".join(f"{what} of {n:,} samples" for what, n in made["lost"].items())
            ]
            if made["lost"]
            else []
        ),
        f"{absolute(args.target)}, from version {made['lake_version']}",
    ]
    show({**made, "target": absolute(args.target)}, as_json=args.json, text="\n".join(lines))
    if not args.json:
        tell(problems)
    return 0


def asked_for(args: argparse.Namespace) -> str:
    """Return which samples are asked for, as `visionloop.stages.export_set.Wanted` has it."""
    if args.round and args.what != "all":
        raise InputError("--round and --what both name the samples", remedy="Give one of them")
    what = str(f"requests:{args.round}" if args.round else args.what)
    if what.startswith("file:"):
        what = "file:" + absolute(what.removeprefix("file:"))
    return what
