"""Write the health of all stages as one self-contained page."""

from __future__ import annotations

import argparse

from visionloop.cli.configuration import add_lake_options, lake_config, open_existing
from visionloop.cli.parser import show
from visionloop.cli.report_serving import add_serving_options, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--output", default="report.html", metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--version", default=None, metavar="ID", help="lake version to describe")
    parser.add_argument("--json", action="store_true", help="print the path as one JSON object")
    add_serving_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.serve:
        return serve(args)
    config = lake_config(args)

    from visionloop.monitoring.report import write_report

    lake = open_existing(config.lake, config.catalog, config.name)
    path = write_report(lake, args.output, version=args.version, thresholds=config.monitoring)
    show({"report": str(path), "lake": lake.uri}, as_json=args.json, text=str(path))
    return 0
