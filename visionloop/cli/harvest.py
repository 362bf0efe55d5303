"""Bring the logged confidences of an endpoint into a lake, each inference once."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from visionloop.cli.configuration import absolute, add_lake_options, lake_config
from visionloop.cli.parser import show
from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument(
        "--events",
        default="",
        metavar="URI",
        help="folder or file of logged events, *.events.jsonl[.gz] (default: the configuration's, "
        "else the lake's own)",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    config = lake_config(args)

    from visionloop.lake.storage import open_storage
    from visionloop.stages.harvest import harvest

    events = absolute(args.events) if args.events else ""
    if not (events or config.serving.events or open_storage(config.lake).exists(config.lake)):
        raise InputError(
            "there is no lake here, and no events were named",
            where=config.lake,
            remedy="Check --lake, or give --events",
        )
    found = harvest(config=config.text(), events=events)
    text = (
        f"{found.n_events:,} events: {found.n_confidences:,} confidences, "
        f"{found.n_rejected:,} rejected, {found.n_orphans:,} orphans, {found.n_pending:,} pending\n"
        f"lake {config.lake}, version {found.lake_version}"
    )
    reasons = _reasons(config)
    text += "".join(f"\n  {n:>7,}  {reason}" for reason, n in reasons.items())
    result = {**found._asdict(), "reasons": reasons, "lake": config.lake}
    show(result, as_json=args.json, text=text)
    return 0


def _reasons(config: LoopConfig) -> dict[str, int]:
    """Count what the lake holds of events that gave no confidence, by state and reason."""
    from collections import Counter

    from visionloop.lake import Lake

    lake = Lake.open(config.lake, catalog=config.catalog, loop=config.name)
    counted: Counter[str] = Counter()
    for batch in lake.batches("harvest_events", columns=["state", "reason"]):
        states, reasons = batch["state"].to_pylist(), batch["reason"].to_pylist()
        counted.update(
            f"{state}: {reason}" for state, reason in zip(states, reasons, strict=True) if reason
        )
    return dict(counted.most_common())
