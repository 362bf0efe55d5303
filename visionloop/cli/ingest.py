"""Bring the images of a folder or bucket prefix into a lake, once each."""

from __future__ import annotations

import argparse
from typing import Any

from visionloop.cli.configuration import absolute, add_lake_options, lake_config
from visionloop.cli.parser import show
from visionloop.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="URI",
        help="folder or bucket prefix; may be given again (default: the configuration's sources)",
    )
    parser.add_argument(
        "--metadata",
        choices=("sidecar", "none"),
        help="sidecar: photo.jpg.json or photo.json beside an image (default: sidecar)",
    )
    parser.add_argument(
        "--labels",
        metavar="none|folder|FILE",
        help="labels known already: the name of an image's folder, or a CSV file (default: none)",
    )
    parser.add_argument(
        "--copy", action="store_true", help="copy the images into the lake, not only refer to them"
    )
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    overrides: dict[str, Any] = {}
    if args.source:
        overrides["sources"] = [_source(args, uri) for uri in args.source]
    elif args.metadata or args.labels or args.copy:
        raise InputError(
            "--metadata, --labels and --copy describe a --source, and none was given",
            remedy="Give --source URI, or write these into the configuration's sources",
        )
    config = lake_config(args, overrides)
    if not config.sources:
        raise InputError(
            "there is nothing to ingest from",
            remedy="Give --source URI, or a configuration with `sources`",
        )

    from visionloop.stages.ingest import ingest

    found = ingest(config=config.text())
    duplicates = found.n_files - found.n_new - found.n_unreadable - found.n_skipped
    text = (
        f"{found.n_files:,} files: {found.n_new:,} new, {duplicates:,} copies of others, "
        f"{found.n_unreadable:,} unreadable, {found.n_skipped:,} skipped\n"
        f"lake {config.lake}, version {found.lake_version}"
    )
    show({**found._asdict(), "lake": config.lake}, as_json=args.json, text=text)
    return 0


def _source(args: argparse.Namespace, uri: str) -> dict[str, Any]:
    source: dict[str, Any] = {"uri": absolute(uri)}
    if args.metadata:
        source["metadata"] = args.metadata
    if args.labels:
        known = args.labels in ("none", "folder")
        source["labels"] = args.labels if known else absolute(args.labels)
    if args.copy:
        source["copy"] = True
    return source
