"""Keep the events that an endpoint logs (KServe's logger, or visionloop serve) for the harvest.

Each event is on disk before it is acknowledged. By default the pixels of requests are not kept,
only their hashes: a production image that was never ingested can then be counted and ranked, but
not labelled. Keep them with --keep bodies.
"""

from __future__ import annotations

import argparse

from visionloop import environment
from visionloop.cli.configuration import absolute, add_lake_options, lake_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--events",
        default="",
        metavar="URI",
        help="folder of the events (default: the configuration's, else the lake's own)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s; a pod: 0.0.0.0")
    parser.add_argument(
        "--port", type=int, default=8090, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--port-file",
        default=environment.port_file(),
        metavar="FILE",
        help="gets the port that is used (default: VISIONLOOP_PORT_FILE)",
    )
    parser.add_argument(
        "--keep",
        choices=("hashes", "bodies"),
        default="hashes",
        help="what of a request is kept (default: %(default)s)",
    )
    parser.add_argument(
        "--durable", action="store_true", help="acknowledge after fsync: survives a power cut too"
    )
    parser.add_argument(
        "--spool", default="", metavar="DIR", help="local folder of events on their way to gs://"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.lake.storage import join
    from visionloop.serving.collector import run_collector

    if args.events:
        events = absolute(args.events)
    else:
        config = lake_config(args, looks_only=True)  # events need no catalog
        events = config.serving.events or join(config.lake, "events")
    run_collector(
        events,
        host=args.host,
        port=args.port,
        port_file=args.port_file,
        keep=args.keep,
        durable=args.durable,
        spool=args.spool,
    )
    return 0
