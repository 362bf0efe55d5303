"""Checks of a cluster: Kubernetes, Kubeflow Pipelines, KServe, GPU nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from visionloop.cli.checks import Finding, attempt

# KServe's logger writes ce-recordedtime from here on; older ones are read too.
_OLDEST_KSERVE = (0, 15)


def cluster(host: str) -> Iterator[Finding]:
    """Check the cluster that kubectl points at, or that this pod runs in.

    Args:
        host: Address of the Kubeflow Pipelines API; empty finds one as kfp does.

    Yields:
        One finding a check.
    """
    reached = attempt("Kubernetes", _kubernetes)
    yield reached
    if reached.state == "ok":
        yield attempt("KServe", _kserve)
        yield attempt("GPU nodes", _gpu_nodes)
    yield attempt("Kubeflow Pipelines", lambda: _pipelines(host))


def _api() -> Any:
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    from visionloop.errors import VisionloopError

    try:
        config.load_incluster_config()
    except ConfigException:
        try:
            config.load_kube_config()
        except (ConfigException, OSError) as error:
            raise VisionloopError(
                "No cluster is configured",
                where=str(error),
                remedy="Set KUBECONFIG, or run `gcloud container clusters get-credentials NAME`",
            ) from error
    options = client.Configuration.get_default_copy()
    options.retries = False
    return client.ApiClient(options)


def _get(path: str) -> Any:
    """GET a path of the Kubernetes API; None where there is nothing of that name."""
    import json

    from kubernetes.client.exceptions import ApiException

    from visionloop.errors import VisionloopError

    try:
        answer = _api().call_api(
            path,
            "GET",
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=10,
        )
    except ApiException as error:
        if error.status == 404:
            return None
        raise VisionloopError(
            f"The cluster answers {error.status} {error.reason}",
            where=path,
            remedy="Log in again, or ask for the right to read this",
        ) from error
    except Exception as error:
        import urllib3

        if not isinstance(error, (urllib3.exceptions.HTTPError, OSError)):
            raise
        raise VisionloopError(
            "The cluster does not answer",
            where=f"{type(error).__name__}",
            remedy="Check the network and `kubectl cluster-info`",
        ) from error
    return json.loads(answer.data)


def _kubernetes() -> str:
    version = _get("/version")
    return f"version {version['gitVersion']}"


def _kserve() -> Finding | str:
    name = "inferenceservices.serving.kserve.io"
    found = _get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    if found is None:
        return Finding(
            "KServe",
            "warn",
            "not installed: models cannot be published on this cluster",
            "Install KServe 0.16 or newer",
        )
    deployment = _get("/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager")
    if deployment is None:
        deployment = _get("/apis/apps/v1/namespaces/kubeflow/deployments/kserve-controller-manager")
    if deployment is None:
        return "its CRDs are there; the version of its controller is not readable"
    containers = deployment["spec"]["template"]["spec"]["containers"]
    image = next((c["image"] for c in containers if c["name"] == "manager"), containers[0]["image"])
    version = image.partition("@")[0].rpartition(":")[2]
    numbers = tuple(int(part) for part in version.lstrip("v").split(".")[:2] if part.isdigit())
    if numbers and numbers < _OLDEST_KSERVE:
        return Finding(
            "KServe", "warn", f"version {version}", "Use 0.15 or newer: older ones are not tested"
        )
    return f"version {version}"


def _gpu_nodes() -> Finding | str:
    nodes = _get("/api/v1/nodes")["items"]
    counts: dict[str, int] = {}
    for node in nodes:
        for resource, amount in node["status"].get("allocatable", {}).items():
            if resource.endswith("/gpu") and int(amount):
                counts[resource] = counts.get(resource, 0) + int(amount)
    if not counts:
        return Finding(
            "GPU nodes",
            "warn",
            f"none among {len(nodes)} nodes",
            "Leave cluster.accelerator_type empty, or add a node pool (it may scale from zero)",
        )
    return ", ".join(f"{amount} of {resource}" for resource, amount in sorted(counts.items()))


def _pipelines(host: str) -> str:
    from visionloop.submission import Server

    users = "for many users" if Server.connect(host).many_users else "for one user"
    return f"answers, {users}"
