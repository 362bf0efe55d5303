"""The client against a real HTTP server: what it reads, applies and says when it is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api_server import ApiServer
from tests.cluster.objects import Resource
from visionloop.cluster import Cluster, FieldConflict, Forbidden, NotServed, Unreachable, connect
from visionloop.cluster.transport import Patience
from visionloop.errors import InputError, VisionloopError

FAST = Patience(attempts=4, first_s=0.01, most_s=1.0)


@pytest.fixture
def cluster(kubeconfig: Path) -> Cluster:
    return connect(patience=FAST)


def config_map(name: str = "a", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "predictor"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def container(**fields: Any) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"name": "main", **fields}]}}}


def service(**predictor: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "clothing"},
        "spec": {"predictor": predictor},
    }


def test_what_is_not_there_is_none_and_a_kind_that_is_not_served_is_an_error(
    cluster: Cluster,
) -> None:
    assert cluster.get("v1", "ConfigMap", "a") is None
    assert not cluster.delete("v1", "ConfigMap", "a")
    with pytest.raises(NotServed, match="InferenceService of serving"):
        cluster.get("serving.kserve.io/v1beta1", "InferenceService", "a")
    assert cluster.versions("serving.kserve.io") == []
    assert cluster.crd("inferenceservices.serving.kserve.io") is None


def test_the_schema_of_a_kind_is_read_without_a_right_to_definitions(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ApiServer([shared / "crds" / "kserve-v0.20.0"]) as server:
        server.denied.add("get customresourcedefinitions.apiextensions.k8s.io")
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        cluster = connect()
        schema = cluster.schema("serving.kserve.io/v1beta1", "InferenceService")
        assert schema and "canary" in schema["properties"]["spec"]["properties"]
        assert cluster.schema("serving.kserve.io/v1beta1", "Unknown") is None
        assert cluster.schema("unknown.example/v1", "InferenceService") is None


def test_a_kind_that_is_installed_later_is_found(api_server: ApiServer, cluster: Cluster) -> None:
    with pytest.raises(NotServed):
        cluster.get("apps/v1", "DaemonSet", "a")
    api_server.resources.append(Resource("apps", "v1", "daemonsets", "DaemonSet"))
    assert cluster.get("apps/v1", "DaemonSet", "a") is None


def test_what_was_applied_is_read_and_deleted(cluster: Cluster) -> None:
    made = cluster.apply(config_map(color="red"))
    assert cluster.get("v1", "ConfigMap", "a") == made
    assert made["metadata"]["namespace"] == "default"
    assert cluster.delete("v1", "ConfigMap", "a")
    assert cluster.get("v1", "ConfigMap", "a") is None


def test_a_list_follows_its_pages(api_server: ApiServer, cluster: Cluster) -> None:
    api_server.page = 3
    for number in range(8):
        labels = {"labels": {"even": str(number % 2 == 0).lower()}}
        made = config_map(f"m{number}")
        made["metadata"] |= labels
        api_server.put(made)
    api_server.put(config_map("elsewhere"), namespace="other")
    found = cluster.list("v1", "ConfigMap")
    assert [item["metadata"]["name"] for item in found] == [f"m{n}" for n in range(8)]
    assert found[0]["kind"] == "ConfigMap" and found[0]["apiVersion"] == "v1"
    assert len(api_server.asked("GET", "/configmaps$")) == 3
    assert len(cluster.list("v1", "ConfigMap", label_selector="even=true")) == 4
    assert len(cluster.list("v1", "ConfigMap", field_selector="metadata.name=m3")) == 1
    assert len(cluster.list("v1", "ConfigMap", namespace="other")) == 1


def test_pages_that_expire_are_read_anew(api_server: ApiServer, cluster: Cluster) -> None:
    api_server.page = 2
    for number in range(5):
        api_server.put(config_map(f"m{number}"))
    seen = iter([False, True])

    def take(method: str, path: str, watching: bool) -> Any:
        from tests.cluster.api_server import Fault

        second = path.endswith("/configmaps") and next(seen, False)
        return Fault(method, path, 410) if second else None

    api_server.take_fault = take  # type: ignore[method-assign]
    assert len(cluster.list("v1", "ConfigMap")) == 5


def test_applying_the_same_twice_changes_nothing(cluster: Cluster) -> None:
    first = cluster.apply(deployment(replicas=1, **container(image="a:1")))
    again = cluster.apply(deployment(replicas=1, **container(image="a:1")))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert again["metadata"]["generation"] == 1


def test_a_field_that_is_left_out_is_removed_and_those_of_others_stay(
    api_server: ApiServer, cluster: Cluster
) -> None:
    cluster.apply(deployment(replicas=1, paused=True, **container(image="a:1")))
    api_server.merge(deployment(minReadySeconds=7), manager="kubectl-edit")
    after = cluster.apply(deployment(replicas=1, **container(image="a:2")))
    assert "paused" not in after["spec"] and after["spec"]["minReadySeconds"] == 7
    assert after["spec"]["template"]["spec"]["containers"] == [{"name": "main", "image": "a:2"}]
    assert after["metadata"]["generation"] == 3


def test_a_field_of_another_owner_is_a_conflict_that_names_owner_and_field(
    api_server: ApiServer, cluster: Cluster
) -> None:
    cluster.apply(deployment(replicas=1, **container(image="a:1")))
    api_server.merge(deployment(replicas=5), manager="kubectl-edit")
    cluster.apply(deployment(**container(image="b:9")), field_manager="argocd", force=True)
    with pytest.raises(FieldConflict) as caught:
        cluster.apply(deployment(replicas=2, **container(image="a:2")))
    assert sorted(caught.value.conflicts) == [
        ("argocd", '.spec.template.spec.containers[name="main"].image'),
        ("kubectl-edit", ".spec.replicas"),
    ]
    assert "kubectl-edit owns .spec.replicas" in str(caught.value)
    kept = api_server.read("Deployment", "predictor")
    assert kept is not None and kept["spec"]["replicas"] == 5
    forced = cluster.apply(deployment(replicas=2, **container(image="a:2")), force=True)
    assert forced["spec"]["replicas"] == 2


def test_a_dry_run_keeps_nothing(cluster: Cluster) -> None:
    shown = cluster.apply(config_map(color="red"), dry_run=True)
    assert shown["data"] == {"color": "red"}
    assert cluster.get("v1", "ConfigMap", "a") is None


def test_the_server_is_asked_for_strict_validation_with_our_name(
    api_server: ApiServer, cluster: Cluster
) -> None:
    cluster.apply(config_map(color="red"))
    (request,) = api_server.asked("PATCH", "configmaps/a")
    assert request.query["fieldManager"] == "visionloop"
    assert request.query["fieldValidation"] == "Strict" and request.query["force"] == "false"


@pytest.fixture
def kserve(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with ApiServer([shared / "crds" / "kserve-v0.20.0"]) as server:
        path = server.kubeconfig(tmp_path / "config", namespace="models")
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield connect(patience=FAST)


def test_a_misspelt_field_of_a_custom_resource_is_named(kserve: Cluster) -> None:
    assert kserve.namespace == "models" and "v1beta1" in kserve.versions("serving.kserve.io")
    with pytest.raises(InputError, match=r"spec\.predictor\.model\.storageURL.*not declared"):
        kserve.apply(service(model={"modelFormat": {"name": "onnx"}, "storageURL": "gs://b/m"}))
    with pytest.raises(InputError, match=r"spec\.predictor\.minReplicas.*numeric"):
        kserve.apply(service(minReplicas="one", model={"modelFormat": {"name": "onnx"}}))
    with pytest.raises(InputError, match=r"spec\.predictor\.model\.modelFormat\.name: Required"):
        kserve.apply(service(model={"modelFormat": {}}))
    made = kserve.apply(service(model={"modelFormat": {"name": "onnx"}}))
    assert made["metadata"]["namespace"] == "models"


def test_a_right_that_lacks_is_named_with_verb_resource_and_namespace(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.denied |= {"patch configmaps", "get pods/log", "list nodes"}
    with pytest.raises(Forbidden) as caught:
        cluster.apply(config_map())
    assert "tester may not patch configmaps in namespace default" in caught.value.what
    assert "Role" in caught.value.remedy
    with pytest.raises(Forbidden, match="list nodes in the whole cluster"):
        cluster.list("v1", "Node")
    assert not cluster.can("patch", "configmaps") and cluster.can("get", "configmaps")
    assert not cluster.can("get", "pods", subresource="log")


def test_another_accounts_rights_are_asked_for_by_its_name(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.denied.add("system:serviceaccount:default:runner: create pods")
    assert not cluster.can("create", "pods", account="runner")
    assert cluster.can("create", "pods", account="walker") and cluster.can("create", "pods")
    api_server.denied.add("create subjectaccessreviews.authorization.k8s.io")
    with pytest.raises(Forbidden, match="subjectaccessreviews"):
        cluster.can("create", "pods", account="runner")


@pytest.mark.parametrize("code", [0, 429, 500, 503])
def test_what_passes_is_tried_again(api_server: ApiServer, cluster: Cluster, code: int) -> None:
    api_server.put(config_map(color="red"))
    api_server.fail("GET", "configmaps/a", code, times=2)
    api_server.fail("PATCH", "configmaps/a", code, times=2)
    found = cluster.get("v1", "ConfigMap", "a")
    assert found is not None and found["data"] == {"color": "red"}
    assert cluster.apply(config_map(shape="round"))["data"]["shape"] == "round"
    assert len(api_server.asked("GET", "configmaps/a")) == 3


def test_a_server_that_says_when_to_come_back_is_heard(
    api_server: ApiServer, cluster: Cluster
) -> None:
    api_server.put(config_map())
    api_server.fail("GET", "configmaps/a", 429, retry_after="1")
    began = time.monotonic()
    assert cluster.get("v1", "ConfigMap", "a")
    assert time.monotonic() - began >= 1.0


def test_what_does_not_pass_is_told_after_the_last_try(
    api_server: ApiServer, cluster: Cluster
) -> None:
    cluster.list("v1", "ConfigMap")
    api_server.fail("GET", "configmaps/a", 503, times=9, message="etcd has no leader")
    with pytest.raises(VisionloopError, match="503: etcd has no leader"):
        cluster.get("v1", "ConfigMap", "a")
    assert len(api_server.asked("GET", "configmaps/a")) == FAST.attempts


def test_a_write_in_between_is_applied_again(api_server: ApiServer, cluster: Cluster) -> None:
    message = "Operation cannot be fulfilled: the object has been modified"
    api_server.fail("PATCH", "configmaps/a", 409, message=message)
    assert cluster.apply(config_map(color="red"))["data"] == {"color": "red"}


def test_credentials_that_expired_are_read_again(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = api_server.kubeconfig(tmp_path / "config", token="old")
    monkeypatch.setenv("KUBECONFIG", str(path))
    api_server.tokens = {"old"}
    cluster = connect(patience=FAST)
    assert cluster.get("v1", "ConfigMap", "a") is None
    api_server.tokens = {"new"}
    api_server.kubeconfig(path, token="new")
    assert cluster.get("v1", "ConfigMap", "a") is None
    assert [r.token for r in api_server.requests][-2:] == ["old", "new"]
    api_server.tokens = {"another"}
    with pytest.raises(VisionloopError, match="does not accept the credentials"):
        cluster.get("v1", "ConfigMap", "a")


def test_a_login_plugin_is_run_again_when_its_token_has_expired(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    api_server.tokens = {"token-2"}
    counter = tmp_path / "count"
    plugin = tmp_path / "login"
    status = '{"token": "token-%s"}'
    plugin.write_text(
        f"#!/bin/sh\necho x >> {counter}\nn=$(wc -l < {counter})\n"
        'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        f'"status":{status}}}\' "$n"\n',
        encoding="utf-8",
    )
    plugin.chmod(0o755)
    path = api_server.kubeconfig(tmp_path / "config")
    config = json.loads(path.read_text(encoding="utf-8"))
    version = "client.authentication.k8s.io/v1"
    config["users"][0]["user"] = {"exec": {"apiVersion": version, "command": str(plugin)}}
    path.write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert connect(patience=FAST).get("v1", "ConfigMap", "a") is None
    assert counter.read_text(encoding="utf-8").count("x") == 2


def test_no_cluster_and_no_answer_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(VisionloopError, match="No cluster is configured") as caught:
        connect()
    assert "KUBECONFIG" in caught.value.remedy
    with ApiServer() as server:
        path = server.kubeconfig(tmp_path / "config")
    monkeypatch.setenv("KUBECONFIG", str(path))
    cluster = connect(patience=FAST)
    with pytest.raises(Unreachable, match="does not answer"):
        cluster.get("v1", "ConfigMap", "a")


def test_the_end_of_a_log_is_read(api_server: ApiServer, cluster: Cluster) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    api_server.put(pod | {"spec": {"containers": [{"name": "main"}]}})
    api_server.pod_logs["p/main"] = [f"line {n}" for n in range(100)]
    assert cluster.logs("p", tail_lines=2) == "line 98\nline 99\n"
    with pytest.raises(VisionloopError, match='"q" not found'):
        cluster.logs("q")


def test_a_page_of_a_pod_comes_through_the_proxy(api_server: ApiServer, cluster: Cluster) -> None:
    api_server.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})
    api_server.pod_pages["p:8080/metrics"] = b"requests 7\n"
    assert cluster.proxy_get("p", 8080, "/metrics") == b"requests 7\n"
    with pytest.raises(VisionloopError, match="connection refused"):
        cluster.proxy_get("p", 9, "metrics")
