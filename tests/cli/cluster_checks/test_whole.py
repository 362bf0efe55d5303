"""The doctor finds a whole cluster, an old one, one that is away, and what would be refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.cluster_checks.made import (
    CONTROLLER,
    GPU,
    NAMESPACE,
    SELECTOR,
    Findings,
    deployment,
    inference_services,
    node,
)
from tests.cli.cluster_checks.registry_stub import Registry
from tests.cluster.api_server import ApiServer
from visionloop.cli import main


def test_a_whole_cluster_is_found(
    server: ApiServer, doctor: Callable[..., Findings], images: Registry
) -> None:
    server.install(inference_services({"v1beta1": (True, True)}))
    server.put(deployment(CONTROLLER, "kserve/kserve-controller:v0.21.0"), namespace="kserve")
    server.put(
        deployment("ml-pipeline", "ghcr.io/kfp-api-server:2.17.0", "api"), namespace="kubeflow"
    )
    server.put(node("a", 2))
    server.put(node("b", 1))
    found = doctor()
    assert found["Kubernetes"]["found"] == "version v1.36.0, namespace kubeflow"
    assert found["KServe"]["found"] == "version v0.21.0"
    assert found["GPU nodes"]["found"] == "3 of nvidia.com/gpu"
    assert found["Kubeflow Pipelines"]["found"] == "answers, for one user"
    assert found["Kubeflow Pipelines' version"]["found"] == "2.17.0"
    assert found["service account pipeline-runner"]["state"] == "ok"
    assert found["rights of pipeline-runner"]["state"] == "ok"
    assert found["image of the tasks"]["found"] == f"{images.host}/tasks:1, sha256:abc"
    cluster = list(found)[list(found).index("Kubernetes") :]
    assert {found[name]["state"] for name in cluster} == {"ok"}


def test_what_a_cluster_lacks_is_a_warning_with_a_remedy(doctor: Callable[..., Findings]) -> None:
    found = doctor()
    for check in ("KServe", "GPU nodes"):
        assert found[check]["state"] == "warn" and found[check]["remedy"]


def test_old_versions_are_warnings(server: ApiServer, doctor: Callable[..., Findings]) -> None:
    server.install(inference_services({"v1beta1": (True, True)}))
    image = "host:5000/kserve-controller:v0.11.2@sha256:abc"
    server.put(deployment(CONTROLLER, image), namespace="kserve")
    server.put(deployment("ml-pipeline", "kfp:2.4.1", "api"), namespace="kubeflow")
    found = doctor()
    assert found["KServe"]["state"] == "warn" and "v0.11.2" in found["KServe"]["found"]
    assert found["Kubeflow Pipelines' version"]["state"] == "warn"


def test_what_may_not_be_read_is_a_warning_that_it_cannot_be_told(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    server.install(inference_services({"v1beta1": (True, True)}))
    server.denied |= {
        "list nodes", "get namespaces", "get customresourcedefinitions.apiextensions.k8s.io",
        "get serviceaccounts", "get deployments.apps",
        "create subjectaccessreviews.authorization.k8s.io",
    }  # fmt: skip
    found = doctor()
    checks = ("GPU nodes", "namespace kubeflow", "KServe", "service account pipeline-runner")
    for check in (*checks, "rights of pipeline-runner"):
        assert found[check]["state"] == "warn" and "cannot tell" in found[check]["found"], check
    assert "kubectl auth can-i" in found["rights of pipeline-runner"]["remedy"]


def test_no_cluster_at_all_fails_with_status_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    images: Registry,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    command = ["doctor", "--cluster", "--host", "http://127.0.0.1:9"]
    assert main([*command, "--image", f"{images.host}/tasks:1"]) == 1
    text = capsys.readouterr().out
    assert "✗ Kubernetes: No cluster is configured" in text and "KUBECONFIG" in text
    assert "✗ Kubeflow Pipelines" in text and "port-forward" in text


def test_a_login_that_expired_is_told_once(
    server: ApiServer, images: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    server.tokens = {"valid"}
    command = ["doctor", "--cluster", "--host", "http://127.0.0.1:9"]
    assert main([*command, "--image", f"{images.host}/tasks:1"]) == 1
    text = capsys.readouterr().out
    assert "✗ Kubernetes: The cluster does not accept the credentials" in text
    assert "Log in again" in text and "GPU nodes" not in text


def test_a_cluster_that_is_away_fails_once_and_nothing_more_is_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    images: Registry,
) -> None:
    with ApiServer() as server:
        path = server.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(path))
    command = ["doctor", "--cluster", "--host", "http://127.0.0.1:9"]
    assert main([*command, "--image", f"{images.host}/tasks:1"]) == 1
    text = capsys.readouterr().out
    assert "✗ Kubernetes: The cluster does not answer" in text and "kubectl cluster-info" in text
    assert "KServe" not in text


def test_a_missing_image_of_tasks_and_of_the_endpoint_is_found(
    server: ApiServer, doctor: Callable[..., Findings], images: Registry
) -> None:
    kserve = {"serving": {"kserve": {"image": f"{images.host}/slim:1"}}}
    assert doctor(**kserve)["image of the endpoint"]["state"] == "ok"
    kserve = {"serving": {"kserve": {"image": f"{images.host}/slim:2"}}}
    found = doctor("--image", f"{images.host}/tasks:2", **kserve)
    for check in ("image of the tasks", "image of the endpoint"):
        assert found[check]["state"] == "fail" and "no such image" in found[check]["found"]


def test_a_pod_that_the_cluster_would_refuse_is_found_and_none_is_made(
    server: ApiServer, doctor: Callable[..., Findings]
) -> None:
    assert doctor(cluster=GPU)["a task's pod"]["found"] == "would be admitted"
    assert server.read("Pod", "visionloop-doctor", NAMESPACE) is None
    (asked,) = server.asked("PATCH", "/pods/visionloop-doctor")
    assert asked.query["dryRun"] == "All"
    assert asked.body["spec"]["nodeSelector"] == SELECTOR
    message = 'pods "visionloop-doctor" is forbidden: violates PodSecurity "restricted:latest"'
    server.fail("PATCH", "/pods/", 403, message=message, reason="Forbidden")
    found = doctor(cluster=GPU)["a task's pod"]
    assert found["state"] == "fail" and "violates PodSecurity" in found["found"]
    server.denied.add("patch pods")
    assert doctor(cluster=GPU)["a task's pod"]["state"] == "warn"
