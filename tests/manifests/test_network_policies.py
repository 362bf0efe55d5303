"""Who may speak to whom: the policies are evaluated as a cluster's network would."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.manifests.rendering import VARIANTS, Document, matches, of_kind, pod_templates, variant


@dataclass(frozen=True)
class Pod:
    """A pod that speaks or is spoken to."""

    labels: dict[str, str]
    namespace: str = "kubeflow"
    ports: dict[str, int] = field(default_factory=dict)


def ours(documents: tuple[Document, ...], component: str) -> Pod:
    """Return a pod of one of our workloads."""
    for _, template in pod_templates(documents):
        labels = template["metadata"].get("labels", {})
        if labels.get("app.kubernetes.io/component") == component:
            listed = template["spec"]["containers"][0].get("ports", [])
            ports = {p["name"]: p["containerPort"] for p in listed}
            return Pod(labels, ports=ports)
    raise AssertionError(f"no workload is a {component}")


PREDICTOR = Pod({"serving.kserve.io/inferenceservice": "clothing", "component": "predictor"})
TASK = Pod({"pipelines.kubeflow.org/v2_component": "true", "pipeline/runid": "1f0"})
TRAINING_NODE = Pod({"jobset.sigs.k8s.io/jobset-name": "train-1f0"})
PROMETHEUS = Pod({"app.kubernetes.io/name": "prometheus"}, namespace="monitoring")
MANAGED_PROMETHEUS = Pod({"app.kubernetes.io/name": "collector"}, namespace="gmp-system")
STRANGER = Pod({"app": "notebook"})


def may_enter(documents: tuple[Document, ...], source: Pod, to: Pod, port: int) -> bool:
    """Return whether the policies let one pod speak to another."""
    return _allowed(documents, "Ingress", to, source, None, "TCP", port)


def may_leave(
    documents: tuple[Document, ...], pod: Pod, address: str, port: int, protocol: str = "TCP"
) -> bool:
    """Return whether the policies let a pod speak to an address outside the cluster's pods."""
    return _allowed(documents, "Egress", pod, None, address, protocol, port)


def _allowed(
    documents: tuple[Document, ...],
    direction: str,
    pod: Pod,
    peer: Pod | None,
    address: str | None,
    protocol: str,
    port: int,
) -> bool:
    policies = [
        policy["spec"]
        for policy in of_kind(documents, "NetworkPolicy")
        if direction in policy["spec"]["policyTypes"]
        and policy["metadata"]["namespace"] == pod.namespace
        and matches(policy["spec"]["podSelector"], pod.labels)
    ]
    if not policies:
        return True
    side = "from" if direction == "Ingress" else "to"
    target = pod.ports if direction == "Ingress" else {}
    return any(
        _peer_fits(rule.get(side), pod, peer, address)
        and _port_fits(rule.get("ports"), target, protocol, port)
        for policy in policies
        for rule in policy.get(direction.lower(), [])
    )


def _peer_fits(
    peers: list[dict[str, Any]] | None, pod: Pod, peer: Pod | None, address: str | None
) -> bool:
    if peers is None:
        return True
    for entry in peers:
        if "ipBlock" in entry:
            block = entry["ipBlock"]
            if address and ipaddress.ip_address(address) in ipaddress.ip_network(block["cidr"]):
                excepted = (ipaddress.ip_network(net) for net in block.get("except", []))
                if not any(ipaddress.ip_address(address) in net for net in excepted):
                    return True
        elif peer:
            where = {"kubernetes.io/metadata.name": peer.namespace}
            in_namespace = (
                matches(entry["namespaceSelector"], where)
                if "namespaceSelector" in entry
                else peer.namespace == pod.namespace
            )
            if in_namespace and matches(entry.get("podSelector", {}), peer.labels):
                return True
    return False


