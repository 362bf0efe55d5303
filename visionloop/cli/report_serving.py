"""`visionloop report --serve`: the report and all images of a lake that changes, for a browser."""

from __future__ import annotations

import argparse

from visionloop import environment
from visionloop.cli.configuration import lake_config
from visionloop.cli.parser import (
    add_address_options,
    refuse_address_options,
    refuse_without_serve,
)
from visionloop.errors import InputError

_PORT = 8092


def add_serving_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a report that is served."""
    group = parser.add_argument_group("serving")
    group.add_argument(
        "--serve",
        action="store_true",
        help="show the report of the newest version, and all images with filters, in a browser, "
        "until interrupted; the lake may change meanwhile, and need not be there yet",
    )
    add_address_options(group, port=_PORT)
    group.add_argument(
        "--token-file",
        default=environment.report_token_file(),
        metavar="FILE",
        help="tokens of readers, one a line; needed where --host is reached from elsewhere "
        "(default: VISIONLOOP_REPORT_TOKEN_FILE)",
    )


def refuse_serving_options(args: argparse.Namespace) -> None:
    """Refuse the options of a report that is served where it is written into a file.

    Raises:
        InputError: One was given.
    """
    refuse_address_options(args, port=_PORT)
    if args.token_file != environment.report_token_file():
        refuse_without_serve(["--token-file"])


def serve(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    if args.version:
        raise InputError(
            "--serve shows the newest version, and follows it",
            where="--version",
            remedy="Write an older version's report into a file, without --serve",
        )
    alone = {"--json": args.json, "--fail-on": args.fail_on, "--output": args.output is not None}
    for option, given in alone.items():
        if given:
            raise InputError(
                f"--serve goes on until it is interrupted, and {option} is for one report",
                where=option,
                remedy=f"Leave {option} out, or --serve",
            )
    config = lake_config(args)

    from visionloop.monitoring.live.running import run_live

    run_live(
        config.lake,
        catalog=config.catalog,
        # Of a lake that is not there yet the name of its loop is not known either.
        loop=config.name if args.config or args.loop else "",
        thresholds=config.monitoring,
        host=args.host,
        port=args.port,
        port_file=args.port_file,
        token_file=args.token_file,
    )
    return 0
