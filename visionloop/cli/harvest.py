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
    _require_loop(args, config)
    found = harvest(config=config.text(), events=events)
    counts, held = _counts(config, found.lake_version), _reasons(config)
    text = f"{counts.pop('events', 0):,} events" + (": " if counts else "")
    text += ", ".join(f"{n:,} {what}" for what, n in counts.items() if what in _STATES)
    text += f"\n{found.n_confidences:,} confidences recorded or completed"
    text += f"\nlake {config.lake}, version {found.lake_version}"
    if held:
        text += "\nEvents without a confidence, of this harvest and all before it:"
    text += "".join(f"\n  {n:>7,}  {reason}" for reason, n in held.items())
    result = {**found._asdict(), "counts": counts, "so_far": held, "lake": config.lake}
    show(result, as_json=args.json, text=text)
    return 0


# What an event that was read came to; they add up to the events.
_STATES = ("harvested", "pending", "orphan", "rejected", "ignored", "duplicate")


def _require_loop(args: argparse.Namespace, config: LoopConfig) -> None:
    """Refuse a mistyped ``--loop``: all that was logged would go into a loop of that name.

    Raises:
        InputError: The lake holds loops, and none of that name.
    """
    from visionloop.lake import Lake

    held = Lake.loops(config.lake, catalog=config.catalog) if args.loop else []
    if held and config.name not in held:
        from visionloop.validation import nearest

        raise InputError(
            f"the lake has no loop `{config.name}`{nearest(config.name, held)}; it has "
            + ", ".join(f"`{name}`" for name in held),
            where="--loop",
            remedy="Name one of them; a new loop begins with an ingest",
        )


def _counts(config: LoopConfig, version: str) -> dict[str, int]:
    """Return the counts of a harvest as its stage recorded them."""
    import json

    from visionloop.lake import Lake

    lake = Lake.open(config.lake, catalog=config.catalog, loop=config.name)
    rows = lake.stage_runs(where=f"version == '{version}'").to_pylist() if version else []
    counts: dict[str, int] = json.loads(rows[0]["counts"]) if rows else {}
    return counts


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
