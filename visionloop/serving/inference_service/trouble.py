"""What the events of a cluster say of pods that do not come: no node, or a rule against them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from visionloop.cluster.refusals import Forbidden
from visionloop.serving.inference_service.endpoint import Endpoint, Served

if TYPE_CHECKING:
    from visionloop.cluster.api import Cluster

# The cluster autoscaler's, and Karpenter's.
_NODE_COMES = frozenset({"TriggeredScaleUp", "Nominated"})
_NO_NODE = "NotTriggerScaleUp"
_CLOCKS = timedelta(seconds=30)

# What Knative's webhook calls a pod's fields, and the flag of `config-features` that allows them.
_FLAGS = {
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "tolerations": "kubernetes.podspec-tolerations",
    "affinity": "kubernetes.podspec-affinity",
    "persistentVolumeClaim": "kubernetes.podspec-persistent-volume-claim",
    "securityContext": "kubernetes.podspec-securitycontext",
}


def node_comes(cluster: Cluster, endpoint: Endpoint, pod: str) -> bool | None:
    """Return whether the cluster makes a node for a pod; None where it says neither.

    Args:
        cluster: Where the pod is.
        endpoint: The InferenceService.
        pod: Name of the pod.
    """
    said = [
        (_when(event), event.get("reason") in _NODE_COMES)
        for event in _events(cluster, endpoint, f"involvedObject.name={pod}")
        if event.get("reason") in _NODE_COMES or event.get("reason") == _NO_NODE
    ]
    return max(said)[1] if said else None


def refused_pods(cluster: Cluster, endpoint: Endpoint, model: Served, since: datetime) -> str:
    """Return why no pods of a rollout may be made: a quota, pod security; empty where none says.

    Args:
        cluster: Where they would be.
        endpoint: The InferenceService.
        model: What is rolled out, which names a canary's Deployment.
        since: When the rollout began.
    """
    selector = "involvedObject.kind=ReplicaSet,reason=FailedCreate"
    names = rf"{endpoint.name}(-{model.name})?-predictor(-\d+-deployment)?-[a-z0-9]+"
    said = [
        (_when(event), str(event.get("message") or ""))
        for event in _events(cluster, endpoint, selector)
        if re.fullmatch(names, str((event.get("involvedObject") or {}).get("name")))
        and _when(event) >= since - _CLOCKS
    ]
    return f"no pod of it can be made: {max(said)[1]}" if said else ""


def flags_for(message: str) -> str:
    """Return which of Knative's flags allow what its webhook refuses; empty for another refusal.

    Args:
        message: What the webhook said.
    """
    if "must not set the field(s)" not in message:
        return ""
    found = [flag for field, flag in _FLAGS.items() if re.search(rf"\b{field}\b", message)]
    named = ", ".join(f'{flag}: "enabled"' for flag in found)
    return f"Set {named} in the ConfigMap knative-serving/config-features" if found else ""


def _events(cluster: Cluster, endpoint: Endpoint, selector: str) -> list[dict[str, Any]]:
    try:
        return cluster.list("v1", "Event", namespace=endpoint.namespace, field_selector=selector)
    except Forbidden:
        return []  # its pods and its status tell the most of it


def _when(event: dict[str, Any]) -> datetime:
    series = event.get("series") or {}
    told = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    told = told or event["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(str(told)) if told else datetime.min.replace(tzinfo=UTC)
