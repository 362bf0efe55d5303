"""Runs a pipeline on this machine: each task is a child process, as each is a pod on a cluster."""

from __future__ import annotations

import builtins
import contextlib
import errno
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from visionloop import environment
from visionloop.errors import VisionloopError
from visionloop.failures import explain, read_failure
from visionloop.runner.display import make_display
from visionloop.runner.result import RunResult
from visionloop.runner.watcher import Watcher

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

_ABSENT_MODULE = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def run_pipeline(
    pipeline: str | GraphComponent,
    arguments: Mapping[str, Any],
    workdir: str | Path,
    *,
    progress: bool = True,
) -> RunResult:
    """Run a pipeline under KFP's local runner, one child process a task.

    The run gets a folder of its own under ``workdir/runs``: everything that KFP and the tasks write
    is in its ``log.txt``, artifacts are beside it. A failed run is a result, not an exception.

    Not for use from several threads at once: KFP's local runner keeps its state in globals.

    Args:
        pipeline: Name of a registered pipeline, or a pipeline.
        arguments: Its arguments; those left out take their defaults.
        workdir: Folder for runs; made when missing.
        progress: Whether to show the tasks on the standard error stream.

    Returns:
        What happened.

    Raises:
        VisionloopError: The folder cannot be written.
    """
    from visionloop.pipelines import registry

    definition = registry.load(pipeline) if isinstance(pipeline, str) else pipeline
    name = pipeline if isinstance(pipeline, str) else str(definition.name)
    folder = _new_folder(Path(workdir), name)
    display = make_display(show=progress)
    started = time.monotonic()
    outputs: dict[str, Any] = {}
    error: BaseException | None = None
    log = folder / "log.txt"
    with (
        _full_disk_is_told(folder),
        log.open("w", encoding="utf-8", buffering=1) as stream,
        contextlib.closing(display),
        environment.passed_on(_surroundings(folder)),
        Watcher(folder / "events.jsonl", display) as watcher,
        _everything_into(stream),
    ):
        try:
            outputs = _run(definition, dict(arguments), folder)
        except KeyboardInterrupt as interrupt:
            error = interrupt
        except Exception as failure:
            # kfp raises whatever its parts raise.
            error = failure

    failed, trace = None, ""
    if error is not None or watcher.failed:
        failed, trace = _why(error, watcher.failed, folder, name)
    return RunResult(
        pipeline=name,
        succeeded=failed is None,
        seconds=time.monotonic() - started,
        tasks=tuple(watcher.tasks),
        outputs={key: value for key, value in outputs.items() if _is_plain(value)},
        log=str(log),
        folder=str(folder),
        error=failed,
        failed_task=watcher.failed,
        traceback=trace,
    )


def _run(pipeline: GraphComponent, arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    from kfp import local
    from kfp.local import pipeline_orchestrator
    from kfp.pipeline_spec import pipeline_spec_pb2

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder),
        workspace_root=str(folder / "workspace"),
        raise_on_error=False,
        # A cached stage writes nothing for its round: the local cache does not know of the lake.
        enable_caching=False,
    )
    spec = pipeline_spec_pb2.PipelineSpec()
    spec.CopyFrom(pipeline.pipeline_spec)
    # Back-off is for nodes that go away; a person at a terminal wants to know at once.
    for dag in [spec.root.dag, *(component.dag for component in spec.components.values())]:
        for task in dag.tasks.values():
            task.ClearField("retry_policy")
    result: dict[str, Any] = pipeline_orchestrator.run_local_pipeline(spec, arguments)
    return result or {}


def _new_folder(workdir: Path, name: str) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    for attempt in range(1000):
        folder = workdir / "runs" / f"{stamp}-{name}{f'-{attempt}' if attempt else ''}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise explain(error, during="making the run's folder") from error
        return folder.resolve()
    raise VisionloopError("Cannot name the run's folder", where=str(workdir))


def _surroundings(folder: Path) -> dict[str, str]:
    """Return what the tasks find in their environment."""
    return {
        "VISIONLOOP_PROGRESS_FILE": str(folder / "events.jsonl"),
        "VISIONLOOP_ERROR_FILE": str(folder / "error.json"),
        "VISIONLOOP_RUNNER_PID": str(os.getpid()),
        # Otherwise a `visionloop`, `kfp` or `types.py` in the current folder shadows the real one.
        "PYTHONSAFEPATH": "1",
    }


@contextlib.contextmanager
def _full_disk_is_told(folder: Path) -> Iterator[None]:
    """Name the run's folder where it cannot be written: the log's own error names no file."""
    try:
        yield
    except OSError as error:
        raise explain(
            OSError(error.errno, error.strerror, str(folder)), during="writing the run's log"
        ) from error


@contextlib.contextmanager
def _everything_into(stream: TextIO) -> Iterator[None]:
    """Send what KFP prints, logs and warns of into the log, and put everything back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # Once a loop has run, KFP leaves a print that indents everything that this process prints.
    plain_print = builtins.print
    root.handlers = [logging.StreamHandler(stream)]
    root.setLevel(logging.INFO)
    try:
        with (
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
            warnings.catch_warnings(),
        ):
            # Placement and images mean nothing here, and KFP warns of each.
            warnings.simplefilter("ignore")
            yield
    finally:
        builtins.print = plain_print
        root.handlers = handlers
        root.setLevel(level)


def _why(
    error: BaseException | None, task: str, folder: Path, pipeline: str
) -> tuple[VisionloopError, str]:
    """Return why a run failed, and the traceback where there is one."""
    if isinstance(error, KeyboardInterrupt):
        return explain(error, during=f"pipeline {pipeline}"), ""
    told = read_failure(folder / "error.json")
    if told is not None:
        return told[0], str(told[1]["traceback"])
    if error is not None and not task:
        return explain(error, during=f"pipeline {pipeline}"), ""
    last = _last_words(folder / "log.txt")
    if absent := _ABSENT_MODULE.match(last):
        # The stage itself could not be imported, so that it never got to say why.
        return explain(ModuleNotFoundError(last, name=absent[1]), during=f"task {task}"), ""
    if f"[Errno {errno.ENOSPC}]" in last:
        # So full that the task could not even leave its error.
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        return explain(full, during=f"task {task}"), ""
    return (
        VisionloopError(
            f"The task {task} ended without saying why"
            + (f"; its last line was: {last}" if last else ""),
            where=f"pipeline {pipeline}",
            remedy="If it was killed, look for a lack of memory; then start the same command again:"
            " what was finished is kept",
        ),
        "",
    )


def _last_words(log: Path) -> str:
    """Return the last line that the failed task itself wrote, without KFP's own."""
    task_lines: list[str] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        text = _COLOURS.sub("", line).strip()
        if "finished with status FAILURE" in text:
            break
        if "Streamed logs:" in text:
            task_lines = []
        elif text and not text.startswith("---"):
            task_lines.append(text)
    return task_lines[-1][:300] if task_lines else ""


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool, list, dict))
