"""Put an earlier model back into service, or end the canary that is under way.

Works for an InferenceService and for an endpoint that follows the pointer alike. The model comes
back at once; what a canary would find out about it is known.
"""

from __future__ import annotations

import argparse

from visionloop.cli.configuration import open_existing
from visionloop.cli.from_afar import refuse_lake_of_pods
from visionloop.cli.parser import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        default="",
        metavar="MODEL",
        help="its id (default: the newest one before that was not itself rolled back)",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="loop.yaml, path or URI")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from visionloop.config import load_config
    from visionloop.stages.rollback import rollback

    config = load_config(args.config)
    refuse_lake_of_pods(config)
    open_existing(config.lake, config.catalog, config.name)
    found = rollback(config=config.text(), model_id=args.model)
    text = (
        f"model {found.in_service} is in service; {found.rolled_back} was rolled back\n"
        f"lake {config.lake}, version {found.lake_version}"
    )
    show({**found._asdict(), "lake": config.lake}, as_json=args.json, text=text)
    return 0
