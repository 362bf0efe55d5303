"""Label requests and answers: how far people are, ask, collect, take requests back."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from visionloop.cli.configuration import add_lake_options, lake_config, open_existing
from visionloop.cli.parser import show
from visionloop.errors import InputError, VisionloopError

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

    status = action("status", "what each round asked and got, and who answered")
    add_lake_options(status)
    status.add_argument(
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
        "status": _status,
        "request": _request,
        "collect": _collect,
        "recall": _recall,
    }
    if args.action in _MODULES:
        status: int = importlib.import_module(_MODULES[args.action]).run(args)
        return status
    return actions[args.action](args)


def _status(args: argparse.Namespace) -> int:
    config = lake_config(args)
    lake = open_existing(config.lake, config.catalog, config.name)

    from visionloop.labeling.overview import overview

    rounds = overview(lake, config.task, min_iou=config.labeling.trust.min_iou)
    result: dict[str, Any] = {"lake": config.lake, "loop": lake.loop, "rounds": rounds}
    if args.live:
        if not args.config:
            raise InputError("nothing names the labelling tool", remedy="Give --config loop.yaml")
        result["live"] = _live(config, lake)
    show(result, as_json=args.json, text=_status_text(result))
    return 0


def _live(config: LoopConfig, lake: Lake) -> dict[str, Any]:
    from visionloop.labeling.opening import open_provider

    held = lake.rounds.current()
    if held is None:
        return {}
    mine = f"round_id == '{held.round_id}'"
    rows = lake.read("label_requests", where=mine).to_pylist()
    ids = {row["sample_id"]: row["external_id"] or "" for row in rows if not row["recalled"]}
    progress = open_provider(config, lake).poll(held.round_id, ids)
    return {"round_id": held.round_id, **asdict(progress)}


def _status_text(result: dict[str, Any]) -> str:
    if not result["rounds"]:
        return "no labels were asked for yet"
    lines = []
    for one in result["rounds"]:
        state = f" ({one['state']})" if one["state"] else ""
        parts = [f"{one[name]:,} {name}" for name in _PARTS if one[name] or name in _ALWAYS]
        lines.append(f"round {one['round_id']}{state}, {one['provider']}: {', '.join(parts)}")
        for purpose, n in one["purposes"].items():
            told = [f"{n[name]:,} {name}" for name in _PARTS if n.get(name)]
            lines.append(f"  {purpose:<9} {', '.join(told)}")
        if one["rejected"]:
            told = [f"{n:,} {reason.replace('_', ' ')}" for reason, n in one["rejected"].items()]
            lines.append(f"  not used: {', '.join(told)}")
        for person in one["annotators"]:
            told = [f"{person[key]:,} {name}" for key, name in _ANSWERS.items() if person[key]]
            seconds = person["median_seconds"]
            told += [] if seconds is None else [f"median {seconds:.1f} s"]
            told += [
                f"{share['value']:.0%} like {whom} ({share['low']:.0%} to {share['high']:.0%})"
                for key, whom in _LIKE.items()
                if (share := person[key])["enough"]
            ]
            lines.append(f"  by {person['annotator'] or 'nobody named'}: {', '.join(told)}")
        told = [
            f"{name} {share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f})"
            for key, name in _AGREEMENT.items()
            if (share := one["agreement"][key])["enough"]
        ]
        lines += [f"  people agree: {', '.join(told)}"] if told else []
    if live := result.get("live"):
        lines.append(
            f"at the tool, of round {live['round_id']}: {live['answered']:,} of "
            f"{live['requested']:,} answered, {live['where']}"
        )
    return "\n".join(lines)


_PARTS = ("requested", "labelled", "skipped", "conflicts", "open", "recalled")
_ALWAYS = frozenset({"requested", "labelled", "open"})
_ANSWERS = {"n": "done", "skipped": "skipped", "drafts": "drafts", "rejected": "rejected"}
_AGREEMENT = {"fleiss_kappa": "Fleiss' kappa", "box_f1": "F1 of boxes", "mean_iou": "overlap"}
_LIKE = {"with_others": "others", "with_gold": "the holdout"}


def _request(args: argparse.Namespace) -> int:
    config, _, round_id = _round(args, ended=False)

    from visionloop.stages.request_labels import request_labels

    found = request_labels(config=config.text(), round_id=round_id)
    text = (
        f"round {round_id}: {found.n_requested:,} samples are asked about\n"
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
    text = (
        f"round {round_id}: {found.n_labels:,} labelled, {found.n_skipped:,} skipped, "
        f"{found.n_missing:,} missing; {went.get(state, 'it is over')}\n"
        f"lake {config.lake}, version {found.lake_version}"
    )
    show({**found._asdict(), "round_id": round_id, "state": state}, as_json=args.json, text=text)
    return 0


def _recall(args: argparse.Namespace) -> int:
    config, lake, round_id = _round(args, ended=True)

    from visionloop.labeling.recalling import recall

    done = recall(config, lake, round_id, dry_run=args.dry_run)
    if args.dry_run:
        text = f"round {round_id}: {len(done.asked):,} requests are open"
    else:
        stay = len(done.asked) - len(done.recalled)
        text = (
            f"round {round_id}: {len(done.recalled):,} requests were taken back, {stay:,} stay "
            f"since somebody has begun them\nlake {config.lake}, version {done.lake_version}"
        )
    result = asdict(done) | {"dry_run": args.dry_run}
    show(result, as_json=args.json, text=text)
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
    held = lake.rounds.get(args.round) if args.round else lake.rounds.current()
    if held is None:
        known = ", ".join(one.round_id for one in lake.rounds.all())
        raise InputError(
            f"there is no round {args.round}" if args.round else "no round is open",
            where=f"loop {lake.loop} of {config.lake}",
            remedy=f"Name one with --round: {known}"
            if known
            else "Start one: visionloop run round --config loop.yaml",
        )
    if held.state == "done" and not ended:
        raise InputError(f"round {held.round_id} is over", remedy="Ask in the open round")
    who = lake.rounds.live_holder(held, lease_minutes=config.rounds.lease_minutes)
    if who:
        raise VisionloopError(
            f"round {held.round_id} is being run by {who}", remedy="Wait for it to end"
        )
    return config, lake, held.round_id
