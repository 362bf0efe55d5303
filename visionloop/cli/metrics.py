"""Print a lake's health as Prometheus reads it, or serve it: /metrics and /healthz.

Printed to a file in the folder of node_exporter's textfile collector, it needs no server:
visionloop metrics --config loop.yaml > visionloop.prom
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from visionloop import environment
from visionloop.cli.configuration import add_lake_options, lake_config, open_existing
from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.monitoring.metrics.health import Health


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--serve", action="store_true", help="answer Prometheus until SIGTERM or SIGINT"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s; a pod: 0.0.0.0")
    parser.add_argument(
        "--port", type=int, default=9109, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--port-file",
        default=environment.port_file(),
        metavar="FILE",
        help="gets the port that is used (default: VISIONLOOP_PORT_FILE)",
    )
    parser.add_argument(
        "--every",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="between two readings of the lake; a scrape waits for none (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.serve and args.every < 1:
        raise InputError(f"{args.every:g} seconds are too few", where="--every", remedy="Give 1")
    from visionloop.monitoring.metrics.reader import Reader
    from visionloop.monitoring.metrics.server import serve

    config = lake_config(args)
    reader = Reader(config.name, lambda: _read(config))
    if not args.serve:
        reader.refresh(strict=True)
        print(reader.text().decode(), end="")
        return 0
    serve(reader, host=args.host, port=args.port, port_file=args.port_file, every=args.every)
    return 0


def _read(config: LoopConfig) -> Health:
    from visionloop.monitoring.metrics.health import read_health

    # Opened anew each time: a lake that was restored meanwhile is another.
    lake = open_existing(config.lake, config.catalog, config.name)
    return read_health(lake, config.monitoring)
