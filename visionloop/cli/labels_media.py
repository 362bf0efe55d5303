"""Serve images of a lake to the browsers of those who label them, by signed links alone.

Needed where the images are files, lie in tars, or are of a format that browsers do not show;
objects in gs:// have signed URLs of their own. Links come from the tasks: both need the key of
VISIONLOOP_MEDIA_KEY.
"""

from __future__ import annotations

import argparse

from visionloop.cli.configuration import absolute, add_lake_options, lake_config
from visionloop.cli.parser import add_address_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    add_address_options(parser, port=8091)
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="address of Label Studio as browsers have it, or * (default: "
        "labeling.label_studio.url); may be given again",
    )
    parser.add_argument(
        "--max-side",
        type=int,
        default=0,
        metavar="PIXELS",
        help="make larger images smaller (default: 0, none)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=4,
        metavar="N",
        help="images that are read at a time (default: %(default)s)",
    )
    parser.add_argument("--certificate", default="", metavar="FILE", help="serve TLS with this PEM")
    parser.add_argument(
        "--key", default="", metavar="FILE", help="its key, where it is a file of its own"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.labeling.media.running import run_media

    lake, catalog, loop, origins = _place(args)
    run_media(
        lake,
        catalog=catalog,
        loop=loop,
        host=args.host,
        port=args.port,
        port_file=args.port_file,
        origins=args.origin or origins,
        certificate=args.certificate,
        key=args.key,
        max_side=max(0, args.max_side),
        workers=max(1, args.workers),
    )
    return 0


def _place(args: argparse.Namespace) -> tuple[str, str, str, list[str]]:
    """Return lake, catalog, loop (empty for every loop of the lake), and Label Studio's address."""
    if args.lake and not args.config:
        return absolute(args.lake), args.catalog or "", args.loop or "", []
    config = lake_config(args)
    url = config.labeling.label_studio.url
    return config.lake, config.catalog, config.name, [url] if url else []
