"""Bring the logged confidences of an endpoint into a lake, each inference once."""

from __future__ import annotations

import argparse

from visionloop.cli.configuration import absolute, add_lake_options, lake_config
from visionloop.cli.parser import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--events",
        default="",
        metavar="URI",
        help="folder or file of logged events, *.events.jsonl[.gz] (default: the configuration's, "
        "else the lake's own)",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    config = lake_config(args)

    from visionloop.stages.harvest import harvest

    events = absolute(args.events) if args.events else ""
    found = harvest(config=config.text(), events=events)
    text = (
        f"{found.n_events:,} events: {found.n_confidences:,} confidences, "
        f"{found.n_rejected:,} rejected, {found.n_orphans:,} orphans, {found.n_pending:,} pending\n"
        f"lake {config.lake}, version {found.lake_version}"
    )
    show({**found._asdict(), "lake": config.lake}, as_json=args.json, text=text)
    return 0
