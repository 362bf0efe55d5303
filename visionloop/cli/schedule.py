"""Start a pipeline on a Kubeflow Pipelines server again and again, one run at a time."""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from typing import Any

from visionloop.cli import kfp_server
from visionloop.cli.configuration import add_pipeline_options, start_arguments
from visionloop.cli.parser import show
from visionloop.errors import InputError
from visionloop.pipelines.arguments import missing

_CRON_FIELD = re.compile(r"^[0-9A-Za-z*/,\-?]+$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pipeline_options(parser)
    parser.add_argument(
        "--cron",
        required=True,
        metavar='"M H D M W"',
        help='when, in UTC: "0 6 * * *" is every day at 6; a sixth field in front is seconds',
    )
    parser.add_argument("--name", default="", help="default: the loop and the pipeline")
    parser.add_argument(
        "--replace", action="store_true", help="replace the schedule of the same name"
    )
    kfp_server.add_server_options(parser)
    parser.add_argument(
        "--local-lake",
        action="store_true",
        help="the lake is a path, and every pod mounts it there",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    cron = with_seconds(args.cron)
    pipeline, config, arguments = start_arguments(args)
    still = missing(pipeline, arguments)
    if still:
        raise InputError(
            f"{pipeline} needs {', '.join(still)}, which differ from run to run",
            remedy="Schedule `watch`, `round`, `intake` or `harvest`, which find them themselves",
        )
    if not args.local_lake:
        kfp_server.refuse_local_lake(arguments["lake"])
    client = kfp_server.connect(args.host)
    name = args.name or f"{config.name}-{pipeline}".replace("_", "-")
    with (
        tempfile.TemporaryDirectory() as folder,
        kfp_server.plain_errors(args.host),
        # The client prints a link; the standard output is for the result.
        contextlib.redirect_stdout(None),
    ):
        experiment = kfp_server.experiment_id(client, args.experiment, args.namespace)
        before = [
            job for job in _recurring_runs(client, experiment) if str(job.display_name) == name
        ]
        if before and not args.replace:
            raise InputError(
                f"there is a schedule `{name}` already",
                where=f"recurring run {before[0].recurring_run_id}",
                remedy="Replace it with --replace, or choose another --name",
            )
        package = kfp_server.server_package(pipeline, args.image, folder, arguments)
        created = client.create_recurring_run(
            experiment_id=experiment,
            job_name=name,
            cron_expression=cron,
            # What a missed start would have done, the next one does.
            no_catchup=True,
            max_concurrency=1,
            pipeline_package_path=str(package),
            params=arguments,
            pipeline_root=args.pipeline_root,
            service_account=args.service_account,
        )
        # The new one is there before the old one goes: a failure in between leaves two, never none.
        for job in before:
            client.delete_recurring_run(job.recurring_run_id)
    result = {
        "pipeline": pipeline,
        "recurring_run_id": str(created.recurring_run_id),
        "name": name,
        "cron": cron,
        "replaced": len(before),
    }
    show(result, as_json=args.json, text=f"{pipeline}: scheduled as {name}, {cron} (UTC)")
    return 0


def with_seconds(cron: str) -> str:
    """Return a cron expression in the six fields that Kubeflow Pipelines reads.

    Args:
        cron: Five fields, or six with the seconds in front.

    Returns:
        Six fields.

    Raises:
        InputError: It has another number of fields, or a field holds something else.
    """
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6 or not all(_CRON_FIELD.match(field) for field in fields):
        raise InputError(
            f"{cron!r} is not a cron expression",
            where="--cron",
            remedy='Give five fields, minute first: "0 6 * * *" is every day at 6:00 UTC',
        )
    return " ".join(fields)


def _recurring_runs(client: Any, experiment: str) -> list[Any]:
    found: list[Any] = []
    token = ""
    while True:
        page = client.list_recurring_runs(experiment_id=experiment, page_size=100, page_token=token)
        found += page.recurring_runs or []
        token = page.next_page_token or ""
        if not token:
            return found
