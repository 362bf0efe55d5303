"""An exhausted quota, a volume that is not shared and a queue that never admits are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.cli.cluster_checks.made import (
    GPU,
    NAMESPACE,
    Findings,
    lake_claim,
    thing,
)
from tests.cluster.api_server import ApiServer

QUEUED = GPU | {"queue": "gpu"}


def quota(hard: dict[str, str], used: dict[str, str], **spec: Any) -> dict[str, Any]:
    status = {"hard": hard, "used": used}
    return thing("ResourceQuota", "team", spec={"hard": hard, **spec}, status=status)


@pytest.mark.parametrize(
    ("hard", "used", "state", "words"),
    [
        ({"requests.nvidia.com/gpu": "8"}, {"requests.nvidia.com/gpu": "1"}, "ok", "leave room"),
        (
            {"requests.nvidia.com/gpu": "4"},
            {"requests.nvidia.com/gpu": "4"},
            "fail",
            "used up, 4 of 4, and a task needs 1",
        ),
        ({"requests.nvidia.com/gpu": "0"}, {}, "fail", "allows 0, a task needs 1"),
        ({"requests.nvidia.com/gpu": "2"}, {}, "warn", "2 left, 4 shards at once"),
        ({"pods": "10"}, {"pods": "10"}, "fail", "pods is used up"),
        ({"limits.memory": "10Gi"}, {"limits.memory": "4Gi"}, "fail", "limits.memory is used up"),
        ({"cpu": "500m"}, {}, "fail", "cpu allows 500m, a task needs 2"),
        ({"services": "1"}, {"services": "1"}, "ok", "leave room"),
        (
            {"requests.storage": "100Gi"},
            {"requests.storage": "100Gi"},
            "warn",
            "requests.storage is used up, 100Gi of 100Gi",
        ),
    ],
)
def test_an_exhausted_quota_is_found(
    server: ApiServer,
    doctor: Callable[..., Findings],
    hard: dict[str, str],
    used: dict[str, str],
    state: str,
    words: str,
) -> None:
    server.put(quota(hard, used), namespace=NAMESPACE)
    found = doctor(cluster=GPU)["quota"]
    assert found["state"] == state and words in found["found"]


@pytest.mark.parametrize(
    ("gpus", "cluster", "training", "state", "words"),
    [
        # Four shards with one each need 4, and not 4 times what training takes.
        ("4", {"accelerator_count": 4}, {}, "ok", "leave room"),
        ("3", {"accelerator_count": 4}, {}, "fail", "allows 3, training needs 4"),
        ("4", {"accelerator_count": 2, "width": 6}, {}, "warn", "4 left, 6 shards at once"),
        ("5", {"accelerator_count": 2}, {"nodes": 3}, "fail", "3 nodes together need 6"),
        ("6", {"accelerator_count": 2}, {"nodes": 3}, "ok", "leave room"),
    ],
)
def test_shards_training_and_the_gang_of_a_trainjob_are_counted_each_by_itself(
    server: ApiServer,
    doctor: Callable[..., Findings],
    kueue: Callable[..., None],
    gpus: str,
    cluster: dict[str, Any],
    training: dict[str, Any],
    state: str,
    words: str,
) -> None:
    server.put(quota({"requests.nvidia.com/gpu": gpus}, {}), namespace=NAMESPACE)
    kueue(gpus=gpus)
    asked = {"runner": "trainjob", "trainjob": training} if training else {"runner": "pod"}
    found = doctor(cluster=QUEUED | cluster, training=asked)
    assert found["quota"]["state"] == state and words in found["quota"]["found"]
    assert found["cluster queue all"]["state"] == state


def test_a_quota_of_other_pods_and_another_namespace_does_not_count(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    full = {"pods": "1"}
    server.put(quota(full, full, scopes=["BestEffort"]), namespace=NAMESPACE)
    server.put(quota(full, full), namespace="other")
    assert doctor(cluster=GPU)["quota"]["state"] == "ok"


@pytest.mark.parametrize(
    ("claim", "state", "words"),
    [
        (lake_claim("ReadWriteMany"), "ok", "bound"),
        (None, "fail", "no PersistentVolumeClaim"),
        (lake_claim("ReadWriteOnce"), "warn", "one node"),
        (lake_claim("ReadWriteOncePod"), "fail", "one pod"),
        (lake_claim("ReadWriteMany", phase="Pending"), "warn", "Pending"),
        (lake_claim("ReadWriteMany", phase="Lost"), "fail", "lost"),
    ],
)
def test_the_volume_is_looked_at(
    server: ApiServer,
    doctor: Callable[..., Findings],
    claim: dict[str, Any] | None,
    state: str,
    words: str,
) -> None:
    if claim:
        server.put(claim, namespace=NAMESPACE)
    found = doctor(name="loop")["volume lake"]
    assert found["state"] == state and words in found["found"]


def test_a_lake_on_this_machine_is_none_for_pods(doctor: Callable[..., Findings]) -> None:
    found = doctor(cluster={"volume": ""})["lake in the pods"]
    assert found["state"] == "fail" and "gs://" in found["remedy"]


@pytest.fixture
def kueue(server: ApiServer) -> Callable[..., None]:
    from tests.cluster.objects import Resource

    group, version = "kueue.x-k8s.io", "v1beta2"
    server.resources.append(Resource(group, version, "clusterqueues", "ClusterQueue", False))

    def make(*, gpus: str = "8", policy: str = "None", active: str = "True", **more: Any) -> None:
        resources = [{"name": "nvidia.com/gpu", "nominalQuota": gpus}] if gpus else []
        groups = [{"flavors": [{"name": "l4", "resources": resources}]}]
        message = {"reason": "FlavorNotFound", "message": "no flavor l4"}
        status = {"conditions": [{"type": "Active", "status": active} | message]}
        spec = {"resourceGroups": groups, "stopPolicy": policy, **more}
        api = f"{group}/{version}"
        server.put(thing("ClusterQueue", "all", api, spec=spec, status=status))
        local = {"conditions": [{"type": "Active", "status": "True"}], "pendingWorkloads": 3}
        to = {"clusterQueue": "all"}
        server.put(thing("LocalQueue", "gpu", api, spec=to, status=local), namespace=NAMESPACE)

    return make


def test_a_queue_that_admits_is_well(
    kueue: Callable[..., None], doctor: Callable[..., Findings]
) -> None:
    kueue()
    found = doctor(cluster=QUEUED)
    assert found["queue gpu"]["found"] == "active, waiting: 3"
    assert found["cluster queue all"]["state"] == "ok"


@pytest.mark.parametrize(
    ("made", "check", "words"),
    [
        ({"active": "False"}, "cluster queue all", "FlavorNotFound: no flavor l4"),
        ({"policy": "HoldAndDrain"}, "cluster queue all", "stopped (HoldAndDrain)"),
        ({"gpus": ""}, "cluster queue all", "no quota of nvidia.com/gpu"),
        ({"gpus": "0"}, "cluster queue all", "the largest has 0"),
        (None, "queue gpu", "no LocalQueue"),
    ],
)
def test_a_queue_that_never_admits_is_found(
    kueue: Callable[..., None],
    doctor: Callable[..., Findings],
    made: dict[str, str] | None,
    check: str,
    words: str,
) -> None:
    if made is not None:
        kueue(**made)
    found = doctor(cluster=QUEUED)[check]
    assert found["state"] == "fail" and words in found["found"] and found["remedy"]


def test_a_queue_without_kueue_and_without_its_integration_of_pods_is_found(
    server: ApiServer, kueue: Callable[..., None], doctor: Callable[..., Findings]
) -> None:
    kueue()
    settings = yaml.safe_dump({"integrations": {"frameworks": ["batch/job"]}})
    data = {"controller_manager_config.yaml": settings}
    server.put(thing("ConfigMap", "kueue-manager-config", data=data), namespace="kueue-system")
    found = doctor(cluster=QUEUED)["Kueue's integration of pods"]
    assert found["state"] == "fail" and "batch/job" in found["found"]
    server.resources = [r for r in server.resources if r.group != "kueue.x-k8s.io"]
    assert "not installed" in doctor(cluster=QUEUED)["queue gpu"]["found"]


def test_a_lake_beside_the_volume_is_found(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    server.put(lake_claim("ReadWriteMany"), namespace=NAMESPACE)
    assert doctor(name="loop")["lake in the pods"]["state"] == "ok"
    found = doctor(cluster={"volume": "lake:/mnt/visionloop"})["lake in the pods"]
    assert found["state"] == "fail" and "not below /mnt/visionloop" in found["found"]
    assert "cluster.volume: lake:/" in found["remedy"]
