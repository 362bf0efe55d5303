"""Follows a run: what its tasks report, and what KFP says of them."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from visionloop.runner.result import TaskResult

_POLL_SECONDS = 0.1
_KFP_STARTS = re.compile(r"^Executing task .*?'([^']+)'")
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
        self._running = ""
        self._started = 0.0
        self._last: dict[str, Any] = {}
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
        if self._running:
            self._end(succeeded=False)

    def filter(self, record: logging.LogRecord) -> bool:
        """Read what KFP logs; lets every record through."""
        text = record.getMessage()
        if found := _KFP_STARTS.match(text):
            with self._lock:
                self._running = found[1].replace("-", "_")
                self._started = time.monotonic()
                self._last = {}
            self._tell(self._listener.task_started, self._running)
        elif found := _KFP_ENDS.match(text):
            self._read()
            self._end(succeeded=found[2] == "SUCCESS")
        return True

    def _end(self, *, succeeded: bool) -> None:
        with self._lock:
            name, last = self._running or "task", self._last
            task = TaskResult(
                name=name,
                succeeded=succeeded,
                seconds=time.monotonic() - self._started,
                imports_seconds=last.get("imports_seconds", 0.0),
                work_seconds=last.get("work_seconds", 0.0),
                outputs=last.get("outputs", {}),
                artifacts=last.get("artifacts", {}),
            )
            self._running = ""
            self.tasks.append(task)
            if not succeeded:
                self.failed = self.failed or name
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
            running = self._running
            for event in events:
                if event["event"] == "started":
                    # Where a component is used twice KFP numbers the second: count-2.
                    self._running = running = event["stage"]
                if event["event"] == "finished":
                    self._last = event
        for event in events:
            if event["event"] == "progress":
                self._tell(self._listener.task_progressed, running or event["stage"], event)

    @staticmethod
    def _tell(call: Callable[..., None], *args: Any) -> None:
        # What is shown must never stop what is done.
        try:
            call(*args)
        except (OSError, ValueError):
            logging.getLogger(__name__).debug("the display failed", exc_info=True)
