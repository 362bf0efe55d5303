"""Print a lake's health as Prometheus reads it, or serve it: /metrics and /healthz.

With --lake alone it tells of every loop in the lake. Printed to a file in the folder of
node_exporter's textfile collector, it needs no server:
visionloop metrics --config loop.yaml > visionloop.prom
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from visionloop.cli.configuration import absolute, add_lake_options, lake_config, open_existing
from visionloop.cli.parser import add_address_options
from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.monitoring.metrics.health import Health


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--serve", action="store_true", help="answer Prometheus until SIGTERM or SIGINT"
    )
    add_address_options(parser, port=9109)
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

    reader = Reader(lambda before: _read(args, before))
    if not args.serve:
        reader.refresh(strict=True)
        print(reader.text().decode(), end="")
        return 0
    if args.config:
        lake_config(args)  # what is wrong with it is told now, and not by each reading
    serve(reader, host=args.host, port=args.port, port_file=args.port_file, every=args.every)
    return 0


def _read(args: argparse.Namespace, before: Mapping[str, Health]) -> dict[str, Health]:
    """Read the health of the loop that was named, or of all in the lake.

    The lake is opened anew each time: one that was restored meanwhile is another.
    """
    from visionloop.lake import Lake
    from visionloop.monitoring.metrics.health import read_health

    if args.lake and not args.config and not args.loop:
        root = absolute(args.lake)
        named = Lake.loops(root, catalog=args.catalog or "")
        configs = [lake_config(argparse.Namespace(**{**vars(args), "loop": n})) for n in named]
        if not configs:
            raise InputError("there is no lake here", where=root, remedy="Check the path or URI")
    else:
        configs = [lake_config(args)]
    found = {}
    for one in configs:
        lake = open_existing(one.lake, one.catalog, one.name)
        found[one.name] = read_health(lake, one.monitoring, before.get(one.name))
    return found
