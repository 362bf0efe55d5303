"""Start a run on a Kubeflow Pipelines server; with --wait, exit 0 only when it SUCCEEDED."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from typing import Any

from visionloop.cli import kfp_server
from visionloop.cli.configuration import add_pipeline_options, fill_from_lake, start_arguments
from visionloop.cli.parser import say, show
from visionloop.errors import VisionloopError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pipeline_options(parser)
    kfp_server.add_server_options(parser)
    parser.add_argument("--run-name", default="", help="default: the pipeline and the time")
    parser.add_argument("--wait", action="store_true", help="wait until the run has ended")
    parser.add_argument(
        "--timeout",
        type=float,
        default=86400.0,
        metavar="S",
        help="seconds to wait (default: a day)",
    )
    parser.add_argument(
        "--poll", type=float, default=5.0, metavar="S", help="seconds between two looks"
    )
    parser.add_argument(
        "--local-lake",
        action="store_true",
        help="the lake is a path, and every pod mounts it there",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    pipeline, config, arguments = start_arguments(args)
    if not args.local_lake:
        kfp_server.refuse_local_lake(arguments["lake"])
    fill_from_lake(pipeline, config, arguments)
    client = kfp_server.connect(args.host)
    name = args.run_name or f"{pipeline} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}"
    with (
        tempfile.TemporaryDirectory() as folder,
        kfp_server.plain_errors(args.host),
        # The client prints a link; the standard output is for the result.
        contextlib.redirect_stdout(None),
    ):
        package = kfp_server.server_package(pipeline, args.image, folder, arguments)
        created = client.run_pipeline(
            experiment_id=kfp_server.experiment_id(client, args.experiment, args.namespace),
            job_name=name,
            pipeline_package_path=str(package),
            params=arguments,
            pipeline_root=args.pipeline_root,
            service_account=args.service_account,
        )
    run_id = str(created.run_id)
    result: dict[str, Any] = {"pipeline": pipeline, "run_id": run_id, "name": name}
    if not args.wait:
        show(
            {**result, "state": str(created.state or "PENDING")},
            as_json=args.json,
            text=f"{pipeline}: started as run {run_id}",
        )
        return 0
    say(f"{pipeline}: started as run {run_id}")
    state, tasks = kfp_server.wait(
        client, run_id, timeout_s=args.timeout, told=say, poll_s=args.poll
    )
    waiting = state == "SUCCEEDED" and kfp_server.waits_for_labels(tasks)
    result |= {"state": state, "waiting": waiting, "tasks": tasks}
    if state == "SUCCEEDED":
        text = f"{pipeline}: SUCCEEDED"
        if waiting:
            text += "; the round waits for labels, start it again when they are there"
        show(result, as_json=args.json, text=text)
        return 0
    if args.json:
        show(result, as_json=True, text="")
    failed = [task["name"] for task in tasks if task["state"] == "FAILED"]
    raise VisionloopError(
        f"The run ended as {state}" + (f" in {', '.join(failed)}" if failed else ""),
        where=f"run {run_id}",
        remedy="Open the run in the Kubeflow Pipelines UI: the failed task's log says why",
    )
