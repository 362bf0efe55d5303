"""Start a pipeline on a Kubeflow Pipelines server again and again, one run at a time.

The same command again changes nothing. --list, --delete, --enable and --disable look after the
schedules of an experiment, and need no pipeline; with --config they look in its cluster.namespace.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict

from visionloop.cli import kfp_server, placement_options
from visionloop.cli.configuration import add_pipeline_options
from visionloop.cli.parser import show
from visionloop.config import load_config
from visionloop.errors import InputError
from visionloop.submission import Schedule, prepare, schedules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pipeline_options(parser, required=False)
    parser.add_argument(
        "--cron",
        default="",
        metavar='"M H D M W"',
        help='when, in UTC: "0 6 * * *" is every day at 6; a sixth field in front is seconds',
    )
    parser.add_argument("--name", default="", help="default: the loop and the pipeline")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace the schedule of the same name where it does something else",
    )
    ask = parser.add_mutually_exclusive_group()
    ask.add_argument("--list", action="store_true", help="show the schedules of the experiment")
    ask.add_argument("--delete", default="", metavar="NAME", help="remove a schedule")
    ask.add_argument("--enable", default="", metavar="NAME", help="switch a schedule on")
    ask.add_argument("--disable", default="", metavar="NAME", help="switch a schedule off")
    kfp_server.add_server_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.list or args.delete or args.enable or args.disable:
        return _look_after(args)
    for option, given in (("PIPELINE", args.pipeline), ("--config", args.config)):
        if not given:
            raise InputError(f"{option} is missing", where="visionloop schedule")
    if not args.cron:
        raise InputError(
            "no time was given",
            where="--cron",
            remedy='Give five fields, minute first: "0 6 * * *" is every day at 6:00 UTC',
        )
    schedules.with_seconds(args.cron)  # what it has to say needs no server
    with tempfile.TemporaryDirectory() as folder:
        settings = [*args.settings, *placement_options.settings(args)]
        work = prepare(args.pipeline, args.config, folder, settings=settings)
        made = kfp_server.server_of(args).schedule(
            work,
            args.cron,
            experiment=args.experiment,
            name=args.name,
            replace=args.replace,
            service_account=args.service_account,
            pipeline_root=args.pipeline_root,
        )
    show(
        asdict(made) | {"pipeline": work.package.pipeline, "version": work.package.version},
        as_json=args.json,
        text=f"{work.package.pipeline}: {made.change}, {_line(made)}",
    )
    return 0


def _look_after(args: argparse.Namespace) -> int:
    server = kfp_server.server_of(args)
    namespace = server.namespace_for(load_config(args.config)) if args.config else server.namespace
    if args.list:
        found = server.schedules(args.experiment, namespace=namespace)
        text = "\n".join(map(_line, found)) or f"{args.experiment}: no schedules"
    elif args.delete:
        found = server.delete_schedule(args.delete, args.experiment, namespace=namespace)
        text = f"{args.delete}: deleted"
    else:
        name = args.enable or args.disable
        found = server.switch_schedule(
            name, enabled=bool(args.enable), experiment=args.experiment, namespace=namespace
        )
        text = f"{name}: {found[0].change}"
    show({"schedules": list(map(asdict, found))}, as_json=args.json, text=text)
    return 0


def _line(schedule: Schedule) -> str:
    off = "" if schedule.enabled else ", switched off"
    when = f"{schedule.cron} (UTC)" if schedule.cron else "at intervals"
    return f"{schedule.name}, {when}{off}"
