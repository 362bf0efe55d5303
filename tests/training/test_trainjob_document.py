"""The TrainJob that is emitted, against both versions of its schema and its meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api_server import ApiServer
from visionloop.cluster import connect
from visionloop.config import LoopConfig, load_config
from visionloop.errors import InputError, VisionloopError
from visionloop.training.own_pod import Surroundings, surroundings
from visionloop.training.plan import Plan
from visionloop.training.training_set import TrainingSet
from visionloop.training.trainjob_document import job_name, train_job

TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
# What Kubeflow Pipelines and Argo make of a task, in short.
TASK_POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "round-abc-system-container-impl-1"},
    "spec": {
        "serviceAccountName": "pipeline-runner",
        "imagePullSecrets": [{"name": "registry"}],
        "containers": [
            {"name": "wait", "image": "argoexec:v4"},
            {
                "name": "main",
                "image": "registry.example/visionloop:0.1.0",
                "env": [
                    {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
                    {"name": "VISIONLOOP_STORAGE_TIMEOUT", "value": "60"},
                    {"name": "ARGO_TEMPLATE", "value": "{}"},
                    {
                        "name": "GOOGLE_APPLICATION_CREDENTIALS",
                        "value": "/var/run/secrets/visionloop/gcs.json",
                    },
                    {
                        "name": "LABEL_STUDIO_TOKEN",
                        "valueFrom": {"secretKeyRef": {"name": "visionloop", "key": "token"}},
                    },
                ],
                "volumeMounts": [
                    {"name": "var-run-argo", "mountPath": "/var/run/argo"},
                    {"name": "visionloop", "mountPath": "/var/run/secrets/visionloop"},
                    {"name": "lake", "mountPath": "/mnt/visionloop"},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                    {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io"},
                ],
            },
        ],
        "volumes": [
            {"name": "var-run-argo", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            {"name": "visionloop", "secret": {"secretName": "visionloop", "optional": True}},
            {"name": "lake", "persistentVolumeClaim": {"claimName": "lake"}},
            {"name": "unused", "configMap": {"name": "argo"}},
            {"name": "kube-api-access-x", "projected": {"sources": []}},
        ],
    },
}


def configured(**sections: Any) -> LoopConfig:
    settings = {
        "name": "clothing",
        "lake": "gs://bucket/lake",
        "cluster": {
            "queue": "vision",
            "accelerator_type": "nvidia.com/gpu",
            "accelerator_count": 4,
            "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
            "tolerations": [TOLERATION],
        },
        "training": {"runner": "trainjob", "trainjob": {"nodes": 2}},
    }
    return load_config(json.dumps(settings | sections))


def planned(loop: LoopConfig, folder: str = "gs://bucket/lake/training/clothing/m") -> Plan:
    return Plan(
        model_id="m0000-0123456789",
        training_set=TrainingSet("loop", (("a", "x"), ("b", "y"))),
        media={},
        classes=["x", "y"],
        parameters=loop.training,
        round_id="0000",
        lake_version="v",
        bundle="gs://bucket/lake/trained/m",
        folder=folder,
    )


@pytest.fixture(params=["trainer-v2.2.0", "trainer-v2.3.0"])
def server(
    request: pytest.FixtureRequest, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    with ApiServer([shared / "crds" / request.param]) as server:
        path = server.kubeconfig(tmp_path / "config", namespace="loops")
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield server


@pytest.fixture
def in_a_task(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put(TASK_POD, namespace="loops")
    monkeypatch.setenv("KFP_POD_NAME", TASK_POD["metadata"]["name"])


def test_both_versions_of_the_schema_take_every_field(server: ApiServer, in_a_task: None) -> None:
    cluster, loop = connect(), configured()
    document = train_job(planned(loop), loop, surroundings(loop, cluster))
    made = cluster.apply(document)
    assert made["spec"]["trainer"] == document["spec"]["trainer"]
    assert made["spec"]["runtimePatches"] == document["spec"]["runtimePatches"]
    # Strictly: a field that they do not know is refused.
    document["spec"]["trainer"]["numNode"] = 3
    with pytest.raises(InputError, match=r"spec\.trainer\.numNode"):
        cluster.apply(document)


def test_the_pods_are_placed_by_the_configuration_and_have_what_the_task_has(
    server: ApiServer, in_a_task: None
) -> None:
    loop = configured()
    document = train_job(planned(loop), loop, surroundings(loop, connect()))
    assert document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "vision"
    spec, trainer = document["spec"], document["spec"]["trainer"]
    assert spec["runtimeRef"]["name"] == "torch-distributed"
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "4"
    assert trainer["image"] == "registry.example/visionloop:0.1.0"
    assert trainer["args"] == ["gs://bucket/lake/training/clothing/m/plan.json"]
    assert {one["name"] for one in trainer["env"]} == {
        "VISIONLOOP_STORAGE_TIMEOUT", "GOOGLE_APPLICATION_CREDENTIALS", "LABEL_STUDIO_TOKEN",
    }  # fmt: skip
    (job,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert job["name"] == pod["containers"][0]["name"] == "node"
    # The trainer's webhook refuses variables of this container in a patch.
    assert "env" not in pod["containers"][0]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pod["tolerations"] == [TOLERATION]
    assert pod["serviceAccountName"] == "pipeline-runner"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert [volume["name"] for volume in pod["volumes"]] == ["visionloop", "lake", "shared-memory"]
    assert [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]] == [
        "/var/run/secrets/visionloop", "/mnt/visionloop", "/dev/shm",
    ]  # fmt: skip


def test_without_queue_and_accelerator_neither_is_asked_for(server: ApiServer) -> None:
    loop = configured(
        cluster={"image": "registry.example/visionloop:1", "node_selector": {"gpu": "yes"}},
        training={
            "runner": "trainjob",
            "processes": 3,
            "trainjob": {"runtime_kind": "TrainingRuntime", "runtime": "ours"},
        },
    )
    document = train_job(planned(loop), loop, surroundings(loop, connect()))
    assert "kueue.x-k8s.io/queue-name" not in document["metadata"]["labels"]
    assert set(document["spec"]["trainer"]["resourcesPerNode"]["limits"]) == {"cpu", "memory"}
    assert document["spec"]["trainer"]["numProcPerNode"] == 3
    assert document["spec"]["runtimeRef"]["kind"] == "TrainingRuntime"
    assert "gpu" not in yaml.safe_dump(document)
    connect().apply(document)


def test_a_volume_of_the_configuration_is_mounted_from_outside_of_a_task(server: ApiServer) -> None:
    loop = configured(cluster={"image": "i:1", "volume": "lake:/data", "service_account": "runner"})
    given = surroundings(loop, connect())
    assert given.service_account == "runner"
    assert given.volumes == [{"name": "lake", "persistentVolumeClaim": {"claimName": "lake"}}]
    document = train_job(planned(loop, "file:///data/lake/training/c/m"), loop, given)
    connect().apply(document)
    with pytest.raises(InputError, match="folder of this machine"):
        train_job(planned(loop, "file:///home/me/lake"), loop, Surroundings("i:1"))


def test_what_is_missing_is_named(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="which image"):
        surroundings(configured(), connect())
    monkeypatch.setenv("KFP_POD_NAME", "gone")
    with pytest.raises(VisionloopError, match="the pod of this task, gone, cannot be found"):
        surroundings(configured(), connect())


def test_a_job_is_named_by_its_model_and_its_lake() -> None:
    loop = configured()
    one, other = planned(loop), planned(loop, "gs://another/lake/training/clothing/m")
    assert job_name(one) == job_name(planned(configured(training={}))) != job_name(other)
    assert len(job_name(one)) < 40
