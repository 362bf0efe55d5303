"""Run a pipeline on this machine, under KFP's local runner: one process a task, no cluster."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from visionloop import environment
from visionloop.cli.configuration import add_pipeline_options, start_arguments
from visionloop.cli.parser import say, show, tell_error
from visionloop.submission.starting import fill_from_lake
from visionloop.words import counted, round_name

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.runner import RunResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pipeline_options(parser)
    add_output_options(parser)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a run's files and its result go."""
    parser.add_argument(
        "--output",
        default="local_outputs",
        metavar="DIR",
        help="folder for logs and artifacts (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    pipeline, config, arguments = start_arguments(args)
    fill_from_lake(pipeline, config, arguments)

    from visionloop.runner.local import run_pipeline

    result = run_pipeline(pipeline, arguments, args.output)
    watched = _watched(result)
    if result.error is None:
        state = "waits for labels, after" if result.waiting else "done in"
        text = f"{pipeline}: {state} {result.seconds:.1f} s, log {result.log}"
        if result.waiting:
            text += f"\n{_waiting(config, arguments['lake'], result)}"
        if result.task("publish") is not None:
            text += f"\n{_published(config, arguments['lake'])}"
        show(result.summary(), as_json=args.json, text=watched + text)
        return 0
    if args.json:
        show(result.summary(), as_json=True, text="")
    if watched:
        say(watched.rstrip())
    if environment.debug() and result.traceback:
        say(result.traceback.rstrip())
    task = f"task {result.failed_task} failed: " if result.failed_task else ""
    tell_error(result.error, before=task, after=f" The log is {result.log}")
    return result.error.exit_status


def _watched(result: RunResult) -> str:
    """Say what a watch decided and did, a line each; nothing where none was."""
    watched = result.task("watch")
    if watched is None or not watched.succeeded:
        return ""
    told = watched.outputs
    lines = [f"{told['decision']}: {told['reason']}", *told["acts"].splitlines()]
    return "".join(f"{line}\n" for line in lines)


def _published(config: LoopConfig, root: str) -> str:
    """Say what became of the candidate."""
    from visionloop.lake import Lake

    lake = Lake.open(root, catalog=config.catalog, loop=config.name)
    rows = lake.read("decisions", where="decision == 'publish'").to_pylist()
    row = max(rows, key=lambda row: (row["round_id"], row["decided_at"]))
    state = "is published" if row["outcome"] == "published" else "is not published"
    return f"model {row['subject']} {state}: {row['reason']}"


def _waiting(config: LoopConfig, root: str, result: RunResult) -> str:
    """Say what a round waits for, and what to do."""
    from visionloop.lake import Lake

    lake = Lake.open(root, catalog=config.catalog, loop=config.name)
    held = lake.rounds.current()
    collected = result.task("collect_labels")
    missing = collected.outputs.get("n_missing", 0) if collected else 0
    if held is None:
        return "The round waits for labels."
    mine = f"stage == 'collect_labels' and round_id == '{held.round_id}'"
    rows = lake.stage_runs(where=mine).sort_by("sequence").to_pylist()
    told = json.loads(rows[-1]["outputs"] or "{}") if rows else {}
    what = "Label there"
    if config.labeling.provider == "csv":
        what = "Fill the column `label` (or write skip)"
    return (
        f"{round_name(held.round_id).capitalize()} waits for {counted(missing, 'label')} in "
        f"{told.get('waiting_for', '')}\n"
        f"{what}, then start the same command again: it goes on."
    )
