"""Print a lake's health as Prometheus reads it, or serve it: /metrics and /healthz.

With --lake alone it tells of every loop in the lake. Printed to a file in the folder of
node_exporter's textfile collector, it needs no server:
visionloop metrics --config loop.yaml > visionloop.prom
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from visionloop.cli.configuration import absolute, add_lake_options, lake_config, open_existing
from visionloop.cli.parser import (
    add_address_options,
    refuse_address_options,
    refuse_without_serve,
)
from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.monitoring.metrics.health import Health
    from visionloop.monitoring.metrics.reader import ReadLoop


_EVERY = 60.0
_PORT = 9109


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--serve", action="store_true", help="answer Prometheus until SIGTERM or SIGINT"
    )
    add_address_options(parser, port=_PORT)
    parser.add_argument(
        "--every",
        type=float,
        metavar="SECONDS",
        help=f"between two readings of the lake; a scrape waits for none (default: {_EVERY:g})",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if not args.serve:
        refuse_address_options(args, port=_PORT)
        refuse_without_serve([] if args.every is None else ["--every"])
    if args.every is not None and args.every < 1:
        raise InputError(f"{args.every:g} seconds are too few", where="--every", remedy="Give 1")
    from visionloop.monitoring.metrics.reader import Reader
    from visionloop.monitoring.metrics.server import serve

    reader = Reader(lambda: _loops(args))
    if not args.serve:
        whole = reader.refresh(strict=True)
        print(reader.text().decode(), end="")
        return 0 if whole else 1
    if args.config or not args.lake:
        lake_config(args)  # what is wrong with it is told now, and not by each reading
    every = _EVERY if args.every is None else args.every
    serve(reader, host=args.host, port=args.port, port_file=args.port_file, every=every)
    return 0


def _loops(args: argparse.Namespace) -> dict[str, ReadLoop]:
    """Return what reads the loop that was named, or each one in the lake."""
    from visionloop.lake import Lake

    if args.lake and not args.config and not args.loop:
        root = absolute(args.lake)
        named = Lake.loops(root, catalog=args.catalog or "")
        if not named:
            raise InputError("there is no lake here", where=root, remedy="Check the path or URI")
        each = {name: argparse.Namespace(**{**vars(args), "loop": name}) for name in named}
        return {name: partial(_read, partial(lake_config, one)) for name, one in each.items()}
    config = lake_config(args)
    return {config.name: partial(_read, lambda: config)}


def _read(config: Callable[[], LoopConfig], before: Health | None) -> Health:
    """Read a loop's health.

    The lake is opened anew each time: one that was restored meanwhile is another.
    """
    from visionloop.monitoring.metrics.health import read_health

    loop = config()
    lake = open_existing(loop.lake, loop.catalog, loop.name)
    return read_health(lake, loop.monitoring, before)
