"""A pool that takes no task is found, with what keeps tasks away from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.cluster_checks.made import (
    GPU,
    SELECTOR,
    Findings,
    node,
    thing,
)
from tests.cluster.api_server import ApiServer

TAINT = "nvidia.com/gpu:present:NoSchedule"


@pytest.mark.parametrize(
    ("nodes", "section", "state", "words"),
    [
        ([node("g", 1, SELECTOR)], {}, "ok", "1 of 2 nodes take"),
        ([], {}, "fail", "no node has the labels pool=gpu, and nothing here starts nodes"),
        ([node("g", 1, {"pool": "gpus"})], {}, "fail", "pool is gpus on others"),
        ([node("g", 0, SELECTOR)], {}, "fail", "1 have 0 nvidia.com/gpu"),
        ([node("g", 1, SELECTOR)], {"accelerator_count": 2}, "fail", "have 1 nvidia.com/gpu"),
        ([node("g", 1, SELECTOR)], {"accelerator_memory": "64Gi"}, "fail", "have 28Gi memory"),
        ([node("g", 1, SELECTOR)], {"accelerator_cpu": "7.95"}, "fail", "have 7910m cpu"),
        ([node("g", 1, SELECTOR, [TAINT])], {}, "fail", "taint nvidia.com/gpu=present:NoSchedule"),
        (
            [node("g", 1, SELECTOR, [TAINT])],
            {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
            "ok",
            "1 of 2",
        ),
        (
            [node("g", 1, SELECTOR, [TAINT])],
            {"tolerations": [{"key": "nvidia.com/gpu", "value": "absent"}]},
            "fail",
            "taint",
        ),
        ([node("g", 1, SELECTOR, ["spot:true:PreferNoSchedule"])], {}, "ok", "1 of 2"),
        # A pool that scales from zero cannot be told from a slip of the hand.
        (
            [node("p", labels={"cloud.google.com/gke-nodepool": "d"})],
            {},
            "warn",
            "GKE's autoscaler",
        ),
        # GKE adds the toleration of the resource's own taint to who asks for the resource.
        (
            [node("g", 1, SELECTOR | {"cloud.google.com/gke-nodepool": "g"}, [TAINT])],
            {},
            "ok",
            "1 of 2",
        ),
    ],
)
def test_a_gpu_pool_that_takes_no_task_is_found(
    server: ApiServer,
    doctor: Callable[..., Findings],
    nodes: list[dict[str, Any]],
    section: dict[str, Any],
    state: str,
    words: str,
) -> None:
    for one in nodes:
        server.put(one)
    found = doctor(cluster=GPU | section)["GPU nodes"]
    assert found["state"] == state and words in found["found"]
    assert bool(found["remedy"]) == (state != "ok")


def test_the_toleration_that_lacks_is_written_out(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    server.put(node("g", 1, SELECTOR, [TAINT]))
    remedy = doctor(cluster=GPU)["GPU nodes"]["remedy"]
    assert "cluster.tolerations: {key: nvidia.com/gpu, operator: Equal, value: present" in remedy


def test_a_cordoned_node_and_an_autoscaler_are_told(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    server.put(node("g", 1, SELECTOR) | {"spec": {"unschedulable": True}})
    found = doctor(cluster=GPU)["GPU nodes"]
    assert found["state"] == "fail" and "cordoned" in found["found"]
    server.delete("Node", "g", "")
    server.put(thing("ConfigMap", "cluster-autoscaler-status"), namespace="kube-system")
    found = doctor(cluster=GPU)["GPU nodes"]
    assert found["state"] == "warn" and "the cluster autoscaler may start one" in found["found"]


def test_a_cluster_without_room_for_a_plain_task_is_found(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    assert doctor(cluster={"cpu": "2"})["nodes for tasks"]["state"] == "ok"
    found = doctor(cluster={"cpu": "16"})["nodes for tasks"]
    assert found["state"] == "fail" and "Ask for less cpu" in found["remedy"]


def test_a_gang_that_the_nodes_cannot_hold_at_once_is_found(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    sections = {"cluster": GPU, "training": {"runner": "trainjob", "trainjob": {"nodes": 3}}}
    server.put(node("gpu", 2, SELECTOR))
    found = doctor(**sections)["nodes for the TrainJob"]
    assert found["state"] == "fail" and "room for 2" in found["found"]
    server.put(node("gpu-2", 1, SELECTOR))
    assert doctor(**sections)["nodes for the TrainJob"]["state"] == "ok"
    assert "nodes for the TrainJob" not in doctor(cluster=GPU)
