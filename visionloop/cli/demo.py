"""The whole loop on scikit-learn's real digits: no cluster, no account, no download.

Images go in, the loop selects, an oracle labels, a model is trained, served and asked, and what it
was unsure of is labelled next. Ends with summary.json and report.html in the folder.
"""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--dir", default="visionloop-demo", metavar="D", help="folder (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="remove what an earlier demo left there, and start anew",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.demo import run_demo

    summary = run_demo(args.dir, args.rounds, fresh=args.fresh)
    if args.json:
        print(json.dumps(summary, default=str))
    return 0
