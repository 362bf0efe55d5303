"""Checks of what receives the events of an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.question import Question, look

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

_COLLECTOR = "visionloop-collector"
_PREDICTOR = "serving.kserve.io/inferenceservice"


def events(cluster: Cluster, question: Question) -> Iterator[Finding]:
    """Look whether somebody receives what KServe's logger sends.

    Args:
        cluster: The cluster.
        question: What is to run there.

    Yields:
        Findings where the configuration publishes to KServe.
    """
    kserve = question.config.serving.kserve if question.config else None
    if kserve is None:
        return
    if not kserve.logger.enabled:
        yield Finding(
            "events",
            "warn",
            "serving.kserve.logger.enabled is false: nothing is harvested",
            "Set it to true, so that production confidences enter the next selection",
        )
        return
    if kserve.logger.storage:
        home = kserve.namespace or cluster.namespace
        yield look("events", lambda: _storage_key(cluster, home, kserve.logger.storage_key))
        return
    home = kserve.namespace or cluster.namespace
    name, namespace, port = _service(kserve.logger.url, home)
    if not name:
        told = f"go to {kserve.logger.url}, not to a Service of this cluster"
        yield Finding("events", "ok", told)
        return
    kept: dict[str, Any] = {}
    receives = look("events", lambda: _collector(cluster, name, namespace, port, kept))
    yield receives
    if kept:
        check = "way to the collector"
        yield look(check, lambda: _way(cluster, namespace, home, kept["spec"]["selector"]))


def _service(url: str, home: str) -> tuple[str, str, int]:
    """Return name, namespace and port of the Service that an address names; "" for another host."""
    if not url:
        return _COLLECTOR, home, 8090
    parts = urlsplit(url)
    host = (parts.hostname or "").removesuffix(".cluster.local").removesuffix(".svc")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    name, _, namespace = host.partition(".")
    inside = "." not in namespace and not name.replace(".", "").isdigit()
    return (name, namespace or home, port) if inside else ("", "", port)


def _storage_key(cluster: Cluster, namespace: str, key: str) -> Finding | str:
    found = cluster.get("v1", "Secret", "storage-config", namespace=namespace)
    if found is None or key not in (found.get("data") or {}):
        lacks = "does not exist" if found is None else f"has no key {key!r}"
        return Finding(
            "events",
            "fail",
            f"KServe's Secret storage-config {lacks} in namespace {namespace}",
            "Make it with the bucket's credentials, or log to a collector (leave "
            "serving.kserve.logger.storage out)",
        )
    return f"are written to a bucket with the key {key} of storage-config"


def _collector(
    cluster: Cluster, name: str, namespace: str, port: int, kept: dict[str, Any]
) -> Finding | str:
    service = cluster.get("v1", "Service", name, namespace=namespace)
    if service is None:
        return Finding(
            "events",
            "fail",
            f"there is no Service {name} in namespace {namespace}: what the logger sends is lost",
            "kubectl apply -k manifests/overlays/gke (or local), or correct "
            "serving.kserve.logger.url",
        )
    ports = [one["port"] for one in service["spec"].get("ports") or []]
    if port not in ports:
        has = ", ".join(map(str, ports))
        remedy = "Correct serving.kserve.logger.url"
        return Finding("events", "fail", f"Service {name} has port {has} and not {port}", remedy)
    selector = service["spec"].get("selector") or {}
    if not selector:
        return f"Service {namespace}/{name} hands them on to an address that is no pod of its own"
    kept.update(service)
    labels = ",".join(f"{key}={value}" for key, value in selector.items())
    pods = cluster.list("v1", "Pod", namespace=namespace, label_selector=labels)
    ready = [pod for pod in pods if _is_ready(pod)]
    if not ready:
        from visionloop.cluster import failure_of

        why = next(filter(None, map(failure_of, pods)), "")
        told = f"none of the {len(pods)} pods behind Service {name} is ready"
        return Finding(
            "events",
            "fail",
            told + (f": {why}" if why else ""),
            f"kubectl describe pods -n {namespace} -l {labels}",
        )
    return f"{len(ready)} of {len(pods)} collectors are ready"


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _way(cluster: Cluster, namespace: str, home: str, selector: dict[str, str]) -> Finding | str:
    check = "way to the collector"
    policies = [
        policy
        for policy in cluster.list("networking.k8s.io/v1", "NetworkPolicy", namespace=namespace)
        if "Ingress" in (policy["spec"].get("policyTypes") or ["Ingress"])
        and _selects(policy["spec"].get("podSelector") or {}, selector)
    ]
    if not policies:
        return Finding(
            check,
            "warn",
            "no NetworkPolicy guards it: every pod of the cluster may post events",
            "kubectl apply -k manifests/overlays/gke (or local), which lets only KServe's pods in",
        )
    rules = [rule for policy in policies for rule in policy["spec"].get("ingress") or []]
    if any(_admits(rule, same=namespace == home) for rule in rules):
        return f"{len(policies)} NetworkPolicies let KServe's pods in"
    return Finding(
        check,
        "fail",
        f"no NetworkPolicy of namespace {namespace} lets the predictors of namespace {home} in",
        f"Allow ingress from pods with the label {_PREDICTOR}"
        + ("" if namespace == home else f", with a namespaceSelector for {home}"),
    )


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a pod selector can select pods with these labels; they may have more."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key, value) == value for key, value in wanted.items())


def _admits(rule: dict[str, Any], *, same: bool) -> bool:
    """Whether an ingress rule lets predictors in, of the same namespace or of another one."""
    peers = rule.get("from")
    if not peers:
        return True
    for peer in peers:
        elsewhere = "namespaceSelector" in peer
        if "ipBlock" in peer or (not same and not elsewhere):
            continue
        pods = peer.get("podSelector")
        if pods is None:
            return True
        names = set(pods.get("matchLabels") or {})
        names |= {one["key"] for one in pods.get("matchExpressions") or []}
        if all(name.startswith("serving.kserve.io/") for name in names):
            return True
    return False
