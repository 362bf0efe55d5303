"""Turn any exception into an error that a person can act on, and carry it between processes."""

from __future__ import annotations

import errno
import json
import os
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionloop import environment
from visionloop.errors import InputError, UnreadableMedia, VisionloopError
from visionloop.progress import log
from visionloop.redaction import traceback_of

if TYPE_CHECKING:
    from visionloop.lake import Lake

# Seconds that a stage that failed waits for its lake to keep the failure.
_PATIENCE_S = 15

# The smallest extra that brings a package.
_EXTRAS = {
    "torch": "engine",
    "torchvision": "engine",
    "pyiceberg": "lake",
    "pyarrow": "lake",
    "numpy": "lake",
    "onnx": "lake",
    "onnxruntime": "lake",
    "PIL": "lake",
    "jinja2": "lake",
    "orjson": "lake",
    "google": "lake",
    "zstandard": "lake",
    "sqlalchemy": "lake",
    "markupsafe": "lake",
    "kserve": "serve",
    "fastapi": "lake",
    "grpc": "serve",
    "prometheus_client": "lake",
    "uvicorn": "lake",
    "opentelemetry": "otel",
    "httpx": "demo",
    "sklearn": "lake",
    "scipy": "lake",
    "cleanlab": "lake",
    "label_studio_sdk": "labelstudio",
}


def explain(error: BaseException, *, during: str = "") -> VisionloopError:
    """Say what an exception means to a person.

    Args:
        error: What was raised.
        during: Words for what was being done, for example ``the stage ingest``.

    Returns:
        The error itself when it already is one of ours; otherwise one that names what happened,
        where, and what to do.
    """
    if isinstance(error, VisionloopError) and not isinstance(error, UnreadableMedia):
        return error
    where = getattr(error, "filename", None) or _last_frame(error)
    if during:
        where = f"{during}, {where}" if where else during
    match error:
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return VisionloopError(
                "No space is left on the device",
                where=where,
                remedy="Free some space or choose another folder, then start the same command "
                "again: what was finished is kept",
            )
        case OSError(errno=errno.EROFS | errno.EACCES | errno.EPERM):
            return VisionloopError(
                f"The file system refuses to write or read: {error.strerror}",
                where=where,
                remedy="Give this user the right to that path, or choose another one",
            )
        case ModuleNotFoundError(name=str(name)):
            top = name.split(".")[0]
            extra = _EXTRAS.get(top)
            return VisionloopError(
                f"The package {top} is not installed",
                # Where an extra is missing, the line that met it first is of no use to a person.
                where=during if extra else where,
                remedy=f"Install it with: pip install 'visionloop[{extra}]'"
                if extra
                else f"Install it with: pip install {top}",
            )
        case MemoryError():
            return VisionloopError(
                "The process ran out of memory",
                where=where,
                remedy="Lower training.batch_size in the configuration or use a larger machine",
            )
        case KeyboardInterrupt():
            return VisionloopError(
                "Stopped by the keyboard",
                where=during,
                remedy="Start the same command again to go on: what was finished is kept",
            )
    text = str(error).strip()
    return VisionloopError(
        f"{type(error).__name__}: {text}" if text else type(error).__name__,
        where=where,
        remedy="Run again with --debug for the traceback; if the input is right, please report it",
    )


def write_failure(path: str, error: BaseException, *, stage: str) -> None:
    """Leave an error where the process that started this one looks for it.

    The first error of a run is its cause: one that is there already stays.

    Args:
        path: File to write.
        error: What was raised.
        stage: Name of the stage that raised it.
    """
    if Path(path).exists():
        return
    known = explain(error, during=f"stage {stage}")
    record = {
        "stage": stage,
        "what": known.what,
        "where": known.where,
        "remedy": known.remedy,
        "exit_status": known.exit_status,
        "traceback": traceback_of(error),
    }
    partial = Path(f"{path}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.replace(path)
    except OSError:
        # A full disk must not hide the error that it caused; the log still has it.
        partial.unlink(missing_ok=True)


def keep_failure(error: BaseException, stage: str, arguments: Mapping[str, Any]) -> None:
    """Leave a record of a stage's failure in its lake, for the monitor and the report.

    It is left as far as that is possible in a few seconds: what hinders it is told on the log, and
    never takes the place of the error. Nothing is left of a stage that a person stopped, of a dry
    run, and of wrong input that a person gave on the command line, who is told of it at once.

    Args:
        error: What was raised.
        stage: Name of the stage.
        arguments: What the stage was called with, by name.
    """
    runs_by_itself = environment.in_task() or bool(environment.error_file())
    if not isinstance(error, Exception) or arguments.get("dry_run") or not arguments.get("config"):
        return
    if isinstance(error, InputError) and not runs_by_itself:
        return
    known = explain(error, during=f"stage {stage}")
    told = {"stage": stage, "what": known.what, "where": known.where, "remedy": known.remedy}
    now = datetime.now(UTC)
    hindered: list[str] = []

    def keep() -> None:
        try:
            _keep(told, arguments, now)
        except Exception as other:
            hindered.append(explain(other).what)

    # A bucket that is down is asked for minutes; a person waits for the error meanwhile.
    thread = threading.Thread(target=keep, name="keeps the failure", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if thread.is_alive():
        hindered.append(f"the lake did not answer within {_PATIENCE_S} s")
    if hindered:
        log(f"{stage}: its failure is not recorded in the lake: {hindered[0]}")


def _keep(told: dict[str, str], arguments: Mapping[str, Any], now: datetime) -> None:
    from visionloop.config import load_config
    from visionloop.lake import Lake
    from visionloop.monitoring.failed_stages import record_failure

    loop = load_config(arguments["config"])
    root = str(arguments.get("lake") or "") or loop.lake
    lake = Lake.open(root, catalog=loop.catalog, loop=loop.name)
    if not (lake.exists() and lake.storage.exists(lake.uri)):
        return  # a folder that is not mounted must not become the root of another lake
    round_id = str(arguments.get("round_id") or "") or _open_round(lake)
    run_id = str(arguments.get("run_id") or "")
    record_failure(lake, {**told, "round_id": round_id, "run_id": run_id}, now)


def _open_round(lake: Lake) -> str:
    try:
        held = lake.rounds.current()
    except VisionloopError:
        return ""  # the catalog may be what failed
    return held.round_id if held else ""


def read_failure(path: str | Path) -> tuple[VisionloopError, dict[str, Any]] | None:
    """Read what `write_failure` left.

    Args:
        path: The file.

    Returns:
        The error, of the class that gives its exit status, and the whole record (``stage``,
        ``traceback``, …); None when there is no such file.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    kind = InputError if record["exit_status"] == InputError.exit_status else VisionloopError
    return kind(record["what"], where=record["where"], remedy=record["remedy"]), record


def _last_frame(error: BaseException) -> str:
    # The decorator of stages is on every stage's way and never the place.
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.endswith("visionloop/task.py")
    ]
    ours = [f for f in frames if f"{os.sep}visionloop{os.sep}" in f.filename] or frames
    if not ours:
        return ""
    name = ours[-1].filename.rpartition(f"{os.sep}visionloop{os.sep}")[2]
    return f"{name}:{ours[-1].lineno}"
