"""What keeps a model from being published, logged or trained is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.cluster_checks.made import (
    NAMESPACE,
    Findings,
    inference_services,
    thing,
)
from tests.cli.cluster_checks.registry_stub import Registry
from tests.cluster.api_server import ApiServer


@pytest.fixture
def published(images: Registry) -> dict[str, Any]:
    return {"image": f"{images.host}/slim:1"}


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({}, "not installed"),
        ({"v1alpha2": (True, True)}, "serves v1alpha2 and not v1beta1"),
        ({"v1alpha2": (True, True), "v1beta1": (True, False)}, "stored as v1alpha2"),
    ],
)
def test_a_wrong_version_of_kserves_definitions_fails_where_models_go_there(
    server: ApiServer,
    doctor: Callable[..., Findings],
    published: dict[str, Any],
    versions: dict[str, tuple[bool, bool]],
    words: str,
) -> None:
    if versions:
        server.install(inference_services(versions))
    found = doctor(serving={"kserve": published})["KServe"]
    assert found["state"] == "fail" and words in found["found"] and "0.16" in found["remedy"]


@pytest.mark.parametrize(("release", "rollout"), [("v0.16.0", "Standard"), ("v0.20.0", "canary")])
def test_the_rollout_that_the_cluster_allows_is_told(
    server: ApiServer,
    doctor: Callable[..., Findings],
    published: dict[str, Any],
    shared: Path,
    release: str,
    rollout: str,
) -> None:
    from tests.cluster.schemas import read_crds

    for crd in read_crds(shared / "crds" / f"kserve-{release}"):
        server.install(crd)
    found = doctor(serving={"kserve": published})
    assert found["KServe"]["state"] == "ok" and rollout in found["rollout"]["found"]
    found = doctor(serving={"kserve": published | {"mode": "Knative"}})["rollout"]
    assert found["state"] == "fail" and "Knative" in found["found"] and found["remedy"]


def test_a_runtime_or_an_account_of_the_endpoint_that_lacks_is_found(
    server: ApiServer, doctor: Callable[..., Findings], published: dict[str, Any], shared: Path
) -> None:
    from tests.cluster.schemas import read_crds

    for crd in read_crds(shared / "crds" / "kserve-v0.20.0"):
        server.install(crd)
    asked = {"runtime": "triton", "service_account": "reader"}
    found = doctor(serving={"kserve": published | asked})
    for check in ("runtime kserve-tritonserver", "service account reader"):
        assert found[check]["state"] == "fail" and "serving.kserve" in found[check]["remedy"]
    spec = {"containers": [{"name": "kserve-container", "image": "triton:1"}]}
    version = "serving.kserve.io/v1alpha1"
    server.put(thing("ClusterServingRuntime", "kserve-tritonserver", version, spec=spec))
    server.put(thing("ServiceAccount", "reader"), namespace=NAMESPACE)
    found = doctor(serving={"kserve": published | asked})
    for check in ("runtime kserve-tritonserver", "service account reader"):
        assert found[check]["state"] == "ok"


def test_a_namespace_whose_pods_kserve_leaves_alone_is_found(
    server: ApiServer, doctor: Callable[..., Findings], published: dict[str, Any]
) -> None:
    check = f"namespace {NAMESPACE} for the endpoint"
    assert doctor(serving={"kserve": published})[check]["state"] == "ok"
    labels = {"labels": {"control-plane": "kubeflow"}}
    server.put(thing("Namespace", NAMESPACE, metadata=labels))
    found = doctor(serving={"kserve": published})[check]
    assert found["state"] == "fail" and "no events" in found["found"]
    assert "serving.kserve.namespace" in found["remedy"]
    assert check not in doctor(name="loop")
    elsewhere = {"kserve": published | {"namespace": "models"}}
    assert doctor(serving=elsewhere)["namespace models for the endpoint"]["state"] == "fail"
    server.put(thing("Namespace", "models"))
    assert doctor(serving=elsewhere)["namespace models for the endpoint"]["state"] == "ok"


def collector(server: ApiServer, *, ready: bool = True) -> None:
    labels = {"app.kubernetes.io/component": "collector"}
    spec = {"selector": labels, "ports": [{"port": 8090}]}
    server.put(thing("Service", "visionloop-collector", spec=spec), namespace=NAMESPACE)
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    if not ready:
        waiting = {"state": {"waiting": {"reason": "ErrImagePull"}}, "image": "slim:9"}
        status["containerStatuses"] = [{"name": "collector"} | waiting]
    labelled = {"labels": labels}
    server.put(thing("Pod", "c-0", metadata=labelled, status=status), namespace=NAMESPACE)


def policy(server: ApiServer, *peers: dict[str, Any]) -> None:
    selector = {"matchLabels": {"app.kubernetes.io/component": "collector"}}
    spec = {"podSelector": selector, "ingress": [{"from": list(peers)}] if peers else []}
    made = thing("NetworkPolicy", "collector", "networking.k8s.io/v1", spec=spec)
    server.put(made, namespace=NAMESPACE)


PREDICTORS = {
    "podSelector": {
        "matchExpressions": [{"key": "serving.kserve.io/inferenceservice", "operator": "Exists"}]
    }
}


def test_events_that_nobody_receives_are_found(
    server: ApiServer, doctor: Callable[..., Findings], published: dict[str, Any]
) -> None:
    found = doctor(serving={"kserve": published})["events"]
    assert found["state"] == "fail" and "no Service visionloop-collector" in found["found"]
    collector(server, ready=False)
    found = doctor(serving={"kserve": published})["events"]
    assert found["state"] == "fail" and "slim:9" in found["found"]
    collector(server)
    found = doctor(serving={"kserve": published})
    assert found["events"]["found"] == "1 of 1 collectors are ready"
    assert found["way to the collector"]["state"] == "warn"
    wrong = published | {"logger": {"url": "http://visionloop-collector.kubeflow:80"}}
    assert "port 8090 and not 80" in doctor(serving={"kserve": wrong})["events"]["found"]
    outside = published | {"logger": {"url": "http://events.example.org"}}
    told = "go to http://events.example.org, not to a Service of this cluster"
    assert doctor(serving={"kserve": outside})["events"]["found"] == told
    off = published | {"logger": {"enabled": False}}
    assert doctor(serving={"kserve": off})["events"]["state"] == "warn"


def test_a_network_policy_that_keeps_predictors_out_is_found(
    server: ApiServer, doctor: Callable[..., Findings], published: dict[str, Any]
) -> None:
    collector(server)
    way = "way to the collector"
    policy(server)
    assert doctor(serving={"kserve": published})[way]["state"] == "fail"
    policy(server, {"podSelector": {"matchLabels": {"app": "prometheus"}}})
    assert doctor(serving={"kserve": published})[way]["state"] == "fail"
    policy(server, PREDICTORS)
    assert doctor(serving={"kserve": published})[way]["state"] == "ok"
    logger = {"url": "http://visionloop-collector.kubeflow:8090"}
    elsewhere = published | {"namespace": "models", "logger": logger}
    found = doctor(serving={"kserve": elsewhere})[way]
    assert found["state"] == "fail" and "models" in found["found"]


def test_a_bucket_for_events_needs_its_key(
    server: ApiServer, doctor: Callable[..., Findings], published: dict[str, Any]
) -> None:
    logger = {"storage": "gs://b/events", "storage_key": "gcs"}
    sections = {"serving": {"kserve": published | {"logger": logger}}}
    assert "does not exist" in doctor(**sections)["events"]["found"]
    server.put(thing("Secret", "storage-config", data={"gcs": "e30="}), namespace=NAMESPACE)
    assert doctor(**sections)["events"]["state"] == "ok"


def test_a_trainer_or_runtime_that_is_not_there_is_found(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    from tests.cluster.objects import Resource

    sections = {"training": {"runner": "trainjob"}}
    assert "not installed" in doctor(**sections)["Kubeflow Trainer"]["found"]
    group = "trainer.kubeflow.org"
    names = ("clustertrainingruntimes", "ClusterTrainingRuntime")
    server.resources.append(Resource(group, "v2", *names, False))
    assert "serves v2 and not v1alpha1" in doctor(**sections)["Kubeflow Trainer"]["found"]
    server.resources.append(Resource(group, "v1alpha1", *names, False))
    found = doctor(**sections)["Kubeflow Trainer"]
    assert found["state"] == "fail" and "torch-distributed" in found["found"]
    server.put(thing("ClusterTrainingRuntime", "torch-distributed", f"{group}/v1alpha1"))
    assert doctor(**sections)["Kubeflow Trainer"]["state"] == "ok"
    assert "Kubeflow Trainer" not in doctor(name="loop")
