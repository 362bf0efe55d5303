"""How KServe runs an InferenceService on a cluster. The base install can ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visionloop.errors import InputError, VisionloopError
from visionloop.serving.inference_service.endpoint import (
    API_VERSION,
    KIND,
    MODE_ANNOTATION,
    Endpoint,
    Mode,
)

if TYPE_CHECKING:
    from visionloop.cluster.api import Cluster

_OLD_NAMES = {"Serverless": "Knative", "RawDeployment": "Standard"}


def find_mode(cluster: Cluster, endpoint: Endpoint) -> Mode:
    """Return how KServe runs, or would run, an InferenceService here.

    Args:
        cluster: The cluster.
        endpoint: The InferenceService.

    Raises:
        InputError: KServe cannot do what the configuration asks for.
        VisionloopError: KServe is not installed.
    """
    if "v1beta1" not in cluster.versions("serving.kserve.io"):
        raise VisionloopError(
            "the cluster does not serve InferenceServices (serving.kserve.io/v1beta1)",
            where=endpoint.where,
            remedy="Install KServe 0.16 or later, or leave serving.kserve out to publish to the "
            "pointer alone",
        )
    settings = endpoint.settings
    name = _deployed_as(cluster, endpoint)
    if name and settings.mode not in ("auto", name):
        raise InputError(
            f"the InferenceService runs in mode {name}, and KServe changes no mode",
            where=f"serving.kserve.mode: {settings.mode}",
            remedy=f"Set the mode to {name}, or delete the InferenceService first",
        )
    has_knative = bool(cluster.versions("serving.knative.dev"))
    wanted = name or (settings.mode if settings.mode != "auto" else "")
    wanted = wanted or ("Knative" if has_knative else "Standard")
    if wanted == "Knative":
        if not has_knative:
            raise InputError(
                "the cluster has no Knative Serving",
                where="serving.kserve.mode: Knative",
                remedy="Install it, or set the mode to Standard",
            )
        mode = Mode.KNATIVE
    elif not settings.min_replicas:
        raise InputError(
            "only Knative scales to zero, and KServe runs here in mode Standard",
            where="serving.kserve.min_replicas: 0",
            remedy="Set it to 1 or more",
        )
    else:
        mode = Mode.STANDARD
    scalers = {"cpu", "memory"} if mode is Mode.STANDARD else {"concurrency", "rps"}
    if settings.scale_metric and settings.scale_metric not in scalers:
        raise InputError(
            f"KServe runs here in mode {wanted}, which does not scale by {settings.scale_metric}",
            where=f"serving.kserve.scale_metric: {settings.scale_metric}",
            remedy=f"Set it to {' or '.join(sorted(scalers))}, or leave it out",
        )
    spec = _spec_schema(cluster)
    logger = spec.get("predictor", {}).get("properties", {}).get("logger", {})
    if settings.logger.storage and "batchSize" not in logger.get("properties", {}):
        raise InputError(
            "this KServe cannot log to a bucket in batches, and one object for each event would "
            "hold inference up",
            where="serving.kserve.logger.storage",
            remedy="Log to a collector (leave `storage` out), or install KServe 0.17 or later",
        )
    return Mode.STANDARD_CANARY if mode is Mode.STANDARD and "canary" in spec else mode


def _deployed_as(cluster: Cluster, endpoint: Endpoint) -> str:
    live = cluster.get(API_VERSION, KIND, endpoint.name, namespace=endpoint.namespace) or {}
    told = (live.get("status") or {}).get("deploymentMode")
    told = told or (live.get("metadata", {}).get("annotations") or {}).get(MODE_ANNOTATION, "")
    return _OLD_NAMES.get(str(told or ""), str(told or ""))


def _spec_schema(cluster: Cluster) -> dict[str, Any]:
    """Fields of an InferenceService's `spec`, as the cluster publishes them."""
    schema = cluster.schema(API_VERSION, KIND)
    if schema is None:
        raise VisionloopError(
            "the cluster does not publish the fields of an InferenceService",
            where=f"/openapi/v3/apis/{API_VERSION}",
            remedy="Use Kubernetes 1.27 or newer; right after KServe was installed, try again",
        )
    spec = (schema.get("properties") or {}).get("spec") or {}
    found: dict[str, Any] = spec.get("properties") or {}
    return found
