"""What a document names is there, and is what it takes it for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.manifests.rendering import (
    MANIFESTS,
    VARIANTS,
    Document,
    matches,
    named,
    names,
    of_kind,
    pod_templates,
    render,
    variant,
)
from visionloop.config import load_config
from visionloop.pipelines.placement import SECRET, SECRET_FOLDER

# What the person makes, as docs/cluster.md tells: no value of a Secret lies in the repository.
SECRETS_OF_THE_PERSON = {
    "visionloop-postgres",
    "visionloop-label-studio",
    "visionloop-label-media",
    "visionloop-collector-token",
}
# What tasks mount where it is there; others mount some of its keys.
SECRET_OF_THE_TASKS = {"secretName": SECRET, "optional": True}


def workloads(documents: tuple[Document, ...]) -> list[Document]:
    return of_kind(documents, "StatefulSet", "Deployment")


def named_things(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the kind and name of each Secret, ConfigMap and claim that a pod refers to."""
    if isinstance(value, list):
        for item in value:
            yield from named_things(item)
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("secretKeyRef", "secretRef"):
                yield "Secret", inner["name"]
            elif key in ("configMapKeyRef", "configMapRef"):
                yield "ConfigMap", inner["name"]
            elif key == "secret" and not inner.items() >= SECRET_OF_THE_TASKS.items():
                yield "Secret", inner["secretName"]
            elif key == "persistentVolumeClaim":
                yield "PersistentVolumeClaim", inner["claimName"]
            else:
                yield from named_things(inner)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_client_has_what_a_task_has_and_no_replica_until_somebody_wants_one(name: str) -> None:
    documents = variant(name)
    client = named(documents, "Deployment", "visionloop-client")["spec"]
    assert client["replicas"] == 0
    pod = client["template"]["spec"]
    assert pod["serviceAccountName"] == "visionloop-runner"
    text = named(documents, "ConfigMap", "visionloop-loop-example")["data"]["loop.yaml"]
    cluster = load_config(text).cluster
    mounts = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts[SECRET_FOLDER]]["secret"] == SECRET_OF_THE_TASKS
    claims = {m: volumes[v].get("persistentVolumeClaim") for m, v in mounts.items()}
    wanted = {cluster.mount_path: {"claimName": cluster.claim}} if cluster.claim else {}
    assert {mount: claim for mount, claim in claims.items() if claim} == wanted


