"""Label requests and answers: how far people are, ask, collect, take requests back."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from visionloop.cli.configuration import add_lake_options, open_existing
from visionloop.cli.labels_status import parts_of, status
from visionloop.cli.parser import show
from visionloop.errors import InputError, VisionloopError
from visionloop.words import counted, round_id_of, round_name, round_number

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

# Actions that stand in modules of their own.
_MODULES = {
    "media": "visionloop.cli.labels_media",
    "follow": "visionloop.cli.labels_follow",
    "webhook": "visionloop.cli.labels_webhook",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, does: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=does, description=does)
        added.add_argument("--json", action="store_true", help="print one JSON object")
        return added

    told = action("status", "what each round asked and got, and who answered")
    add_lake_options(told)
    told.add_argument(
        "--live", action="store_true", help="ask the labelling tool as well (needs --config)"
    )
    does = {
        "request": "hand the open round's requests to the labelling tool; none twice",
        "collect": "bring answers into the lake; a round with enough of them goes on at its next "
        "run",
        "recall": "take the requests back that nobody has answered or begun",
    }
    for name, words in does.items():
        added = action(name, words)
        added.add_argument("--config", required=True, metavar="FILE", help="loop.yaml, path or URI")
        added.add_argument("--round", default="", metavar="ID", help="default: the open one")
        if name == "recall":
            added.add_argument(
                "--dry-run", action="store_true", help="only tell which requests are open"
            )
    for name, module in _MODULES.items():
        behind = importlib.import_module(module)
        words = (behind.__doc__ or "").partition("\n")[0].rstrip(".")
        behind.add_arguments(actions.add_parser(name, help=words, description=behind.__doc__))


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "status": status,
        "request": _request,
        "collect": _collect,
        "recall": _recall,
    }
    if args.action in _MODULES:
        ended: int = importlib.import_module(_MODULES[args.action]).run(args)
        return ended
    return actions[args.action](args)


def _request(args: argparse.Namespace) -> int:
    config, _, round_id = _round(args, ended=False)

    from visionloop.stages.request_labels import request_labels

    found = request_labels(config=config.text(), round_id=round_id)
    text = (
        f"{round_name(round_id)}: {counted(found.n_requested, 'sample is', 'samples are')} asked "
        f"about\n"
        f"lake {config.lake}, version {found.lake_version}"
    )
    show({**found._asdict(), "round_id": round_id}, as_json=args.json, text=text)
    return 0


def _collect(args: argparse.Namespace) -> int:
    config, lake, round_id = _round(args, ended=True)

    from visionloop.stages.collect_labels import collect_labels

    found = collect_labels(config=config.text(), round_id=round_id)
    held = lake.rounds.get(round_id)
    state = held.state if held else ""
    went = {"running": "it has enough: its next run goes on", "waiting": "it waits for the rest"}
    from visionloop.labeling.overview import counts_of_round

    counts = counts_of_round(lake, round_id)
    text = (
        f"{round_name(round_id)}: {', '.join(parts_of(counts))}; {went.get(state, 'it is over')}\n"
        f"lake {config.lake}, version {found.lake_version}"
    )
    told = {**found._asdict(), "round_id": round_id, "state": state, "requests": counts}
    show(told, as_json=args.json, text=text)
    return 0


def _recall(args: argparse.Namespace) -> int:
    config, lake, round_id = _round(args, ended=True)

    from visionloop.labeling.recalling import recall

    done = recall(config, lake, round_id, dry_run=args.dry_run)
    n_begun, n_unusable = len(done.begun), len(done.unusable)
    if args.dry_run:
        n_open = len(done.asked) + n_begun + n_unusable
        lines = [
            f"{round_name(round_id)}: {counted(n_open, 'request is', 'requests are')} open, "
            f"{len(done.asked):,} of which can be taken back"
        ]
    else:
        n_begun += len(done.asked) - len(done.recalled)
        taken = counted(len(done.recalled), "request was", "requests were")
        lines = [f"{round_name(round_id)}: {taken} taken back"]
    if n_begun:
        lines.append(f"  {counted(n_begun, 'stays', 'stay')}, since somebody has begun to answer")
    if n_unusable:
        lines.append(
            f"  {counted(n_unusable, 'stays', 'stay')}, with answers that cannot be used: "
            "`visionloop labels status` names them, to be corrected or deleted at the tool"
        )
    if not args.dry_run:
        lines.append(f"lake {config.lake}, version {done.lake_version}")
    result = asdict(done) | {"dry_run": args.dry_run}
    show(result, as_json=args.json, text="\n".join(lines))
    return 0


def _round(args: argparse.Namespace, *, ended: bool) -> tuple[LoopConfig, Lake, str]:
    """Return the configuration, the lake and the round that is meant.

    Args:
        args: With ``config`` and ``round``.
        ended: Whether it may be one that has ended.

    Raises:
        InputError: There is no such round.
        VisionloopError: A live run holds it.
    """
    from visionloop.cli.from_afar import refuse_lake_of_pods
    from visionloop.config import load_config

    config = load_config(args.config)
    refuse_lake_of_pods(config)
    lake = open_existing(config.lake, config.catalog, config.name)
    asked = round_id_of(args.round)
    held = lake.rounds.get(asked) if asked else lake.rounds.current()
    if held is None:
        known = ", ".join(round_number(one.round_id) for one in lake.rounds.all())
        raise InputError(
            f"there is no {round_name(asked)}" if asked else "no round is open",
            where=f"loop {lake.loop} of {config.lake}",
            remedy=f"Name one with --round: {known}"
            if known
            else "Start one: visionloop run round --config loop.yaml",
        )
    if held.state == "done" and not ended:
        raise InputError(f"{round_name(held.round_id)} is over", remedy="Ask in the open round")
    who = lake.rounds.live_holder(held, lease_minutes=config.rounds.lease_minutes)
    if who:
        raise VisionloopError(
            f"{round_name(held.round_id)} is being run by {who}", remedy="Wait for it to end"
        )
    return config, lake, held.round_id
