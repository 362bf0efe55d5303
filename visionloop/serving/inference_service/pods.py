"""The pods of an InferenceService: which model each serves, and what it answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from visionloop.cluster.pods import is_given_up
from visionloop.serving.events import MODEL_ANNOTATION
from visionloop.serving.inference_service.documents import HTTP_PORT
from visionloop.serving.inference_service.endpoint import SERVICE_LABEL, Endpoint

if TYPE_CHECKING:
    from visionloop.cluster.api import Cluster

ANSWER_SECONDS = 30.0
# Of a question to a pod that has just become ready: its port may be refused for a moment.
_TRIES = 3


def selector(endpoint: Endpoint) -> str:
    """Return the label selector of an InferenceService's pods."""
    return f"{SERVICE_LABEL}={endpoint.name}"


def pods_of(cluster: Cluster, endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return the pods of an InferenceService that are not about to go, in the order of their names.

    Args:
        cluster: Where they run.
        endpoint: The InferenceService.
    """
    found = cluster.list(
        "v1", "Pod", namespace=endpoint.namespace, label_selector=selector(endpoint)
    )
    return sorted((pod for pod in found if not is_leaving(pod)), key=name_of)


def name_of(pod: dict[str, Any]) -> str:
    """Return a pod's name."""
    return str(pod["metadata"]["name"])


def model_of(pod: dict[str, Any]) -> str:
    """Return the model that a pod was made for; empty for one that nobody published."""
    return str((pod["metadata"].get("annotations") or {}).get(MODEL_ANNOTATION, ""))


def is_leaving(pod: dict[str, Any]) -> bool:
    """Return whether a pod is being deleted, or replaced by its controller.

    A pod that was evicted lingers, for as long as its InferenceService does.
    """
    return bool(pod["metadata"].get("deletionTimestamp")) or is_given_up(pod)


def is_ready(pod: dict[str, Any]) -> bool:
    """Return whether a pod takes requests."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def served_models(cluster: Cluster, endpoint: Endpoint, pod: dict[str, Any]) -> list[str]:
    """Return the model ids that our predictor answers with in a pod.

    Args:
        cluster: Where it runs.
        endpoint: The InferenceService.
        pod: The pod.
    """
    path = f"v2/models/{endpoint.name}"
    reply = cluster.proxy_get(
        name_of(pod), HTTP_PORT, path, namespace=endpoint.namespace, timeout_s=ANSWER_SECONDS
    )
    held: Any = json.loads(reply)
    return [str(version) for version in held.get("versions") or []]


def post(
    cluster: Cluster,
    endpoint: Endpoint,
    pod: dict[str, Any],
    path: str,
    body: bytes,
    content_type: str,
) -> bytes:
    """Ask the predictor of a pod, past KServe's agent: what is asked here is not logged.

    It is asked again where the connection breaks or the answer is one of a server in trouble: a
    question changes nothing.

    Args:
        cluster: Where it runs.
        endpoint: The InferenceService.
        pod: The pod.
        path: Path of the request.
        body: What is sent.
        content_type: Its type.

    Returns:
        The body of the answer.

    Raises:
        VisionloopError: It answered with an error, or not at all.
    """
    at = f"/api/v1/namespaces/{quote(endpoint.namespace)}/pods/{name_of(pod)}:{HTTP_PORT}/proxy"
    return cluster.transport.request(
        "POST",
        f"{at}/{path.lstrip('/')}",
        body=body,
        content_type=content_type,
        timeout_s=ANSWER_SECONDS,
        attempts=_TRIES,
    )
