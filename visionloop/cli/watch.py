"""Start a round, go on with one, or wait, and act besides, by the rules in loop.yaml; or say it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from visionloop.cli import run as local
from visionloop.cli.configuration import add_pipeline_options, open_existing, start_arguments
from visionloop.cli.from_afar import refuse_lake_of_pods
from visionloop.cli.parser import show
from visionloop.errors import InputError

if TYPE_CHECKING:
    from visionloop.monitoring.watching import Decision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pipeline_options(parser, pipeline="watch")
    local.add_output_options(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what would be done and what each rule found: nothing is harvested, written "
        "or started",
    )
    parser.add_argument(
        "--unblock",
        action="store_true",
        help="let models be published again although a rule has blocked that; what blocks now is "
        "excused until it is gone and comes again",
    )
    parser.add_argument(
        "--because", default="", metavar="WORDS", help="with --unblock: why, for the record"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.because and not args.unblock:
        raise InputError(
            "--because is given without --unblock",
            where="visionloop watch",
            remedy="Give both, or neither",
        )
    if args.unblock:
        return _unblock(args)
    if not args.dry_run:
        return local.run(args)
    _, config, arguments = start_arguments(args)
    refuse_lake_of_pods(config)

    from visionloop.lake import Lake
    from visionloop.monitoring.watching import decide
    from visionloop.stages.watch import what_holds, would_do
    from visionloop.stages.watch_sight import look

    lake = Lake.open(config.lake, catalog=config.catalog, loop=config.name)
    decision = decide(look(config, lake, n_samples=arguments["n_samples"]), config.watch)
    result = {
        "decision": decision.outcome,
        "round_id": decision.round_id,
        "reason": decision.reason,
        "dry_run": True,
        **json.loads(decision.inputs()),
        "acts": would_do(decision),
        "in_force": what_holds(decision),
    }
    show(result, as_json=args.json, text=_text(decision))
    return 0


def _unblock(args: argparse.Namespace) -> int:
    if args.dry_run:
        raise InputError(
            "--unblock and --dry-run exclude each other",
            where="visionloop watch",
            remedy="Give one of them",
        )
    _, config, _ = start_arguments(args)
    refuse_lake_of_pods(config)
    open_existing(config.lake, config.catalog, config.name)

    from visionloop.lake import Lake
    from visionloop.stages.watch_acts import unblock

    lake = Lake.open(config.lake, catalog=config.catalog, loop=config.name)
    version = unblock(config, lake, args.because)
    text = (
        "Models may be published again; the next round that passes its gate is.\n"
        f"lake {config.lake}, version {version}"
    )
    result = {"unblocked": True, "because": args.because, "lake_version": version}
    show(result, as_json=args.json, text=text)
    return 0


def _text(decision: Decision) -> str:
    from visionloop.monitoring.rule import SAID
    from visionloop.stages.watch import what_holds, would_do

    lines = [f"{decision.outcome}: {decision.reason}"]
    lines += [f"would be done: {act}" for act in would_do(decision)]
    lines += [f"in force {told}" for told in what_holds(decision)]
    lines.append("")
    for rule in decision.rules:
        name = rule.name.replace("_", " ")
        lines.append(f"  {name:<19} {rule.effect:<9} {SAID[rule.verdict]:<14} {rule.told}")
    return "\n".join([*lines, "", "A dry run: nothing was harvested, written or started."])
