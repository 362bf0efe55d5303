"""What pods show of themselves while they run, wait and fail."""

from __future__ import annotations

from typing import Any


def _waits(reason: str, message: str) -> dict[str, Any]:
    waiting = {"waiting": {"reason": reason, "message": message}}
    return {
        "phase": "Pending",
        "containerStatuses": [{"name": "kserve-container", "image": "slim:9", "state": waiting}],
    }


RUNNING = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [{"name": "kserve-container", "state": {"running": {}}}],
}
FAILURES: dict[str, dict[str, Any]] = {
    "image": _waits("ImagePullBackOff", "Back-off pulling image slim:9"),
    "crash": {
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "kserve-container",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}},
            }
        ],
    },
    "homeless": {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            }
        ],
    },
    "blocked": {"phase": "Pending"},
}
