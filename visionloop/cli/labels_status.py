"""What each round asked and got, who answered, and which answers cannot be used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from visionloop.cli.configuration import lake_config, open_existing
from visionloop.cli.parser import show
from visionloop.errors import InputError, VisionloopError
from visionloop.words import counted, round_name

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

_PARTS = {
    "requested": "requested",
    "labelled": "labelled",
    "skipped": "skipped",
    "conflicts": "in conflict",
    "open": "open",
    "recalled": "recalled",
}
_ALWAYS = frozenset({"requested", "labelled", "open"})
_AGREEMENT = {"fleiss_kappa": "Fleiss' kappa", "box_f1": "F1 of boxes", "mean_iou": "overlap"}
_LIKE = {"with_others": "others", "with_gold": "the holdout"}


def status(args: argparse.Namespace) -> int:
    """Print what the lake knows of each round, and with ``--live`` what the tool counts.

    What the lake knows is printed also where the tool does not answer.

    Raises:
        InputError: Nothing names the tool, or it refuses.
        VisionloopError: The tool does not answer.
    """
    config = lake_config(args)
    if args.live and not args.config:
        raise InputError("nothing names the labelling tool", remedy="Give --config loop.yaml")
    lake = open_existing(config.lake, config.catalog, config.name)

    from visionloop.labeling.overview import overview

    rounds = overview(lake, config.task, min_iou=config.labeling.trust.min_iou)
    result: dict[str, Any] = {"lake": config.lake, "loop": lake.loop, "rounds": rounds}
    if not args.json:
        print(_text(rounds))
    # A tool that does not answer is waited for.
    sys.stdout.flush()
    try:
        live = _live(config, lake) if args.live else {}
    except VisionloopError:
        if args.json:
            show(result, as_json=True, text="")
            sys.stdout.flush()
        raise
    if args.json:
        show(result | ({"live": live} if args.live else {}), as_json=True, text="")
    elif live:
        print(_live_text(live))
    return 0


def parts_of(counts: Mapping[str, Any]) -> list[str]:
    """Return what requests have come to: ``24 requested``, ``6 labelled`` and so on.

    Args:
        counts: As `visionloop.labeling.overview.counts_of_round` returns them.
    """
    told = {
        name: f"{counts[name]:,} {word}"
        for name, word in _PARTS.items()
        if counts[name] or name in _ALWAYS
    }
    if again := counts["asked_again"]:
        told["open"] += f" (with {counted(again, 'conflict')}, asked again)"
    return list(told.values())


def _live(config: LoopConfig, lake: Lake) -> dict[str, Any]:
    from visionloop.labeling.opening import open_provider
    from visionloop.labeling.overview import n_held_by_unusable

    held = lake.rounds.current()
    if held is None:
        return {}
    mine = f"round_id == '{held.round_id}'"
    rows = lake.read("label_requests", where=mine).to_pylist()
    ids = {row["sample_id"]: row["external_id"] or "" for row in rows if not row["recalled"]}
    progress = open_provider(config, lake).poll(held.round_id, ids)
    # An answer may have been corrected or deleted since it was collected.
    unusable = min(n_held_by_unusable(lake, held.round_id), progress.answered)
    return {"round_id": held.round_id, **asdict(progress), "unusable": unusable}


def _live_text(live: Mapping[str, Any]) -> str:
    n = counted(live["requested"], "request is", "requests are")
    told = f"at the tool, of {round_name(live['round_id'])}: {live['answered']:,} of {n} answered"
    if live["unusable"]:
        told += f", {live['unusable']:,} of them by answers that cannot be used (as last collected)"
    return f"{told}, {live['where']}"


def _text(rounds: list[dict[str, Any]]) -> str:
    if not rounds:
        return "no labels were asked for yet"
    return "\n".join(line for one in rounds for line in _round(one))


def _round(one: Mapping[str, Any]) -> Iterator[str]:
    state = f" ({one['state']})" if one["state"] else ""
    yield f"{round_name(one['round_id'])}{state}, {one['provider']}: {', '.join(parts_of(one))}"
    for purpose, n in one["purposes"].items():
        told = [f"{n[name]:,} {word}" for name, word in _PARTS.items() if n.get(name)]
        yield f"  {purpose:<9} {', '.join(told)}"
    yield from _unusable(one)
    yield from map(_annotator, one["annotators"])
    told = [
        f"{name} {share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f})"
        for key, name in _AGREEMENT.items()
        if (share := one["agreement"][key])["enough"]
    ]
    if told:
        yield f"  people agree: {', '.join(told)}"


def _annotator(person: Mapping[str, Any]) -> str:
    told = [f"{person['n']:,} done"] if person["n"] else []
    told += [f"{person['skipped']:,} skipped"] if person["skipped"] else []
    told += [counted(person["drafts"], "draft")] if person["drafts"] else []
    told += [f"{person['rejected']:,} rejected"] if person["rejected"] else []
    seconds = person["median_seconds"]
    told += [] if seconds is None else [f"median {seconds:.1f} s"]
    told += [
        f"{share['value']:.0%} like {whom} ({share['low']:.0%} to {share['high']:.0%}, "
        f"n = {share['n']:,})"
        for key, whom in _LIKE.items()
        if (share := person[key])["enough"]
    ]
    return f"  by {person['annotator'] or 'nobody named'}: {', '.join(told)}"


def _unusable(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield which answers cannot be used, the first ones by name."""
    from visionloop.labeling.unusable import SHOWN, Unusable, more_than_shown

    if not one["rejected"]:
        return
    told = [f"{n:,} {reason.replace('_', ' ')}" for reason, n in one["rejected"].items()]
    found = [Unusable(**answer) for answer in one["unusable"]]
    held = len({answer.sample_id for answer in found if answer.holds})
    stay = counted(held, "request stays", "requests stay")
    why = f"; {stay} open until they are corrected or deleted at the tool" if held else ""
    yield f"  not used: {', '.join(told)}{why}"
    yield from (f"    {answer.line}" for answer in found[:SHOWN])
    if more := more_than_shown(found):
        yield f"    {more}, see --json"