def port_of(container: Document, wanted: int | str) -> int:
    """Return the number of a container's port by name or number."""
    return next(
        port["containerPort"]
        for port in container["ports"]
        if wanted in (port["name"], port["containerPort"])
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_pod_refers_to_is_there_or_is_the_persons_to_make(name: str) -> None:
    documents = variant(name)
    for title, template in pod_templates(documents):
        for kind, wanted in named_things(template["spec"]):
            there = names(documents, kind) | (SECRETS_OF_THE_PERSON if kind == "Secret" else set())
            assert wanted in there, (title, kind, wanted)


def test_the_secrets_that_a_person_makes_are_told_where_they_are_needed() -> None:
    for secret in SECRETS_OF_THE_PERSON:
        folder = MANIFESTS / "components" / secret.removeprefix("visionloop-")
        text = (folder / "kustomization.yaml").read_text()
        assert f"kubectl create secret generic {secret} " in text.replace("\\\n#", "")
        file = next(folder.glob(f"{folder.name}.yaml")).read_text()
        for key in ("username", "password", "token"):
            if f"key: {key}" in file:
                assert f"--from-literal={key}=" in text


def test_the_told_address_of_the_catalog_leads_to_its_database() -> None:
    text = (MANIFESTS / "components" / "postgres" / "kustomization.yaml").read_text()
    told = re.search(r"--from-literal=catalog=(\S+)", text)
    assert told
    address = urlsplit(told[1])
    workload = named(variant("gke"), "StatefulSet", "visionloop-postgres")
    container = workload["spec"]["template"]["spec"]["containers"][0]
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    assert address.username == values["POSTGRES_USER"]
    assert address.path == f"/{values['POSTGRES_DB']}"
    assert address.hostname in names(variant("gke"), "Service")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert values["POSTGRES_PASSWORD_FILE"] == f"{mounts['password']}/password"
    assert values["PGDATA"].startswith(f"{mounts['data']}/")


@pytest.mark.parametrize("name", VARIANTS)
def test_accounts_are_there_and_none_is_the_default_one(name: str) -> None:
    documents = variant(name)
    accounts = names(documents, "ServiceAccount")
    for workload in workloads(documents):
        assert workload["spec"]["template"]["spec"]["serviceAccountName"] in accounts
    for binding in of_kind(documents, "RoleBinding", "ClusterRoleBinding"):
        assert {subject["name"] for subject in binding["subjects"]} <= accounts
        kind = binding["roleRef"]["kind"]
        assert binding["roleRef"]["name"] in names(documents, kind)


@pytest.mark.parametrize("name", VARIANTS)
def test_volumes_are_mounted_and_mounts_have_volumes(name: str) -> None:
    for document in (*workloads(variant(name)), *of_kind(variant(name), "ServingRuntime")):
        pod = document["spec"].get("template", document)["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        claims = document["spec"].get("volumeClaimTemplates", [])
        volumes |= {claim["metadata"]["name"] for claim in claims}
        mounts = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
        assert mounts == volumes, document["metadata"]["name"]


@pytest.mark.parametrize("name", VARIANTS)
def test_selectors_select_their_own_pods_and_no_others(name: str) -> None:
    documents = variant(name)
    found = workloads(documents)
    for workload in found:
        selector = workload["spec"]["selector"]
        selected = [
            other["metadata"]["name"]
            for other in found
            if matches(selector, other["spec"]["template"]["metadata"]["labels"])
        ]
        assert selected == [workload["metadata"]["name"]]
        pod = workload["spec"]["template"]["spec"]
        for spread in pod.get("topologySpreadConstraints", []):
            assert spread["labelSelector"] == selector


@pytest.mark.parametrize("name", VARIANTS)
def test_a_service_leads_to_ports_of_one_workload(name: str) -> None:
    documents = variant(name)
    services = of_kind(documents, "Service")
    assert services
    for service in services:
        selector = {"matchLabels": service["spec"]["selector"]}
        behind = [
            workload
            for workload in workloads(documents)
            if matches(selector, workload["spec"]["template"]["metadata"]["labels"])
        ]
        assert len(behind) == 1, service["metadata"]["name"]
        container = behind[0]["spec"]["template"]["spec"]["containers"][0]
        for port in service["spec"]["ports"]:
            assert port_of(container, port["targetPort"]) == port["port"]


@pytest.mark.parametrize("name", VARIANTS)
def test_probes_ask_ports_that_the_container_has(name: str) -> None:
    for title, template in pod_templates(variant(name)):
        for container in template["spec"]["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {}).get("httpGet")
                if asked:
                    assert port_of(container, asked["port"]) > 0, title


@pytest.mark.parametrize("name", VARIANTS)
def test_a_stateful_sets_service_is_headless_and_its_own(name: str) -> None:
    documents = variant(name)
    for workload in of_kind(documents, "StatefulSet"):
        service = named(documents, "Service", workload["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["selector"] == workload["spec"]["selector"]["matchLabels"]


def test_budget_and_autoscaler_are_about_the_collector() -> None:
    documents = variant("gke")
    collector = named(documents, "StatefulSet", "visionloop-collector")
    budget = named(documents, "PodDisruptionBudget", "visionloop-collector")
    assert budget["spec"]["selector"] == collector["spec"]["selector"]
    target = named(documents, "HorizontalPodAutoscaler", "visionloop-collector")["spec"]
    assert target["scaleTargetRef"] == {
        "apiVersion": collector["apiVersion"],
        "kind": collector["kind"],
        "name": collector["metadata"]["name"],
    }
    # Utilization is measured against requests; a fixed number of replicas would undo its work.
    requests = collector["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert {m["resource"]["name"] for m in target["metrics"]} <= set(requests)
    assert "replicas" not in collector["spec"]
    assert target["minReplicas"] > budget["spec"]["maxUnavailable"]


def test_the_queue_leads_to_the_example_of_a_quota() -> None:
    quota = tuple(render(MANIFESTS / "quota" / "gke"))
    queue = named(variant("gke with everything"), "LocalQueue", "visionloop-gpu")
    cluster_queue = named(quota, "ClusterQueue", queue["spec"]["clusterQueue"])
    for group in cluster_queue["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            assert flavor["name"] in names(quota, "ResourceFlavor")
            listed = [resource["name"] for resource in flavor["resources"]]
            assert listed == group["coveredResources"]


def test_no_two_kustomizations_for_one_namespace_own_the_same_object() -> None:
    gitops = tuple(render(MANIFESTS.parent / "docs" / "ci" / "gitops"))
    ours = {(d["kind"], d["metadata"]["name"]) for d in gitops}
    assert ("ConfigMap", "visionloop-loop") in ours
    for name in VARIANTS:
        theirs = {(d["kind"], d["metadata"]["name"]) for d in variant(name)}
        assert not ours & theirs, name


def test_the_account_of_the_schedules_job_comes_with_the_component_that_it_names() -> None:
    gitops = tuple(render(MANIFESTS.parent / "docs" / "ci" / "gitops"))
    (job,) = of_kind(gitops, "Job")
    account = job["spec"]["template"]["spec"]["serviceAccountName"]
    assert account in names(variant("gke with everything"), "ServiceAccount")
    for overlay in ("gke", "local"):
        text = (MANIFESTS / "overlays" / overlay / "kustomization.yaml").read_text()
        assert "# - ../../components/submitter" in text
