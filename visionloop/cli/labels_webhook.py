"""Have Label Studio tell the collector when somebody has answered, so that nobody need ask again.

The address is the collector's (`visionloop collect`) as Label Studio reaches it. Both sides know
the secret of VISIONLOOP_WEBHOOK_SECRET. Given again, the command changes what has changed.
"""

from __future__ import annotations

import argparse

from visionloop import environment
from visionloop.cli.configuration import open_existing
from visionloop.cli.parser import show
from visionloop.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config", required=True, metavar="FILE", help="loop.yaml, path or URI")
    parser.add_argument(
        "--url",
        required=True,
        metavar="URL",
        help="the collector, as Label Studio reaches it: "
        "http://visionloop-collector.NAMESPACE.svc.cluster.local:8090",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        InputError: There is no secret, no such address, or the loop is labelled elsewhere.
    """
    from visionloop.config import load_config
    from visionloop.serving.label_webhook import PATH, SHORTEST

    config = load_config(args.config)
    if config.labeling.provider != "label_studio":
        raise InputError(
            f"the loop is labelled by `{config.labeling.provider}`, which calls nobody",
            where="labeling.provider",
            remedy="Set it to label_studio",
        )
    if not args.url.startswith(("http://", "https://")):
        raise InputError(
            "no address of a collector", where=f"--url {args.url}", remedy="Write http://HOST:PORT"
        )
    secret = environment.webhook_secret()
    if len(secret) < SHORTEST:
        raise InputError(
            "no secret is there for Label Studio to show"
            if not secret
            else f"the secret of webhooks has fewer than {SHORTEST} characters",
            where="VISIONLOOP_WEBHOOK_SECRET",
            remedy="Make one with `openssl rand -hex 32`, and give it to the collector as well",
        )

    from visionloop.labeling.label_studio.webhooks import ensure_webhook

    lake = open_existing(config.lake, config.catalog, config.name)
    url = f"{args.url.rstrip('/')}{PATH}{config.name}"
    changed = ensure_webhook(config, lake, url, secret)
    words = "Label Studio calls it now" if changed else "Label Studio calls it already"
    show({"url": url, "changed": changed}, as_json=args.json, text=f"{url}: {words}")
    return 0
