"""Why a pod does not run, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Reasons that a container waits for and that do not pass by waiting.
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"})
_CONFIGURATION = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)


def failure_of(pod: dict[str, Any]) -> str:
    """Return why a pod fails.

    Args:
        pod: The pod, as the API server shows it.

    Returns:
        One sentence without its full stop; empty while the pod starts, runs well or has succeeded.
        A pod that the scheduler finds no node for is told too, though a node may still come:
        whether to wait for one is for the caller to decide, see `is_unschedulable`.
    """
    status = pod.get("status") or {}
    for found in (
        _evicted(status),
        *(_container(status, pod, entry) for entry in _statuses(status)),
        _unschedulable(status),
    ):
        if found:
            return found
    if status.get("phase") == "Failed":
        said = ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
        return f"the pod failed: {said}" if said else "the pod failed"
    return ""


def lasting_failure(pod: dict[str, Any]) -> str:
    """Return why a pod fails that a controller keeps alive, as `failure_of`, once it is settled.

    The controller replaces a pod that its node gave up, and the kubelet starts a container again
    that ended: neither says that the next try fails too. An image, a configuration and a memory
    limit do, and so does a container that failed after it was started again.

    Args:
        pod: The pod.
    """
    if is_given_up(pod):
        return ""
    status = pod.get("status") or {}
    for entry in _statuses(status):
        ended = (entry.get("state") or {}).get("terminated") or {}
        first = bool(ended) and not entry.get("restartCount")
        if first and ended.get("reason") != "OOMKilled":
            continue
        if found := _container(status, pod, entry):
            return found
    return _unschedulable(status)


def is_given_up(pod: dict[str, Any]) -> bool:
    """Return whether a pod is over, or about to be, through its node: another takes its place.

    Args:
        pod: The pod: evicted, preempted, drained, on a node that went, or ended otherwise.
    """
    status = pod.get("status") or {}
    return status.get("phase") == "Failed" or bool(_evicted(status))


def is_unschedulable(pod: dict[str, Any]) -> bool:
    """Return whether the scheduler finds no node for a pod.

    Args:
        pod: The pod.
    """
    return bool(_unschedulable(pod.get("status") or {}))


def container_states(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each container's name and state, init containers included.

    Args:
        pod: The pod.
    """
    for entry in _statuses(pod.get("status") or {}):
        yield str(entry.get("name")), entry.get("state") or {}


def _statuses(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]


def _evicted(status: dict[str, Any]) -> str:
    if status.get("phase") == "Failed" and status.get("reason") in (
        "Evicted", "Preempting", "NodeLost", "Shutdown", "Terminated", "NodeShutdown",
    ):  # fmt: skip
        return f"the node gave the pod up: {status['reason']}: {status.get('message', '')}".rstrip(
            ": "
        )
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            reason, message = condition.get("reason", ""), condition.get("message", "")
            return f"the node gave the pod up: {reason}: {message}".rstrip(": ")
    return ""


def _container(status: dict[str, Any], pod: dict[str, Any], entry: dict[str, Any]) -> str:
    name, image = entry.get("name", ""), entry.get("image", "")
    state, before = entry.get("state") or {}, entry.get("lastState") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE:
        return (
            f"the image {image} of container {name} cannot be pulled: {reason}: {message}".rstrip(
                ": "
            )
        )
    if reason == "InvalidImageName":
        return f"the image of container {name} has an invalid name: {image}"
    if reason in _CONFIGURATION:
        return f"container {name} cannot be made: {reason}: {message}".rstrip(": ")
    if reason == "CrashLoopBackOff":
        return f"container {name} fails again and again{_exit(before.get('terminated') or {})}"
    ended = state.get("terminated") or {}
    if ended and ended.get("exitCode", 0) != 0:
        return f"container {name} failed{_exit(ended)}"
    return ""


def _exit(ended: dict[str, Any]) -> str:
    if not ended:
        return ""
    reason = ended.get("reason", "")
    if reason == "OOMKilled":
        return ": it needed more memory than its limit (OOMKilled)"
    words = f": exit code {ended.get('exitCode')}"
    words += f", {reason}" if reason not in ("", "Error") else ""
    message = str(ended.get("message") or "").strip()
    return words + (f": {message[-400:]}" if message else "")


def _unschedulable(status: dict[str, Any]) -> str:
    for condition in status.get("conditions") or []:
        if (
            condition.get("type") == "PodScheduled"
            and condition.get("status") == "False"
            and condition.get("reason") == "Unschedulable"
        ):
            return f"no node takes the pod: {condition.get('message', 'Unschedulable')}"
    return ""
