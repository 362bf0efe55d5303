"""Follows a run: what its tasks report, and what KFP says of them."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from visionloop.runner.result import TaskResult

_POLL_SECONDS = 0.1
_KFP_STARTS = re.compile(r"^Executing task .*?'([^']+)'")
_UNNUMBERED = re.compile(r"_\d+$")
_KFP_ENDS = re.compile(r"^Task .*?'([^']+)'.*? finished with status .*?(SUCCESS|FAILURE)")


class Listener(Protocol):
    """Whoever wants to know how a run goes on."""

    def task_started(self, name: str) -> None:
        """A task was started."""

    def task_progressed(self, name: str, event: dict[str, Any]) -> None:
        """A task did more of its work; ``event`` is a line of `visionloop.progress`."""

    def task_ended(self, task: TaskResult) -> None:
        """A task ended."""

    def close(self) -> None:
        """The run is over."""


@dataclass
class _Running:
    """A task that KFP has started and not ended; shards of one loop run beside each other."""

    kfp_name: str
    name: str
    started: float
    pid: int = 0
    last: dict[str, Any] | None = None


class Watcher(logging.Filter):
    """Joins the tasks' own events with KFP's word on when each started and ended.

    A task that is killed cannot report its end, so the end is KFP's to tell: it logs two lines a
    task, which this reads as a filter on the root logger. Everything else is the tasks' own.

    Args:
        events: File that the tasks append their events to.
        listener: Told of each step, from a thread of the watcher's.
    """

    def __init__(self, events: Path, listener: Listener) -> None:
        super().__init__()
        self.tasks: list[TaskResult] = []
        self.failed: str = ""
        self._events = events
        self._offset = 0
        self._listener = listener
        self._running: list[_Running] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        """Start to follow."""
        logging.getLogger().addFilter(self)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop to follow; a task that still ran has failed."""
        logging.getLogger().removeFilter(self)
        self._stop.set()
        self._thread.join()
        self._read()
        for running in list(self._running):
            self._end(running, succeeded=False)

    def filter(self, record: logging.LogRecord) -> bool:
        """Read what KFP logs; lets every record through."""
        text = record.getMessage()
        if found := _KFP_STARTS.match(text):
            name = found[1].replace("-", "_")
            with self._lock:
                self._running.append(_Running(found[1], name, time.monotonic()))
            self._tell(self._listener.task_started, name)
        elif found := _KFP_ENDS.match(text):
            self._read()
            succeeded = found[2] == "SUCCESS"
            with self._lock:
                named = [task for task in self._running if task.kfp_name == found[1]]
            # Of a loop's tasks, which share a name, it is one that told of its end, or did not.
            ended = [task for task in named if (task.last is not None) == succeeded] or named
            if ended:
                self._end(ended[0], succeeded=succeeded)
        return True

    def _end(self, running: _Running, *, succeeded: bool) -> None:
        with self._lock:
            self._running.remove(running)
            last = running.last or {}
            task = TaskResult(
                name=running.name,
                succeeded=succeeded,
                seconds=time.monotonic() - running.started,
                imports_seconds=last.get("imports_seconds", 0.0),
                work_seconds=last.get("work_seconds", 0.0),
                outputs=last.get("outputs", {}),
                artifacts=last.get("artifacts", {}),
            )
            self.tasks.append(task)
            if not succeeded:
                self.failed = self.failed or running.name
        self._tell(self._listener.task_ended, task)

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._read()

    def _read(self) -> None:
        """Read the events that were appended since the last look."""
        with self._lock:
            try:
                with self._events.open("rb") as file:
                    file.seek(self._offset)
                    data = file.read()
            except FileNotFoundError:
                return
            # A line that is still being written is left for the next look.
            whole, newline, _ = data.rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            events = [json.loads(line) for line in whole.splitlines()]
            for event in events:
                self._note(event)
            names = {task.pid: task.name for task in self._running}
        for event in events:
            if event["event"] == "progress":
                name = names.get(event["pid"], event["stage"])
                self._tell(self._listener.task_progressed, name, event)

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "started":
            # Where a component is used twice KFP numbers the second: count-2. The stage tells.
            for task in self._running:
                if not task.pid and _UNNUMBERED.sub("", task.name) == event["stage"]:
                    task.pid, task.name = event["pid"], event["stage"]
                    return
        elif event["event"] == "finished":
            for task in self._running:
                if task.pid == event["pid"]:
                    task.last = event

    @staticmethod
    def _tell(call: Callable[..., None], *args: Any) -> None:
        # What is shown must never stop what is done.
        try:
            call(*args)
        except (OSError, ValueError):
            logging.getLogger(__name__).debug("the display failed", exc_info=True)
