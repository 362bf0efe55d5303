"""Why a pod fails is said in words that name the image, the exit code or the scheduler's reason."""

from __future__ import annotations

from typing import Any

import pytest

from visionloop.cluster.pods import (
    failure_of,
    is_given_up,
    is_unschedulable,
    lasting_failure,
)


def pod(
    state: dict[str, Any] | None = None, *, last: dict[str, Any] | None = None, init: bool = False
) -> dict[str, Any]:
    entry = {"name": "main", "image": "registry/app:1", "state": state or {}}
    entry |= {"lastState": last} if last else {}
    name = "initContainerStatuses" if init else "containerStatuses"
    return {"status": {"phase": "Pending", name: [entry]}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def terminated(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


@pytest.mark.parametrize(
    "healthy",
    [
        {},
        {"status": {"phase": "Pending"}},
        pod(waiting("ContainerCreating")),
        pod(waiting("PodInitializing")),
        pod({"running": {}}),
        pod({"running": {}}, last=terminated(137, "OOMKilled")),
        pod(terminated(0, "Completed"), init=True),
        {"status": {"phase": "Succeeded"}},
    ],
)
def test_a_pod_that_starts_runs_or_has_succeeded_has_no_failure(healthy: dict[str, Any]) -> None:
    assert failure_of(healthy) == "" and not is_unschedulable(healthy)


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize(
    ("state", "last", "words"),
    [
        (waiting("ErrImagePull", "manifest unknown"), None, ["registry/app:1", "manifest unknown"]),
        (waiting("ImagePullBackOff"), None, ["registry/app:1", "ImagePullBackOff"]),
        (waiting("InvalidImageName"), None, ["invalid name", "registry/app:1"]),
        (waiting("CrashLoopBackOff"), terminated(3, message="no lake"), ["exit code 3", "no lake"]),
        (waiting("CrashLoopBackOff"), terminated(137, "OOMKilled"), ["memory", "OOMKilled"]),
        (
            waiting("CreateContainerConfigError", 'secret "visionloop" not found'),
            None,
            ['secret "visionloop" not found'],
        ),
        (terminated(1, message="Traceback"), None, ["exit code 1", "Traceback"]),
        (terminated(137, "OOMKilled"), None, ["memory", "OOMKilled"]),
    ],
)
def test_a_failing_container_is_named_with_its_reason(
    state: dict[str, Any], last: dict[str, Any] | None, words: list[str], init: bool
) -> None:
    found = failure_of(pod(state, last=last, init=init))
    assert "main" in found and all(word in found for word in words)


def test_no_node_is_told_in_the_schedulers_words() -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    found = {"status": {"phase": "Pending", "conditions": [condition | {"message": message}]}}
    assert message in failure_of(found) and is_unschedulable(found)


def test_an_evicted_and_a_preempted_pod_are_told_apart_from_a_crash() -> None:
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}
    assert "low on memory" in failure_of({"status": evicted})
    target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    preempted = pod(terminated(143))
    preempted["status"]["conditions"] = [target | {"message": "preempted by a higher priority"}]
    assert "PreemptionByScheduler" in failure_of(preempted)
    deadline = {"phase": "Failed", "reason": "DeadlineExceeded", "message": "too long"}
    assert "DeadlineExceeded: too long" in failure_of({"status": deadline})


def test_a_pod_that_its_controller_replaces_is_no_lasting_failure() -> None:
    for reason in ("Evicted", "Terminated", "NodeShutdown", "UnexpectedAdmissionError"):
        status = {"phase": "Failed", "reason": reason, **pod(terminated(137))["status"]}
        found = {"status": status | {"phase": "Failed"}}
        assert is_given_up(found) and failure_of(found) and not lasting_failure(found)
    preempted = pod({"running": {}})
    target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    preempted["status"]["conditions"] = [target]
    assert is_given_up(preempted) and not lasting_failure(preempted)


@pytest.mark.parametrize("init", [False, True])
def test_a_container_that_failed_once_is_started_again_first(init: bool) -> None:
    name = "initContainerStatuses" if init else "containerStatuses"
    once = pod(terminated(1, message="503 of the bucket"), init=init)
    assert "503 of the bucket" in failure_of(once) and not lasting_failure(once)
    once["status"][name][0]["restartCount"] = 1
    assert "503 of the bucket" in lasting_failure(once)
    for state in (waiting("CrashLoopBackOff"), terminated(137, "OOMKilled")):
        assert "main" in lasting_failure(pod(state, init=init))
    assert "registry/app:1" in lasting_failure(pod(waiting("ErrImagePull"), init=init))
