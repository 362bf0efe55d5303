"""Run a waiting round's rest as soon as people have answered enough.

It looks when Label Studio's webhook says so (see `visionloop labels webhook`), else now and then,
and starts what `visionloop watch` starts: on this machine, or with --submit on a Kubeflow Pipelines
server.
"""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from visionloop.cli import kfp_server
from visionloop.cli import run as local
from visionloop.cli.configuration import absolute, add_pipeline_options, open_existing
from visionloop.cli.from_afar import refuse_lake_of_pods
from visionloop.cli.parser import say
from visionloop.errors import VisionloopError

if TYPE_CHECKING:
    from visionloop.labeling.following import Follower

# A run that was submitted takes the round's lease when its first tasks run.
_SUBMITTED_SECONDS = 600.0
_FAILED_SECONDS = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pipeline_options(parser, pipeline="watch")
    parser.add_argument(
        "--output",
        default="local_outputs",
        metavar="DIR",
        help="folder for logs and artifacts (default: %(default)s)",
    )
    parser.add_argument(
        "--label-events",
        default="",
        metavar="URI",
        help="folder of the webhook's hints (default: label_events of the lake)",
    )
    parser.add_argument(
        "--every",
        type=float,
        default=15.0,
        metavar="MINUTES",
        help="look so often without a hint (default: %(default)g)",
    )
    parser.add_argument(
        "--quiet",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="look once no other hint has come for so long (default: %(default)g)",
    )
    parser.add_argument("--once", action="store_true", help="end after the first run")
    server = parser.add_argument_group("on a Kubeflow Pipelines server")
    server.add_argument(
        "--submit", action="store_true", help="submit the run instead of running it here"
    )
    kfp_server.add_server_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.config import load_config
    from visionloop.labeling.following import Follower, Pace

    config = load_config(args.config)
    refuse_lake_of_pods(config)
    lake = open_existing(config.lake, config.catalog, config.name)
    pace = Pace(
        hint=min(2.0, args.quiet or 2.0), quiet=args.quiet, longest=max(60.0, 2 * args.quiet),
        every=60 * args.every,
    )  # fmt: skip
    place = absolute(args.label_events) if args.label_events else ""
    follower = Follower(config, lake, place=place, pace=pace, say=say)
    status = 0
    while _waited(follower):
        status = _start(args, follower)
        if args.once:
            break
    return status


def _waited(follower: Follower) -> bool:
    """Wait for a round that can go on; whoever tells this command to end, ends the wait.

    A run that was begun meanwhile hears Ctrl-C as ever.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: follower.end()) for number in numbers]
    try:
        return follower.next() is not None
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _start(args: argparse.Namespace, follower: Follower) -> int:
    """Start a run and return its exit status; after a failure the round is looked at again."""
    try:
        if args.submit:
            from visionloop.cli import submit

            status = submit.run(
                argparse.Namespace(**(vars(args) | {"once": "", "run_name": "", "wait": False}))
            )
        else:
            status = local.run(args)
    except VisionloopError as error:
        if args.once:
            raise
        say(f"error: {error}")
        status = error.exit_status
    if not args.once and (status or args.submit):
        follower.pause(_FAILED_SECONDS if status else _SUBMITTED_SECONDS)
    return status
