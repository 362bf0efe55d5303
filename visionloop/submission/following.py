"""Follows a run task by task to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from visionloop.errors import VisionloopError
from visionloop.submission.refusals import ServerError, plain_errors
from visionloop.submission.runs import FINAL_STATES
from visionloop.submission.tasks import Task, tasks_of

# A server that restarts is given so long before waiting is given up.
_PATIENCE_S = 120.0
# The states of tasks lag behind that of their run: so many more looks are given to them.
_LAST_LOOKS = 4
# How often the pods are asked what holds them up: a missing image, a node that is not there.
_PODS_EVERY_S = 30.0


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        state: SUCCEEDED, FAILED, CANCELED or SKIPPED.
        tasks: Its tasks.
        seconds: From its start to its end, by the server's clock; None where it does not say.
        created: Day of its start, as the UI asks for logs by it; empty where unknown.
    """

    state: str
    tasks: list[Task]
    seconds: float | None
    created: str

    @property
    def succeeded(self) -> bool:
        """Whether it succeeded: cancelled is a failure like any other."""
        return self.state == "SUCCEEDED"

    @property
    def waits_for_labels(self) -> bool:
        """Whether a round succeeded and waits for labels: its second half was skipped."""
        return self.succeeded and any(
            task.name == "labels-finished" and task.state == "SKIPPED" for task in self.tasks
        )

    @property
    def failed(self) -> list[Task]:
        """The tasks that failed; the pipelines around them only where no task is known."""
        failed = [task for task in self.tasks if task.state == "FAILED"]
        return [task for task in failed if task.pods] or failed


def follow(
    client: Any,
    run_id: str,
    *,
    where: str,
    timeout_s: float,
    poll_s: float,
    told: Callable[[str], None],
    names: Mapping[str, str] | None = None,
    held_up: Callable[[], list[str]] | None = None,
) -> End:
    """Wait until a run has ended, by its own state.

    Args:
        client: The client.
        run_id: The run.
        where: Address of the server, for errors.
        timeout_s: Seconds to wait.
        poll_s: Seconds between two looks.
        told: Called with a line whenever a task starts or ends, or something holds one up.
        names: What the tasks are called, by the server's key.
        held_up: Says what holds pods up; asked now and then.

    Returns:
        How it ended.

    Raises:
        VisionloopError: The time is over, or the server was away for too long.
    """
    until = time.monotonic() + timeout_s
    seen: dict[str, str] = {}
    reasons: set[str] = set()
    looks_left = _LAST_LOOKS
    answered = asked_pods = time.monotonic()
    while True:
        try:
            with plain_errors(where):
                run = client.get_run(run_id)
            answered = time.monotonic()
        except ServerError as error:
            if not error.passing or time.monotonic() - answered > _PATIENCE_S:
                raise
            time.sleep(error.pause_s or poll_s)
            continue
        tasks = tasks_of(run, names)
        _tell(tasks, seen, told)
        state = str(run.state or "")
        if state in FINAL_STATES:
            looks_left -= 1
            if not looks_left or all(task.ended for task in tasks):
                return End(state, tasks, _seconds(run), _day(run))
            time.sleep(min(poll_s, 1.0))
            continue
        if time.monotonic() > until:
            raise VisionloopError(
                f"The run did not end within {timeout_s:g} s; it goes on by itself",
                where=f"run {run_id}, state {state or 'unknown'}",
                remedy="Wait longer with --timeout, or look at it in the Kubeflow Pipelines UI",
            )
        if held_up and time.monotonic() - asked_pods > _PODS_EVERY_S:
            for reason in held_up():
                if reason not in reasons:
                    reasons.add(reason)
                    told(reason)
            asked_pods = time.monotonic()
        time.sleep(poll_s)


def _tell(tasks: list[Task], seen: dict[str, str], told: Callable[[str], None]) -> None:
    for task in tasks:
        if task.state == seen.get(task.key) or task.state == "PENDING":
            continue
        seen[task.key] = task.state
        line = f"{task.name:<24} {task.state.lower()}"
        if task.ended and task.seconds is not None and task.state not in ("SKIPPED", "CACHED"):
            line = f"{line:<36} {task.seconds:.0f} s"
        told(line)


def _seconds(run: Any) -> float | None:
    if not run.created_at or not run.finished_at or run.finished_at < run.created_at:
        return None
    return float((run.finished_at - run.created_at).total_seconds())


def _day(run: Any) -> str:
    return run.created_at.strftime("%Y-%m-%d") if run.created_at else ""
