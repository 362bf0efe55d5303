"""Start a round, go on with one, or wait, by the rules in loop.yaml; or only say which."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from visionloop.cli import run as local
from visionloop.cli.configuration import add_pipeline_options, start_arguments
from visionloop.cli.from_afar import refuse_lake_of_pods
from visionloop.cli.parser import show

if TYPE_CHECKING:
    from visionloop.monitoring.watching import Decision

_SAID = {"yes": "met", "no": "not met", "off": "off", "unknown": "cannot be told"}


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


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if not args.dry_run:
        return local.run(args)
    _, config, arguments = start_arguments(args)
    refuse_lake_of_pods(config)

    from visionloop.lake import Lake
    from visionloop.monitoring.watching import decide
    from visionloop.stages.watch_sight import look

    lake = Lake.open(config.lake, catalog=config.catalog, loop=config.name)
    decision = decide(look(config, lake, n_samples=arguments["n_samples"]), config.watch)
    result = {
        "decision": decision.outcome,
        "round_id": decision.round_id,
        "reason": decision.reason,
        "dry_run": True,
        **json.loads(decision.inputs()),
    }
    show(result, as_json=args.json, text=_text(decision))
    return 0


def _text(decision: Decision) -> str:
    lines = [f"{decision.outcome}: {decision.reason}", ""]
    for rule in decision.rules:
        name = rule.name.replace("_", " ")
        lines.append(f"  {name:<19} {rule.effect:<6} {_SAID[rule.verdict]:<14} {rule.told}")
    return "\n".join([*lines, "", "A dry run: nothing was harvested, written or started."])
