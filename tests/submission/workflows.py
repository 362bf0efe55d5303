"""`task_details` as a server makes them out of an Argo workflow: drivers, executors, frames.

A task `ingest` is three steps: `ingest-driver`, then `ingest`, inside which `executor` runs the
container. `child_tasks` names what came next or inside, by its pod.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WORKFLOW = "digits-round-x7k2p"
_TIMES = "2026-11-22T10:{:02d}:00Z"


def task(
    name: str, state: str, *, cached: bool = False, tries: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Return the steps of one task with a container.

    Args:
        name: Its name.
        state: Its state.
        cached: Whether its container did not run.
        tries: States of its tries where it is tried again.
    """
    if tries:
        inside = [
            _step("executor", state, f"impl-{name}", children=[f"impl-{name}-0"]),
            *(
                _step(f"executor({n})", s, f"impl-{name}-{n}", children=[f"impl-{name}-{n + 1}"])
                for n, s in enumerate(tries)
            ),
        ]
    else:
        inside = [_step("executor", "SKIPPED" if cached else state, f"impl-{name}")]
    return [
        _step(f"{name}-driver", "SUCCEEDED", f"driver-{name}", children=[name]),
        _step(name, state, name, children=[f"impl-{name}"]),
        *inside,
    ]


def broken_driver(name: str) -> list[dict[str, Any]]:
    """Return the steps of a task whose inputs could not be resolved."""
    return [_step(f"{name}-driver", "FAILED", f"driver-{name}")]


def frame(name: str, state: str, *inside: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps of a nested pipeline or a condition around others."""
    steps = [step for part in inside for step in part]
    children = [steps[0]["pod_name"].removeprefix(f"{WORKFLOW}-")] if steps else []
    return [
        _step(f"{name}-driver", "SUCCEEDED", f"driver-{name}", children=[name]),
        _step(name, state, name, children=children),
        *steps,
    ]


def workflow(*parts: list[dict[str, Any]], state: str = "RUNNING") -> list[dict[str, Any]]:
    """Return the steps of a whole run."""
    steps = [step for part in parts for step in part]
    whole = [
        {
            **_step(WORKFLOW, state, ""),
            "pod_name": WORKFLOW,
            "child_tasks": [_child("root-driver")],
        },
        _step("root-driver", "SUCCEEDED", "root-driver", children=["root"]),
        _step("root", state, "root", children=[]),
        *steps,
    ]
    return list(_numbered(whole))


def pod(name: str) -> str:
    """Return the pod in which the container of a task ran."""
    return f"{WORKFLOW}-impl-{name}"


def _step(
    name: str, state: str, pod_name: str, *, children: list[str] | None = None
) -> dict[str, Any]:
    return {
        "run_id": "run-0",
        "display_name": name,
        "state": state,
        "pod_name": f"{WORKFLOW}-{pod_name}",
        "child_tasks": [_child(child) for child in children or []],
    }


def _child(pod_name: str) -> dict[str, str]:
    return {"pod_name": f"{WORKFLOW}-{pod_name}"}


def _numbered(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for n, step in enumerate(steps):
        ended = step["state"] in ("SUCCEEDED", "FAILED", "SKIPPED")
        yield {
            **step,
            "task_id": f"task-{n:02d}",
            "create_time": _TIMES.format(n),
            "start_time": _TIMES.format(n),
            # What has not ended has the zero of the server's clock.
            "end_time": _TIMES.format(n + 1) if ended else "1970-01-01T00:00:00Z",
        }
