"""Keep the events that an endpoint logs (KServe's logger, or visionloop serve) for the harvest.

Each event is on the disk before it is acknowledged. By default the pixels of requests are not kept,
only their hashes: a production image that was never ingested can then be counted and ranked, but
not labelled. Keep them with --keep bodies, of a share of the requests with --keep-rate.

Options win over the section serving.collector of the configuration.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from visionloop.cli.configuration import absolute, add_lake_options, lake_config
from visionloop.cli.parser import add_address_options

if TYPE_CHECKING:
    from visionloop.serving.collector_config import CollectorConfig

_MEBIBYTE = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--events",
        default="",
        metavar="URI",
        help="folder of the events (default: the configuration's, else the lake's own)",
    )
    parser.add_argument(
        "--label-events",
        default="",
        metavar="URI",
        help="folder of the hints that Label Studio's webhook leaves (default: label_events beside "
        "the events); it calls /label-studio/LOOP with the secret of VISIONLOOP_WEBHOOK_SECRET",
    )
    add_address_options(parser, port=8090)
    parser.add_argument(
        "--durable",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="acknowledge after a sync of the disk, which survives a power cut too (default: yes)",
    )
    parser.add_argument(
        "--spool", default="", metavar="DIR", help="local folder of events on their way to gs://"
    )
    keeping = parser.add_argument_group("what is kept")
    keeping.add_argument(
        "--keep",
        choices=("hashes", "bodies"),
        help="what of a request is kept (default: hashes)",
    )
    keeping.add_argument(
        "--keep-rate",
        type=float,
        metavar="SHARE",
        help="with --keep bodies, of which share of the requests (default: 1)",
    )
    keeping.add_argument(
        "--redact",
        metavar="MODULE:FUNCTION",
        help="with --keep bodies, what each image goes through before it is kept",
    )
    access = parser.add_argument_group("who may post")
    access.add_argument("--token-file", metavar="FILE", help="tokens of senders, one a line")
    access.add_argument("--certificate", metavar="FILE", help="serve TLS with this PEM file")
    access.add_argument("--key", metavar="FILE", help="its key, where it is a file of its own")
    access.add_argument(
        "--client-authority", metavar="FILE", help="whose certificates senders may have (PEM)"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-body-mib", type=float, metavar="MIB", help="of one event (default: 128)"
    )
    limits.add_argument(
        "--max-spool-mib", type=float, metavar="MIB", help="waiting on the disk (default: 1024)"
    )
    limits.add_argument(
        "--min-free-mib", type=float, metavar="MIB", help="left free on the disk (default: 64)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.labeling.hints import FOLDER
    from visionloop.lake.storage import join
    from visionloop.serving.collector import run_collector
    from visionloop.serving.collector_config import CollectorConfig

    named = {
        name: getattr(args, name)
        for name in CollectorConfig.model_fields
        if getattr(args, name) is not None
    }
    if args.events and not args.config:
        from visionloop.validation import validate

        events = absolute(args.events)
        chosen = validate(CollectorConfig, named, where="visionloop collect")
        label_events = join(beside(events), FOLDER)
    else:
        overrides = {f"serving.collector.{name}": value for name, value in named.items()}
        config = lake_config(args, overrides, looks_only=True)  # events need no catalog
        chosen = config.serving.collector
        events = absolute(args.events) if args.events else config.serving.events
        events = events or join(config.lake, "events")
        label_events = join(config.lake, FOLDER)
    run_collector(
        events,
        host=args.host,
        port=args.port,
        port_file=args.port_file,
        spool=args.spool,
        label_events=absolute(args.label_events) if args.label_events else label_events,
        durable=args.durable,
        **_settings(chosen),
    )
    return 0


def beside(uri: str) -> str:
    """Return the folder that a folder lies in; a bucket lies in none but itself."""
    top, _, _ = uri.rstrip("/").rpartition("/")
    return uri if top in ("gs:/", "file://", "") else top


def _settings(chosen: CollectorConfig) -> dict[str, Any]:
    """Return the configuration as settings of the collector, whose sizes are in bytes."""
    settings = chosen.model_dump()
    for name in ("max_body", "max_spool", "min_free"):
        settings[f"{name}_bytes"] = int(settings.pop(f"{name}_mib") * _MEBIBYTE)
    return settings
