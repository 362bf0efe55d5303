"""The tasks of a run, as people know them, out of the steps that a server tells of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# A task is several steps on a server: `ingest-driver` prepares `ingest`, whose container is called
# `executor`, or `executor(0)`, `executor(1)` where it is tried again.
_EXECUTOR = re.compile(r"^executor(\(\d+\))?$")
_DRIVER = "-driver"
# Steps that stand for a whole (sub)graph and mean nothing to a person: the run, an iteration.
_FRAME = re.compile(r"^(root|iteration[\w-]*)(\(.*\))?$|\(\d+:")
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED", "CACHED")


@dataclass(frozen=True)
class Task:
    """One task of a run.

    Attributes:
        key: Its id, the same from look to look.
        name: What people call it.
        state: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELED, SKIPPED, or CACHED where its container
            did not run because its result was there.
        seconds: From its start to its end; None before.
        pods: Pods in which its container or driver ran, the latest last; none for a condition or
            a nested pipeline, which have no container.
    """

    key: str
    name: str
    state: str
    seconds: float | None
    pods: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ENDED


def tasks_of(run: Any, names: Mapping[str, str] | None = None) -> list[Task]:
    """Return the tasks of a run.

    Args:
        run: kfp's run.
        names: What a step is called, by the name that the server shows; others keep theirs.

    Returns:
        Tasks and conditions in the order of their start. A driver is a task only where it failed.
    """
    steps = list(getattr(run.run_details, "task_details", None) or [])
    before = _predecessors(steps)
    containers: dict[int, list[Any]] = {}
    for step in steps:
        if _EXECUTOR.match(_name(step)):
            owner = step
            # The steps of retries hang below each other; the task is above all of them.
            while owner is not None and _EXECUTOR.match(_name(owner)):
                owner = before.get(_pod(owner))
            if owner is not None:
                containers.setdefault(id(owner), []).append(step)
    workflow = {id(s) for s in steps if any(c.endswith("root-driver") for c in _below(s, steps))}
    found = []
    for step in sorted(steps, key=_started):
        name, state = _name(step), _state(step)
        driver = name.endswith(_DRIVER)
        if _EXECUTOR.match(name) or _FRAME.search(name) or id(step) in workflow:
            continue
        if driver and (state != "FAILED" or name == f"root{_DRIVER}"):
            continue
        inside = containers.get(id(step), [])
        if state == "SUCCEEDED" and inside and all(_state(s) == "SKIPPED" for s in inside):
            state = "CACHED"
        plain = name.removesuffix(_DRIVER)
        shown = (names or {}).get(plain, plain) + (" (driver)" if driver else "")
        pods = [_pod(s) for s in sorted(inside, key=_started)]
        if driver or not containers:
            pods = [_pod(step)]
        key = str(step.task_id or _pod(step) or name)
        found.append(Task(key, shown, state, _seconds(step), tuple(filter(None, pods))))
    return _numbered(found)


def _numbered(tasks: list[Task]) -> list[Task]:
    """Give tasks of one name, the shards of a loop, a number each."""
    counts: dict[str, int] = {}
    numbered = []
    for task in tasks:
        counts[task.name] = number = counts.get(task.name, 0) + 1
        name = task.name if number == 1 else f"{task.name} #{number}"
        numbered.append(Task(task.key, name, task.state, task.seconds, task.pods))
    return numbered


def _predecessors(steps: list[Any]) -> dict[str, Any]:
    """Return, by pod name, the step after or inside which another one came."""
    return {str(child.pod_name): step for step in steps for child in step.child_tasks or []}


def _below(step: Any, steps: list[Any]) -> list[str]:
    pods = {str(child.pod_name) for child in step.child_tasks or []}
    return [_name(s) for s in steps if _pod(s) in pods]


def _name(step: Any) -> str:
    return str(step.display_name or step.task_id or "")


def _state(step: Any) -> str:
    state = str(step.state or "")
    return "PENDING" if state in ("", "RUNTIME_STATE_UNSPECIFIED") else state


def _pod(step: Any) -> str:
    return str(step.pod_name or "")


def _started(step: Any) -> tuple[float, str]:
    begin = step.start_time or step.create_time
    known = isinstance(begin, datetime)
    return (begin.timestamp() if known else float("inf"), str(step.task_id or ""))


def _seconds(step: Any) -> float | None:
    begin, end = step.start_time or step.create_time, step.end_time
    if not isinstance(begin, datetime) or not isinstance(end, datetime):
        return None
    # A step that did not end has the zero of the server's clock as its end.
    return (end - begin).total_seconds() if end >= begin else None
