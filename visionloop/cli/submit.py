"""Start a run on a Kubeflow Pipelines server; with --wait, exit 0 only when it SUCCEEDED.

Signs in with VISIONLOOP_KFP_TOKEN, VISIONLOOP_KFP_TOKEN_FILE or VISIONLOOP_KFP_COOKIE; in a pod
with its service account, elsewhere as kubectl does.
"""

from __future__ import annotations

import argparse
import math
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from visionloop.cli import kfp_server, placement_options
from visionloop.cli.configuration import add_pipeline_options
from visionloop.cli.parser import say, show
from visionloop.errors import VisionloopError
from visionloop.submission import End, Reason, Run, Server, StartInterrupted, prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_pipeline_options(parser)
    kfp_server.add_server_options(parser)
    parser.add_argument(
        "--run-name", default="", help="default: the loop, the pipeline, and the key or the time"
    )
    parser.add_argument(
        "--once",
        default="",
        metavar="KEY",
        help="attach to the run that was started with this key, unless it failed: a job that is "
        "started again starts no second run; for example the id of the CI run",
    )
    parser.add_argument("--wait", action="store_true", help="wait until the run has ended")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=86400.0,
        metavar="S",
        help="seconds to wait (default: a day)",
    )
    parser.add_argument(
        "--poll", type=_seconds, default=5.0, metavar="S", help="seconds between two looks"
    )
    parser.add_argument(
        "--log-lines",
        type=int,
        default=30,
        metavar="N",
        help="lines of a failed task's log that are shown (default: %(default)s)",
    )
    parser.add_argument(
        "--cancel-on-interrupt",
        action="store_true",
        help="end the run when this command is stopped; without it the run goes on",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with _stopped_by_signals():
        try:
            server, started = _start(args)
        except StartInterrupted:
            raise VisionloopError(
                "Stopped while the server was asked to start a run: it may have started",
                where=f"experiment {args.experiment}",
                remedy="Look at its runs in the Kubeflow Pipelines UI; the same command with the "
                "same --once KEY attaches to a run that is there, and without a key starts another",
            ) from None
        except KeyboardInterrupt:
            raise VisionloopError(
                "Stopped before a run was started", remedy="Start the same command again"
            ) from None
    told = _told(started)
    if not args.wait:
        result = _result(started) | {"state": started.state}
        show(result, as_json=args.json, text=told)
        return 0
    say(told)
    with _stopped_by_signals():
        try:
            end = server.follow(started, timeout_s=args.timeout, poll_s=args.poll, told=say)
        except KeyboardInterrupt:
            raise _interrupted(server, started, cancel=args.cancel_on_interrupt) from None
    return _judge(server, started, end, args)


def _start(args: argparse.Namespace) -> tuple[Server, Run]:
    with tempfile.TemporaryDirectory() as folder:
        settings = [*args.settings, *placement_options.settings(args)]
        work = prepare(args.pipeline, args.config, folder, settings=settings)
        server = kfp_server.server_of(args)
        started = server.start(
            work,
            experiment=args.experiment,
            name=args.run_name,
            once=args.once,
            service_account=args.service_account,
            pipeline_root=args.pipeline_root,
        )
    return server, started


def _judge(server: Server, started: Run, end: End, args: argparse.Namespace) -> int:
    result = _result(started) | {
        "state": end.state,
        "waiting": end.waits_for_labels,
        "seconds": end.seconds,
        "tasks": [asdict(task) for task in end.tasks],
    }
    if end.succeeded:
        text = f"{started.pipeline}: SUCCEEDED"
        if end.waits_for_labels:
            text += "; the round waits for labels, start it again when they are there"
        show(result, as_json=args.json, text=text)
        return 0
    reasons = server.reasons(started, end, lines=args.log_lines)
    for reason in reasons:
        say(reason.text())
    if args.json:
        show(result | {"reasons": list(map(asdict, reasons))}, as_json=True, text="")
    raise _failure(started, end, reasons)


def _failure(started: Run, end: End, reasons: list[Reason]) -> VisionloopError:
    where = f"run {started.run_id}" + (f", {started.url}" if started.url else "")
    if end.state == "CANCELED":
        return VisionloopError(
            "The run was cancelled", where=where, remedy="Start it again: it resumes its round"
        )
    failed = ", ".join(task.name for task in end.failed)
    what = f"The run ended as {end.state}" + (f" in {failed}" if failed else "")
    known = next((reason.paragraph for reason in reasons if reason.paragraph), "")
    if known:
        return VisionloopError(f"{what}: {known}", where=where)
    return VisionloopError(
        what,
        where=where,
        remedy="Open the run in the Kubeflow Pipelines UI: the failed task's log says why",
    )


def _interrupted(server: Server, started: Run, *, cancel: bool) -> VisionloopError:
    if cancel:
        server.cancel(started)
        return VisionloopError(
            "Stopped; the run was asked to end",
            where=f"run {started.run_id}",
            remedy="Started again, it resumes its round",
        )
    return VisionloopError(
        "Stopped waiting; the run goes on",
        where=f"run {started.run_id}" + (f", {started.url}" if started.url else ""),
        remedy="The same command with the same --once KEY follows it again; "
        "--cancel-on-interrupt would have ended it",
    )


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM, with which CI stops a job, do what Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        # Not the main thread, which alone hears signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"give seconds, 0 or more, not {text}")
    return seconds


def _result(started: Run) -> dict[str, Any]:
    known = asdict(started)
    return {name: value for name, value in known.items() if name not in ("task_names", "state")}


def _told(started: Run) -> str:
    how = "attached to" if started.attached else "started as"
    text = f"{started.pipeline}: {how} run {started.run_id}"
    return f"{text}, {started.url}" if started.url else text
