"""What every stage does besides its work: tell when it starts and ends, and why it failed.

A stage runs in a process of its own, a pod on a cluster or a child of the local runner. The
decorator `stage` is the one place where that process speaks to whoever started it.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from visionloop import environment, failures, outside
from visionloop.errors import StaleRead
from visionloop.lean import keep_pandas_out_of_pyarrow
from visionloop.progress import emit, listening, log
from visionloop.redaction import hide_in_tracebacks

TRIES_WHEN_STALE = 3

P = ParamSpec("P")
R = TypeVar("R")


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a stage: its start, end, counts, timings and errors reach its starter.

    The decorated function behaves as before: same signature, same result, same exceptions. One that
    fails leaves a record in its lake, see `visionloop.monitoring.failed_stages`. Where a runner
    listens (`visionloop.environment.progress_file`, `error_file`, `timings_file`), it
    also leaves there

    - an event ``started`` and an event ``finished`` with the plain values that it returned and the
      paths of its artifacts, or ``failed``;
    - the error as what, where and remedy, so that the parent shows a sentence and not a traceback;
    - how long the process took to start and import, and to work.

    Args:
        function: The stage, named as it is shown.

    Returns:
        The stage, wrapped.
    """
    name = function.__name__

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        entered = time.time()
        began = _process_started()
        if environment.in_task():
            # First: they also say how to log.
            environment.take_mounted_secrets()
            keep_pandas_out_of_pyarrow()
            hide_in_tracebacks()
        outside.begin(name, kwargs)
        end_with(environment.runner_pid())
        emit("started", stage=name, process_started=began)
        if listening():
            log(f"{name}: started")
        try:
            result = _again_when_stale(function, *args, **kwargs)
        except BaseException as error:
            emit("failed", stage=name, seconds=time.time() - began)
            if environment.error_file():
                failures.write_failure(environment.error_file(), error, stage=name)
            failures.keep_failure(error, name, kwargs)
            outside.tell_end(name, kwargs, started=entered, outputs={}, error=error)
            raise
        work_seconds = time.time() - entered
        outputs = _plain_outputs(result)
        emit(
            "finished",
            stage=name,
            imports_seconds=entered - began,
            work_seconds=work_seconds,
            outputs=outputs,
            artifacts=_artifacts(kwargs),
        )
        if listening():
            counts = ", ".join(f"{key}={value}" for key, value in outputs.items())
            told = f"{name}: finished in {work_seconds:.1f} s: {counts}"
            log(told, seconds=round(work_seconds, 3), outputs=outputs)
        outside.tell_end(name, kwargs, started=entered, outputs=outputs)
        if environment.timings_file():
            _append_timings(
                environment.timings_file(),
                {
                    "stage": name,
                    "process_start": began,
                    "imports_s": entered - began,
                    "work_s": work_seconds,
                },
            )
        return result

    return run


def end_with(runner: int) -> None:
    """End this process soon after its runner: a killed run leaves no task at work behind it.

    Args:
        runner: The runner's process; 0 for none.
    """

    def watch() -> None:
        while True:
            try:
                os.kill(runner, 0)
            except ProcessLookupError:
                # As abrupt as a kill -9, which every stage must survive anyway.
                os._exit(1)
            except PermissionError:
                return
            time.sleep(0.5)

    if runner and runner != os.getpid():
        threading.Thread(target=watch, name="follows the runner", daemon=True).start()


def _again_when_stale(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a stage again when another run has written what it had read, such as an hourly intake."""
    for _ in range(TRIES_WHEN_STALE - 1):
        try:
            return function(*args, **kwargs)
        except StaleRead as stale:
            log(f"{function.__name__}: once more, since {stale.what}")
    return function(*args, **kwargs)


def _plain_outputs(result: Any) -> dict[str, Any]:
    """Return the fields of a stage's NamedTuple, as JSON can hold them."""
    fields = result._asdict() if hasattr(result, "_asdict") else {}
    return {k: v for k, v in fields.items() if isinstance(v, (str, int, float, bool))}


def _artifacts(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the local path of every artifact among a stage's arguments."""
    return {name: str(value.path) for name, value in arguments.items() if hasattr(value, "path")}


def _append_timings(path: str, record: dict[str, Any]) -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _process_started() -> float:
    """Return when this process began, in seconds since 1970; good to 10 ms."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - (uptime - since_boot)
