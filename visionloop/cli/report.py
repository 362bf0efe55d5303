"""Write the health of all stages as one self-contained page."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionloop.cli.configuration import add_lake_options, lake_config, open_existing
from visionloop.cli.parser import show
from visionloop.cli.report_serving import add_serving_options, refuse_serving_options, serve
from visionloop.errors import VisionloopError

_OUTPUT = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument("--output", default=None, metavar="FILE", help=f"default: {_OUTPUT}")
    parser.add_argument("--version", default=None, metavar="ID", help="lake version to describe")
    parser.add_argument(
        "--json", action="store_true", help="print the report's numbers as one JSON object"
    )
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="WHAT",
        help="exit with 1 on flags of a kind (dark, camera_silent, ...), on findings of a severity "
        "(error, warning, info) or on a verdict (act, look, cannot-tell) or worse; again for more",
    )
    add_serving_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.serve:
        return serve(args)
    refuse_serving_options(args)
    from visionloop.monitoring.report.build import read_planted, save_page
    from visionloop.monitoring.report.failing import check_wanted, reasons_to_fail
    from visionloop.monitoring.report.load import load_report
    from visionloop.monitoring.report.page import render
    from visionloop.monitoring.report.summary import summary

    check_wanted(args.fail_on)
    config = lake_config(args)
    lake = open_existing(config.lake, config.catalog, config.name)
    data = load_report(
        lake, version=args.version, planted=read_planted(lake), thresholds=config.monitoring
    )
    path = save_page(render(data), _OUTPUT if args.output is None else args.output)
    told = summary(data)
    show({"report": str(path), **told}, as_json=args.json, text=_text(path, told))
    reasons = reasons_to_fail(told, args.fail_on)
    if reasons:
        raise VisionloopError(
            "; ".join(reasons), where=str(path), remedy="See the report; --fail-on asked for this"
        )
    return 0


def _text(path: Path, told: Mapping[str, Any]) -> str:
    """Return the page's path, and the verdict in a line."""
    return f"{path}\n{told['verdict']}: {told['because']}"