def _port_fits(
    ports: list[dict[str, Any]] | None, names: dict[str, int], protocol: str, port: int
) -> bool:
    if ports is None:
        return True
    return any(
        entry.get("protocol", "TCP") == protocol
        and (names.get(entry["port"]) if isinstance(entry["port"], str) else entry["port"]) == port
        for entry in ports
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_events_come_from_kserves_pods_and_from_nobody_else(name: str) -> None:
    documents = variant(name)
    collector = ours(documents, "collector")
    assert may_enter(documents, PREDICTOR, collector, 8090)
    assert may_enter(documents, PROMETHEUS, collector, 8090)
    assert not may_enter(documents, PREDICTOR, collector, 22)
    elsewhere = Pod(PREDICTOR.labels, namespace="other-team")
    for stranger in (STRANGER, TASK, elsewhere, Pod(PROMETHEUS.labels), Pod({}, "default")):
        assert not may_enter(documents, stranger, collector, 8090), stranger


def test_googles_own_prometheus_reads_the_metrics_on_gke() -> None:
    documents = variant("gke")
    assert may_enter(documents, MANAGED_PROMETHEUS, ours(documents, "collector"), 8090)
    impostor = Pod(MANAGED_PROMETHEUS.labels)
    assert not may_enter(documents, impostor, ours(documents, "collector"), 8090)


@pytest.mark.parametrize("name", ["gke", "local with everything"])
def test_the_catalog_is_for_tasks_alone(name: str) -> None:
    documents = variant(name)
    catalog = ours(documents, "catalog")
    friends = [TASK, TRAINING_NODE, ours(documents, "client")]
    if name == "local with everything":
        friends.append(ours(documents, "media"))
    for friend in friends:
        assert may_enter(documents, friend, catalog, 5432)
    for stranger in (STRANGER, PREDICTOR, ours(documents, "collector"), Pod(TASK.labels, "other")):
        assert not may_enter(documents, stranger, catalog, 5432), stranger
    assert not may_leave(documents, catalog, "203.0.113.7", 443)


def test_label_studio_is_for_tasks_alone() -> None:
    documents = variant("local with everything")
    labeling = ours(documents, "labeling")
    assert may_enter(documents, TASK, labeling, 8080)
    assert may_enter(documents, ours(documents, "client"), labeling, 8080)
    assert not may_enter(documents, STRANGER, labeling, 8080)
    assert not may_leave(documents, labeling, "203.0.113.7", 443)


@pytest.mark.parametrize("name", ["gke with everything", "local with everything"])
def test_label_studios_webhook_reaches_the_collector_and_nothing_else(name: str) -> None:
    documents = variant(name)
    labeling, collector = ours(documents, "labeling"), ours(documents, "collector")
    assert may_enter(documents, labeling, collector, 8090)
    assert _allowed(documents, "Egress", labeling, collector, None, "TCP", 8090)
    for other in (ours(documents, "media"), ours(documents, "catalog"), STRANGER):
        for port in (8090, 8091, 5432):
            assert not _allowed(documents, "Egress", labeling, other, None, "TCP", port)


def test_the_media_endpoint_reads_catalog_and_bucket_and_is_opened_to_browsers_by_the_person() -> (
    None
):
    on_gke, locally = variant("gke with everything"), variant("local with everything")
    media = ours(on_gke, "media")
    assert may_leave(on_gke, media, "142.250.0.1", 443)
    assert may_leave(on_gke, media, "169.254.169.254", 80)
    assert may_leave(on_gke, media, "10.8.0.4", 5432)
    assert not may_leave(on_gke, media, "10.8.0.4", 443)
    assert not may_leave(locally, ours(locally, "media"), "142.250.0.1", 443)
    assert may_enter(on_gke, PROMETHEUS, media, 8091)
    assert may_enter(on_gke, MANAGED_PROMETHEUS, media, 8091)
    for stranger in (STRANGER, TASK, PREDICTOR, ours(on_gke, "labeling")):
        assert not may_enter(on_gke, stranger, media, 8091)


@pytest.mark.parametrize("name", VARIANTS)
def test_our_pods_find_names_and_reach_nothing_else_by_default(name: str) -> None:
    documents = variant(name)
    for title, template in pod_templates(documents):
        labels = template["metadata"].get("labels")
        if labels and title != "Deployment visionloop-client":
            pod = Pod(labels)
            assert may_leave(documents, pod, "10.0.0.10", 53, "UDP")
            assert may_leave(documents, pod, "10.0.0.10", 53, "TCP")
            assert not may_leave(documents, pod, "10.0.0.10", 443)
            assert not may_leave(documents, pod, "203.0.113.7", 80)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_client_reaches_what_a_task_does_and_nobody_reaches_it(name: str) -> None:
    documents = variant(name)
    client = ours(documents, "client")
    for address, port in (("10.0.0.1", 443), ("10.8.0.4", 5432), ("142.250.0.1", 443)):
        assert may_leave(documents, client, address, port)
    for stranger in (STRANGER, TASK, PREDICTOR, PROMETHEUS):
        assert not may_enter(documents, stranger, client, 8080)


def test_the_collector_reaches_cloud_storage_on_gke_and_nothing_locally() -> None:
    on_gke, locally = variant("gke"), variant("local")
    collector = ours(on_gke, "collector")
    assert may_leave(on_gke, collector, "142.250.0.1", 443)
    assert may_leave(on_gke, collector, "169.254.169.254", 80)
    assert may_leave(on_gke, collector, "169.254.169.252", 988)
    assert not may_leave(on_gke, collector, "169.254.169.254", 443)
    assert not may_leave(on_gke, collector, "10.8.0.4", 443)
    assert not may_leave(locally, ours(locally, "collector"), "142.250.0.1", 443)


@pytest.mark.parametrize("name", VARIANTS)
def test_pods_that_are_not_ours_are_left_alone(name: str) -> None:
    for pod in (PREDICTOR, TASK, TRAINING_NODE, STRANGER, PROMETHEUS):
        assert may_enter(variant(name), STRANGER, pod, 8080)
        assert may_leave(variant(name), pod, "203.0.113.7", 443)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_policy_is_about_a_pod_that_is_there(name: str) -> None:
    documents = variant(name)
    pods = [t["metadata"]["labels"] for _, t in pod_templates(documents) if t["metadata"]]
    for policy in of_kind(documents, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        assert any(matches(selector, labels) for labels in pods), policy["metadata"]["name"]
